"""Exports on a Ray cluster; needs ``edgesdk[ray]``.

Every machine of the cluster has the same edgesdk (a worker checks it) with the extras of the targets, the same Ray and
the same Python. Nothing else is shared: models given as paths, calibration and evaluation text go out through Ray's
object store, and each bundle comes back through it as one zip, is verified, and is unpacked here. Models given by name
(catalogue, hub) are fetched by the worker. A recipe whose pass names a file of its own (``corpus``) needs that file on
every machine. Models and bundles pass through this process's memory whole, one at a time.

Profiles never run on Ray: devices are attached here.
"""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..bundle import open_bundle
from ..errors import EdgeError, MissingExtraError
from ..files import folder_beside, replacing_folder
from ..model.opening import open_model
from ..partials import scratch_folder
from .jobs import ExportJob, Outcome, perform

_ROOM = 8_000_000_000  # bytes of a node's memory for one export
_PATIENCE = 10.0  # seconds for a connection to the cluster


@dataclass(frozen=True)
class Parcel:
    """Files by their names in one folder, and which of them, or the folder itself, is meant."""

    main: str
    files: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def of(cls, path: Path, beside: Sequence[Path] = ()) -> Parcel:
        """Pack a folder with all that is under it, or a file with some others of its folder."""
        if path.is_dir():
            found = sorted(each for each in path.rglob("*") if each.is_file())
            return cls(
                path.name, {f"{path.name}/{each.relative_to(path).as_posix()}": each.read_bytes() for each in found}
            )
        return cls(path.name, {each.name: each.read_bytes() for each in dict.fromkeys([path, *beside])})

    def unpack(self, folder: Path) -> Path:
        """Write the files, and say where the main one is."""
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder / self.main


class RayCluster:
    """A cluster that is there, or one of this machine's own."""

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        """Nothing is started yet.

        Args:
            address: as ``ray.init`` takes it; None takes RAY_ADDRESS, or starts Ray here.
            workers: exports at a time; None: one for every 8 GB of the cluster's memory.

        Raises:
            MissingExtraError: Ray is not installed.
        """
        try:
            import ray
        except ModuleNotFoundError:
            raise MissingExtraError("ray", "ray") from None
        self._ray: Any = ray
        self._address, self._workers = address, workers

    def run(self, jobs: Sequence[ExportJob], bundles: Path) -> Iterator[tuple[ExportJob, Outcome]]:
        if not jobs:
            return
        ours = not self._ray.is_initialized()
        if ours:
            self._connect()
        running: dict[Any, ExportJob] = {}
        try:
            yield from self._run(list(jobs), bundles, running)
        finally:
            for reference in running:
                with suppress(Exception):
                    self._ray.cancel(reference)
            if ours:
                self._ray.shutdown()

    def _connect(self) -> None:
        _refuse_silence(self._address)
        try:
            self._ray.init(address=self._address, log_to_driver=False, logging_level="warning")
        except (ConnectionError, ValueError, RuntimeError) as failure:
            where = self._address or "on this machine"
            said = (str(failure).strip() or type(failure).__name__).splitlines()[0]
            raise EdgeError(f"Ray {where}: {said}", hint="ray status says whether a cluster runs") from None

    def _run(
        self, jobs: list[ExportJob], bundles: Path, running: dict[Any, ExportJob]
    ) -> Iterator[tuple[ExportJob, Outcome]]:
        task = self._ray.remote(num_cpus=1, max_retries=1, scheduling_strategy="SPREAD")(_exported)
        sent: dict[Path, Any] = {}
        limit = self._workers or max(1, int(self._ray.cluster_resources().get("memory", 0)) // _ROOM)
        waiting = jobs[::-1]
        while waiting or running:
            while waiting and len(running) < limit:
                job = waiting.pop()
                running[task.remote(job, *(self._sent(path, sent) for path in _paths(job)))] = job
            [done], _ = self._ray.wait(list(running), num_returns=1)
            job = running.pop(done)
            yield job, self._fetched(done, bundles / job.key)

    def _sent(self, path: Path | None, sent: dict[Path, Any]) -> Any:
        """A reference to a parcel in the object store, put there once."""
        if path is None:
            return None
        if path not in sent:
            sent[path] = self._ray.put(Parcel.of(path, _beside(path)))
        return sent[path]

    def _fetched(self, reference: Any, out: Path) -> Outcome:
        try:
            outcome, packed = self._ray.get(reference)
        except self._ray.exceptions.RayError as failure:
            said = (str(failure).strip() or type(failure).__name__).splitlines()[0]
            return Outcome(f"the worker on Ray was lost: {said}")
        if packed is None:
            return Outcome(**vars(outcome))
        try:
            unpacked(packed, out)
        except (EdgeError, OSError) as failure:
            return Outcome(f"the bundle that came back from Ray cannot be kept: {failure}")
        return Outcome(**vars(outcome))


def unpacked(packed: bytes, out: Path) -> None:
    """Put a packed bundle that came back into its place, once every hash of it was verified.

    Raises:
        EdgeError: it is damaged, or cannot be written.
    """
    with folder_beside(out) as scratch:
        file = scratch / "bundle.zip"
        file.write_bytes(packed)
        with open_bundle(file) as bundle, replacing_folder(out) as folder:
            shutil.copytree(bundle.folder, folder, dirs_exist_ok=True)


def _refuse_silence(address: str | None) -> None:
    """Ray waits for minutes for a cluster that is not there.

    Raises:
        EdgeError: nothing listens at the address.
    """
    found = re.fullmatch(r"(?:ray://)?([^/]+):(\d+)", address or "")
    if found is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), timeout=_PATIENCE).close()
    except (OSError, OverflowError) as failure:
        hint = "ray status says where the cluster runs; ray start --head starts one"
        raise EdgeError(f"no Ray cluster answers at {address} ({failure})", hint=hint) from None


def _exported(
    job: ExportJob, model: Parcel | None, calibration: Parcel | None, eval_text: Parcel | None
) -> tuple[Outcome, bytes | None]:
    """On the worker: unpack what came, export, and give the bundle back as a zip."""
    with scratch_folder() as scratch:
        folders = [Path(scratch, name) for name in ("model", "calibration", "eval")]
        if model is not None:
            job = replace(job, model=str(model.unpack(folders[0])))
        if calibration is not None:
            job = replace(job, calibration=replace(job.calibration, file=calibration.unpack(folders[1])))
        if eval_text is not None:
            job = replace(job, checks=replace(job.checks, eval_text=eval_text.unpack(folders[2])))
        out = Path(scratch, "bundle.zip")
        outcome = perform(job, out)
        return outcome, out.read_bytes() if outcome.error is None else None


def _paths(job: ExportJob) -> tuple[Path | None, Path | None, Path | None]:
    model = Path(job.model).expanduser()
    return (model if model.exists() else None), job.calibration.file, job.checks.eval_text


def _beside(path: Path) -> list[Path]:
    """What belongs to a checkpoint of one file: licence texts, and tokenizers of llama2.c."""
    if path.suffix not in (".gguf", ".bin"):
        return []
    tokenizers = [*path.parent.glob("tok*.bin")] if path.suffix == ".bin" else []
    return [*open_model(path).origin.licence_files, *tokenizers]
