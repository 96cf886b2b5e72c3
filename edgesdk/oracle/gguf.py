"""transformers' network over a GGUF file: values as the ``gguf`` package gives them, names by its own table.

What a key means is written down here a second time, on purpose: an oracle that shared the reader's code would share its
mistakes. Facts are those of llama.cpp's converter and loader.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model.gguf_file import GgufFile
from .networks import Uncomparable

if TYPE_CHECKING:
    import torch

#: Tensors that divide the frequencies of pairs (Llama 3; LongRoPE).
_FREQUENCIES = {
    "tensor.rope_short": ("rope_freqs.weight", "rope_factors_short.weight"),
    "tensor.rope_long": ("rope_freqs.weight", "rope_factors_long.weight"),
}
_SPLIT = ("self_attn.q_proj", "self_attn.k_proj")


def network_of_gguf(path: Path, layers: int) -> Any:
    """The network that a file's architecture names, with its first layers.

    Raises:
        Uncomparable: an architecture, or a part of it, that is not compared.
    """
    import torch
    import transformers

    file = GgufFile(path)
    architecture = str(file.metadata.get("general.architecture"))
    if architecture not in _CLASSES:
        raise Uncomparable(f"GGUF files of '{architecture}' are not compared")
    own = {
        key.removeprefix(f"{architecture}."): value
        for key, value in file.metadata.items()
        if key.startswith(f"{architecture}.")
    }
    for key, tensors in _FREQUENCIES.items():
        there = [name for name in tensors if file.shape(name) is not None]
        if there and architecture == "llama":
            own[key] = file.dequantized(there[0]).tolist()
    config_class, network_class, more = _CLASSES[architecture]
    biased = _biases(file, layers)
    config = getattr(transformers, config_class)(**_config(file, own, layers), **more(own, biased))
    network_type = getattr(transformers, network_class)
    with torch.device("meta"):
        names = list(network_type(config).state_dict())
    table = _names(architecture, layers)
    state = {name: _tensor(file, name, table, architecture, config) for name in names if name != "lm_head.weight"}
    if "lm_head.weight" in names:
        own_head = not config.tie_word_embeddings
        head = _tensor(file, "lm_head.weight", table, architecture, config) if own_head else None
        state["lm_head.weight"] = state["model.embed_tokens.weight"] if head is None else head
    network = network_type.from_pretrained(None, config=config, state_dict=state, dtype=torch.float32).eval()
    if file.shape("output.bias") is not None:
        raise Uncomparable("a bias on the logits, which no network of transformers has here")
    if (scale := own.get("attention.scale")) is not None:
        for module in network.modules():
            if hasattr(module, "scaling") and hasattr(module, "q_proj"):
                module.scaling = scale
    return network


def _config(file: GgufFile, own: Mapping[str, Any], layers: int) -> dict[str, Any]:
    heads, hidden = own["attention.head_count"], own["embedding_length"]
    return {
        "vocab_size": file.shape("token_embd.weight")[0],  # type: ignore[index]
        "hidden_size": hidden,
        "intermediate_size": own["feed_forward_length"],
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": own.get("attention.head_count_kv", heads),
        "head_dim": own.get("attention.key_length", hidden // heads),
        "rms_norm_eps": own["attention.layer_norm_rms_epsilon"],
        "max_position_embeddings": own["context_length"],
        "tie_word_embeddings": file.shape("output.weight") is None,
        "is_causal": own.get("attention.causal", True),
    }


def _biases(file: GgufFile, layers: int) -> frozenset[str]:
    """Which parts of the layers have a bias somewhere."""
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    return frozenset(
        part for part in parts for index in range(layers) if file.shape(f"blk.{index}.{part}.bias") is not None
    )


def _rope(own: Mapping[str, Any]) -> dict[str, Any]:
    """``rope_parameters`` of a file."""
    base = own.get("rope.freq_base", 10000.0)
    factor = own.get("rope.scaling.factor") or own.get("rope.scale_linear") or 1.0
    kind = own.get("rope.scaling.type", "linear")
    scale = own.get("rope.scaling.attn_factor", 1.0)
    short, long = (own.get(f"tensor.rope_{name}") for name in ("short", "long"))
    if short is not None or (scale != 1 and kind != "yarn"):
        pairs = own.get("attention.key_length", own["embedding_length"] // own["attention.head_count"]) // 2
        stretch = 1.0 if kind == "none" else factor
        return {
            "rope_type": "longrope",
            "rope_theta": base,
            "short_factor": [stretch * value for value in short or [1.0] * pairs],
            "long_factor": [stretch * value for value in long or short or [1.0] * pairs],
            "original_max_position_embeddings": own.get("rope.scaling.original_context_length", own["context_length"]),
            "attention_factor": scale,
            "factor": 1.0,
        }
    if kind == "yarn":
        all_dimensions = own.get("rope.scaling.yarn_log_multiplier") or 0.0
        scale /= 0.1 * all_dimensions * math.log(factor) + 1.0 if factor > 1 else 1.0
        return {
            "rope_type": "yarn",
            "rope_theta": base,
            "factor": factor,
            "original_max_position_embeddings": own.get("rope.scaling.original_context_length", own["context_length"]),
            "beta_fast": own.get("rope.scaling.yarn_beta_fast", 32.0),
            "beta_slow": own.get("rope.scaling.yarn_beta_slow", 1.0),
            "attention_factor": scale * (0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0),
        }
    if kind in ("linear", "longrope") and factor != 1:
        return {"rope_type": "linear", "rope_theta": base, "factor": factor}
    return {"rope_type": "default", "rope_theta": base}


def _plain(own: Mapping[str, Any], biased: frozenset[str]) -> dict[str, Any]:
    """Of Llama and Qwen 3, whose attention has all biases or none."""
    return {
        "rope_parameters": _rope(own),
        "attention_bias": bool(biased & {"attn_q", "attn_k", "attn_v", "attn_output"}),
    }


def _llama(own: Mapping[str, Any], biased: frozenset[str]) -> dict[str, Any]:
    return {**_plain(own, biased), "mlp_bias": bool(biased & {"ffn_gate", "ffn_up", "ffn_down"})}


def _qwen2(own: Mapping[str, Any], biased: frozenset[str]) -> dict[str, Any]:
    return {"rope_parameters": _rope(own), "use_sliding_window": False}


def _gemma(own: Mapping[str, Any], biased: frozenset[str]) -> dict[str, Any]:
    return {"rope_parameters": _rope(own), "hidden_act": "gelu_pytorch_tanh"}


def _gemma2(own: Mapping[str, Any], biased: frozenset[str]) -> dict[str, Any]:
    if own["block_count"] == 46:
        raise Uncomparable("the scale of Gemma 2 27B's queries")
    return {
        "rope_parameters": _rope(own),
        "sliding_window": own.get("attention.sliding_window", 4096),
        "attn_logit_softcapping": own.get("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": own.get("final_logit_softcapping", 30.0),
        "query_pre_attn_scalar": own.get(
            "attention.key_length", own["embedding_length"] // own["attention.head_count"]
        ),
    }


def _gemma3(own: Mapping[str, Any], biased: frozenset[str]) -> dict[str, Any]:
    if own["block_count"] == 62 or isinstance(own.get("attention.sliding_window_pattern"), list):
        raise Uncomparable("the 27B's scale of queries, or local layers that the file lists one by one")
    local = {"rope_type": "default", "rope_theta": own.get("rope.freq_base_swa", 10000.0)}
    return {
        "rope_parameters": {"full_attention": _rope(own), "sliding_attention": local},
        "sliding_window": own.get("attention.sliding_window"),
        "final_logit_softcapping": own.get("final_logit_softcapping"),
        "query_pre_attn_scalar": own.get(
            "attention.key_length", own["embedding_length"] // own["attention.head_count"]
        ),
    }


_More = Callable[[Mapping[str, Any], frozenset[str]], dict[str, Any]]
_CLASSES: dict[str, tuple[str, str, _More]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", _llama),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _qwen2),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", _plain),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", _gemma),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", _gemma2),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", _gemma3),
}


def _tensor(
    file: GgufFile, name: str, table: Callable[[str], str | None], architecture: str, config: Any
) -> torch.Tensor:
    """One tensor of the network, float32, in transformers' order of rows."""
    import torch

    stem, _, kind = name.rpartition(".")
    if table(stem) is None:
        raise Uncomparable(f"the gguf package has no name for {name}")
    stored = f"{table(stem)}.{kind}"
    if name.endswith(".bias") and file.shape(stored) is None:
        part = next(size for end, size in _bias_sizes(config).items() if name.endswith(end))
        return torch.zeros(part)
    values = torch.from_numpy(file.dequantized(stored))
    if architecture == "llama" and any(part in name for part in _SPLIT):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        shape = values.shape
        values = values.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).transpose(1, 2).reshape(shape)
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        values = values - 1  # llama.cpp's converter adds it
    return values.contiguous()


def _names(architecture: str, layers: int) -> Callable[[str], str | None]:
    """The ``gguf`` package's own table: from a module of transformers to the name of its tensors in a file."""
    import gguf

    kinds = {words: kind for kind, words in gguf.MODEL_ARCH_NAMES.items()}
    names: Callable[[str], str | None] = gguf.get_tensor_name_map(kinds[architecture], layers).get_name
    return names


def _bias_sizes(config: Any) -> dict[str, int]:
    size = config.head_dim
    return {
        "q_proj.bias": size * config.num_attention_heads,
        "k_proj.bias": size * config.num_key_value_heads,
        "v_proj.bias": size * config.num_key_value_heads,
        "o_proj.bias": config.hidden_size,
        "gate_proj.bias": config.intermediate_size,
        "up_proj.bias": config.intermediate_size,
        "down_proj.bias": config.hidden_size,
    }
