"""A bundle as a service of a Linux board: a Debian package, and the same tree for boards without dpkg."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ... import __version__
from ...archives import program_archive
from ...converter import CONVERTERS
from ...digests import file_digest
from ...partials import scratch_folder
from ...signing.pins import check_with
from ...targets import open_target, targets_dir
from ..base import PackageError, Written
from ..runtime import check_versions
from ..templates import fill
from .deb import write_deb
from .python import copy_edgesdk, lock_text, read_lock, requirements, resolved, unpack_wheels
from .whole import SUMS

if TYPE_CHECKING:
    from ...bundle import Bundle, Manifest
    from ...progress import Progress

PACKAGE = "edgesdk-service"
LOCK = "python.lock"
PROGRAM = "manager.pyz"
_MAIN = b"""import sys

sys.path.append(sys.path[0].rpartition("/")[0] + "/python")

from edgesdk.package.linux_service.manager import Service, main

sys.exit(main(sys.argv[1:], Service()))
"""
_MODULES = (
    "edgesdk.package.linux_service.manager",
    "edgesdk.package.linux_service.pinned",
    "edgesdk.package.linux_service.whole",
    "edgesdk.children",
    "edgesdk.digests",
    "edgesdk.signing.ed25519",
    "edgesdk.signing.statement",
    "edgesdk.toml",
)
_DEBIAN = {"aarch64": "arm64", "x86_64": "amd64"}
_VERSION = re.compile(r"[0-9][A-Za-z0-9.+~]*")
_MAINTAINER = re.compile(r"[^<>\n]+ <[^<>\s]+@[^<>\s]+>")
_TOML = "tomli"  # what reads TOML in Python 3.10
_PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


@dataclass(frozen=True)
class ServiceOptions:
    """What may be chosen.

    Attributes:
        version: of the package; a later one upgrades an earlier.
        python: of the board, such as 3.11; its package is python3.11.
        wheels: yes packs the Python packages that the server needs; no leaves them to the board.
        lock: a python.lock of an earlier deliverable, for the same wheels again.
        maintainer: who answers for the package.
        key: file or 64 hexadecimal digits of a public key; the bundle must be signed with it (edgesdk sign), and so
            must each one that the board takes later, which must not be older.
    """

    version: str = __version__
    python: str = "3.11"
    wheels: Literal["yes", "no"] = "yes"
    lock: str = ""
    maintainer: str = "edgesdk user <root@localhost>"
    key: str = ""


class LinuxService:
    """Makes the service of a board."""

    description = "a .deb with a systemd service that speaks OpenAI's chat API, for Linux boards"
    options = ServiceOptions

    def check(self, manifest: Manifest, options: ServiceOptions) -> None:
        target, program = manifest.target, manifest.program
        if target.os != "linux" or target.architecture not in _DEBIAN:
            raise PackageError(
                f"the bundle is for {target.name} ({target.os}, {target.architecture}), not for a Linux board",
                hint="export with --target linux-arm64, jetson-orin or linux-x86_64",
            )
        on_device = CONVERTERS.get(program.converter).on_device
        if on_device is None:
            raise PackageError(
                f"programs of '{program.converter}' have no session in Python, which the server is made of"
            )
        if program.runtime not in on_device.runtimes:  # pip fetches it: a bundle must not choose what
            raise PackageError(
                f"programs of '{program.converter}' run in {' or '.join(on_device.runtimes)}, not in {program.runtime}"
            )
        check_versions(program.runtime_versions)
        if manifest.tokenizer.chat_template is None:
            raise PackageError("the bundle has no chat template, so a service cannot chat with it")
        checks = {
            "version": _VERSION.fullmatch(options.version),
            "maintainer": _MAINTAINER.fullmatch(options.maintainer),
            "python": options.python in _PYTHONS,
            "lock": not options.lock or options.wheels == "yes",
        }
        for name, fine in checks.items():
            if not fine:
                raise PackageError(
                    f"option {name}: {getattr(options, name)!r} cannot be used",
                    hint=f"version 1.2.0; maintainer 'Name <mail@example.com>'; python {' or '.join(_PYTHONS)}; "
                    "lock only with wheels",
                )

    def write(self, bundle: Bundle, options: ServiceOptions, folder: Path, progress: Progress) -> Written:
        manifest, source = bundle.manifest, targets_dir() / "posix" / "app"
        signed = check_with(bundle, options.key) if options.key else None
        architecture = manifest.target.architecture
        root = folder / "root"
        payloads = root / "usr/lib/edgesdk-service/payload"
        staged = payloads / "staged"
        with progress.stage("Collecting the server and its packages"):
            shutil.copytree(bundle.folder, staged / "bundle")
            copy_edgesdk(staged / "python", manifest.program.converter)
            needed = requirements(f"{manifest.program.runtime}{manifest.program.runtime_versions}", options.python)
            if options.wheels == "yes":
                wheels = (
                    read_lock(Path(options.lock)) if options.lock else resolved(needed, options.python, architecture)
                )
                unpack_wheels(wheels, options.python, architecture, staged / "python")
                (folder / LOCK).write_text(lock_text(wheels), encoding="ascii", newline="\n")
                if (toml := staged / "python" / _TOML).is_dir():  # the manager's, whichever version is in use
                    shutil.copytree(toml, payloads.parent / "python" / _TOML)
            name = _seal(staged, options.version)
            staged.rename(payloads / name)
        (payloads.parent / PROGRAM).write_bytes(program_archive(_MAIN, _MODULES))
        values = {**self._values(manifest, options, name, needed), "key": signed.key if signed else None}
        fill(source / "root", root, values)
        fill(source / "readme", folder, values)
        shutil.copy(folder / "README.md", root / "usr/share/doc" / PACKAGE / "README.md")
        deb = f"{PACKAGE}_{options.version}_{values['architecture']}.deb"
        with progress.stage("Writing the package"), scratch_folder() as scratch:
            values["installed_kb"] = sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) // 1024 + 1
            fill(source / "control", scratch, values)
            write_deb(folder / deb, scratch, root)
        facts = {"package": deb, "version": name, "python": options.python, "wheels": options.wheels}
        facts["bundle version"] = f"{signed.version}, signed" if signed else "not asked to be signed"
        facts["providers"] = " ".join(values["providers"]) or "the runtime's only one"
        return Written(facts, _remarks(manifest), (f"sudo dpkg -i {deb}", "edgesdk-service status"))

    def _values(self, manifest: Manifest, options: ServiceOptions, name: str, needed: list[str]) -> dict[str, Any]:
        return {
            "package": PACKAGE,
            "version": options.version,
            "id": name,
            "python": options.python,
            "wheels": options.wheels == "yes",
            "needed": needed,
            "depends": [f"python{options.python}", *_packages(options), "libc6 (>= 2.28)", "libstdc++6"],
            "maintainer": options.maintainer,
            "architecture": _DEBIAN[manifest.target.architecture],
            "model": manifest.model.name,
            "licence": manifest.model.licence or "not known",
            "digest": manifest.digest,
            "target": manifest.target.name,
            "runtime": f"{manifest.program.runtime} {manifest.program.runtime_versions}",
            "providers": list(open_target(manifest.target.name).providers),
        }


def _seal(folder: Path, version: str) -> str:
    """Write the list of hashes; the version's name, which ends with the list's own hash."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{file_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    listing = "".join(lines).encode()
    (folder / SUMS).write_bytes(listing)
    return f"{version}-{hashlib.sha256(listing).hexdigest()[:8]}"


def _packages(options: ServiceOptions) -> list[str]:
    """Python packages that the manager needs of the board's distribution."""
    return [f"python3-{_TOML}"] if options.python == "3.10" and options.wheels == "no" else []


def _remarks(manifest: Manifest) -> tuple[str, ...]:
    if not open_target(manifest.target.name).providers:
        return ()
    return ("parity was measured on the CPU; /health says what runs the program on the board",)


DELIVERABLE = LinuxService()
