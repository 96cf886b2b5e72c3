"""What the lab takes from this machine: tools, ports, folders."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from edgesdk.errors import EdgeError
from edgesdk.model.catalogue import cache_dir

APT = {"apt-get": "apt", "apt-cache": "apt", "dpkg": "dpkg", "dpkg-deb": "dpkg"}
PHONE = {**APT, "qemu-aarch64-static": "qemu-user-static", "unshare": "util-linux", "ip": "iproute2"}
BOARD = {
    **APT,
    "qemu-system-aarch64": "qemu-system-arm",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "make": "make",
    "dtc": "device-tree-compiler",
    "depmod": "kmod",
    "mke2fs": "e2fsprogs",
    "xz": "xz-utils",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
MICROCONTROLLERS = {"qemu-system-arm": "qemu-system-arm"}
KERNEL_SERIES = "6.1"
KBUILD = Path(f"/usr/lib/linux-kbuild-{KERNEL_SERIES}")
HOST_PACKAGES = tuple(
    sorted({*PHONE.values(), *BOARD.values(), *MICROCONTROLLERS.values(), KBUILD.name, "gdb-multiarch"})
)
_FOLDERS = ("/usr/sbin", "/sbin")  # not on every user's path


class LabUnavailableError(EdgeError):
    """The lab cannot be set up on this machine, for want of a tool, a right or the network."""


def lab_dir() -> Path:
    """Where the lab keeps its images and what it wrote down."""
    return cache_dir() / "device-tests" / "lab"


def tool(name: str) -> str | None:
    """The path of a program, or None."""
    return shutil.which(name) or next(
        (found for folder in _FOLDERS if (found := shutil.which(name, path=folder))), None
    )


def require(tools: Mapping[str, str], folders: Iterable[Path] = ()) -> None:
    """Check that programs and the folders of packages are here.

    Raises:
        LabUnavailableError: naming every package that is missing.
    """
    missing = {package: name for name, package in tools.items() if tool(name) is None}
    missing |= {folder.name: folder.name for folder in folders if not folder.is_dir()}
    if missing:
        raise LabUnavailableError(
            f"not installed: {', '.join(sorted(missing.values()))}", hint=f"apt-get install {' '.join(sorted(missing))}"
        )


def run(
    command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, text: str = ""
) -> str:
    """What a program of the host prints.

    Raises:
        EdgeError: it failed; the message holds the end of what it said.
    """
    program = tool(str(command[0])) or str(command[0])
    done = subprocess.run(
        [program, *map(str, command[1:])], capture_output=True, text=True, check=False, env=env, cwd=cwd, input=text
    )
    if done.returncode:
        raise EdgeError(f"{Path(program).name} failed: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def free_port() -> int:
    """A TCP port of the loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
