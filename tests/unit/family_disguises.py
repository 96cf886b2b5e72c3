"""Checkpoints of families that transformers does not have, made of those of the same architecture that it has.

Each function rewrites the folder of a saved network: names of tensors, how they are fused, and the configuration, as
the family's authors publish them. The network itself stays the oracle.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Disguise = Callable[[nn.Module, Path], None]
Tensors = dict[str, Tensor]

_ENDS = {"model.embed_tokens.weight": "embed", "model.norm.weight": "norm", "lm_head.weight": "head"}


def _save(folder: Path, tensors: Tensors, config: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def _load(folder: Path) -> tuple[Tensors, dict[str, Any]]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())


def _layers(tensors: Tensors) -> list[Tensors]:
    """The tensors of each layer, by their names inside of it."""
    count = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("model.layers."))
    each: list[Tensors] = [{} for _ in range(count)]
    for name, tensor in tensors.items():
        if name.startswith("model.layers."):
            _, _, index, rest = name.split(".", 3)
            each[int(index)][rest] = tensor
    return each


def _renamed(tensors: Tensors, ends: dict[str, str], prefix: str, inside: Callable[[Tensors], Tensors]) -> Tensors:
    found = {ends[name]: tensors[stored] for stored, name in _ENDS.items() if name in ends and stored in tensors}
    for index, layer in enumerate(_layers(tensors)):
        found |= {f"{prefix}{index}.{name}": tensor for name, tensor in inside(layer).items()}
    return found


def internlm2(network: nn.Module, folder: Path) -> None:
    """Llama, with ``wqkv``: of each key-value head its queries, its key and its value."""
    tensors, config = _load(folder)
    kv_heads, size = config["num_key_value_heads"], config["head_dim"]

    def inside(layer: Tensors) -> Tensors:
        parts = [layer[f"self_attn.{name}_proj.weight"].view(kv_heads, -1, size, 64) for name in "qkv"]
        return {
            "attention.wqkv.weight": torch.cat(parts, dim=1).reshape(-1, 64),
            "attention.wo.weight": layer["self_attn.o_proj.weight"],
            "attention_norm.weight": layer["input_layernorm.weight"],
            "ffn_norm.weight": layer["post_attention_layernorm.weight"],
            "feed_forward.w1.weight": layer["mlp.gate_proj.weight"],
            "feed_forward.w3.weight": layer["mlp.up_proj.weight"],
            "feed_forward.w2.weight": layer["mlp.down_proj.weight"],
        }

    ends = {"embed": "model.tok_embeddings.weight", "norm": "model.norm.weight", "head": "output.weight"}
    rotary = {"rope_theta": 10000.0, "rope_scaling": {"type": "dynamic", "factor": 2.0}, "bias": False}
    config.pop("rope_parameters")
    _save(folder, _renamed(tensors, ends, "model.layers.", inside), config | rotary | {"model_type": "internlm2"})


def qwen(network: nn.Module, folder: Path) -> None:
    """Qwen 2 without grouped queries is Qwen 1; its ``w1`` is what others call up."""
    tensors, config = _load(folder)

    def inside(layer: Tensors) -> Tensors:
        fused = {
            f"attn.c_attn.{kind}": torch.cat([layer[f"self_attn.{name}_proj.{kind}"] for name in "qkv"])
            for kind in ("weight", "bias")
        }
        return fused | {
            "ln_1.weight": layer["input_layernorm.weight"],
            "attn.c_proj.weight": layer["self_attn.o_proj.weight"],
            "ln_2.weight": layer["post_attention_layernorm.weight"],
            "mlp.w1.weight": layer["mlp.up_proj.weight"],
            "mlp.w2.weight": layer["mlp.gate_proj.weight"],
            "mlp.c_proj.weight": layer["mlp.down_proj.weight"],
        }

    ends = {"embed": "transformer.wte.weight", "norm": "transformer.ln_f.weight", "head": "lm_head.weight"}
    keys = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    own = {
        "model_type": "qwen",
        "intermediate_size": 2 * config["intermediate_size"],
        "kv_channels": 16,
        "layer_norm_epsilon": config["rms_norm_eps"],
        "seq_length": config["max_position_embeddings"],
        "no_bias": True,
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
    }
    _save(folder, _renamed(tensors, ends, "transformer.h.", inside), {key: config[key] for key in keys} | own)


def chatglm(network: nn.Module, folder: Path) -> None:
    """GLM under its authors' names, with q, k and v in one matrix."""
    tensors, config = _load(folder)

    def inside(layer: Tensors) -> Tensors:
        fused = {
            f"self_attention.query_key_value.{kind}": torch.cat(
                [layer[f"self_attn.{name}_proj.{kind}"] for name in "qkv"]
            )
            for kind in ("weight", "bias")
        }
        return fused | {
            "input_layernorm.weight": layer["input_layernorm.weight"],
            "self_attention.dense.weight": layer["self_attn.o_proj.weight"],
            "post_attention_layernorm.weight": layer["post_attention_layernorm.weight"],
            "mlp.dense_h_to_4h.weight": layer["mlp.gate_up_proj.weight"],
            "mlp.dense_4h_to_h.weight": layer["mlp.down_proj.weight"],
        }

    ends = {
        "embed": "transformer.embedding.word_embeddings.weight",
        "norm": "transformer.encoder.final_layernorm.weight",
        "head": "transformer.output_layer.weight",
    }
    own = {
        "model_type": "chatglm",
        "padded_vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "num_layers": config["num_hidden_layers"],
        "num_attention_heads": config["num_attention_heads"],
        "multi_query_attention": True,
        "multi_query_group_num": config["num_key_value_heads"],
        "kv_channels": config["head_dim"],
        "ffn_hidden_size": config["intermediate_size"],
        "layernorm_epsilon": config["rms_norm_eps"],
        "seq_length": config["max_position_embeddings"],
        "add_qkv_bias": True,
        "rmsnorm": True,
    }
    _save(folder, _renamed(tensors, ends, "transformer.encoder.layers.", inside), own)


