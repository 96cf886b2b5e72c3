"""What a board's Python imports: edgesdk itself, and wheels for that Python and processor, pinned by their hashes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ... import __version__
from ...partials import scratch_folder
from ...wheels import PIP, Wheel, download
from ..base import PackageError

SERVE = ("fastapi>=0.115", "prometheus-client>=0.20", "uvicorn>=0.30")  # the extra `serve`
_GLIBC = ("2_28", "2_27", "2_26", "2_24", "2_17")
_OLDER = {"x86_64": ("manylinux2014", "manylinux_2_12", "manylinux2010", "manylinux_2_5", "manylinux1")}
_LINE = re.compile(r"(\S+)==(\S+) --hash=sha256:([0-9a-f]{64})")


def copy_edgesdk(folder: Path, converter: str) -> None:
    """Put edgesdk and one converter into a folder that Python imports from, as files that say what they are.

    Raises:
        PackageError: the converter is not installed.
    """
    entries = [each for each in metadata.entry_points(group="edgesdk.converters") if each.name == converter]
    if not entries:
        raise PackageError(f"the converter '{converter}' is not installed", hint=f"pip install 'edgesdk[{converter}]'")
    module = entries[0].value.partition(":")[0]
    for name in ("edgesdk", module):
        found = import_module(name).__file__
        assert found is not None
        target = folder / name.replace(".", "/")
        left_out = shutil.ignore_patterns("__pycache__", "_targets")
        shutil.copytree(Path(found).parent, target, ignore=left_out, dirs_exist_ok=True)
        for parent in list(PurePosixPath(name.replace(".", "/")).parents)[:-1]:
            spec = find_spec(str(parent).replace("/", "."))
            assert spec is not None and spec.origin is not None
            shutil.copy(spec.origin, folder / parent / "__init__.py")
    about = folder / f"edgesdk-{__version__}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: edgesdk\nVersion: {__version__}\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(
        f"[edgesdk.converters]\n{converter} = {entries[0].value}\n", encoding="utf-8"
    )


def requirements(runtime: str, python: str) -> list[str]:
    """What a server over one runtime needs in a board's Python, besides edgesdk."""
    return [*_needed_there(metadata.requires("edgesdk") or (), python), *SERVE, runtime]


def resolved(needed: Sequence[str], python: str, architecture: str) -> tuple[Wheel, ...]:
    """Every wheel that a board needs, with the hashes that the package registry has for them.

    pip judges conditions of packages (``python_version < "3.11"``) for the Python that it runs in. What it left out by
    them, and the board's Python needs, is asked for by name until nothing is left out.

    Raises:
        PackageError: pip finds no such set.
    """
    asked = list(needed)
    while True:
        report = _report(asked, python, architecture)
        found = [(canonicalize_name(entry["metadata"]["name"]), entry) for entry in report]
        wanted = [line for _, entry in found for line in entry["metadata"].get("requires_dist") or ()]
        names = {name for name, _ in found}
        missing = [
            line for line in _needed_there(wanted, python) if canonicalize_name(Requirement(line).name) not in names
        ]
        if not missing:
            return tuple(_wheel(entry) for _, entry in sorted(found, key=lambda each: each[0]))
        asked += sorted(set(missing))


def _needed_there(lines: Iterable[str], python: str) -> list[str]:
    """Requirements whose condition a board's Python fulfils, without it; those of extras are left out."""
    there = {
        "extra": "",
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    kept = [each for each in map(Requirement, lines) if each.marker is None or each.marker.evaluate(there)]
    for each in kept:
        each.marker = None
    return [str(each) for each in kept]


def _report(needed: Sequence[str], python: str, architecture: str) -> list[dict[str, Any]]:
    """What pip would install, as its report has it."""
    with scratch_folder() as scratch:
        command = [*PIP, "install", "--dry-run", "--ignore-installed", "--quiet", "--no-input"]
        command += ["--target", str(scratch), "--report", f"{scratch}/report.json", *_platform(python, architecture)]
        done = subprocess.run([*command, *needed], capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
            raise PackageError(
                f"pip finds no wheels of Python {python} for {architecture}: {said[-1]}",
                hint="--set wheels=no leaves them to the board",
            )
        report = json.loads((scratch / "report.json").read_text(encoding="utf-8"))
    installed: list[dict[str, Any]] = report["install"]
    return installed


def _wheel(entry: Mapping[str, Any]) -> Wheel:
    name, version = entry["metadata"]["name"], entry["metadata"]["version"]
    digest = entry["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
    if digest is None:
        raise PackageError(f"{name} {version}: the package registry has no SHA-256 for it")
    return Wheel(name, version, digest)


def lock_text(wheels: Sequence[Wheel]) -> str:
    """Wheels as pip's requirements, each with its hash."""
    return "".join(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in wheels)


def read_lock(path: Path) -> tuple[Wheel, ...]:
    """Wheels of an earlier deliverable's ``python.lock``.

    Raises:
        PackageError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as failure:
        raise PackageError(f"{path}: cannot be read ({failure})") from None
    found = [_LINE.fullmatch(line) for line in lines]
    if not found or not all(found):
        raise PackageError(f"{path}: no python.lock: every line is NAME==VERSION --hash=sha256:...")
    return tuple(Wheel(*match.groups()) for match in found if match)


def unpack_wheels(wheels: tuple[Wheel, ...], python: str, architecture: str, folder: Path) -> None:
    """Fetch wheels, hash-checked, and unpack what Python imports of them; the same files each time.

    Raises:
        PackageError: one cannot be had, or holds what it may not.
    """
    with scratch_folder() as scratch:
        failed = download(wheels, scratch, tuple(_platform(python, architecture)[2:]))
        if failed is not None:
            raise PackageError(
                f"the wheels cannot be fetched: {failed}", hint="--set wheels=no leaves them to the board"
            )
        for file in sorted(scratch.glob("*.whl")):
            _unpack(file, folder)


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            parts = PurePosixPath(info.filename).parts
            if parts[0].endswith(".data"):
                if parts[1] not in ("purelib", "platlib"):
                    continue  # scripts and headers
                parts = parts[2:]
            if info.is_dir():
                continue
            if ".." in parts or PurePosixPath(info.filename).is_absolute():
                raise PackageError(f"{wheel.name}: unsafe file name {info.filename!r}")
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out)


def _platform(python: str, architecture: str) -> list[str]:
    names = [f"manylinux_{version}_{architecture}" for version in _GLIBC]
    names += [f"{name}_{architecture}" for name in _OLDER.get(architecture, ("manylinux2014",))]
    options = ["--only-binary", ":all:", "--python-version", python, "--implementation", "cp"]
    return options + [part for name in names for part in ("--platform", name)]
