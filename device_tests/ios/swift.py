"""Swift for Linux, as Debian packages it, in a root folder of its own: nothing on this machine is changed."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path

from edgesdk.cache import alone_in

from ..lab.cache import ready, sources
from ..lab.host import APT, lab_dir, require, run
from ..lab.packages import ForeignApt

_RELEASE, _ARCHITECTURE = "trixie", "amd64"  # the first Debian with a Swift of the language's version 6
_PACKAGES = ("swiftlang", "coreutils", "dash", "libc6-dev", "libstdc++-14-dev", "binutils")
_UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/libexec/swift/share/doc")
_PROGRAMS = "usr/libexec/swift/bin"
_LIBRARIES = ("usr/libexec/swift/lib/swift/linux", "usr/lib/x86_64-linux-gnu")
_LOADER = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"


def toolchain() -> Path:
    """The root folder, made first if need be: 540 MB are fetched.

    Raises:
        LabUnavailableError: no such packages, or tools are missing here.
    """
    require({**APT, "unshare": "util-linux"})
    home = lab_dir()
    with alone_in(home):
        apt = ForeignApt(home / f"apt-{_RELEASE}", _ARCHITECTURE, _RELEASE)
        apt.update()
        packages = apt.closure(_PACKAGES)
        return ready(home, "swift", f"{packages}{sources('packages.py')}{_UNUSED}", partial(_fill, apt, packages))


def _fill(apt: ForeignApt, packages: list[str], root: Path) -> None:
    with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
        for package in packages:  # one after the other, for the disk
            (file,) = apt.download([package], Path(scratch))
            run(["dpkg-deb", "--extract", file, root])
            file.unlink()
    for name in _UNUSED:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    for name in ("proc", "dev", "work", "tmp"):
        (root / name).mkdir(exist_ok=True)


def build(root: Path, folder: Path, package: str) -> Path:
    """Build a package and its tests with SwiftPM.

    Args:
        root: the toolchain.
        folder: what the build sees.
        package: the package's folder in it.

    Returns: the program that runs the tests; see :func:`run_tests`.

    Raises:
        EdgeError: with what the compiler said.
    """
    script = (
        'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && mount --bind "$1" "$0/work" && '
        f'exec chroot "$0" /{_PROGRAMS}/swift-build --disable-sandbox --build-tests --package-path "/work/$2"'
    )
    environment = {"PATH": f"/{_PROGRAMS}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp"}
    command = ["unshare", "--map-root-user", "--mount", "--pid", "--fork", "sh", "-c", script, root, folder, package]
    run(command, env=environment)
    (tests,) = (folder / package / ".build" / "debug").glob("*.xctest")
    return tests


def test_command(root: Path, tests: Path) -> list[str | Path]:
    """What runs the tests on this machine, with the toolchain's libraries."""
    return [root / _LOADER, "--library-path", ":".join(str(root / name) for name in _LIBRARIES), tests]
