"""Flash one firmware file with one of the tools."""

from __future__ import annotations

import re
from pathlib import Path

from ...boards import Board
from ...lines import shown_line
from ...partials import scratch_folder
from ...progress import SILENT, Progress
from ...registry import unknown
from ..hosts import place_of
from . import FlashError
from .images import Image, Kind, family_of, kind_of, read_image, to_uf2
from .tools import TOOLS, Job, Tool

_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")


def tools_for(board: Board) -> list[str]:
    """Names of the tools that a board's file says enough for; gdb needs only a server."""
    return [name for name, tool in TOOLS.items() if tool.serves(board)]


def flash_with(
    firmware: Path,
    board: Board,
    tool: str | None = None,
    *,
    port: str | None = None,
    probe: str | None = None,
    seconds: float = 300,
    progress: Progress = SILENT,
) -> str:
    """Write a firmware to a board with a tool, and verify it.

    Args:
        firmware: ELF, Intel HEX, UF2 or flat binary; converted to what the tool takes.
        board: what it is for.
        tool: a name in ``TOOLS``; None takes the first that is installed and that the board's file describes.
        port: serial port, for esptool.
        probe: serial number of the debug probe; HOST:PORT for gdb; the drive's folder for uf2.
        seconds: until a program that still runs is ended.
        progress: told about the work.

    Returns:
        the name of the tool.

    Raises:
        FlashError: no such tool or none for this board, a firmware that does not fit, or the tool failed.
    """
    chosen = _chosen(tool, board)
    _refuse_scripts(firmware, chosen, probe)
    with scratch_folder() as scratch:
        job = _job(firmware, board, chosen, scratch, port, probe, seconds)
        with progress.stage(f"Flashing with {chosen.name}"):
            chosen.put(job)
    return chosen.name


def _refuse_scripts(firmware: Path, tool: Tool, probe: str | None) -> None:
    """Tools read probe and path as words of a script of their own, in which brackets and bars run commands.

    Raises:
        FlashError: one of them is more than a word.
    """
    if probe is not None and tool.name == "gdb" and ((place := place_of(probe)) is None or place.user):
        raise FlashError(f"'{shown_line(probe)}' is no gdb server", hint="give it as HOST:PORT")
    if probe is not None and tool.name not in ("gdb", "uf2") and not _SERIAL.fullmatch(probe):
        raise FlashError(f"'{shown_line(probe)}' is no serial number of a debug probe", hint="letters, digits, . _ : -")
    path = str(firmware.resolve())
    if tool.name != "uf2" and (not path.isprintable() or set('{}[]"$\\;').intersection(path)):
        raise FlashError(
            f"{shown_line(path)}: {tool.name} cannot be given this path", hint="copy the file to a plain one"
        )


def _chosen(name: str | None, board: Board) -> Tool:
    if name is not None and name not in TOOLS:
        raise FlashError(unknown("flash tool", name, TOOLS))
    known = tools_for(board)
    if name is not None:
        if name not in known:
            raise FlashError(
                f"what {name} needs to know about {board.name} is not in its file; there are: {', '.join(known)}",
                hint="use the vendor's own tool, or add it to [flashing] in the board's file",
            )
        return TOOLS[name]
    described = [each for each in known if each != "gdb"]
    for each in described:
        if TOOLS[each].installed():
            return TOOLS[each]
    if not described:
        raise FlashError(
            f"no flash tool is described for {board.name}",
            hint="use the vendor's own tool, or a gdb server: gdb:HOST:PORT",
        )
    raise FlashError(f"none of the tools for {board.name} is installed: {', '.join(described)}", hint="install one")


def _job(
    firmware: Path, board: Board, tool: Tool, scratch: Path, port: str | None, probe: str | None, seconds: float
) -> Job:
    kind = kind_of(firmware)
    image = read_image(firmware)
    address = _address(image, board, tool)
    if kind == "uf2" and tool.name == "uf2":
        _same_family(firmware, board)
    path, given = _converted(firmware.resolve(), kind, Image(address, image.data), board, tool, scratch)
    return Job(path, given, address, image.data, board, scratch, port, probe, seconds)


def _converted(firmware: Path, kind: Kind, image: Image, board: Board, tool: Tool, scratch: Path) -> tuple[Path, Kind]:
    if kind in tool.takes:
        return firmware, kind
    if "bin" in tool.takes and tool.name != "esptool":
        path = scratch / "firmware.bin"
        path.write_bytes(image.data)
        return path, "bin"
    if "uf2" in tool.takes and board.flashing is not None and board.flashing.uf2 is not None:
        path = scratch / "firmware.uf2"
        path.write_bytes(to_uf2(image, board.flashing.uf2.family))
        return path, "uf2"
    raise FlashError(
        f"{tool.name} takes {' and '.join(tool.takes)} files, and {firmware.name} is {kind}",
        hint="give the other file of the build",
    )


def _address(image: Image, board: Board, tool: Tool) -> int:
    """Where the first byte goes; the whole must lie in the board's flash."""
    if tool.name == "esptool" and board.flashing is not None and board.flashing.esptool is not None:
        return board.flashing.esptool.offset
    origin = board.flash_origin
    address = origin if image.address is None else image.address
    if address is None:
        raise FlashError(
            f"where a flat binary goes on {board.name} is not known", hint="give the ELF file of the build"
        )
    if origin is None:
        return address
    end = origin + board.flash
    if not origin <= address < end:
        raise FlashError(
            f"the firmware is linked for 0x{address:08x}, and the flash of {board.name} is at 0x{origin:08x} to "
            f"0x{end - 1:08x}",
            hint="build it for this board",
        )
    if address + len(image.data) > end:
        raise FlashError(
            f"the firmware takes {len(image.data):,} bytes, and {board.name} has {end - address:,} for it",
            hint="export with a smaller recipe or a smaller model: `edgesdk fit` says what fits",
        )
    return address


def _same_family(firmware: Path, board: Board) -> None:
    assert board.flashing is not None and board.flashing.uf2 is not None
    family, wanted = family_of(firmware.read_bytes()), board.flashing.uf2.family
    if family is not None and family != wanted:
        raise FlashError(
            f"the UF2 file is of family 0x{family:08x}, and {board.name} takes 0x{wanted:08x}", hint="give the ELF file"
        )
