"""How long a bundle of 100 MB takes, against plain ``adb push`` and ``scp`` in the same run.

    python -m device_tests.push_benchmark [adbd] [sshd] [phone] [board] [--rounds N] [--rate BYTES]

``adbd`` and ``sshd`` are Android's and OpenSSH's daemons on this machine's own processor, behind a line of ``--rate``
bytes a second: what the protocols cost. ``sshd`` needs root and Debian's openssh-server. The phone and the board are
emulated, behind a line without a limit: their seconds say nothing of real ones. Hashing on the device, which the plain
tools do not do, is shown apart: emulated processors hash slowly.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from edgesdk.devices import Settings
from edgesdk.devices.adb import AdbDevice
from edgesdk.devices.shell import ShellDevice
from edgesdk.devices.ssh import SshDevice
from edgesdk.devices.store import Parcel, Store
from edgesdk.files import file_entry

from .conftest import board_settings
from .lab import LIMIT, Phone, Relay, up
from .lab.host import free_port, require, run, tool
from .lab.phone import phone
from .lab.processes import Kept

SIZES = {"model.data": 96_000_000, "tokenizer.json": 3_000_000, "model": 900_000, "manifest.json": 100_000}


T = TypeVar("T")


def main() -> None:
    """Print a table for each device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("devices", nargs="*", default=["adbd", "sshd"], choices=list(_PLACES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=40e6, help="USB 2.0 passes about 40e6, gigabit Ethernet 117e6")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.devices:
            with _PLACES[name](options.rate) as (device, plain):
                _measure(name, device, plain, options.rounds, Path(scratch) / name)


def _measure(name: str, device: ShellDevice, plain: Callable[[Path], object], rounds: int, folder: Path) -> None:
    store, seconds = Store(device), dict[str, list[float]]()

    def timed(what: str, call: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = call()
        seconds.setdefault(what, []).append(time.perf_counter() - started)
        return result

    for number in range(rounds):
        parcel = _parcel(folder / str(number))
        store.clean(everything=True)
        timed("plain tool", partial(plain, parcel.folder))
        timed("the bytes alone", partial(_bytes_alone, device, parcel))
        timed("push", partial(store.push, parcel))
        path = f"{store.survey().root}/bundles/{parcel.name}"
        timed("hashing all of it again there", partial(device.run, f"sha256sum {path}/*", check=True))
        timed("second push", partial(store.push, parcel))
        (parcel.folder / "tokenizer.json").write_bytes(os.urandom(3_000_000))
        changed = Parcel(f"{parcel.name}c", parcel.folder, _entries(parcel.folder))
        pushed = timed("one file of 3 MB changed", partial(store.push, changed))
        assert pushed.sent == ["tokenizer.json"], pushed.sent
    medians = {what: statistics.median(values) for what, values in seconds.items()}
    print(f"{name}: {sum(SIZES.values()) / 1e6:.0f} MB, median of {rounds}")
    for what, value in medians.items():
        print(f"  {what:<28}{value:8.2f} s  {value / medians['plain tool']:6.2f}x")


def _bytes_alone(device: ShellDevice, parcel: Parcel) -> None:
    home = device.run("echo $HOME", check=True).text.strip()
    target = next(each for each in ("/data/local/tmp", home) if device.run(f"test -w {each}").status == 0)
    for entry in parcel.files:
        device.push(parcel.folder / entry.path, f"{target}/alone")
    device.run(f"rm {target}/alone", check=True)


def _parcel(folder: Path) -> Parcel:
    folder.mkdir(parents=True)
    for name, size in SIZES.items():
        (folder / name).write_bytes(os.urandom(size))
    return Parcel(f"bench{folder.name}", folder, _entries(folder))


def _entries(folder: Path):  # type: ignore[no-untyped-def]
    return tuple(file_entry(path) for path in sorted(folder.iterdir()))


@contextmanager
def _adbd(rate: float) -> Iterator[tuple[ShellDevice, Callable[[Path], object]]]:
    with phone(architecture=run(["dpkg", "--print-architecture"]).strip(), rate=rate) as found:
        yield _over_adb(found)


@contextmanager
def _phone(rate: float) -> Iterator[tuple[ShellDevice, Callable[[Path], object]]]:
    with up().phone() as found:
        yield _over_adb(found)


def _over_adb(phone: Phone) -> tuple[ShellDevice, Callable[[Path], object]]:
    os.environ.update(phone.environment)

    def plain(folder: Path) -> None:
        target = f"/data/local/tmp/plain-{folder.name}"
        _quiet([str(phone.adb), "-P", str(phone.adb_port), "-s", phone.serial, "push", str(folder), target])
        _quiet([str(phone.adb), "-P", str(phone.adb_port), "-s", phone.serial, "shell", f"rm -r {target}"])

    return AdbDevice("phone", Settings(f"adb:{phone.serial}")), plain


@contextmanager
def _sshd(rate: float) -> Iterator[tuple[ShellDevice, Callable[[Path], object]]]:
    require({"sshd": "openssh-server", "ssh-keygen": "openssh-client"})
    folder = Path(tempfile.mkdtemp(prefix="edgesdk-sshd-", dir="/var/tmp"))
    try:
        for name in ("host", "user"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name])
        settings = [
            "UsePAM no",
            "StrictModes no",
            f"AuthorizedKeysFile {folder / 'user.pub'}",
            f"HostKey {folder / 'host'}",
        ]
        settings += ["PermitRootLogin yes", "Subsystem sftp internal-sftp", f"PidFile {folder / 'pid'}"]
        (folder / "config").write_text("".join(f"{line}\n" for line in settings), encoding="utf-8")
        Path("/run/sshd").mkdir(exist_ok=True)
        port = free_port()
        command = [tool("sshd") or "sshd", "-D", "-f", str(folder / "config"), "-o", f"ListenAddress=127.0.0.1:{port}"]
        with Kept(command, folder / "log", limit=LIMIT), Relay(("127.0.0.1", port), rate=rate) as relay:
            hosts, public = folder / "known_hosts", (folder / "host.pub").read_text(encoding="utf-8")
            hosts.write_text(f"[127.0.0.1]:{relay.port} {' '.join(public.split()[:2])}\n", encoding="utf-8")
            store = Settings(
                f"ssh:root@127.0.0.1:{relay.port}",
                store=str(folder / "store"),
                key=str(folder / "user"),
                known_hosts=str(hosts),
            )
            options = ["-i", str(folder / "user"), "-o", f"UserKnownHostsFile={hosts}", "-o", "BatchMode=yes"]

            def plain(parcel: Path) -> None:
                place = f"root@127.0.0.1:{folder}/plain-{parcel.name}"
                _quiet(["scp", "-r", *options, "-P", str(relay.port), str(parcel), place])

            yield SshDevice("sshd", store), plain
    finally:
        shutil.rmtree(folder)


@contextmanager
def _board(rate: float) -> Iterator[tuple[ShellDevice, Callable[[Path], object]]]:
    with up().board() as board:
        key = ["-i", str(board.key), "-o", f"UserKnownHostsFile={board.known_hosts}", "-o", "BatchMode=yes"]

        def plain(folder: Path) -> None:
            place = f"{board.user}@{board.host}:plain-{folder.name}"
            _quiet(["scp", "-r", *key, "-P", str(board.port), str(folder), place])

        yield SshDevice("board", board_settings(board)), plain


def _quiet(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


_PLACES = {"adbd": _adbd, "sshd": _sshd, "phone": _phone, "board": _board}

if __name__ == "__main__":
    main()
