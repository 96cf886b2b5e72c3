"""The programs that put firmware onto boards, one frozen dataclass each; none of them is imported.

A tool more is one dataclass and one line of ``TOOLS``: what it is called, which files it takes, its exact command
lines, and how its output is judged where the exit status does not say enough.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...boards import Board
from . import FlashError
from .images import Kind
from .programs import Step, find_program, run_steps
from .volumes import copy_to_volume


@dataclass(frozen=True)
class Job:
    """One firmware for one board.

    Attributes:
        image: the file, of a kind that the tool takes.
        kind: that kind.
        address: where its first byte goes.
        data: all of its bytes, gaps as FF.
        board: which describes what its tools need.
        scratch: an empty folder for files of the tool.
        port: serial port, for tools that use one.
        probe: serial number of the debug probe; HOST:PORT of the server, for gdb; the drive's folder, for uf2.
        seconds: until a program that still runs counts as hung.
    """

    image: Path
    kind: Kind
    address: int
    data: bytes
    board: Board
    scratch: Path
    port: str | None = None
    probe: str | None = None
    seconds: float = 300

    @property
    def read_back(self) -> Path:
        """Where a tool puts what it reads from the board."""
        return self.scratch / "read-back.bin"


class Tool(Protocol):
    """What flashes a board."""

    @property
    def name(self) -> str:
        """How the user calls it."""

    @property
    def takes(self) -> tuple[Kind, ...]:
        """Files it can be given, the best first."""

    def serves(self, board: Board) -> bool:
        """Whether the board's file says what this tool needs to know."""

    def installed(self) -> bool:
        """Whether it can be used on this machine."""

    def put(self, job: Job) -> None:
        """Write and verify.

        Raises:
            FlashError: it is not installed, found no board, failed, took too long, or read back something else.
        """


@dataclass(frozen=True)
class Program:
    """A tool that is a program.

    Attributes:
        name: how the user calls it.
        programs: what it may be called on this machine.
        takes: files it can be given.
        install: how to get it.
        hint: what to look at when it fails.
    """

    name: str
    programs: tuple[str, ...]
    takes: tuple[Kind, ...]
    install: str
    hint: str = "is the board plugged in, powered and not in use by another program?"

    def serves(self, board: Board) -> bool:
        """Whether the board's file says what this tool needs to know."""
        return getattr(board.flashing, self.name, None) not in (None, ())

    def installed(self) -> bool:
        """Whether one of its programs is on the path."""
        return find_program(self.programs) is not None

    def put(self, job: Job) -> None:
        """Run its command lines; see :class:`Tool`."""
        program = find_program(self.programs)
        if program is None:
            raise FlashError(f"{self.name} is not installed ({' or '.join(self.programs)})", hint=self.install)
        run_steps(self.name, self.steps(program, job), job.data, job.seconds, self.verdict, self.hint)

    def steps(self, program: str, job: Job) -> list[Step]:
        """The command lines, in order; ``job`` is for a board that this tool serves."""
        raise NotImplementedError

    def verdict(self, output: str) -> str | None:
        """What went wrong although the exit status was 0."""
        return None


@dataclass(frozen=True)
class Esptool(Program):
    """Espressif's chips through their boot ROM. It compares a hash of what it wrote; then all of it again."""

    name: str = "esptool"
    programs: tuple[str, ...] = ("esptool", "esptool.py")
    takes: tuple[Kind, ...] = ("bin",)
    install: str = "pip install esptool (a separate program under the GPL)"

    def steps(self, program: str, job: Job) -> list[Step]:
        """Write, then verify; the old spelling with underscores works in every version to 5."""
        assert job.board.flashing is not None and job.board.flashing.esptool is not None
        port = ("--port", job.port) if job.port else ()
        start = (program, "--chip", job.board.flashing.esptool.chip, *port, "--baud", "460800")
        place = (f"0x{job.address:x}", str(job.image))
        return [Step((*start, "write_flash", *place)), Step((*start, "verify_flash", *place))]


@dataclass(frozen=True)
class Pyocd(Program):
    """CMSIS-DAP, ST-Link and J-Link probes."""

    name: str = "pyocd"
    programs: tuple[str, ...] = ("pyocd",)
    takes: tuple[Kind, ...] = ("elf", "hex", "bin")
    install: str = "pip install pyocd"
    hint: str = "pyocd list shows the probes; for a target that it lacks: pyocd pack install NAME"

    def steps(self, program: str, job: Job) -> list[Step]:
        """Load, then read back."""
        assert job.board.flashing is not None and job.board.flashing.pyocd is not None
        common = ("--no-wait", "--target", job.board.flashing.pyocd, *(("--probe", job.probe) if job.probe else ()))
        place = ("--base-address", f"0x{job.address:x}") if job.kind == "bin" else ()
        load = Step((program, "load", *common, "--format", job.kind, *place, str(job.image)))
        save = f'savemem 0x{job.address:x} {len(job.data)} "{job.read_back}"'
        return [load, Step((program, "commander", *common, "-c", save, "-c", "reset"), job.read_back)]


@dataclass(frozen=True)
class Openocd(Program):
    """Probes and chips by OpenOCD's configuration files."""

    name: str = "openocd"
    programs: tuple[str, ...] = ("openocd",)
    takes: tuple[Kind, ...] = ("elf", "hex", "bin")
    install: str = "apt install openocd, or brew install open-ocd"

    def steps(self, program: str, job: Job) -> list[Step]:
        """Program, verify, reset."""
        assert job.board.flashing is not None
        files = [part for name in job.board.flashing.openocd for part in ("-f", name)]
        probe = ("-c", f"adapter serial {job.probe}") if job.probe else ()
        place = f" 0x{job.address:x}" if job.kind == "bin" else ""
        return [Step((program, *files, *probe, "-c", f"program {{{job.image}}}{place} verify reset exit"))]


