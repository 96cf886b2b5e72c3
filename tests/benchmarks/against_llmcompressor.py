"""GPTQ here against llm-compressor's, in one run: same folder, bits, group, column order and calibration tokens.

    python tests/benchmarks/against_llmcompressor.py PYTHON TEST_TEXT CALIBRATION_TEXT [--sequences 32 --length 256]

PYTHON is an interpreter of an environment of its own (pip install torch==2.13.0 llmcompressor). Both round linear
weights alone (embedding and head stay float), and both are scored by the same code: the float32 reference here, which
opens llm-compressor's checkpoint to its own integers. Prints perplexity, CPU seconds and peak memory of the process.
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
from llmcompressor.modifiers.quantization import GPTQModifier
from transformers import AutoModelForCausalLM
folder, tokens, out = sys.argv[1:]
ids = json.load(open(tokens))
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32, "actorder": "static"}
recipe = GPTQModifier(
    config_groups={"group_0": {"targets": ["Linear"], "weights": weights}}, ignore=["lm_head"], dampening_frac=0.01
)
rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in ids]
oneshot(
    model=model, dataset=Dataset.from_list(rows), recipe=recipe, max_seq_length=len(ids[0]),
    num_calibration_samples=len(ids), shuffle_calibration_samples=False,
)
model.save_pretrained(out, save_compressed=True)
"""


def write_tokens(folder: Path, text: Path, sequences: int, length: int) -> None:
    """The calibration tokens that the passes here take, as JSON."""
    import edgesdk
    from edgesdk.compress.calibration import Calibration
    from edgesdk.progress import SILENT

    ids = Calibration(text, sequences, length).tokens(edgesdk.open_model("smollm2-135m"), SILENT)
    (folder / "tokens.json").write_text(json.dumps(ids.tolist()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python")
    parser.add_argument("text", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--length", type=int, default=256)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = scratch / "model"
        folder.mkdir()
        in_a_process_of_its_own(save_folder, folder)
        options = {"text": chosen.calibration, "sequences": chosen.sequences, "length": chosen.length}
        in_a_process_of_its_own(partial(write_tokens, **options), scratch)
        calibration = ["--calibration", str(chosen.calibration), "--calibration-sequences", str(chosen.sequences)]
        calibration += ["--calibration-length", str(chosen.length)]
        compress = [sys.executable, "-m", "edgesdk", "compress", str(folder), "-r", "w4g32-gptq-e16", *calibration]
        theirs = [chosen.python, "-c", THEIRS, str(folder), str(scratch / "tokens.json"), str(scratch / "theirs")]
        for what, command, out in (
            ("llm-compressor", theirs, scratch / "theirs"),
            ("edgesdk, positive scales", [*compress, "-o", str(scratch / "ours")], scratch / "ours"),
            (
                "edgesdk, signed scales (ONNX)",
                [*compress, "-o", str(scratch / "signed"), "-t", "linux-x86_64"],
                scratch / "signed",
            ),
        ):
            cpu, peak = measured(command)
            for file in ("tokenizer.json", "tokenizer_config.json"):
                if not (out / file).is_file():
                    (out / file).write_bytes((folder / file).read_bytes())
            perplexity, divergence = in_child(out, chosen.text)
            print(
                f"{what:<32} perplexity {perplexity:6.2f}  KL {divergence:.3f}  {cpu:7.1f} s CPU  peak {peak:6.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
