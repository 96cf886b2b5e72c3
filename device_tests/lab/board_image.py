"""What the board boots: kernel, device tree, first programs, and a disk with Debian's userland and Python on it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgesdk.cache import alone_in

from . import userland
from .cache import ready, sources
from .host import KERNEL_SERIES, lab_dir, run
from .kernel import MACHINE, build, device_tree, kernel_packages
from .packages import ForeignApt

_SYSTEM = (
    "busybox-static",
    "dropbear-bin",
    "openssh-server",
    "openssh-sftp-server",
    "i2c-tools",
    "procps",
    "bash",
    "coreutils",
)
_PACKAGES = (*_SYSTEM, "dash", "findutils", "grep", "sed", "gzip", *userland.PYTHON)
_FILES = Path(__file__).with_name("files") / "board"
_FOLDERS = ("dev", "proc", "sys", "run", "tmp", "mnt", "root", "sbin", "usr/sbin", "var/log")
_DISK = "3G"  # a sparse file
_KERNEL = (f"linux-source-{KERNEL_SERIES}", "linux-image-", "linux-headers-")


@dataclass(frozen=True)
class BoardImage:
    """Files that the board boots from; the disk is never written to."""

    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initramfs.cpio"

    @property
    def tree(self) -> Path:
        return self.folder / "board.dtb"

    @property
    def disk(self) -> Path:
        return self.folder / "disk.ext4"


def board_image() -> BoardImage:
    """The board's image, built first if need be."""
    home = lab_dir()
    with alone_in(home):
        packages = userland.pinned(home, "board", _PACKAGES, exact=kernel_packages)
        own = sources("board_image.py", "userland.py", "kernel.py", "files/board")
        inputs = f"{packages}{userland.WHEELS}{MACHINE}{own}"
        return BoardImage(ready(home, "board", inputs, partial(_fill, home, packages)))


def cpio(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """An archive that the kernel unpacks at its start, of names, modes and contents; several may follow each other."""
    out = bytearray()
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out) + bytes(-len(out) % 512)


def _fill(home: Path, packages: list[str], folder: Path) -> None:
    image = BoardImage(folder)
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        work = Path(scratch)
        parts = [each for each in packages if each.startswith(_KERNEL)]
        kernel, modules = build(ForeignApt(home / "apt").download(parts, work), work)
        shutil.copyfile(kernel, image.kernel)
        root = work / "root"
        root.mkdir()
        userland.unpack(home, [each for each in packages if each not in parts], root)
        userland.install_wheels(root)
        image.initramfs.write_bytes(cpio(_first_programs(root, modules)))
        _finish(root)
        run(["mke2fs", "-q", "-t", "ext4", "-O", "^metadata_csum", "-m", "0", "-d", root, image.disk, _DISK])
    device_tree(image.tree)


def _first_programs(root: Path, modules: list[tuple[Path, str]]) -> list[tuple[str, int, bytes]]:
    entries = [(name, 0o40755, b"") for name in ("bin", "dev", "proc", "disk", "modules", "keys")]
    entries.append(("init", 0o100755, (_FILES / "init").read_bytes()))
    entries.append(("bin/busybox", 0o100755, (root / "bin" / "busybox").read_bytes()))
    order = "".join(f"{path.name} {options}\n" for path, options in modules)
    entries.append(("modules/order", 0o100644, order.encode()))
    return entries + [(f"modules/{path.name}", 0o100644, path.read_bytes()) for path, _ in modules]


def _finish(root: Path) -> None:
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    shutil.copytree(_FILES / "root", root, dirs_exist_ok=True)
    for script in (root / "etc" / "rc", *(root / "usr/local/bin").iterdir()):
        script.chmod(0o755)
    if not (root / "bin" / "sh").exists():
        (root / "bin" / "sh").symlink_to("dash")
    (root / "usr/lib/sftp-server").unlink(missing_ok=True)
    (root / "usr/lib/sftp-server").symlink_to("openssh/sftp-server")
