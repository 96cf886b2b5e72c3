"""The whole job: what is missing is exported, then profiled; then the table, the CSV and the page are written.

All exports come before the first profile, and profiles come one after another, each alone on its device: an export
beside a profile on this machine would take cores, caches and heat from it, and falsify its times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..cache import alone_in
from ..errors import EdgeError, MissingExtraError
from ..partials import is_partial, remove
from ..profile.schema import Plan, Profile, ProfileError, read_profile
from ..progress import SILENT, Progress
from ..trust import is_trusted
from .executors import Executor, executor_of
from .jobs import ExportJob, Outcome, digest, whole_bundle
from .matrix import Cell, Place, resolve
from .plan import SweepFile, programs_of, read_sweep
from .table import Measured, Table, tabulated, write_table

if TYPE_CHECKING:
    from ..bundle import Manifest
    from ..devices import Device

BUNDLES, PROFILES = "bundles", "profiles"
_OF_A_KEY = re.compile(r"\.[0-9a-f]{64}\.")
_CUT = {"cut-short", "device-gone", "runner-failed"}
State = Literal["cached", "to do", "refused"]


@dataclass(frozen=True)
class Preview:
    """One job of a sweep before it runs.

    Attributes:
        model: as the sweep names it.
        recipe: likewise.
        target: likewise.
        device: None for the export.
        bytes: of the bundle where it is cached, or of the program as estimated; None where only passes decide it.
        state: whether there is anything to do.
        reason: why it is refused.
    """

    model: str
    recipe: str
    target: str
    device: str | None
    bytes: int | None
    state: State
    reason: str | None = None


def never(programs: Sequence[str]) -> bool:
    """Nothing that a file which is not trusted names may run."""
    return False


def sweep(
    file: str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    fleet: Path | None = None,
    confirm: Callable[[Sequence[str]], bool] = never,
    progress: Progress = SILENT,
) -> Table:
    """Run a sweep, or go on with it, or do nothing where all is there.

    Args:
        file: of the sweep; see :mod:`.plan`.
        out: a folder: ``bundles/KEY``, ``profiles/BUNDLE-DEVICE-PLAN.json``, ``sweep.json``, ``.csv`` and ``.html``.
            Another sweep into the same folder waits.
        workers: exports at a time; default: the file's.
        fleet: the file that names devices.
        confirm: asked whether what the file runs on this machine may run, where the file is not trusted
            (:mod:`edgesdk.trust`); gets a line for each.
        progress: told of every job that ends, and of every failure.

    Returns: the table as written; what failed or was refused is in it.

    Raises:
        EdgeError: the file or a name in it is wrong, or it names programs that may not run; nothing was done then.
    """
    file, out = Path(file), Path(out).resolve()
    plan = read_sweep(file)
    _refuse_programs(file, plan, confirm)
    cells = resolve(plan, file.parent, fleet, progress)
    executor = executor_of(plan, workers)
    with alone_in(out):
        running = _Running(out, plan.profile, fleet, progress)
        running.tidy()
        running.exports(cells, executor)
        running.profiles(cells)
        table = tabulated(cells, running.manifests, running.refusals, running.measured, plan.profile)
        write_table(table, out)
    return table


def _refuse_programs(file: Path, plan: SweepFile, confirm: Callable[[Sequence[str]], bool]) -> None:
    programs = programs_of(plan)
    if programs and not is_trusted(file) and not confirm(programs):
        raise EdgeError(
            f"{file} is not trusted, and it has this machine {'; '.join(programs)}",
            hint=f"look into it, then: edgesdk trust {file}",
        )


def preview(
    file: str | Path, out: str | Path, *, fleet: Path | None = None, progress: Progress = SILENT
) -> list[Preview]:
    """What a sweep would do; nothing is written. Models that are named and not here yet are fetched for their sizes.

    Raises:
        EdgeError: the file or a name in it is wrong.
    """
    file, out = Path(file), Path(out).resolve()
    plan = read_sweep(file)
    found = []
    for cell in resolve(plan, file.parent, fleet, progress):
        names = (cell.model, cell.recipe, cell.target)
        manifest = None if cell.job is None else whole_bundle(out / BUNDLES / cell.job.key)
        state: State = "refused" if cell.job is None else "to do" if manifest is None else "cached"
        size = cell.estimate if manifest is None else size_of(manifest)
        found.append(Preview(*names, None, size, state, cell.refused))
        for place in cell.places if cell.job is not None else ():
            path = None if manifest is None else profile_path(out, manifest, place, plan.profile)
            there = path is not None and whole_profile(path) is not None
            found.append(Preview(*names, place.name, size, "cached" if there else "to do"))
    return found


def size_of(manifest: Manifest) -> int:
    """Bytes of all files of a bundle."""
    return sum(entry.size for entry in manifest.files)


def profile_path(out: Path, manifest: Manifest, place: Place, plan: Plan) -> Path:
    """Where the profile of a bundle on a device by a plan lies."""
    asked = digest({"plan": plan, "meters": place.meters})
    return out / PROFILES / f"{manifest.digest[:16]}-{digest(place.identity)[:16]}-{asked[:16]}.json"


def whole_profile(path: Path) -> Profile | None:
    """A profile whose plan was run to its end, or None."""
    try:
        found = read_profile(path)
    except ProfileError:
        return None
    return None if _CUT & {each.code for each in found.reasons} else found


class _Running:
    """One run of a sweep in its folder.

    Attributes:
        manifests: of bundles that are there, by key.
        refusals: how exports ended that made none, by key.
        measured: profiles by key and device.
    """

    def __init__(self, out: Path, plan: Plan, fleet: Path | None, progress: Progress) -> None:
        self._out, self._plan, self._fleet, self._progress = out, plan, fleet, progress
        self.manifests: dict[str, Manifest] = {}
        self.refusals: dict[str, Outcome] = {}
        self.measured: dict[tuple[str, str], Measured] = {}

    def tidy(self) -> None:
        """Remove what a killed run left half-written: only this process is in the folder."""
        for folder in (self._out / BUNDLES, self._out / PROFILES):
            for left in folder.glob(".*"):
                if is_partial(left) or _OF_A_KEY.match(left.name):
                    remove(left)

    def exports(self, cells: Sequence[Cell], executor: Executor) -> None:
        """Make every bundle that is not there and whole; what has one key is made once."""
        bundles = self._out / BUNDLES
        bundles.mkdir(parents=True, exist_ok=True)
        jobs = {cell.job.key: cell.job for cell in cells if cell.job is not None}
        for key in jobs:
            found = whole_bundle(bundles / key)
            if found is not None:
                self.manifests[key] = found
        missing = [job for key, job in jobs.items() if key not in self.manifests]
        if missing:
            with (
                self._progress.stage("Exporting", len(missing)) as stage,
                closing(_run(executor, missing, bundles)) as ends,
            ):
                for job, outcome in ends:
                    self._exported(job, outcome, bundles / job.key)
                    stage.advance()

    def _exported(self, job: ExportJob, outcome: Outcome, folder: Path) -> None:
        found = whole_bundle(folder) if outcome.error is None else None
        if found is not None:
            self.manifests[job.key] = found
            return
        outcome = outcome if outcome.error is not None else Outcome("the export ended, but its bundle is not whole")
        self.refusals[job.key] = outcome
        word = "refused" if outcome.refused else "failed"
        self._progress.note(f"{Path(job.model).name} {job.recipe.name} for {job.target} {word}: {outcome.error}")

    def profiles(self, cells: Sequence[Cell]) -> None:
        """Measure what has no whole profile, one device after another, each opened once and for this process alone."""
        asked: dict[Place, list[str]] = {}
        for cell in cells:
            if cell.job is not None and cell.job.key in self.manifests:
                for place in cell.places:
                    asked.setdefault(place, []).append(cell.job.key)
        missing = {place: self._missing(place, dict.fromkeys(keys)) for place, keys in asked.items()}
        total = sum(map(len, missing.values()))
        if not total:
            return
        (self._out / PROFILES).mkdir(exist_ok=True)
        with self._progress.stage("Profiling", total) as stage:
            for place, keys in missing.items():
                for key, found in self._on(place, keys) if keys else ():
                    self.measured[key, place.name] = found
                    stage.advance()

    def _missing(self, place: Place, keys: dict[str, None]) -> list[str]:
        left = []
        for key in keys:
            path = profile_path(self._out, self.manifests[key], place, self._plan)
            found = whole_profile(path)
            if found is None:
                left.append(key)
            else:
                self.measured[key, place.name] = Measured(path.name, found)
        return left

    def _on(self, place: Place, keys: Sequence[str]) -> Iterator[tuple[str, Measured]]:
        from ..devices import open_device
        from ..devices.locks import alone
        from ..devices.shell import ShellDevice

        left = list(keys)
        try:
            with open_device(place.name, self._fleet) as device, alone(device, "edgesdk sweep"):
                if not isinstance(device, ShellDevice):
                    said = "it runs the firmware of one bundle, which a sweep does not flash: edgesdk flash and profile"
                    yield from ((key, Measured(error=said, refused=True)) for key in left)
                    return
                while left:
                    found = self._profiled(device, place, left[0])
                    yield left.pop(0), found
        except EdgeError as failure:  # it cannot be opened, or another process has it
            self._progress.note(f"{place.name}: {failure.message}")
            yield from ((key, Measured(error=failure.message, hint=failure.hint)) for key in left)

    def _profiled(self, device: Device, place: Place, key: str) -> Measured:
        from ..bundle import open_bundle
        from ..profile.profiling import profile
        from ..profile.sensors.meters import open_meter

        manifest = self.manifests[key]
        path = profile_path(self._out, manifest, place, self._plan)
        try:
            meters = [open_meter(each) for each in place.meters]
            with open_bundle(self._out / BUNDLES / key, check=False) as bundle:
                return Measured(path.name, profile(device, bundle, path, self._plan, meters=meters))
        except MissingExtraError:
            raise
        except EdgeError as failure:
            self._progress.note(f"{manifest.model.name} {manifest.recipe.name} on {place.name}: {failure.message}")
            return Measured(None, None, failure.message, failure.hint)


def _run(
    executor: Executor, jobs: Sequence[ExportJob], bundles: Path
) -> Generator[tuple[ExportJob, Outcome], None, None]:
    """As something that can be closed: an interrupt must reach the executor now, not when memory is tidied up."""
    yield from executor.run(jobs, bundles)
