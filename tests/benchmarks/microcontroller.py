"""A model on microcontrollers: perplexity in the runtime itself, flash, RAM, and emulated instructions a token.

    python tests/benchmarks/microcontroller.py MODEL TEXT [--context 256] [--documents 12]

TFLite-Micro runs in its host wheel; the C99 form in its Python double, whose logits are the firmware's bit for bit, and
in QEMU (qemu-system-arm, arm-none-eabi-gcc, cmake) for tokens and instructions. No time is measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zlib
from pathlib import Path

import edgesdk
from edgesdk.compress import quality
from edgesdk.compress.recording import window_loss
from edgesdk.model import Model
from edgesdk.model.reference import ReferenceModel
from edgesdk.passages.cutting import file_windows
from edgesdk.passages.passage import Passage
from edgesdk.progress import SILENT
from edgesdk.runner_lines import tokens_command

sys.path.insert(0, str(Path(__file__).parents[2]))
from device_tests.cortex_m.lab import BOARDS, build, running, sections

FORMS = [
    ("c99", "w8"),
    ("c99", "w4g32"),
    ("c99", "w4g32-e4"),
    ("tflm", "none"),
    ("tflm", "w8"),
    ("tflm", "w8-a16-kv8"),
    ("tflm", "w8t"),
    ("tflm", "w8t-a16"),
    ("tflm", "w4"),
    ("tflm", "w4-a16-kv8"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--documents", type=int, default=12)
    options = parser.parse_args()
    model = edgesdk.open_model(options.model)
    windows = file_windows(model.tokenizer, options.text, options.documents, context=options.context)
    loss = quality.reference_loss(ReferenceModel(model), windows, SILENT)
    print(f"float32 {quality.perplexity_of(loss, windows):.4f} ({sum(len(window.ids) for window in windows)} tokens)")
    with tempfile.TemporaryDirectory() as scratch:
        for delegate, recipe in FORMS:
            folder = Path(scratch) / f"{delegate}-{recipe}" / "bundle"
            report(model, windows, delegate, recipe, options.context, folder)


def report(model: Model, windows: list[Passage], delegate: str, recipe: str, context: int, folder: Path) -> None:
    """Print what one form of the model gives."""
    folder.parent.mkdir()
    manifest = edgesdk.export(
        model,
        "cortex-m4f",
        folder,
        recipe=recipe,
        context=context,
        delegate=delegate,
        checks=edgesdk.Checks(skip=True),
    )
    with edgesdk.open_bundle(folder) as bundle:
        session = edgesdk.open_session(bundle)
        loss = sum(window_loss(session, window) for window in windows)
        facts, program = manifest.program.facts, bundle.main.stat().st_size
        ram = facts["arena_bytes"] if delegate == "tflm" else sum(facts["ram"].values())
        ppl = quality.perplexity_of(loss, windows)
        print(f"{delegate:5} {recipe:12} perplexity {ppl:.4f}  program {program:,} B  arena {ram:,} B", flush=True)
        if delegate == "c99":
            on_boards(folder, windows[0].ids[:5], context)


def on_boards(folder: Path, prompt: list[int], context: int) -> None:
    """Greedy tokens on every emulated core, against the double; instructions a token over the whole context."""
    count = context - len(prompt)
    with edgesdk.open_bundle(folder) as bundle:
        session = edgesdk.open_session(bundle)
    logits, wanted = session.prefill(prompt), []
    for _ in range(count):
        wanted.append((int(logits.argmax()), f"{zlib.crc32(logits.astype('<f4').tobytes()):08x}"))
        logits = session.decode(wanted[-1][0])
    for board in BOARDS:
        elf = build(folder / "firmware", board)
        with running(elf, board) as runner:
            runner.event()
            events = runner.answer(tokens_command(prompt, new_tokens=count))
        tokens = [event for event in events if event["event"] == "token"]
        same = [(event["id"], event["logits"]) for event in tokens] == wanted[: len(tokens)]
        ticks = [event["ticks"] for event in tokens[:-1]]
        each = runner.instructions(1) * sum(ticks) / max(1, len(ticks))
        sizes = sections(elf)
        print(
            f"      {board:11} {runner.board.core:10} {len(tokens)} tokens, logits {'equal' if same else 'DIFFER'}; "
            f"{each / 1e6:.2f} M instructions a token; flash {sizes['.text'] + sizes.get('.data', 0):,} B, static RAM "
            f"{sizes['.bss'] + sizes.get('.data', 0):,} B",
            flush=True,
        )


if __name__ == "__main__":
    main()
