"""Exports as jobs: what each is made from, its key, and the doing of it in whatever process."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..compress.calibration import Calibration
from ..compress.hqq import Hqq
from ..compress.recipe import Recipe
from ..compress.rotation import Rotation
from ..compress.rtn import RoundToNearest
from ..compress.stored import AsStored
from ..digests import file_digest
from ..errors import BundleError, EdgeError, RecipeError, TargetError
from ..exporting import Checks, export
from ..model import catalogue
from ..schema import dump
from ..targets import Target, open_target

if TYPE_CHECKING:
    from ..bundle import Manifest
    from ..model import Model

_BLIND = (RoundToNearest, Hqq, Rotation, AsStored)  # passes that look at no text; a subclass may


@dataclass(frozen=True)
class ExportJob:
    """One export, with all that a worker needs to know.

    Attributes:
        key: SHA-256 over all that decides the bundle.
        model: what :func:`edgesdk.open_model` takes.
        recipe: as read here.
        target: its name.
        data: SHA-256 of the target's data, which a worker elsewhere must have too.
        context: in tokens.
        calibration: text for passes that look at activations.
        checks: what is measured, and limits.
        version: of edgesdk.
    """

    key: str
    model: str
    recipe: Recipe
    target: str
    data: str
    context: int
    calibration: Calibration
    checks: Checks
    version: str = __version__


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        error: why it failed or was refused; None where the bundle is there.
        hint: the way out.
        refused: the target cannot hold the result, which is an answer and no failure.
        seconds: that it took.
    """

    error: str | None = None
    hint: str | None = None
    refused: bool = False
    seconds: float = 0.0


def perform(job: ExportJob, out: Path) -> Outcome:
    """Export; every failure is an outcome. ``out`` is whole afterwards, or as it was before."""
    started = time.perf_counter()
    try:
        _same_here(job)
        if out.is_dir() and whole_bundle(out) is None:
            shutil.rmtree(out)  # damaged so that an export would not take it for a bundle
        export(
            job.model,
            job.target,
            out,
            recipe=job.recipe,
            context=job.context,
            calibration=job.calibration,
            checks=job.checks,
        )
    except EdgeError as failure:
        late = job.recipe.reshapes or job.recipe.size is not None  # what a target holds is known after their passes
        refused = late and isinstance(failure, (TargetError, RecipeError))
        return Outcome(failure.message, failure.hint, refused, time.perf_counter() - started)
    except Exception as failure:  # a defect, or memory: the sweep goes on and the row says it
        said = f"{type(failure).__name__}: {failure}" if str(failure) else type(failure).__name__
        return Outcome(said, None, False, time.perf_counter() - started)
    return Outcome(seconds=time.perf_counter() - started)


def whole_bundle(folder: Path) -> Manifest | None:
    """The manifest of a bundle whose every file has the hash that it says; None where there is no such."""
    from ..bundle import open_bundle

    try:
        with open_bundle(folder) as found:
            return found.manifest
    except (BundleError, OSError):
        return None


class Identities:
    """What decides a bundle, as hashes; each file is read once."""

    def __init__(self) -> None:
        self._files: dict[Path, str] = {}

    def key(
        self,
        name: str,
        model: Model,
        chosen: Recipe,
        target: Target,
        options: Mapping[str, Any],
        calibration: Calibration,
        checks: Checks,
    ) -> str:
        """The key of an export.

        Args:
            name: that the model was opened by.
            model: as opened.
            chosen: the recipe, completed from the model.
            target: whose data counts, not its name alone.
            options: context, float type and the like, completed.
            calibration: counts where the recipe has a pass that looks at text.
            checks: counts always: the manifest holds what they measured.
        """
        parts = {
            "edgesdk": __version__,
            "model": self._model(name, model),
            "recipe": self._recipe(chosen),
            "target": dump(target),
            "options": dict(options),
            "calibration": self._calibration(calibration) if looks(chosen) else None,
            "checks": {**dump(checks), "eval_text": self._file(checks.eval_text)},
        }
        return digest(parts)

    def _model(self, name: str, model: Model) -> dict[str, Any]:
        entry = catalogue.load().get(name)
        if entry is not None and model.origin.files == (entry.path,):
            files = [entry.sha256]
        else:
            files = [self._sha256(path) for path in model.origin.files]
        tokenizer = model.tokenizer
        return {
            "name": model.origin.name,
            "files": files,
            "spec": dump(model.spec),
            "licence": [model.origin.licence, *(self._sha256(path) for path in model.origin.licence_files)],
            "tokenizer": None
            if tokenizer is None
            else [tokenizer.definition, dump(tokenizer.special), tokenizer.chat_template],
            "compression": dump(model.compression),
        }

    def _recipe(self, recipe: Recipe) -> dict[str, Any]:
        passes = recipe.describe()
        for each in passes:
            if each.get("corpus"):  # a file that a pass reads
                each["corpus"] = self._file(Path(each["corpus"])) or each["corpus"]
        return {**dump(replace(recipe, passes=())), "passes": passes}

    def _calibration(self, calibration: Calibration) -> dict[str, Any]:
        return {**dump(calibration), "file": self._file(calibration.file)}

    def _file(self, path: Path | None) -> str | None:
        return None if path is None or not path.is_file() else self._sha256(path)

    def _sha256(self, path: Path) -> str:
        if path not in self._files:
            self._files[path] = file_digest(path)
        return self._files[path]


def looks(recipe: Recipe) -> bool:
    """Whether a recipe looks at calibration text, so that another text makes another bundle."""
    return recipe.size is not None or any(type(step) not in _BLIND for step in recipe.passes)


def digest(data: Any) -> str:
    """SHA-256 of plain data."""
    text = json.dumps(dump(data), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _same_here(job: ExportJob) -> None:
    """On another machine edgesdk and its targets may be others than where the key was made.

    Raises:
        EdgeError: they are.
    """
    if job.version != __version__:
        hint = "install one version on every machine of the cluster"
        raise EdgeError(f"this worker has edgesdk {__version__}, the sweep was planned by {job.version}", hint=hint)
    if digest(open_target(job.target)) != job.data:
        raise EdgeError(f"this worker describes target {job.target} otherwise than where the sweep was planned")
