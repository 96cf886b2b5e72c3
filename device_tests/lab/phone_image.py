"""The phone's system: Android's adbd, toybox and mksh as Debian builds them, Python, and stand-ins for its services.

The phone proper is arm64. The same for this machine's own processor measures protocols without an emulator in between;
it has no wheels.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from edgesdk.cache import alone_in

from . import userland
from .cache import ready, sources
from .host import lab_dir, run

EMULATOR = "qemu-aarch64-static"
ADBD = "usr/lib/android-sdk/platform-tools/adbd"
_PACKAGES = ("adbd", "toybox", "mksh", "busybox-static", *userland.PYTHON)
_BUSYBOX = ("awk", "dd", "diff", "expr", "tr")  # not in this toybox, and on every phone
_FOLDERS = ("data", "dev", "proc", "sys", "tmp", "sdcard", "storage")
_FILES = Path(__file__).with_name("files") / "phone"


def phone_image(architecture: str = "arm64") -> Path:
    """The phone's root folder, built first if need be.

    Args:
        architecture: as Debian names it; arm64, or that of this machine.
    """
    home = lab_dir()
    with alone_in(home):
        name = "phone" if architecture == "arm64" else f"{architecture}-phone"
        packages = userland.pinned(home, name, _PACKAGES, backports=True, architecture=architecture)
        own = sources("phone_image.py", "userland.py", "files/phone")
        inputs = f"{packages}{userland.WHEELS}{own}"
        return ready(home, name, inputs, partial(_fill, home, packages, architecture))


def _fill(home: Path, packages: list[str], architecture: str, root: Path) -> None:
    userland.unpack(home, packages, root, architecture)
    if architecture == "arm64":
        userland.install_wheels(root)
    shutil.copytree(_FILES, root, dirs_exist_ok=True)
    for name in _FOLDERS:
        (root / name).mkdir(exist_ok=True)
    programs = root / "system" / "bin"
    for script in programs.iterdir():
        script.chmod(0o755)
    emulated = [EMULATOR, "-L", root, root / "bin" / "toybox"]
    native = ["unshare", "--map-root-user", "chroot", root, "/bin/toybox"]
    toybox = run(emulated if architecture == "arm64" else native).split()
    links = dict.fromkeys(_BUSYBOX, "/bin/busybox") | dict.fromkeys(toybox, "/bin/toybox")
    for name, target in {**links, "toybox": "/bin/toybox", "sh": "/bin/mksh", "python3": "/usr/bin/python3"}.items():
        if not (programs / name).exists():
            (programs / name).symlink_to(target)
    (root / "bin" / "sh").symlink_to("mksh")
