"""Builds the firmware project of a bundle for one board, with CMake and Arm's compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ...boards import Board
from ...bundle import Bundle
from ...progress import SILENT, Progress
from . import FlashError
from .foreign import refuse_foreign

_TOOLS = {"cmake": "cmake", "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi"}


def firmware_project(bundle: Bundle) -> Path:
    """The folder of a bundle's firmware project.

    Raises:
        FlashError: the bundle has none.
    """
    named = bundle.manifest.program.facts.get("firmware")
    files = [entry.path for entry in bundle.manifest.files]
    if not isinstance(named, str) or not any(path.startswith(f"{named}/") for path in files):
        raise FlashError(
            "this bundle has no firmware: it is not for microcontrollers", hint="edgesdk push puts it on a board"
        )
    return bundle.folder / named


def build_firmware(
    bundle: Bundle, board: Board, folder: Path, *, loader: bool = False, progress: Progress = SILENT
) -> Path:
    """The ELF file of a bundle's firmware.

    Args:
        bundle: for microcontrollers.
        board: one that the bundle's project has a port for.
        folder: where it is built; ``loader.elf`` is there too with ``loader``.
        loader: build it to lie behind the UART loader.
        progress: told about the work.

    Raises:
        FlashError: the bundle has no firmware, or one that is neither edgesdk's own nor trusted; the project has no
            port for the board; a tool is missing, or it fails.
    """
    project = firmware_project(bundle)
    refuse_foreign(project, bundle.folder)
    ports = sorted(path.stem for path in (project / "boards").glob("*.cmake"))
    if board.name not in ports:
        raise FlashError(
            f"the bundle's firmware has no port for {board.name}; there are: {', '.join(ports)}",
            hint="build it in your board's own project (firmware/README.md), and give that: --firmware ELF",
        )
    for name, package in _TOOLS.items():
        if shutil.which(name) is None:
            raise FlashError(f"{name} is not installed, which builds the firmware", hint=f"apt-get install {package}")
    options = [f"-DBOARD={board.name}", f"-DLOADER={'ON' if loader else 'OFF'}"]
    with progress.stage(f"Building the firmware for {board.name}"):
        for command in (
            ["cmake", "-S", str(project), "-B", str(folder), *options],
            ["cmake", "--build", str(folder), "--parallel", "2"],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                words = [line for line in (done.stdout + done.stderr).splitlines() if "error" in line.lower()]
                reason = words[0].strip() if words else f"{command[0]} failed"
                raise FlashError(
                    f"the firmware does not build: {reason}", hint=f"see for yourself: {' '.join(command)}"
                )
    return folder / "firmware.elf"
