"""GPTQ, SparseGPT and Wanda here against llm-compressor's, in one run: same folder, settings and calibration tokens.

    python tests/benchmarks/against_llmcompressor.py PYTHON TEST_TEXT CALIBRATION_TEXT [gptq] [sparsegpt50] [wanda2:4]

PYTHON is an interpreter of an environment of its own (pip install torch==2.13.0 llmcompressor). Both change linear
weights alone (embedding and head stay float): GPTQ rounds to 4 bits in groups of 32 with the same column order,
SparseGPT and Wanda make weights zero. Both are scored by the same code: the float32 reference here, which opens
llm-compressor's checkpoint to its own integers. Prints perplexity, CPU seconds and peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

from common import in_a_process_of_its_own, measured, save_folder
from compression import in_child

THEIRS = """
import json, sys, torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from llmcompressor.modifiers.quantization import GPTQModifier
from transformers import AutoModelForCausalLM
folder, tokens, out, recipe = sys.argv[1:]
ids = json.load(open(tokens))
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32, "actorder": "static"}
groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
recipe = eval(recipe)
rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in ids]
oneshot(
    model=model, dataset=Dataset.from_list(rows), recipe=recipe, max_seq_length=len(ids[0]),
    num_calibration_samples=len(ids), shuffle_calibration_samples=False,
)
model.save_pretrained(out, save_compressed=isinstance(recipe, GPTQModifier))
"""
_ZEROS = 'sparsity=0.5, mask_structure="{}", targets=["Linear"], ignore=["re:.*lm_head"]'
#: What is compared: their recipe, and ours.
METHODS = {
    "gptq": ('GPTQModifier(config_groups=groups, ignore=["lm_head"], dampening_frac=0.01)', "w4g32-gptq-e16"),
    "sparsegpt50": (f"SparseGPTModifier({_ZEROS.format('0:0')})", "w16-sparsegpt50"),
    "sparsegpt2:4": (f"SparseGPTModifier({_ZEROS.format('2:4')})", "w16-sparsegpt2:4"),
    "wanda50": (f"WandaPruningModifier({_ZEROS.format('0:0')})", "w16-wanda50"),
    "wanda2:4": (f"WandaPruningModifier({_ZEROS.format('2:4')})", "w16-wanda2:4"),
}


def write_tokens(folder: Path, text: Path, sequences: int, length: int) -> None:
    """The calibration tokens that the passes here take, as JSON."""
    import edgesdk
    from edgesdk.compress.calibration import Calibration
    from edgesdk.progress import SILENT

    ids = Calibration(text, sequences, length).tokens(edgesdk.open_model("smollm2-135m"), SILENT)
    (folder / "tokens.json").write_text(json.dumps(ids.tolist()))


def compare(method: str, scratch: Path, chosen: argparse.Namespace) -> None:
    """Print a line for each side."""
    folder = scratch / "model"
    recipe, name = METHODS[method]
    calibration = ["--calibration", str(chosen.calibration), "--calibration-sequences", str(chosen.sequences)]
    calibration += ["--calibration-length", str(chosen.length)]
    theirs, ours = scratch / f"theirs-{name}", scratch / f"ours-{name}"
    compress = [sys.executable, "-m", "edgesdk", "compress", str(folder), "-r", name, *calibration, "-o", str(ours)]
    other = [chosen.python, "-c", THEIRS, str(folder), str(scratch / "tokens.json"), str(theirs), recipe]
    for what, command, out in (("llm-compressor", other, theirs), ("edgesdk", [*compress, "--skip-checks"], ours)):
        cpu, peak = measured(command)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            if not (out / file).is_file():
                (out / file).write_bytes((folder / file).read_bytes())
        perplexity, divergence = in_child(out, chosen.text)
        figures = f"perplexity {perplexity:6.2f}  KL {divergence:.3f}  {cpu:7.1f} s CPU  peak {peak:6.0f} MB"
        print(f"{method:<13} {what:<15} {figures}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python")
    parser.add_argument("text", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("methods", nargs="*", default=list(METHODS), metavar="|".join(METHODS))
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--length", type=int, default=256)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "model").mkdir()
        in_a_process_of_its_own(save_folder, scratch / "model")
        options = {"text": chosen.calibration, "sequences": chosen.sequences, "length": chosen.length}
        in_a_process_of_its_own(partial(write_tokens, **options), scratch)
        for method in chosen.methods:
            compare(method, scratch, chosen)


if __name__ == "__main__":
    main()
