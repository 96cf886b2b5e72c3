"""What a family is, and the pieces that Llama-shaped families share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import ModelError
from ..config import Config
from ..spec import Activation, Attention, DecoderSpec, Layer, Mlp
from ..weights import Stowed
from .places import (
    GGUF_TENSORS,
    LLAMA2C_TENSORS,
    LLAMA_TENSORS,
    QKV,
    Behind,
    Fill,
    Fused,
    Naming,
    Places,
    fused_experts,
)
from .ropes import rope

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}


@dataclass(frozen=True)
class Family:
    """A mapping from one published architecture to a spec and to canonical weight names.

    Attributes:
        name: the family's name.
        model_types: ``model_type`` values of transformers configurations.
        spec: makes the spec from a configuration in transformers' keys.
        tensors: canonical to transformers names, as in :data:`LLAMA_TENSORS`; a function where they depend on the spec.
        fused: names of another layout, which some checkpoints have: all experts of a layer in one tensor.
        layers: what stands in front of a layer's number in transformers' names.
        prefix: what a checkpoint of the bare network leaves out in front of every name.
        inside: what stands in its place in a checkpoint that holds more than the decoder, or None: there are none.
        interleaved: transformers keeps rotary pairs as neighbours.
        transposed: transformers keeps the matrices of layers as [in, out].
        norm_offset: what transformers' norms add to their stored weight (Gemma: 1).
        gguf_architectures: ``general.architecture`` values of GGUF files.
        gguf_config: extra transformers keys from GGUF metadata (called with the architecture's keys, unprefixed).
        gguf_tensors: where GGUF's names differ from :data:`GGUF_TENSORS`.
        gguf_interleaved: GGUF stores q and k with interleaved rotary pairs.
    """

    name: str
    model_types: tuple[str, ...]
    spec: Callable[[Config], DecoderSpec]
    tensors: Places | Callable[[DecoderSpec], Places] = field(default_factory=lambda: LLAMA_TENSORS)
    fused: Places = field(default_factory=dict)
    layers: str = "model.layers."
    prefix: str = "model."
    inside: str | None = None
    interleaved: bool = False
    transposed: bool = False
    norm_offset: float = 0.0
    gguf_architectures: tuple[str, ...] = ()
    gguf_config: Callable[[Config], dict[str, Any]] = lambda own: {}
    gguf_tensors: Places = field(default_factory=dict)
    gguf_interleaved: bool = False

    def transformers_places(self, spec: DecoderSpec) -> dict[str, Stowed]:
        """Where each canonical tensor lies in a transformers checkpoint."""
        naming = Naming(self._table(spec), self.layers, self.interleaved, self.transposed, self.norm_offset)
        return naming.places(spec)

    def fused_places(self, spec: DecoderSpec) -> dict[str, Stowed]:
        """Where each lies in a transformers checkpoint of the layout :attr:`fused`."""
        return replace(self, tensors={**self._table(spec), **self.fused}).transformers_places(spec)

    def _table(self, spec: DecoderSpec) -> Places:
        return self.tensors(spec) if callable(self.tensors) else self.tensors

    def gguf_places(self, spec: DecoderSpec) -> dict[str, Stowed]:
        """Where each canonical tensor lies in a GGUF file (norm offsets are already added there)."""
        table = {**GGUF_TENSORS, **self.gguf_tensors}
        return Naming(table, "blk.", self.gguf_interleaved).places(spec)

    def llama2c_places(self, spec: DecoderSpec) -> dict[str, Stowed]:
        """Where each canonical tensor lies in a llama2.c checkpoint."""
        return {
            name: Stowed(_llama2c_name(name), heads=place.heads)
            for name, place in Naming(LLAMA2C_TENSORS, interleaved=self.gguf_interleaved).places(spec).items()
        }


def _llama2c_name(name: str) -> str:
    if not name.startswith("layers."):
        return LLAMA2C_TENSORS[name]
    _, index, part, _ = name.split(".")
    return f"{LLAMA2C_TENSORS[part]}.{index}"


def llama_attention(config: Config, **changes: Any) -> Attention:
    """Attention of a Llama-shaped configuration; ``changes`` override fields of :class:`Attention`."""
    fields = dict(changes)
    if "heads" not in fields:
        fields["heads"] = config.integer("num_attention_heads")
    if "head_dim" not in fields:
        fields["head_dim"] = config.integer("head_dim", config.integer("hidden_size") // fields["heads"])
    if "kv_heads" not in fields:
        fields["kv_heads"] = config.integer("num_key_value_heads", fields["heads"])
    if "scale" not in fields:
        fields["scale"] = fields["head_dim"] ** -0.5
    if fields["heads"] % fields["kv_heads"]:
        raise ModelError(
            f"{config.where}: {fields['heads']} attention heads are no multiple of {fields['kv_heads']} key-value heads"
        )
    if "rope" not in fields:
        fields["rope"] = rope(config, fields["head_dim"])
    return Attention(**fields)


def llama_mlp(config: Config, **changes: Any) -> Mlp:
    """The gated MLP of a Llama-shaped configuration."""
    fields = dict(changes)
    if "size" not in fields:
        fields["size"] = config.integer("intermediate_size")
    if "activation" not in fields:
        fields["activation"] = config.choice("hidden_act", ACTIVATIONS, "silu")
    return Mlp(**fields)


def llama_spec(family: str, config: Config, layers: tuple[Layer, ...], **changes: Any) -> DecoderSpec:
    """A Llama-shaped decoder of these layers."""
    fields = dict(changes)
    if "context" not in fields:
        fields["context"] = config.integer("max_position_embeddings")
    if "norm_eps" not in fields:
        fields["norm_eps"] = config.number("rms_norm_eps", 1e-6)
    if "tied" not in fields:
        fields["tied"] = config.flag("tie_word_embeddings", False)
    return DecoderSpec(
        family=family,
        vocab=config.integer("vocab_size"),
        hidden=config.integer("hidden_size"),
        layers=layers,
        **fields,
    )


def both_ways(spec: DecoderSpec) -> DecoderSpec:
    """The same model where every position sees later ones too: an embedder."""
    layers = (replace(layer, mixer=replace(layer.attention, causal=False)) for layer in spec.layers)
    return replace(spec, layers=tuple(layers))


def windowed(
    config: Config, layers: int, local: Callable[[int], bool] = lambda index: True, *, on: bool = True
) -> list[int | None]:
    """The attention window of each layer, or None: it sees all positions before it.

    Args:
        config: says ``sliding_window``, and maybe ``layer_types``.
        layers: how many there are.
        local: which layers have the window, where ``layer_types`` does not say.
        on: without it, no layer has one.
    """
    window = config.integer("sliding_window") if config.get("sliding_window") is not None and on else None
    kinds = config.get("layer_types")
    if kinds is None:
        return [window if local(index) else None for index in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise ModelError(f"{config.where}: 'layer_types' does not name {layers} layers")
    others = {str(kind) for kind in kinds} - {"full_attention", "sliding_attention"}
    refuse(config, f"a layer of type {', '.join(sorted(others))}", unless=not others)
    contradicts = window is None and "sliding_attention" in kinds
    refuse(config, "'layer_types' with windows, without 'sliding_window' that is in use", unless=not contradicts)
    return [window if kind == "sliding_attention" else None for kind in kinds]


def refuse(config: Config, what: str, unless: bool) -> None:
    """Stop at a variant that the spec does not describe.

    Raises:
        ModelError: ``what`` is not supported.
    """
    if not unless:
        raise ModelError(f"{config.where}: {what} is not supported")


__all__ = [
    "ACTIVATIONS",
    "LLAMA_TENSORS",
    "QKV",
    "Behind",
    "Config",
    "Family",
    "Fill",
    "Fused",
    "both_ways",
    "fused_experts",
    "llama_attention",
    "llama_mlp",
    "llama_spec",
    "refuse",
    "rope",
    "windowed",
]
