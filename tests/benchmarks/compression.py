"""What every pass costs and gives on SmolLM2: perplexity, KL divergence, size, CPU minutes and peak memory, as a table.

    python tests/benchmarks/compression.py TEST_TEXT [--calibration TEXT] [--target T] [--sparse | RECIPE ...]

TEST_TEXT is WikiText-2's test split in its tokenised form: the first 6 windows of 512 tokens are scored in the float32
reference over the compressed weights. Calibration text is the model's own, or a file. Each recipe runs in a process of
its own (``edgesdk compress``), for what every target holds, or for one target.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import measured

#: Passes, and pairs of passes worth having, at 4, 3 and 2 bits; 8-bit embedding.
RECIPES = (
    *("w4g32", "w4g32-hqq", "w4g32-awq", "w4g32-gptq", "w4g32-rotv-gptq", "w4g32-gptq-rec", "w4g32-gptq-qat"),
    *("w4g32-gptq@5.9bpw", "w4g32-gptq-qat@5.9bpw"),
    *("w3g32", "w3g32-awq", "w3g32-gptq", "w3g32-gptq-qat"),
    *("w2g32", "w2g32-gptq", "w2g32-gptq-qat"),
)
#: Zeros, with the linear weights in float and rounded.
SPARSE = (
    *("w16-magnitude50", "w16-wanda50", "w16-admm50", "w16-sparsegpt50"),
    *("w16-magnitude2:4", "w16-wanda2:4", "w16-admm2:4", "w16-sparsegpt2:4"),
    *("w4g32-wanda50-gptq", "w4g32-sparsegpt50", "w4g32-sparsegpt2:4"),
)


def score(folder: Path, text: Path) -> tuple[float, float]:
    """Perplexity, and mean KL divergence from the float model, nats a token.

    With fewer tokens in the vocabulary the same text is written with more: perplexity is then that of a token of
    the float model, and the divergence is that over the tokens that are left.
    """
    import torch
    import torch.nn.functional as F

    import edgesdk
    from edgesdk.compress.quality import perplexity_of
    from edgesdk.compress.recording import row_slices
    from edgesdk.model.reference import ReferenceModel
    from edgesdk.model.vocabulary import in_vocabulary_of
    from edgesdk.passages.cutting import behind, file_windows
    from edgesdk.passages.passage import Passage

    original, made = edgesdk.open_model("smollm2-135m"), edgesdk.open_model(folder)
    windows = scored = file_windows(original.tokenizer, text, 6, context=original.spec.context)
    if made.spec.vocab != original.spec.vocab:
        ids = [made.tokenizer.encode(original.tokenizer.decode(window.text)) for window in windows]
        front = len(made.tokenizer.special.prefix)
        scored = [Passage(behind(made.tokenizer, text), front, front) for text in ids]
    original = in_vocabulary_of(original, made)
    sides = [ReferenceModel(model, resident=False) for model in (original, made)]
    runs = [torch.tensor([window.ids]) for window in scored]
    states = [[x[0] for x in side.hidden(runs)] for side in sides]
    loss = divergence = 0.0
    with torch.inference_mode():
        for window, wanted, found in zip(scored, *states, strict=True):
            counted = (wanted[window.first :], found[window.first :])
            for rows in row_slices(len(window.scored)):
                p, q = (F.log_softmax(side.logits(x[rows]), -1) for side, x in zip(sides, counted, strict=True))
                loss += float(F.nll_loss(q, torch.tensor(window.scored[rows]), reduction="sum"))
                divergence += float((p.exp() * (p - q)).sum())
    return perplexity_of(loss, windows), divergence / sum(len(window.scored) for window in scored)


def table(recipes: Sequence[str], text: Path, options: list[str]) -> None:
    """Print a row for each recipe as it is done."""
    print("| recipe | perplexity | KL | weights | CPU minutes | peak memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        for recipe in recipes:
            out = Path(scratch) / "out"
            command = [sys.executable, "-m", "edgesdk", "compress", "smollm2-135m", "-r", recipe, "-o", str(out)]
            command.append("--skip-checks")
            cpu, peak = measured([*command, *options])
            perplexity, divergence = in_child(out, text)
            size = (out / "model.safetensors").stat().st_size / 1e6
            costs = f"{size:.1f} MB | {cpu / 60:.1f} | {peak:.0f} MB"
            print(f"| `{recipe}` | {perplexity:.2f} | {divergence:.3f} | {costs} |", flush=True)


def in_child(folder: Path, text: Path) -> tuple[float, float]:
    """Score in another process, so that this one stays small: a child's peak memory begins at its parent's size."""
    import subprocess

    done = subprocess.run([sys.executable, __file__, "--score", str(folder), str(text)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    perplexity, divergence = map(float, done.stdout.split())
    return perplexity, divergence


def main() -> None:
    if sys.argv[1:2] == ["--score"]:
        print(*score(Path(sys.argv[2]), Path(sys.argv[3])))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("recipes", nargs="*")
    parser.add_argument("--sparse", action="store_true", help="the recipes that make weights zero")
    parser.add_argument("--calibration", default="self")
    parser.add_argument("--target")
    chosen = parser.parse_intermixed_args()
    options = ["--calibration", chosen.calibration]
    recipes = chosen.recipes or (SPARSE if chosen.sparse else RECIPES)
    table(recipes, chosen.text, options + (["--target", chosen.target] if chosen.target else []))


if __name__ == "__main__":
    main()
