"""The first process of the phone, in its own namespaces: mounts, emulator, adbd, and a relay to it.

Started by :mod:`.phone` with the folder of the system and a folder for this run; it ends when that ends it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

from .adb_reboot import RebootAsCommand
from .phone_image import ADBD, EMULATOR
from .relay import Relay

ADB_PORT = 5555
_CPU = "cortex-a76"
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_CPUINFO = """\
processor\t: {}
BogoMIPS\t: 49.15
Features\t: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd0b
CPU revision\t: 0

"""
_SYS = {
    "devices/system/cpu/possible": "0-{last}",
    "devices/system/cpu/present": "0-{last}",
    "class/thermal/thermal_zone0/type": "BIG",
    "class/thermal/thermal_zone0/temp": "42000",
    "class/thermal/thermal_zone1/type": "VIRTUAL-SKIN",
    "class/thermal/thermal_zone1/temp": "31200",
    "class/power_supply/battery/type": "Battery",
    "class/power_supply/battery/status": "Discharging",
    "class/power_supply/battery/capacity": "82",
    "class/power_supply/battery/voltage_now": "4213000",
    "class/power_supply/battery/current_now": "-412000",
    "class/power_supply/battery/temp": "284",
    "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1704000",
    "devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "2914000",
    "devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "2914000",
    "devices/system/cpu/cpu0/cpufreq/scaling_governor": "sched_pixel",
}


def main(system: Path, run: Path) -> None:
    """Set the phone up and keep adbd running, as init does; never returns."""
    root = run / "root"
    _mounts(system, root)
    _emulator(run)
    _do("ip", "link", "set", "lo", "up")
    boot_id = run / "boot_id"
    boot_id.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
    _do("mount", "--bind", boot_id, root / "proc/sys/kernel/random/boot_id")
    os.mkfifo(root / "dev/lab/reboot")
    threading.Thread(target=_restarts, args=(root / "dev/lab/reboot", boot_id), daemon=True).start()
    Relay(("127.0.0.1", ADB_PORT), run / "adbd.sock", RebootAsCommand)
    adbd, since = _adbd(root), time.monotonic()
    while True:
        ended, status = os.wait()
        if ended == adbd:
            if time.monotonic() - since < 0.05:
                sys.exit(f"adbd does not stay: status {status}")
            adbd, since = _adbd(root), time.monotonic()


def _mounts(system: Path, root: Path) -> None:
    """The system read-only, and what is written in file systems of memory."""
    root.mkdir()
    _do("mount", "--bind", system, root)
    _do("mount", "-o", "remount,bind,ro", root)
    _do("mount", "--rbind", "/proc", root / "proc")
    for name, options in (("data", "size=64m"), ("dev", "size=1m"), ("sys", "size=4m"), ("tmp", "size=64m")):
        _do("mount", "-t", "tmpfs", "-o", options, "tmpfs", root / name)
    for name, options in (("tmp", "size=700m"), ("small", "size=16m"), ("readonly", "size=1m,ro")):
        folder = root / "data" / "local" / name
        folder.mkdir(parents=True)
        _do("mount", "-t", "tmpfs", "-o", options, "tmpfs", folder)
    for name in _DEVICES:
        (root / "dev" / name).touch()
        _do("mount", "--bind", f"/dev/{name}", root / "dev" / name)
    for name in ("pts", "shm", "lab"):
        (root / "dev" / name).mkdir()
    _do("mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0666", "devpts", root / "dev/pts")
    (root / "dev/ptmx").symlink_to("pts/ptmx")
    (root / "dev/fd").symlink_to("/proc/self/fd")
    for name, value in _SYS.items():
        path = root / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value.format(last=(os.cpu_count() or 1) - 1) + "\n", encoding="ascii")
    cpuinfo = root / "dev/lab/cpuinfo"
    cpuinfo.write_text("".join(map(_CPUINFO.format, range(os.cpu_count() or 1))), encoding="ascii")
    _do("mount", "--bind", cpuinfo, root / "proc/cpuinfo")


def _emulator(run: Path) -> None:
    """Programs for arm64 run by the emulator, in this user namespace alone."""
    folder = run / "binfmt"
    folder.mkdir()
    _do("mount", "-t", "binfmt_misc", "binfmt_misc", folder)
    found = subprocess.run(["which", EMULATOR], capture_output=True, text=True, check=True).stdout.strip()
    (folder / "register").write_text(f":arm64:M::{_MAGIC}:{_MASK}:{found}:PF", encoding="ascii")


def _adbd(root: Path) -> int:
    """Start adbd; its process id."""
    environment = {
        "PATH": "/system/bin:/usr/bin:/bin",
        "HOME": "/",
        "TMPDIR": "/data/local/tmp",
        "ANDROID_DATA": "/data",
        "ANDROID_ROOT": "/system",
        "ADBD_PORT": str(ADB_PORT),
        "QEMU_CPU": _CPU,
    }
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        os.chroot(root)
        os.chdir("/")
        os.execve(f"/{ADBD}", ["adbd"], environment)
    finally:
        os._exit(127)


def _restarts(asked: Path, boot_id: Path) -> None:
    """End everything but this process whenever something is written to the pipe."""
    while True:
        asked.read_bytes()
        boot_id.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
        os.kill(-1, signal.SIGKILL)


def _do(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
