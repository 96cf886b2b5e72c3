"""What a family is, and the pieces that Llama-shaped families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import ModelError
from ..config import Config
from ..spec import (
    Activation,
    Attention,
    DecoderSpec,
    Layer,
    LinearRopeScaling,
    Llama3RopeScaling,
    Mlp,
    Rope,
    RopeScaling,
)
from ..weights import Stowed

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "relu": "relu",
}

#: Canonical name (without its layer prefix) to the name in a transformers checkpoint.
LLAMA_TENSORS = {
    "embed.weight": "model.embed_tokens.weight",
    "final_norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
    "attn_norm": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "o": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}

#: The same for llama2.c, which has llama's architecture alone.
LLAMA2C_TENSORS = {
    "embed.weight": "tok_embeddings",
    "final_norm.weight": "norm",
    "head.weight": "output",
    "attn_norm": "attention_norm",
    "q": "wq",
    "k": "wk",
    "v": "wv",
    "o": "wo",
    "mlp_norm": "ffn_norm",
    "gate": "w1",
    "up": "w3",
    "down": "w2",
}

#: The same for GGUF, whose names do not depend on the architecture.
GGUF_TENSORS = {
    "embed.weight": "token_embd.weight",
    "final_norm.weight": "output_norm.weight",
    "head.weight": "output.weight",
    "attn_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "o": "attn_output",
    "post_attn_norm": "post_attention_norm",
    "mlp_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
    "post_mlp_norm": "post_ffw_norm",
}


@dataclass(frozen=True)
class Family:
    """A mapping from one published architecture to a spec and to canonical weight names.

    Attributes:
        name: the family's name.
        model_types: ``model_type`` values of transformers configurations.
        spec: makes the spec from a configuration in transformers' keys.
        tensors: canonical to transformers names, as in :data:`LLAMA_TENSORS`.
        norm_offset: what transformers' RMS norms add to their stored weight (Gemma: 1).
        gguf_architectures: ``general.architecture`` values of GGUF files.
        gguf_config: extra transformers keys from GGUF metadata (called with the metadata without its prefix).
        gguf_interleaved: GGUF stores q and k with interleaved rotary pairs.
    """

    name: str
    model_types: tuple[str, ...]
    spec: Callable[[Config], DecoderSpec]
    tensors: Mapping[str, str] = field(default_factory=lambda: LLAMA_TENSORS)
    norm_offset: float = 0.0
    gguf_architectures: tuple[str, ...] = ()
    gguf_config: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda metadata: {}
    gguf_interleaved: bool = False

    def transformers_places(self, spec: DecoderSpec) -> dict[str, Stowed]:
        """Where each canonical tensor lies in a transformers checkpoint."""
        return {
            name: Stowed(
                _stowed_name(name, self.tensors, "model.layers."),
                offset=self.norm_offset if name.endswith("norm.weight") else 0.0,
            )
            for name in spec.tensors()
        }

    def gguf_places(self, spec: DecoderSpec) -> dict[str, Stowed]:
        """Where each canonical tensor lies in a GGUF file (norm offsets are already added there)."""
        return {
            name: Stowed(_stowed_name(name, GGUF_TENSORS, "blk."), permuted_heads=self._interleaved_heads(name, spec))
            for name in spec.tensors()
        }

    def llama2c_places(self, spec: DecoderSpec) -> dict[str, Stowed]:
        """Where each canonical tensor lies in a llama2.c checkpoint."""
        return {
            name: Stowed(_llama2c_name(name), permuted_heads=self._interleaved_heads(name, spec))
            for name in spec.tensors()
        }

    def _interleaved_heads(self, name: str, spec: DecoderSpec) -> int | None:
        parts = name.split(".")
        if not self.gguf_interleaved or parts[0] != "layers" or parts[2] not in ("q", "k"):
            return None
        attention = spec.layers[int(parts[1])].attention
        return attention.heads if parts[2] == "q" else attention.kv_heads


def _stowed_name(name: str, table: Mapping[str, str], layer_prefix: str) -> str:
    if not name.startswith("layers."):
        return table[name]
    _, index, part, kind = name.split(".")
    return f"{layer_prefix}{index}.{table[part]}.{kind}"


def _llama2c_name(name: str) -> str:
    if not name.startswith("layers."):
        return LLAMA2C_TENSORS[name]
    _, index, part, _ = name.split(".")
    return f"{LLAMA2C_TENSORS[part]}.{index}"


def llama_attention(config: Config, **changes: Any) -> Attention:
    """Attention of a Llama-shaped configuration; ``changes`` override fields of :class:`Attention`."""
    heads = config.integer("num_attention_heads")
    head_dim = config.integer("head_dim", config.integer("hidden_size") // heads)
    kv_heads = config.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise ModelError(f"{config.where}: {heads} attention heads are no multiple of {kv_heads} key-value heads")
    fields: dict[str, Any] = {
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "scale": head_dim**-0.5,
        **changes,
    }
    if "rope" not in fields:
        fields["rope"] = rope(config)
    return Attention(**fields)


def llama_mlp(config: Config, **changes: Any) -> Mlp:
    """The gated MLP of a Llama-shaped configuration."""
    activation = config.choice("hidden_act", ACTIVATIONS, "silu")
    return Mlp(**{"size": config.integer("intermediate_size"), "activation": activation, **changes})


def llama_spec(family: str, config: Config, layers: tuple[Layer, ...], **changes: Any) -> DecoderSpec:
    """A Llama-shaped decoder of these layers."""
    fields: dict[str, Any] = {
        "family": family,
        "vocab": config.integer("vocab_size"),
        "hidden": config.integer("hidden_size"),
        "context": config.integer("max_position_embeddings"),
        "layers": layers,
        "norm_eps": config.number("rms_norm_eps"),
        "tied": config.flag("tie_word_embeddings", False),
        **changes,
    }
    return DecoderSpec(**fields)


def rope(config: Config, default_theta: float = 10000.0) -> Rope:
    """The rotary embedding: transformers 5 keeps it in ``rope_parameters``, earlier in two keys."""
    scaling = config.section("rope_parameters")
    if not scaling.values:
        scaling = config.section("rope_scaling")
    theta = scaling.number("rope_theta", config.number("rope_theta", default_theta))
    return Rope(theta, rope_scaling(scaling))


def rope_scaling(scaling: Config) -> RopeScaling | None:
    """The scaling that a ``rope_parameters`` or ``rope_scaling`` section asks for."""
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind == "default":
        return None
    if kind == "linear":
        return LinearRopeScaling(scaling.number("factor"))
    if kind == "llama3":
        return Llama3RopeScaling(
            factor=scaling.number("factor"),
            low_freq_factor=scaling.number("low_freq_factor"),
            high_freq_factor=scaling.number("high_freq_factor"),
            original_context=scaling.integer("original_max_position_embeddings"),
        )
    raise ModelError(f"{scaling.where}: rope type '{kind}' is not supported; supported: default, linear, llama3")


def windowed(config: Config, layers: int) -> list[int | None]:
    """The attention window of each layer from ``layer_types`` and ``sliding_window``."""
    window = config.get("sliding_window")
    kinds = config.get("layer_types") or ["sliding_attention" if window else "full_attention"] * layers
    if len(kinds) != layers:
        raise ModelError(f"{config.where}: 'layer_types' names {len(kinds)} layers of {layers}")
    return [config.integer("sliding_window") if kind == "sliding_attention" else None for kind in kinds]
