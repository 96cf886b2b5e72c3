"""The file of a sweep, strictly loaded. Relative paths in it are meant from its own folder.

    models = ["smollm2-135m", "models/mine"]      # whatever edgesdk.open_model takes
    recipes = ["fast", "w8", "mine.toml"]         # decodable names, names of the target's presets, or files
    targets = ["linux-x86_64", "android-arm64"]
    context = 512
    executor = "process"                          # or "serial", or "ray" with address = "ray://head:10001"
    workers = 2

    [devices]                                     # target = device, or = [device, device]
    linux-x86_64 = "local"

    [calibration]                                 # as in edgesdk.compress.calibration.Calibration
    file = "calibration.txt"

    [checks]                                      # as in edgesdk.Checks
    eval_text = "eval.txt"

    [profile]                                     # as in edgesdk.profile.schema.Plan
    prompt_tokens = [128]
    new_tokens = 64

    [[exclude]]
    recipe = "w8"
    target = "android-arm64"

Devices may also be a list: ``[[devices]]`` with ``device``, ``targets`` that it serves, and ``meters``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..compress.calibration import Calibration
from ..documents import read_toml
from ..errors import EdgeError
from ..exporting import Checks
from ..lines import check_lines, shown_line
from ..profile.schema import Plan
from ..profile.sensors.meters import PROGRAM_METERS
from ..registry import unknown
from ..schema import load

ExecutorName = Literal["process", "serial", "ray"]


@dataclass(frozen=True)
class Serving:
    """A device, and the targets whose bundles it runs.

    Attributes:
        device: an address, or a name of ``devices.toml``.
        targets: that it serves; each is one of the sweep's.
        meters: URLs of external meters that measure beside it (``edgesdk sensors --meters``).
    """

    device: str
    targets: tuple[str, ...]
    meters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exclusion:
    """Combinations that are left out: those that agree in everything that is given."""

    model: str | None = None
    recipe: str | None = None
    target: str | None = None
    device: str | None = None

    def covers(self, model: str, recipe: str, target: str, device: str | None) -> bool:
        """Whether a combination is left out. One that names a device leaves the export alone."""
        wanted = (self.model, self.recipe, self.target, self.device)
        return all(a is None or a == b for a, b in zip(wanted, (model, recipe, target, device), strict=True))


@dataclass(frozen=True)
class SweepFile:
    """What a sweep's file says; see the module.

    Attributes:
        models: each with every recipe.
        recipes: each with every target.
        targets: each with the devices that serve it; one without is exported and not profiled.
        devices: that bundles are profiled on.
        context: capacity of the key-value cache in tokens; None: as :func:`edgesdk.export` chooses.
        calibration: text for passes that look at activations.
        checks: what is measured on every program, and limits.
        profile: what is measured on every device.
        exclude: combinations to leave out.
        executor: what exports run on.
        address: of a Ray cluster; None takes RAY_ADDRESS, or starts Ray on this machine.
        workers: exports at a time; None: one for every 8 GB of free memory, and at most two on this machine.
    """

    models: tuple[str, ...]
    recipes: tuple[str, ...]
    targets: tuple[str, ...]
    devices: tuple[Serving, ...] = ()
    context: int | None = None
    calibration: Calibration = field(default_factory=Calibration)
    checks: Checks = field(default_factory=Checks)
    profile: Plan = field(default_factory=Plan)
    exclude: tuple[Exclusion, ...] = ()
    executor: ExecutorName = "process"
    address: str | None = None
    workers: int | None = None


def read_sweep(path: Path) -> SweepFile:
    """Read a sweep's file. Names are not looked up yet.

    Raises:
        EdgeError: not TOML, a wrong key or value, an empty list, or a name twice.
    """
    data = read_toml(path)
    check_lines(data, str(path))
    if "devices" in data:
        data["devices"] = _servings(data["devices"])
    for section, key in (("calibration", "file"), ("checks", "eval_text")):
        if isinstance(data.get(section), dict) and isinstance(data[section].get(key), str):
            data[section][key] = str(path.parent / Path(data[section][key]).expanduser())
    found = load(SweepFile, data, str(path))
    _refuse(found, str(path))
    return found


def programs_of(file: SweepFile) -> list[str]:
    """What a sweep runs or obeys on this machine besides edgesdk, a phrase for each."""
    meters = [each for serving in file.devices for each in serving.meters]
    found = [f"run {meter.partition(':')[2]}" for meter in meters if meter.strip().startswith(PROGRAM_METERS)]
    if file.address is not None:
        found.append(f"run what the Ray cluster at {file.address} sends")
    return list(map(shown_line, dict.fromkeys(found)))


def located(name: str, folder: Path) -> str:
    """A model, or a recipe's file, as others must name it who are not in the sweep's folder."""
    there = folder / Path(name).expanduser()
    return str(there.resolve()) if there.exists() or name.endswith(".toml") else name


def _servings(data: object) -> object:
    """``target = device`` as the list that it stands for."""
    if not isinstance(data, Mapping):
        return data
    served: dict[object, list[str]] = {}
    for target, devices in data.items():
        for device in devices if isinstance(devices, list) else [devices]:
            served.setdefault(device if isinstance(device, str) else repr(device), []).append(str(target))
    return [{"device": device, "targets": targets} for device, targets in served.items()]


def _refuse(file: SweepFile, where: str) -> None:
    for key in ("models", "recipes", "targets"):
        _list(getattr(file, key), f"{where}: '{key}'")
    for serving in file.devices:
        _list(serving.targets, f"{where}: targets of device '{serving.device}'")
        _known("target", serving.targets, file.targets, f"{where}: device '{serving.device}' serves")
    _list([each.device for each in file.devices], f"{where}: 'devices'", empty=True)
    for each in file.exclude:
        if each == Exclusion():
            raise EdgeError(f"{where}: an 'exclude' that names nothing would leave nothing")
        devices = [serving.device for serving in file.devices]
        for kind, known in (("model", file.models), ("recipe", file.recipes), ("target", file.targets),
                            ("device", devices)):  # fmt: skip
            name = getattr(each, kind)
            _known(kind, [] if name is None else [name], known, f"{where}: 'exclude' names")
    for key, value in (("workers", file.workers), ("context", file.context)):
        if value is not None and value < 1:
            raise EdgeError(f"{where}: '{key}' must be 1 or more, found {value}")
    if file.address is not None and file.executor != "ray":
        raise EdgeError(f"{where}: 'address' is of a Ray cluster", hint='add executor = "ray"')


def _list(names: Iterable[str], what: str, *, empty: bool = False) -> None:
    listed = list(names)
    if not listed and not empty:
        raise EdgeError(f"{what} is empty")
    twice = next((name for name in listed if listed.count(name) > 1), None)
    if twice is not None:
        raise EdgeError(f"{what} has '{twice}' twice")


def _known(kind: str, names: Iterable[str], known: Iterable[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise EdgeError(f"{where} what the sweep has not: {unknown(kind, name, known)}")
