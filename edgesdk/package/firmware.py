"""Microcontrollers: the bundle's CMake project with its memory map, its protocol and what is known of the boards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..boards import Board, boards_with, microcontroller_dir, open_board
from ..bundle import Bundle, Manifest
from ..devices.flash.build import firmware_project
from ..partials import scratch_folder
from ..progress import Progress
from ..targets import open_target
from .base import PackageError, Written
from .escaping import markdown
from .memory_map import Region, regions
from .templates import fill


@dataclass(frozen=True)
class FirmwareOptions:
    """What may be chosen about a firmware project.

    Attributes:
        board: build the firmware for it, one that the project has a port for (QEMU's), with its memory map; needs CMake
            and Arm's compiler.
    """

    board: str | None = None


class Firmware:
    """See :class:`~.base.Deliverable`."""

    description = "CMake project for microcontrollers, with memory map, UART protocol and boards"
    options = FirmwareOptions

    def check(self, manifest: Manifest, options: FirmwareOptions) -> None:
        if "firmware" not in manifest.program.facts:
            raise PackageError(
                f"this bundle is for {manifest.target.name}, which has no firmware",
                hint="edgesdk export MODEL --target cortex-m4f",
            )
        if options.board is None:
            return
        board, facts = open_board(options.board), manifest.program.facts
        if board.core not in open_target(manifest.target.name).cores:
            raise PackageError(
                f"{board.name} has a {board.core}, and the bundle is for {manifest.target.name}",
                hint=f"a board of this core: {', '.join(each.name for each in _boards(manifest))}",
            )
        if facts["form"] == "tflm":
            raise PackageError(
                "this firmware needs TensorFlow Lite Micro's sources, so it is built by you (-DTFLM_DIR)",
                hint="leave out board",
            )

    def write(self, bundle: Bundle, options: FirmwareOptions, folder: Path, progress: Progress) -> Written:
        manifest = bundle.manifest
        facts = manifest.program.facts
        shutil.copytree(firmware_project(bundle), folder / "firmware")
        (folder / "boards").mkdir()
        known = _boards(manifest)
        for board in known:
            name = f"{board.name}.toml"
            shutil.copyfile(microcontroller_dir() / "boards" / name, folder / "boards" / name)
        built = _build(bundle, open_board(options.board), folder, progress) if options.board else None
        fill(
            microcontroller_dir() / "app",
            folder,
            {
                "model": manifest.model.name,
                "edgesdk_version": __version__,
                "digest": manifest.digest[:16],
                "target": manifest.target.name,
                "form": facts["form"],
                "board": options.board,
                "built": built.relative_to(folder).as_posix() if built else None,
            },
        )
        found = regions(built / "firmware.elf") if built else None
        text = "".join(_memory(manifest, known, options.board, found))
        (folder / "MEMORY.md").write_text(text, encoding="utf-8", newline="\n")
        holding = [board.name for board in known if _fit(facts, board)[2]]
        return Written(
            {"form": facts["form"], "boards": ", ".join(holding) or "none of those that are known"},
            (),
            ("cmake -S firmware -B build -DBOARD=mps2-an386 && cmake --build build",) if not built else (),
        )


def _boards(manifest: Manifest) -> list[Board]:
    """Real boards of the bundle's cores that the export knew."""
    known = manifest.program.facts["boards"]
    found = [board for core in open_target(manifest.target.name).cores for board in boards_with(core)]
    return [board for board in found if board.name in known]


def _build(bundle: Bundle, board: Board, folder: Path, progress: Progress) -> Path:
    from ..devices.flash.build import build_firmware

    with scratch_folder() as scratch:
        elf = build_firmware(bundle, board, scratch, progress=progress)
        out = folder / "built" / board.name
        out.mkdir(parents=True)
        for name in ("firmware.elf", "firmware.bin"):
            shutil.copy(elf.with_name(name), out / name)
    return out


def _fit(facts: Mapping[str, Any], board: Board) -> tuple[int, int, bool | None]:
    """Flash and RAM needed on a board, and whether it has them; None where code comes on top that nobody linked."""
    needed = facts["boards"][board.name]
    return needed["flash"], needed["ram"], needed["fits"]


def _memory(manifest: Manifest, known: list[Board], built_for: str | None, found: list[Region] | None) -> Iterator[str]:
    facts = manifest.program.facts
    yield f"# Memory of {markdown(manifest.model.name)}\n\nContext {manifest.context} tokens; sizes in bytes.\n\n"
    yield "## What the model takes\n\n| memory | what | bytes |\n| --- | --- | --- |\n"
    if facts["form"] == "c99":
        yield f"| flash | weights and tables (`model_image`) | {facts['image'] - facts['tokenizer']:,} |\n"
        yield f"| flash | tokenizer | {facts['tokenizer']:,} |\n"
        yield f"| RAM | keys and values at full context | {facts['ram']['kv_cache']:,} |\n"
        yield f"| RAM | a token's work | {facts['ram']['work']:,} |\n"
    else:
        yield f"| flash | program (`model_image`) | {manifest.memory.program:,} |\n"
        yield f"| RAM | arena | {facts['arena_bytes']:,} |\n"
    yield "\n## Boards\n\nWith code, runner and stack.\n\n"
    yield "| board | flash needed | of | RAM needed | of | fits |\n| --- | --- | --- | --- | --- | --- |\n"
    for board in known:
        flash, ram, fits = _fit(facts, board)
        verdict = {True: "yes", False: "no", None: "if TFLM's code fits too"}[fits]
        yield f"| {board.name} | {flash:,} | {board.flash:,} | {ram:,} | {board.ram:,} | {verdict} |\n"
    if found is not None:
        yield f"\n## Built for {built_for}\n\nSections of `firmware.elf`, as the linker placed them.\n\n"
        yield "| section | address | bytes | in |\n| --- | --- | --- | --- |\n"
        for region in found:
            yield f"| `{region.name}` | `0x{region.address:08x}` | {region.size:,} | {region.memory} |\n"


DELIVERABLE = Firmware()
