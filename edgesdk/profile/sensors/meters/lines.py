"""Meters that speak in lines ``seconds,volts,amperes``: a program, or firmware on a serial port.

The PPK2's Python interface is under the GPL: it is only ever called as a program that somebody installed.
"""

from __future__ import annotations

import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Protocol

from ....children import for_programs_of_the_user
from ....devices.hosts import check_port
from ....errors import EdgeError, MissingExtraError
from ....lines import shown_line
from ..base import Meter, Sensor
from .base import Clock, Collector, Reading, parsed_line, supplied, supply

_BAUD = 115_200


class _Readable(Protocol):
    def read(self, size: int = 1, /) -> bytes: ...


class ProgramMeter:
    """A program that prints lines until it is ended."""

    def __init__(self, source: str, command: str, evidence: str) -> None:
        self.sensors: tuple[Sensor, ...] = supply(source, evidence)
        try:
            self._command = shlex.split(command)
        except ValueError as failure:
            raise EdgeError(f"{source}:{shown_line(command)}: {failure}", hint="close the quotes") from None
        self._collector = Collector()
        self._clock = Clock()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Raises EdgeError: there is no such program."""
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=for_programs_of_the_user(),
            )
        except OSError as failure:
            reason = failure.strerror or str(failure)
            hint = "install it, or give the whole path; it prints seconds,volts,amperes, one line a sample"
            raise EdgeError(f"meter program '{self._command[0]}': {reason}", hint=hint) from None
        process = self._process
        said: list[str] = []
        complaints = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
        complaints.start()
        self._collector.run(lambda: self._read(process, complaints, said), f"meter {self._command[0]}")

    def taken(self) -> list[Reading]:
        return [(self._clock.host(seconds), values) for seconds, values in self._collector.taken()]

    def stop(self) -> None:
        self._collector.stopped.set()
        if self._process is not None:
            with suppress(OSError):
                self._process.terminate()
            try:
                self._process.wait(3)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._collector.stop()

    def _read(self, process: subprocess.Popen[str], complaints: threading.Thread, said: list[str]) -> None:
        _follow(process.stdout or iter(()), self._collector, self._clock)
        status = process.wait()
        complaints.join(1)
        for stream in (process.stdout, process.stderr):
            _close(stream)
        last = f": {said[-1].strip()}" if said else ""
        raise EdgeError(f"meter program '{self._command[0]}' ended with status {status}{last}")


class SerialMeter:
    """Firmware that prints lines on a serial port, as that of a target with an INA228 on its I2C bus does."""

    def __init__(self, source: str, port: str, baud: int, evidence: str) -> None:
        self.sensors: tuple[Sensor, ...] = supply(source, evidence)
        self._port, self._baud = port, baud
        self._collector = Collector()
        self._clock = Clock()

    def start(self) -> None:
        """Raises EdgeError: no such port, or another program has it; MissingExtraError: pyserial is not installed."""
        try:
            import serial
        except ModuleNotFoundError:
            raise MissingExtraError("serial", "devices") from None
        try:
            port = serial.serial_for_url(self._port, self._baud, timeout=0.2, exclusive=True)
        except (OSError, ValueError) as failure:  # SerialException is an OSError
            hint = "is it plugged in, may this user open it, and does no other program have it?"
            raise EdgeError(f"meter at {self._port}: {failure}", hint=hint) from None

        def read() -> None:
            with port:
                _follow(_port_lines(port, self._collector.stopped), self._collector, self._clock)

        self._collector.run(read, f"meter at {self._port}")

    def taken(self) -> list[Reading]:
        return [(self._clock.host(seconds), values) for seconds, values in self._collector.taken()]

    def stop(self) -> None:
        self._collector.stop()


def open_csv(command: str) -> Meter:
    """``csv:COMMAND``: any program that prints ``seconds,volts,amperes``."""
    if not command.strip():
        raise EdgeError("csv: needs a program", hint="csv:COMMAND, which prints seconds,volts,amperes")
    evidence = "volt and ampere, as the program that was named promises"
    return ProgramMeter("csv", command, evidence)


def open_ppk2(command: str) -> Meter:
    """``ppk2:COMMAND``: a program of the user's that reads the PPK2 and prints ``seconds,volts,amperes``."""
    if not command.strip():
        hint = "ppk2:COMMAND, a program that uses ppk2-api (GPL, so that it is yours) and prints seconds,volts,amperes"
        raise EdgeError("ppk2: needs a program that reads the PPK2", hint=hint)
    return ProgramMeter("ppk2", command, "PPK2 in source mode: ampere measured, volt as set, by the program named")


def open_ina228(rest: str) -> Meter:
    """``ina228:/dev/ttyACM0`` or ``ina228:/dev/ttyACM0@921600``."""
    port, _, baud = rest.partition("@")
    if not port or (baud and not (baud.isascii() and baud.isdigit())):
        raise EdgeError(f"ina228:{rest}: no serial port", hint="ina228:/dev/ttyACM0@115200")
    check_port(port)
    evidence = "INA228 read by the firmware, which prints seconds, volt and ampere"
    return SerialMeter("ina228", port, int(baud or _BAUD), evidence)


def _follow(lines: IO[str] | Iterator[str], collector: Collector, clock: Clock) -> None:
    """Collect samples with the meter's seconds; what comes late in a burst is put right when it is taken."""
    for line in lines:
        if found := parsed_line(line):
            seconds, volts, amperes = found
            clock.heard(seconds, time.monotonic())
            collector.add(supplied(volts, amperes), seconds)


def _port_lines(port: _Readable, stopped: threading.Event) -> Iterator[str]:
    """Whole lines; the first is left out, since it is seldom whole."""
    rest, first = b"", True
    while not stopped.is_set():
        *lines, rest = (rest + port.read(256)).split(b"\n")
        for line in lines:
            if not first:
                yield line.decode("ascii", "replace")
            first = False


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        with suppress(OSError):
            stream.close()
