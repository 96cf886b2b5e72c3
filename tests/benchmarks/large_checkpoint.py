"""Host memory of a large model: a random Llama of 1.1 billion parameters in bfloat16, made here.

    python tests/benchmarks/large_checkpoint.py [--keep FOLDER] [--gptq]

Prints CPU time and peak resident memory of an export with w4g32, with every check and without. With ``--gptq``, of
``edgesdk compress -r w4g32-gptq`` instead: once in one go, and once killed at half of the layers and resumed; then
whether both gave the same bytes.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import in_a_process_of_its_own, measured

VOCAB, HIDDEN, LAYERS, HEADS, KV_HEADS, MLP = 32000, 2048, 22, 32, 4, 5632


def write_checkpoint(folder: Path) -> None:
    """Write the checkpoint tensor by tensor."""
    import torch

    from edgesdk.model.config import Config
    from edgesdk.model.families import FAMILIES
    from edgesdk.model.random_weights import RandomWeights

    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "eos_token_id": 2,
    }
    family = FAMILIES.get("llama")
    spec = family.spec(Config(config, "config"))
    weights, places = RandomWeights(spec), family.transformers_places(spec)
    header, offset = {}, 0
    for name, shape in spec.tensors().items():
        size = 2 * torch.Size(shape).numel()
        header[places[name].name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in spec.tensors():
            file.write(weights.get(name).to(torch.bfloat16).view(torch.uint8).numpy().data)
    (folder / "config.json").write_text(json.dumps(config))
    words = {f"w{index}": index for index in range(VOCAB)}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    print(f"{spec.parameters / 1e6:.0f} M parameters")


def compress_twice(folder: Path, scratch: Path) -> None:
    """GPTQ in one go, and killed and resumed."""
    text = scratch / "text.txt"
    text.write_text(" ".join(f"w{(number * 7919) % VOCAB}" for number in range(20000)))
    command = [sys.executable, "-m", "edgesdk", "compress", str(folder), "-r", "w4g32-gptq", "--skip-checks"]
    command += ["--calibration", str(text), "--calibration-sequences", "16", "--calibration-length", "128", "-o"]
    cpu, peak = measured([*command, str(scratch / "whole")])
    print(f"GPTQ in one go     {cpu:7.1f} s CPU, peak {peak:6.0f} MB", flush=True)
    journal = scratch / "cut.partial" / "pass0" / "gptq.jsonl"
    process = subprocess.Popen([*command, str(scratch / "cut")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not journal.is_file() or journal.read_text().count("layers.") < 7 * LAYERS // 2:
        if process.poll() is not None:
            raise SystemExit("it ended before it could be killed")
        time.sleep(0.5)
    process.kill()
    process.wait()
    done = journal.read_text().count("layers.")
    cpu, peak = measured([*command, str(scratch / "cut"), "--resume"])
    print(f"resumed after {done:<4} {cpu:7.1f} s CPU, peak {peak:6.0f} MB", flush=True)
    names = ("model.safetensors", "checkpoint.json")
    same = all(filecmp.cmp(scratch / "whole" / name, scratch / "cut" / name, shallow=False) for name in names)
    print("the same bytes" if same else "DIFFERENT BYTES", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="linux-x86_64")
    parser.add_argument("--gptq", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for the checkpoint, kept and used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch) / "model"
        if not (folder / "config.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            in_a_process_of_its_own(write_checkpoint, folder)
        size = (folder / "model.safetensors").stat().st_size
        print(f"checkpoint {size / 1e9:.2f} GB")
        if options.gptq:
            compress_twice(folder, Path(scratch))
            return
        command = [sys.executable, "-m", "edgesdk", "export", str(folder), "-t", options.target, "-o", f"{scratch}/out"]
        for what, more in (("conversion alone", ["--skip-checks"]), ("with all checks", [])):
            cpu, peak = measured([*command, *more])
            print(f"{what:<18} {cpu:7.1f} s CPU, peak {peak:6.0f} MB", flush=True)


if __name__ == "__main__":
    main()