@dataclass(frozen=True)
class DfuUtil(Program):
    """ST's boot ROM over USB: hold BOOT0 at reset."""

    name: str = "dfu"
    programs: tuple[str, ...] = ("dfu-util",)
    takes: tuple[Kind, ...] = ("bin",)
    install: str = "apt install dfu-util, or brew install dfu-util"
    hint: str = "is the board in its boot ROM (BOOT0 held at reset) and on the USB connector of the chip itself?"

    def steps(self, program: str, job: Job) -> list[Step]:
        """Download, then upload the same bytes again and start. Its status after a start says nothing."""
        assert job.board.flashing is not None and job.board.flashing.dfu is not None
        probe = ("--serial", job.probe) if job.probe else ()
        start = (program, "--device", job.board.flashing.dfu, "--alt", "0", *probe)
        place = f"0x{job.address:08x}"
        back = (*start, "--dfuse-address", f"{place}:{len(job.data)}:leave", "--upload", str(job.read_back))
        return [
            Step((*start, "--dfuse-address", place, "--download", str(job.image))),
            Step(back, job.read_back),
        ]


@dataclass(frozen=True)
class Jlink(Program):
    """SEGGER's probes, by J-Link Commander."""

    name: str = "jlink"
    programs: tuple[str, ...] = ("JLinkExe", "JLink")
    takes: tuple[Kind, ...] = ("bin",)
    install: str = "install the J-Link software of segger.com"

    def steps(self, program: str, job: Job) -> list[Step]:
        """One script: load, verify, start."""
        assert job.board.flashing is not None and job.board.flashing.jlink is not None
        script, place = job.scratch / "flash.jlink", f'"{job.image}", 0x{job.address:x}'
        script.write_text("\n".join(("r", "h", f"loadbin {place}", f"verifybin {place}", "r", "g", "qc", "")))
        probe = ("-SelectEmuBySN", job.probe) if job.probe else ()
        start = (program, "-NoGui", "1", "-ExitOnError", "1", "-AutoConnect", "1", *probe)
        device = ("-Device", job.board.flashing.jlink, "-If", "SWD", "-Speed", "4000")
        return [Step((*start, *device, "-CommandFile", str(script)))]

    def verdict(self, output: str) -> str | None:
        """It ends with 0 in many cases: only its own words count."""
        return None if re.search("verify successful", output, re.IGNORECASE) else "it did not say that it verified"


@dataclass(frozen=True)
class Gdb(Program):
    """Any gdb server: QEMU's, OpenOCD's, pyOCD's, J-Link's, Black Magic's over TCP."""

    name: str = "gdb"
    programs: tuple[str, ...] = ("gdb-multiarch", "arm-none-eabi-gdb")
    takes: tuple[Kind, ...] = ("elf",)
    install: str = "apt install gdb-multiarch, or the Arm toolchain of your vendor"
    hint: str = "does the gdb server listen there, and is no other gdb connected?"

    def serves(self, board: Board) -> bool:
        """It needs nothing but the server, of an Arm core."""
        return board.core.startswith("cortex")

    def steps(self, program: str, job: Job) -> list[Step]:
        """Load, compare, reset, let it run."""
        if job.probe is None:
            raise FlashError("gdb needs a server to load through", hint="give it as HOST:PORT")
        reset = "monitor system_reset" if job.board.emulator else "monitor reset"
        words = ("set tcp connect-timeout 3", f"target remote {job.probe}", "load", "compare-sections", reset, "detach")
        commands = [part for command in words for part in ("-ex", command)]
        return [Step((program, "-nx", "-iex", "set auto-load off", "-batch", *commands, str(job.image)))]

    def verdict(self, output: str) -> str | None:
        """Its exit status says little, and without a server it compares the file with itself."""
        refused = re.search(
            r"^.*(?:Connection (?:refused|timed out)|Remote connection closed|not resolve).*$", output, re.M
        )
        if refused:
            return refused.group().strip().rstrip(".")
        wrong = re.findall(r"^Section (\S+), .*MIS-MATCHED", output, re.MULTILINE)
        if wrong:
            return f"the board holds something else in {', '.join(wrong)} after the load"
        if "Transfer rate:" not in output or not re.search(r"^Section .*: matched\.", output, re.MULTILINE):
            return "it loaded nothing"
        return None


@dataclass(frozen=True)
class Uf2:
    """Boot loaders that show up as a drive; no program is needed."""

    name: str = "uf2"
    takes: tuple[Kind, ...] = ("uf2",)

    def serves(self, board: Board) -> bool:
        """Whether the family is known."""
        return board.flashing is not None and board.flashing.uf2 is not None

    def installed(self) -> bool:
        """Always."""
        return True

    def put(self, job: Job) -> None:
        """Copy to the drive; see :class:`Tool`. The boot loader checks each block and restarts after the last."""
        assert job.board.flashing is not None and job.board.flashing.uf2 is not None
        copy_to_volume(job.image, job.board.flashing.uf2.board, Path(job.probe) if job.probe else None)


TOOLS: dict[str, Tool] = {tool.name: tool for tool in (Pyocd(), Openocd(), Jlink(), Esptool(), DfuUtil(), Uf2(), Gdb())}
