"""How long a bundle of 100 MB takes to the lab's devices, against plain ``adb push`` and ``scp`` in the same run.

    python -m device_tests.push_benchmark [phone] [board] [--rounds N]

The phone and the board are emulated: their seconds say nothing of real ones, and the ratio of transfers is about
protocols. Hashing on the device, which the plain tools do not do, is shown apart: emulated processors hash slowly.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgesdk.devices import Settings
from edgesdk.devices.adb import AdbDevice
from edgesdk.devices.shell import ShellDevice
from edgesdk.devices.ssh import SshDevice
from edgesdk.devices.store import Parcel, Store
from edgesdk.files import file_entry

from .conftest import board_settings
from .lab import up

SIZES = {"model.data": 96_000_000, "tokenizer.json": 3_000_000, "model": 900_000, "manifest.json": 100_000}


def main() -> None:
    """Print a table for each device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("devices", nargs="*", default=["phone", "board"], choices=["phone", "board"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.devices:
            with _PLACES[name]() as (device, plain):
                _measure(name, device, plain, options.rounds, Path(scratch) / name)


def _measure(name: str, device: ShellDevice, plain: Callable[[Path], object], rounds: int, folder: Path) -> None:
    store, seconds = Store(device), dict[str, list[float]]()

    def timed(what: str, call: Callable[[], object]) -> None:
        started = time.perf_counter()
        call()
        seconds.setdefault(what, []).append(time.perf_counter() - started)

    for number in range(rounds):
        parcel = _parcel(folder / str(number))
        store.clean(everything=True)
        timed("plain tool", lambda parcel=parcel: plain(parcel.folder))
        timed("push", lambda parcel=parcel: store.push(parcel))
        path = f"{store.survey().root}/bundles/{parcel.name}"
        timed("hashing there, within that", lambda path=path: device.run(f"sha256sum {path}/*", check=True))
        timed("second push", lambda parcel=parcel: store.push(parcel))
        (parcel.folder / "tokenizer.json").write_bytes(os.urandom(3_000_000))
        changed = Parcel(f"{parcel.name}c", parcel.folder, _entries(parcel.folder))
        sent: list[str] = []
        timed("one file of 3 MB changed", lambda changed=changed, sent=sent: sent.extend(store.push(changed).sent))
        assert sent == ["tokenizer.json"], sent
    medians = {what: statistics.median(values) for what, values in seconds.items()}
    sending = medians["push"] - medians["hashing there, within that"]
    print(f"{name}: {sum(SIZES.values()) / 1e6:.0f} MB, median of {rounds}")
    for what, value in medians.items():
        print(f"  {what:<28}{value:8.2f} s  {value / medians['plain tool']:6.2f}x")
    print(f"  {'push without the hashing':<28}{sending:8.2f} s  {sending / medians['plain tool']:6.2f}x", flush=True)


def _parcel(folder: Path) -> Parcel:
    folder.mkdir(parents=True)
    for name, size in SIZES.items():
        (folder / name).write_bytes(os.urandom(size))
    return Parcel(f"bench{folder.name}", folder, _entries(folder))


def _entries(folder: Path):  # type: ignore[no-untyped-def]
    return tuple(file_entry(path) for path in sorted(folder.iterdir()))


@contextmanager
def _phone() -> Iterator[tuple[ShellDevice, Callable[[Path], object]]]:
    with up().phone() as phone:
        os.environ.update(phone.environment)
        device = AdbDevice("phone", Settings(f"adb:{phone.serial}"))

        def plain(folder: Path) -> None:
            target = f"/data/local/tmp/plain-{folder.name}"
            _quiet([str(phone.adb), "-P", str(phone.adb_port), "-s", phone.serial, "push", str(folder), target])
            _quiet([str(phone.adb), "-P", str(phone.adb_port), "-s", phone.serial, "shell", f"rm -r {target}"])

        yield device, plain


@contextmanager
def _board() -> Iterator[tuple[ShellDevice, Callable[[Path], object]]]:
    with up().board() as board:
        key = ["-i", str(board.key), "-o", f"UserKnownHostsFile={board.known_hosts}", "-o", "BatchMode=yes"]

        def plain(folder: Path) -> None:
            place = f"{board.user}@{board.host}:plain-{folder.name}"
            _quiet(["scp", "-r", *key, "-P", str(board.port), str(folder), place])

        yield SshDevice("board", board_settings(board)), plain


def _quiet(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


_PLACES = {"phone": _phone, "board": _board}

if __name__ == "__main__":
    main()
