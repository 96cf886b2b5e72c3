"""Emulated microcontrollers without a program: a debugger gives them one, and a socket is their UART."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import EdgeError

from .host import MICROCONTROLLERS, free_port, require
from .processes import LIMIT, Kept
from .qmp import Qmp, connected

MACHINES = ("mps2-an385", "mps2-an386", "mps2-an500", "mps2-an505", "mps3-an547", "microbit")


@dataclass(frozen=True)
class Microcontroller:
    """A board that stands still until a debugger lets it go.

    Attributes:
        machine: what QEMU calls it.
        uart: address for ``serial.serial_for_url``.
        gdb: host and port for gdb's ``target remote``.
        qmp: the hand on its power switch.
    """

    machine: str
    uart: str
    gdb: str
    qmp: Qmp
    emulator: Kept

    def stop(self) -> None:
        """End the emulator, as when the board is unplugged."""
        self.emulator.stop()


@contextmanager
def microcontroller(machine: str, *options: str, limit: float = LIMIT) -> Iterator[Microcontroller]:
    """A board, until the block ends.

    Args:
        machine: one of :data:`MACHINES`.
        options: more of QEMU's, such as ``"-icount", "shift=0,sleep=off"``.
        limit: seconds after which it ends anyway.

    Raises:
        LabUnavailableError: QEMU is missing.
        EdgeError: no such machine, or QEMU does not take the options.
    """
    if machine not in MACHINES:
        raise EdgeError(f"no microcontroller {machine!r}", hint=f"there are: {', '.join(MACHINES)}")
    require(MICROCONTROLLERS)
    folder = Path(tempfile.mkdtemp(prefix="edgesdk-mcu-"))
    uart, gdb = free_port(), free_port()
    try:
        with Kept(_command(machine, options, folder, uart, gdb), folder / "log", limit=limit, scratch=folder) as kept:
            qmp = connected(kept, folder / "qmp")
            try:
                yield Microcontroller(machine, f"socket://127.0.0.1:{uart}", f"127.0.0.1:{gdb}", qmp, kept)
            finally:
                qmp.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _command(machine: str, options: Sequence[str], folder: Path, uart: int, gdb: int) -> list[str]:
    command = ["qemu-system-arm", "-machine", machine, "-nodefaults", "-display", "none"]
    command += ["-S", "-gdb", f"tcp:127.0.0.1:{gdb}", "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off"]
    command += ["-chardev", f"socket,id=uart,host=127.0.0.1,port={uart},server=on,wait=off", "-serial", "chardev:uart"]
    return [*command, *options]
