"""Firmware over the UART, through the loader in ``targets/cortex-m/loader``."""

from __future__ import annotations

import zlib
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import cast

from ...progress import SILENT, Progress
from . import FlashError
from .images import Image, check_vectors
from .loader import Hello, Loader, LostError, Port
from .proofs import Proof

_BLANK = b"\xff"
_SUMS_AT_ONCE = 64
_ROUNDS = 3  # of writing what differs


@dataclass(frozen=True)
class Loaded:
    """What a load did.

    Attributes:
        board: the name that the loader gave.
        size: bytes of the firmware.
        written: bytes that were sent because flash held something else.
        line_bytes: bytes that went over the line, both ways, all of the protocol included.
        started: whether the loader confirmed the start.
    """

    board: str
    size: int
    written: int
    line_bytes: int
    started: bool


def load_over_uart(
    port: Port | str,
    image: Image | bytes,
    *,
    board: str | None = None,
    read_back: bool = False,
    start: bool = True,
    baud: int = 115200,
    wait: float = 8,
    proof: Proof | None = None,
    progress: Progress = SILENT,
) -> Loaded:
    """Send a firmware to a board that has the loader, verify it in flash, and start it.

    Blocks that flash holds already are not sent: after a cut, the next call goes on where this one was. The board
    starts nothing that is not whole.

    Args:
        port: an open pyserial port, or its name or URL (``/dev/ttyACM0``, ``socket://host:port``, ``rfc2217://...``).
        image: the flat firmware, linked for the place behind the loader.
        board: what the loader must call itself; None takes any.
        read_back: also compare every byte, not only the CRC-32 that the loader computes from flash.
        start: whether to start it in the end.
        baud: bits per second of the line.
        wait: seconds for the loader to answer; time to press reset.
        proof: vouches for the firmware, to a loader that has a key.
        progress: told about the bytes sent.

    Raises:
        FlashError: nobody answers, another board, a firmware that is too large or linked for another address, no proof
            for a loader that has a key, or one for a loader that has none, an older firmware than it had, a line
            that loses everything, flash that does not take it.
        DeviceError: the port is missing or busy.
    """
    with _opened(port, baud) as line:
        name = port if isinstance(port, str) else str(getattr(port, "name", None) or "the UART")
        loader = Loader(line, name, baud)
        hello = loader.connect(wait)
        _refuse_unproven(hello, name, proof)
        data = _checked(image, hello, board)
        crc = zlib.crc32(data)
        written = 0
        if not (hello.whole and (hello.size, hello.crc) == (len(data), crc)):
            written = _written(loader, hello, data, progress)
        if read_back:
            _compare(loader, hello, data, progress)
        if written or proof or not hello.whole or (hello.size, hello.crc) != (len(data), crc):
            loader.commit(len(data), crc, proof.of(data) if proof else b"")
        started = start and _started(loader, progress)
        return Loaded(hello.board, len(data), written, loader.sent + loader.received, started)


def _refuse_unproven(hello: Hello, name: str, proof: Proof | None) -> None:
    if hello.newest is not None and proof is None:
        raise FlashError(
            f"{name}: the board's loader takes only firmware of a signed bundle",
            hint="loader_key = in devices.toml names the file of its key, and edgesdk keys pin the bundle's",
        )
    if proof is not None and hello.newest is not None and proof.version < hello.newest:
        raise FlashError(
            f"{name}: the firmware has version {proof.version}, and the board had {hello.newest} already",
            hint=f"to go back on purpose, sign the bundle again with --version {hello.newest} or more",
        )
    if proof is not None and hello.newest is None:
        raise FlashError(
            f"{name}: the board's loader has no key, and would start any firmware",
            hint="put a loader with the key there, with a debug probe: cmake -DLOADER=ON -DLOADER_KEY=FILE",
        )


