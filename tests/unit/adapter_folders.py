"""LoRA adapters in PEFT's format for tiny transformers models, random, and the merge written out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def matrices(network: Any, *ends: str) -> dict[str, Any]:
    """The network's linear modules by name (GPT-2's Conv1D too), without the head; ``ends`` chooses by last part."""
    return {
        name: module
        for name, module in network.named_modules()
        if type(module).__name__.endswith(("Linear", "Conv1D"))
        and name != "lm_head"
        and (not ends or name.rpartition(".")[2] in ends)
    }


def out_in(module: Any) -> tuple[int, int]:
    rows, columns = module.weight.shape
    return (columns, rows) if type(module).__name__ == "Conv1D" else (rows, columns)


def save_adapter(folder: Path, network: Any, *ends: str, seed: int = 5, r: int = 4, **config: Any) -> Path:
    """An adapter for these modules; ``rank_pattern`` in ``config`` names whole modules."""
    from edgesdk.model.adapter import _matched

    random = torch.Generator().manual_seed(seed)
    tensors, chosen = {}, matrices(network, *ends)
    for name, module in chosen.items():
        rows, columns = out_in(module)
        rank = _matched(config.get("rank_pattern", {}), name) or r
        prefix = f"base_model.model.{name}"
        tensors[f"{prefix}.lora_A.weight"] = torch.randn(rank, columns, generator=random) * columns**-0.5
        tensors[f"{prefix}.lora_B.weight"] = torch.randn(rows, rank, generator=random) * 0.2
    write(folder, tensors, target_modules=sorted({name.rpartition(".")[2] for name in chosen}), r=r, **config)
    return folder


def write(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "bias": "none",
        "fan_in_fan_out": False,
        "lora_alpha": 8,
        "r": 4,
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))


@torch.no_grad()
def merge_by_hand(network: Any, folder: Path) -> None:
    """W + scale * B @ A, module by module, in place."""
    from safetensors.torch import load_file

    from edgesdk.model.adapter import _matched

    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    for name, module in matrices(network).items():
        a = tensors.get(f"base_model.model.{name}.lora_A.weight")
        if a is None:
            continue
        alpha = _matched(config.get("alpha_pattern", {}), name) or config["lora_alpha"]
        scale = alpha / (math.sqrt(len(a)) if config.get("use_rslora") else len(a))
        delta = scale * tensors[f"base_model.model.{name}.lora_B.weight"] @ a
        module.weight += delta.T if type(module).__name__ == "Conv1D" else delta