def minicpm(network: nn.Module, folder: Path) -> None:
    """Granite's multipliers under MiniCPM's names."""
    tensors, config = _load(folder)
    for key in ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling"):
        config.pop(key)
    own = {"model_type": "minicpm", "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 16}
    _save(folder, tensors, config | own | {"tie_word_embeddings": False})


def mobilellm(network: Any, folder: Path) -> None:
    """Llama whose layers are alike in pairs, each pair stored once."""
    for index in range(0, len(network.model.layers), 2):
        network.model.layers[index + 1].load_state_dict(network.model.layers[index].state_dict())
    tensors, config = _load(folder)
    ends = {"embed": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}
    kept = _renamed(tensors, ends, "model.layers.", dict)
    for name in list(kept):
        if name.startswith("model.layers."):
            _, _, index, rest = name.split(".", 3)
            tensor = kept.pop(name)
            if int(index) % 2 == 0:
                kept[f"model.layers.{int(index) // 2}.{rest}"] = tensor
    own = {"model_type": "mobilellm", "layer_sharing": True, "num_hidden_layers": config["num_hidden_layers"] // 2}
    _save(folder, kept, config | own)


def openelm(network: Any, folder: Path) -> None:
    """Layers of Qwen 3, each of its own size, under OpenELM's names."""
    from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

    torch.manual_seed(5)
    config = network.config
    heads, kv_heads, sizes = (4, 6), (2, 3), (64, 96)
    for index in range(2):
        own = config.__class__(**config.to_dict())
        own.num_attention_heads, own.num_key_value_heads = heads[index], kv_heads[index]
        own.intermediate_size, own._attn_implementation = sizes[index], "eager"
        network.model.layers[index] = Qwen3DecoderLayer(own, index).eval()
        with torch.no_grad():
            for parameter in network.model.layers[index].parameters():
                parameter.copy_(0.1 * torch.randn_like(parameter) + (parameter.dim() == 1))

    def inside(layer: Tensors) -> Tensors:
        return {
            "attn.qkv_proj.weight": torch.cat([layer[f"self_attn.{name}_proj.weight"] for name in "qkv"]),
            "attn.q_norm.weight": layer["self_attn.q_norm.weight"],
            "attn.k_norm.weight": layer["self_attn.k_norm.weight"],
            "attn.out_proj.weight": layer["self_attn.o_proj.weight"],
            "attn_norm.weight": layer["input_layernorm.weight"],
            "ffn_norm.weight": layer["post_attention_layernorm.weight"],
            "ffn.proj_1.weight": torch.cat((layer["mlp.gate_proj.weight"], layer["mlp.up_proj.weight"])),
            "ffn.proj_2.weight": layer["mlp.down_proj.weight"],
        }

    ends = {"embed": "transformer.token_embeddings.weight", "norm": "transformer.norm.weight"}
    own = {
        "model_type": "openelm",
        "vocab_size": config.vocab_size,
        "model_dim": config.hidden_size,
        "num_transformer_layers": 2,
        "head_dim": config.head_dim,
        "num_query_heads": list(heads),
        "num_kv_heads": list(kv_heads),
        "ffn_multipliers": [1.0, 1.5],
        "ffn_dim_divisor": 32,
        "max_context_length": config.max_position_embeddings,
        "rope_freq_constant": 10000,
        "normalize_qk_projections": True,
        "share_input_output_layers": True,
        "activation_fn_name": "swish",
        "ffn_with_glu": True,
    }
    _save(folder, _renamed(network.state_dict(), ends, "transformer.layers.", inside), own)


def qwen3_5(network: nn.Module, folder: Path) -> None:
    """The text decoder of a model that sees, with what predicts several tokens."""
    tensors, config = _load(folder)
    found = {name.replace("model.", "model.language_model.", 1): tensor for name, tensor in tensors.items()}
    found |= {"model.visual.patch_embed.proj.bias": torch.ones(8), "mtp.norm.weight": torch.ones(64)}
    tied, kind = config.pop("tie_word_embeddings"), config["model_type"].removesuffix("_text")
    _save(folder, found, {"model_type": kind, "text_config": config, "tie_word_embeddings": tied})


def fused_experts(network: Any, folder: Path) -> None:
    """All experts of a layer in one tensor, as transformers has them in memory."""
    network.save_pretrained(folder, save_original_format=False)


def qwen3_5_moe(network: Any, folder: Path) -> None:
    """The text decoder of a model that sees, with fused experts."""
    fused_experts(network, folder)
    qwen3_5(network, folder)
