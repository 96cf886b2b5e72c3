"""Files of weights: safetensors, GGUF, llama2.c, LoRA adapters, compressed checkpoints, quantized folders."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from random import Random
from typing import Any

from ...conftest import make_checkpoint
from ..case import Case, Files, Opener, placed
from ..headers import Gguf, changed_safetensors
from ..odd import changed_bytes
from ..trees import changed_json, changed_tree, written_json

_TENSORS = 30  # that are read, of each model
_WEIGHTS = "model.safetensors"
_CONFIG, _UPDATES = "adapter_config.json", "adapter_model.safetensors"


def opened(path: Path) -> Any:
    """Open whatever model lies there, and read the first of its tensors."""
    from edgesdk.model.opening import open_any

    model = open_any(path)
    weights = getattr(model, "weights", None)
    for name in list(getattr(model.spec, "tensors", dict)())[:_TENSORS]:
        if weights is not None:
            weights.get(name)
    return model


def _safetensors(folder: Path) -> Case:
    model = make_checkpoint(folder / "model")
    data = (model / _WEIGHTS).read_bytes()
    place = placed(model, {_WEIGHTS: data})

    def run(files: Files) -> None:
        place(files)
        opened(model)

    return Case(lambda random: {_WEIGHTS: changed_safetensors(random, data)}, run)


def _gguf(only: bytes) -> Opener:
    def opener(folder: Path) -> Case:
        from ...unit.test_gguf import llama_gguf

        file = folder / "model.gguf"
        llama_gguf(file, make_checkpoint(folder / "model"), "Q8_0")
        sample = Gguf.parse(file.read_bytes())

        def run(files: Files) -> None:
            file.write_bytes(files[file.name])
            model = opened(file)
            model.tokenizer.encode("Hello <s> a\n1234")
            model.tokenizer.written_prefix()

        return Case(lambda random: {file.name: sample.changed(random, only)}, run)

    return opener


def _llama2c(folder: Path) -> Case:
    from ...unit.test_llama2c import write

    write(folder)
    samples = {name: (folder / name).read_bytes() for name in ("model.bin", "tokenizer.bin")}
    place = placed(folder, samples)

    def make(random: Random) -> Files:
        name = random.choice(tuple(samples))
        data = samples[name]
        if name == "model.bin" and random.random() < 0.8:
            sizes = list(struct.unpack_from("<7i", data))
            for _ in range(random.choice((1, 1, 2))):
                at = random.randrange(7)
                sizes[at] = random.choice((0, -1, 1, 3, 7, 2**15, 2**20, 2**31 - 1, -(2**31), sizes[at] * 2 % 2**31))
            return {name: struct.pack("<7i", *sizes) + data[28:]}
        return {name: changed_bytes(random, data, 0, random.choice((8, 64, 600, len(data))))}

    def run(files: Files) -> None:
        place(files)
        opened(folder / "model.bin").tokenizer.encode("ab <s>")

    return Case(make, run)


def _adapter(folder: Path) -> Case:
    import torch

    from edgesdk.model.adapter import with_adapter

    from ...unit.adapter_folders import write

    random_numbers = torch.Generator().manual_seed(1)
    tensors = {}
    for layer in range(2):
        for name, (rows, columns) in {"self_attn.q_proj": (64, 64), "mlp.up_proj": (128, 64)}.items():
            stem = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(4, columns, generator=random_numbers)
            tensors[f"{stem}.lora_B.weight"] = torch.randn(rows, 4, generator=random_numbers)
    write(folder / "adapter", tensors, target_modules=["q_proj", "up_proj"], modules_to_save=None, use_rslora=False)
    samples = {name: (folder / "adapter" / name).read_bytes() for name in (_CONFIG, _UPDATES)}
    config = json.loads(samples[_CONFIG]) | {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {".*up_proj": 8}}
    place, base = placed(folder / "adapter", samples), opened(make_checkpoint(folder / "model"))

    def make(random: Random) -> Files:
        made = {_CONFIG: changed_json(random, config) if random.random() < 0.7 else json.dumps(config).encode()}
        if random.random() < 0.5:
            made[_UPDATES] = changed_safetensors(random, samples[_UPDATES])
        return made

    def run(files: Files) -> None:
        place(files)
        model = with_adapter(base, folder / "adapter")
        for name in model.spec.tensors():
            model.weights.get(name)

    return Case(make, run)


def _checkpoint(folder: Path) -> Case:
    from edgesdk.compressing import compress_model

    compress_model(make_checkpoint(folder / "plain"), folder / "model", recipe="w4g32")
    samples = {path.name: path.read_bytes() for path in (folder / "model").iterdir() if path.is_file()}
    described, place = json.loads(samples["checkpoint.json"]), placed(folder / "model", samples)

    def make(random: Random) -> Files:
        name = random.choice((_WEIGHTS, _WEIGHTS, *samples))
        made: dict[str, bytes] = {}
        if name != "checkpoint.json" and random.random() < 0.6:
            changed = changed_safetensors if name == _WEIGHTS else changed_bytes
            made[name] = changed(random, samples[name])
        tree = changed_tree(random, described) if not made or random.random() < 0.3 else described
        return {**made, "checkpoint.json": written_json(random, _resealed(tree, made))}

    def run(files: Files) -> None:
        place(files)
        opened(folder / "model")

    return Case(make, run)


def _resealed(description: Any, changed: Files) -> Any:
    """A description whose entries tell size and hash of what was changed."""
    entries = description.get("files") if isinstance(description, dict) else None
    if not isinstance(entries, list):
        return description
    files = []
    for entry in entries:
        content = changed.get(str(entry.get("path"))) if isinstance(entry, dict) else None
        if content is not None:
            entry = {**entry, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        files.append(entry)
    return {**description, "files": files}


def _quantized(folder: Path) -> Case:
    from ...unit import quantized_formats as formats

    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": False}
    awq = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
    compressed = formats.compressed(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32)
    kinds = {
        "gptq": (gptq, formats.packer(formats.gptq, 4, 32)),
        "awq": (awq, formats.packer(formats.awq, 4, 32)),
        "compressed": (compressed, formats.packer(formats.pack_quantized, 4, 32, symmetric=True)),
    }
    models, samples = {}, {}
    for name, (config, pack) in kinds.items():
        models[name] = formats.quantize_folder(folder / name, config, pack)
        samples[name] = {part: (models[name] / part).read_bytes() for part in ("config.json", _WEIGHTS)}
    places = {name: placed(models[name], samples[name]) for name in kinds}

    def make(random: Random) -> Files:
        name = random.choice(tuple(kinds))
        config = json.loads(samples[name]["config.json"])
        if random.random() < 0.6:
            config["quantization_config"] = changed_tree(random, config["quantization_config"])
            return {f"{name}/config.json": written_json(random, config)}
        return {f"{name}/{_WEIGHTS}": changed_safetensors(random, samples[name][_WEIGHTS])}

    def run(files: Files) -> None:
        name = next(iter(files)).partition("/")[0]
        places[name]({file.partition("/")[2]: content for file, content in files.items()})
        opened(models[name])

    return Case(make, run)


TARGETS: dict[str, Opener] = {
    "safetensors": _safetensors,
    "gguf": _gguf(b""),
    "gguf-tokenizer": _gguf(b"tokenizer."),
    "llama2c": _llama2c,
    "adapter": _adapter,
    "checkpoint": _checkpoint,
    "quantized": _quantized,
}
