"""A root folder for arm64: Debian packages, and wheels for its Python."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from edgesdk.errors import EdgeError

from .host import LabUnavailableError, run
from .packages import ForeignApt

PYTHON = ("python3", "libstdc++6", "libgomp1")
WHEELS = ("numpy==2.4.6", "onnxruntime==1.32.0")
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
_UNUSED = {  # what package managers need, and nobody in the lab
    *("adduser", "debconf", "dpkg", "libpam-modules", "libpam-modules-bin", "libpam-runtime", "libperl5.36", "passwd"),
    *("perl", "perl-base", "perl-modules-5.36", "tar", "udev", "libsemanage2", "libsemanage-common", "libsepol2"),
    *("lsb-base", "sensible-utils", "sysvinit-utils", "ucf"),
}
_SPARE = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/info")


def pinned(
    home: Path,
    name: str,
    packages: Iterable[str],
    *,
    backports: bool = False,
    architecture: str = "arm64",
    exact: Callable[[ForeignApt], Iterable[str]] = lambda apt: (),
) -> list[str]:
    """Packages and what they need as ``name=version``; good as long as the lists of packages are.

    Args:
        home: the lab's folder.
        name: what the answer is kept under.
        packages: taken with all that they depend on.
        backports: prefer the backports.
        architecture: of the packages, as Debian names it.
        exact: gives packages that are taken alone.
    """
    apt = _apt(home, architecture)
    asked = [*packages]
    kept = home / f"{name}.json"
    updated = apt.update()
    if kept.is_file() and kept.stat().st_mtime >= updated:
        known = json.loads(kept.read_text(encoding="utf-8"))
        if known["asked"] == asked:
            return [str(each) for each in known["pinned"]]
    found = [each for each in apt.closure(asked, backports=backports) if each.split("=")[0] not in _UNUSED]
    found += [apt.candidate(each) for each in exact(apt)]
    kept.write_text(json.dumps({"asked": asked, "pinned": found}), encoding="utf-8")
    return found


def unpack(home: Path, packages: Iterable[str], root: Path, architecture: str = "arm64") -> None:
    """Download packages given as ``name=version`` and unpack them into a folder."""
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        for path in _apt(home, architecture).download([*packages], Path(scratch)):
            run(["dpkg-deb", "--extract", path, root])
    for name in _SPARE:
        shutil.rmtree(root / name, ignore_errors=True)


def _apt(home: Path, architecture: str) -> ForeignApt:
    return ForeignApt(home / ("apt" if architecture == "arm64" else f"apt-{architecture}"), architecture)


def install_wheels(root: Path) -> None:
    """Put the wheels where the root's own Python finds them."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-compile"]
    command += ["--only-binary", ":all:", "--python-version", "3.11", "--implementation", "cp"]
    command += [part for name in _PLATFORMS for part in ("--platform", name)]
    try:
        run([*command, "--target", root / "usr/lib/python3/dist-packages", *WHEELS])
    except EdgeError as error:
        raise LabUnavailableError(
            f"the package registry did not give {' and '.join(WHEELS)} for aarch64: {error.message[-300:]}",
            hint="connect to a registry that has them",
        ) from error
