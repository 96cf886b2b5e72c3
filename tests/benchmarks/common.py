"""What the comparisons share: one float32 checkpoint for all, costs of a command, and how ratios are printed."""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path


def save_folder(folder: Path, layers: int | None = None) -> None:
    """The catalogue's SmolLM2, or its first layers, as a Hugging Face folder in float32."""
    from safetensors.torch import save_file

    import edgesdk
    from edgesdk.model.families import FAMILIES
    from edgesdk.model.weights import dense

    model = edgesdk.open_model("smollm2-135m")
    spec = replace(model.spec, layers=model.spec.layers[:layers])
    places = FAMILIES.get("llama").transformers_places(spec)
    attention, mlp = spec.layers[0].attention, spec.layers[0].mlp
    tensors = {places[name].name: dense(model.weights.get(name)).contiguous() for name in spec.tensors()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": mlp.activation,
        "hidden_size": spec.hidden,
        "intermediate_size": mlp.size,
        "num_hidden_layers": len(spec.layers),
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "max_position_embeddings": spec.context,
        "rms_norm_eps": spec.norm_eps,
        "rope_theta": attention.rope.theta,
        "tie_word_embeddings": spec.tied,
        "vocab_size": spec.vocab,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))
    (folder / "tokenizer.json").write_text(model.tokenizer.definition, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(model.tokenizer.config_text(), encoding="utf-8")


def in_a_process_of_its_own(work: Callable[[Path], object], folder: Path) -> None:
    """Run ``work(folder)`` so that this process stays small: a child's peak memory begins at its parent's size."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=(folder,))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit("making the checkpoint failed")


def measured(command: list[str]) -> tuple[float, float]:
    """CPU seconds and peak resident megabytes of a command."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} failed:\n{errors.decode()[-2000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def show(what: str, pairs: list[tuple[float, float]]) -> None:
    """One line: medians of both, and the median of the ratios."""
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{what:<34} {ours:8.1f} / {theirs:8.1f}   {ratio:.2f}", flush=True)
