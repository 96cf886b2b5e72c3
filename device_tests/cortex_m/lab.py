"""Builds a bundle's firmware with Debian's compiler and runs it in QEMU; one instruction is one nanosecond there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from edgesdk.boards import Board, open_board
from edgesdk.runner_lines import opened

TOOLS = ("cmake", "arm-none-eabi-gcc", "qemu-system-arm")
BOARDS = ("mps2-an385", "mps2-an386", "mps2-an500", "mps2-an505", "mps3-an547")


def build(project: Path, board: str, *options: str) -> Path:
    """The firmware of one board, built outside the bundle; the compiler's words are in the error when it fails."""
    folder = project.parents[1] / f"build-{project.parent.name}-{board}-{len(options)}"
    for command in (
        ["cmake", "-S", project, "-B", folder, f"-DBOARD={board}", *options],
        ["cmake", "--build", folder, "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stderr, done.stderr
    return folder / "firmware.elf"


def sections(elf: Path) -> dict[str, int]:
    """Sizes of an ELF file's sections, bytes."""
    done = subprocess.run(["arm-none-eabi-size", "-A", elf], capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) == 3 and row[1].isdigit()}


class Runner:
    """The firmware's end of the UART."""

    def __init__(self, board: Board, to_board: IO[bytes], from_board: IO[bytes]) -> None:
        self.board, self._to, self._from = board, to_board, from_board

    def send(self, data: bytes) -> None:
        """Bytes, as they are."""
        self._to.write(data)
        self._to.flush()

    def event(self) -> dict[str, Any]:
        """The next event."""
        return opened(self._from.readline())

    def until(self, *names: str) -> list[dict[str, Any]]:
        """Events up to one of these, or an error."""
        found = [self.event()]
        while found[-1]["event"] not in (*names, "error"):
            found.append(self.event())
        return found

    def answer(self, command: bytes) -> list[dict[str, Any]]:
        """Everything that a command brings."""
        self.send(command)
        return self.until("done")

    def instructions(self, ticks: int) -> float:
        """Emulated instructions of a number of ticks: a tick is 1000 / MHz nanoseconds."""
        return ticks * 1000 / self.board.clock_mhz


@contextmanager
def running(elf: Path, board: str, seconds: int = 300) -> Iterator[Runner]:
    """Boot a firmware in QEMU; it is ended after ``seconds`` at the latest."""
    described = open_board(board)
    assert described.emulator is not None
    command = ["timeout", str(seconds), "qemu-system-arm", "-machine", described.emulator.machine, "-kernel", str(elf)]
    command += ["-nodefaults", "-display", "none", "-serial", "stdio", "-icount", "shift=0,sleep=off"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield Runner(described, process.stdin, process.stdout)
        finally:
            process.terminate()
