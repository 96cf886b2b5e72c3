"""Pruned models of SmolLM2: perplexity before and after recovery, program size, decode speed against the whole model.

    python tests/benchmarks/pruning.py TEST_TEXT CORPUS [RECIPE ...]

Each recipe (``w16-depth75`` and such) makes a checkpoint, with CORPUS as calibration text. Perplexity is that of the
float32 reference over it, on the first 6 windows of 512 tokens of WikiText-2's test split, for each token of the whole
model. The checkpoint is then exported with w4g32 for ONNX Runtime and ExecuTorch, and decodes in turns with the whole
model's program: 64 tokens after a prompt of 128, the median of 7 turns, and the median of the ratios.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import measured
from compression import in_child

TARGETS = ("linux-x86_64", "host")
RECIPES = ("w16-depth75", "w16-depth75-heal25", "w16-width75", "w16-width75-heal25", "w16-hidden75", "w16-vocab")
PROMPT, NEW, TURNS = 128, 64, 7


def decode_rates(folders: list[str], queue: multiprocessing.Queue) -> None:
    """Tokens a second of each bundle, turn by turn."""
    import edgesdk
    from edgesdk.chat import open_session

    sessions = [open_session(edgesdk.open_bundle(folder).__enter__()) for folder in folders]
    rates: list[list[float]] = [[] for _ in sessions]
    for turn in range(TURNS + 1):
        for session, found in zip(sessions, rates, strict=True):
            session.reset()
            session.prefill([10 + index % 50 for index in range(PROMPT)])
            start = time.perf_counter()
            for token in range(NEW):
                session.decode(10 + token)
            if turn:
                found.append(NEW / (time.perf_counter() - start))
    queue.put(rates)


def export(source: str, target: str, out: Path) -> float:
    """Export with w4g32; returns the size of the program in MB."""
    command = [sys.executable, "-m", "edgesdk", "export", source, "-t", target, "-r", "w4g32", "-o", str(out)]
    measured([*command, "--skip-checks"])
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6


def speeds(whole: Path, pruned: Path) -> tuple[float, float, float]:
    """Median tokens a second of both, and the median of the ratios."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=decode_rates, args=([str(whole), str(pruned)], queue))
    process.start()
    before, after = queue.get()
    process.join()
    ratio = statistics.median(b / a for a, b in zip(before, after, strict=True))
    return statistics.median(before), statistics.median(after), ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        sizes = {target: export("smollm2-135m", target, scratch / target) for target in TARGETS}
        print("whole: " + ", ".join(f"{target} bundle {size:.1f} MB" for target, size in sizes.items()), flush=True)
        for recipe in chosen.recipes:
            out = scratch / recipe
            command = [sys.executable, "-m", "edgesdk", "compress", "smollm2-135m", "-r", recipe, "-o", str(out)]
            cpu, peak = measured([*command, "--skip-checks", "--calibration", str(chosen.corpus)])
            perplexity, divergence = in_child(out, chosen.text)
            costs = f"{cpu / 60:.1f} CPU minutes, peak {peak:.0f} MB"
            print(f"{recipe}: perplexity {perplexity:.2f}, KL {divergence:.3f}, {costs}", flush=True)
            for target in TARGETS:
                size = export(str(out), target, scratch / f"{recipe}-{target}")
                before, after, ratio = speeds(scratch / target, scratch / f"{recipe}-{target}")
                rates = f"decode {before:.1f} -> {after:.1f} tokens/s"
                print(f"  {target}: bundle {size:.1f} MB, {rates}, ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