def _opened(port: Port | str, baud: int) -> closing[Port] | nullcontext[Port]:  # type: ignore[type-var]
    if not isinstance(port, str):
        return nullcontext(port)
    from ..address import Settings
    from ..serial import SerialDevice

    address = f"serial:{port}" if "@" in port.rpartition("/")[2] else f"serial:{port}@{baud}"
    return closing(cast(Port, SerialDevice(address, Settings(address)).port()))  # type: ignore[type-var]


def _checked(image: Image | bytes, hello: Hello, board: str | None) -> bytes:
    """The firmware in whole words, when it is for this board and place."""
    data, address = (image, None) if isinstance(image, bytes) else (image.data, image.address)
    if board is not None and hello.board != board[:12]:
        raise FlashError(
            f"the board is a {hello.board}, and the firmware is for {board}", hint="is this the right port?"
        )
    data += _BLANK * (-len(data) % 4)
    check_vectors(data, hello.origin, hello.room, hello.ram)
    if address is not None and address != hello.origin:
        raise FlashError(
            f"the firmware is linked for 0x{address:08x}, and the loader takes one for 0x{hello.origin:08x}",
            hint="build it with -DLOADER=ON",
        )
    return data


def _written(loader: Loader, hello: Hello, data: bytes, progress: Progress) -> int:
    """Make flash hold the data; returns the bytes that were sent for it."""
    sent = 0
    for _ in range(_ROUNDS):
        wrong = _differing(loader, hello, data)
        units = sorted({block * hello.block // _unit(hello) for block in wrong})
        with progress.stage("Loading over the UART", len(units) * _unit(hello)) as stage:
            for unit in units:
                sent += _write_unit(loader, hello, data, unit, wrong)
                stage.advance(_unit(hello))
        if loader.total(len(data)) == zlib.crc32(data):
            return sent
    raise FlashError(
        "the board's flash never holds what was sent: its checksum is wrong after every attempt",
        hint="it is protected or worn out",
    )


def _differing(loader: Loader, hello: Hello, data: bytes) -> dict[int, int]:
    """Blocks whose flash is not the data, and the CRC-32 of what flash holds there."""
    count = -(-len(data) // hello.block)
    found: list[int] = []
    while len(found) < count:
        found += loader.sums(len(found), min(_SUMS_AT_ONCE, count - len(found)), hello.block)
    return {block: crc for block, crc in enumerate(found) if crc != zlib.crc32(_block(data, block, hello.block))}


def _write_unit(loader: Loader, hello: Hello, data: bytes, unit: int, wrong: dict[int, int]) -> int:
    """Erase and write one page, or one block where that is larger; no erase where only blank blocks are missing."""
    size = _unit(hello)
    blocks = range(unit * size // hello.block, (unit + 1) * size // hello.block)
    chosen = [block for block in blocks if block in wrong]
    blank = zlib.crc32(_BLANK * hello.block)
    if any(wrong[block] != blank for block in chosen):
        loader.erase(unit * size, size, hello.page)
        chosen = list(blocks)
    sent = 0
    for block in chosen:
        piece = _block(data, block, hello.block)
        if piece.strip(_BLANK):
            loader.write(block * hello.block, piece)
            sent += len(piece)
    return sent


def _compare(loader: Loader, hello: Hello, data: bytes, progress: Progress) -> None:
    with progress.stage("Reading back", len(data)) as stage:
        for at in range(0, len(data), hello.block):
            wanted = data[at : at + hello.block]
            if loader.read(at, len(wanted)) != wanted:
                raise FlashError(f"flash differs from the firmware after byte {at:,}", hint="flash it again")
            stage.advance(len(wanted))


def _started(loader: Loader, progress: Progress) -> bool:
    """A start whose confirmation was lost cannot be asked about: the loader is gone then."""
    try:
        loader.boot()
    except LostError:
        progress.note("the board did not confirm the start: reset it if it does not answer")
        return False
    return True


def _unit(hello: Hello) -> int:
    return max(hello.page, hello.block)


def _block(data: bytes, number: int, size: int) -> bytes:
    return data[number * size : (number + 1) * size].ljust(size, _BLANK)
