"""Drives of UF2 boot loaders: found by their INFO_UF2.TXT, and written by copying."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from . import FlashError

INFO = "INFO_UF2.TXT"
PLACES = (Path("/media"), Path("/run/media"), Path("/Volumes"))
_BOOT = "hold the board's BOOT button while plugging it in, and mount the drive that appears"


def find_volumes(places: Iterable[Path] = PLACES) -> list[Path]:
    """Mounted UF2 drives: ``/media/NAME``, ``/media/USER/NAME`` and so on."""
    return [folder for place in places for folder in _below(place) if (folder / INFO).is_file()]


def copy_to_volume(image: Path, board: str, volume: Path | None = None, places: Iterable[Path] = PLACES) -> None:
    """Copy a UF2 file to the drive of one board.

    Args:
        image: the file.
        board: what the drive's INFO_UF2.TXT must name.
        volume: the drive; None finds it.
        places: folders in which drives are mounted.

    Raises:
        FlashError: no such drive, more than one, another board's, or it does not take the file.
    """
    chosen = [volume] if volume is not None else [each for each in find_volumes(places) if board in _info(each)]
    if not chosen:
        others = ", ".join(str(each) for each in find_volumes(places))
        found = f"; there is {others}, of another board" if others else ""
        raise FlashError(f"no UF2 drive of a board '{board}' is mounted{found}", hint=_BOOT)
    if len(chosen) > 1:
        named = ", ".join(map(str, chosen))
        raise FlashError(f"there are several UF2 drives: {named}", hint="give the folder of the one you mean")
    folder = chosen[0]
    if not (folder / INFO).is_file():
        raise FlashError(f"{folder} is no UF2 drive: it has no {INFO}", hint=_BOOT)
    if board not in _info(folder):
        raise FlashError(f"the UF2 drive {folder} is not of a board '{board}'", hint=f"look into its {INFO}")
    _copy(image.read_bytes(), folder, image.name)


def _copy(data: bytes, folder: Path, name: str) -> None:
    """The board restarts when it has the last block: a drive that vanishes after all was written is no failure."""
    written = False
    try:
        with (folder / name).open("wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            written = True
            os.fsync(file.fileno())
    except OSError as failure:
        if written and not (folder / INFO).is_file():
            return
        reason = failure.strerror or failure
        raise FlashError(f"the UF2 drive {folder} did not take the file: {reason}", hint=_BOOT) from None


def _below(place: Path) -> Iterator[Path]:
    for pattern in ("*", "*/*"):
        try:
            yield from sorted(place.glob(pattern))
        except OSError:  # somebody else's
            continue


def _info(folder: Path) -> str:
    try:
        return (folder / INFO).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
