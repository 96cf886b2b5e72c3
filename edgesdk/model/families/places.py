"""Where a family's checkpoint keeps each canonical tensor, worked out from tables of names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ..spec import Attention, DecoderSpec, Mixer
from ..weights import Heads, Stowed

#: Canonical name (without its layer prefix) to the name in a transformers checkpoint.
LLAMA_TENSORS = {
    "embed.weight": "model.embed_tokens.weight",
    "final_norm": "model.norm",
    "head": "lm_head",
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
    "positions.weight": "position_embd.weight",
    "embed_norm": "token_embd_norm",
    "final_norm": "output_norm",
    "head": "output",
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
class Fused:
    """Several canonical matrices (and their biases) in one, in this order of rows.

    With ``grouped``, the mixer's field that counts them, the rows of a group of heads come together: the queries of a
    key-value head, its key, its value.
    """

    name: str
    parts: tuple[str, ...]
    grouped: Literal["heads", "kv_heads", "key_heads"] | None = None


@dataclass(frozen=True)
class Fill:
    """The checkpoint has no such tensor; all its elements are ``value``."""

    value: float


@dataclass(frozen=True)
class Behind:
    """A table of positions, behind ``rows`` rows that stand for something else."""

    name: str
    rows: int


@dataclass(frozen=True)
class Unsqueezed:
    """The checkpoint's tensor has further axes of length 1, before these axes of the canonical one."""

    name: str
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Blocks:
    """The checkpoint's tensor has its rows in ``count`` blocks, with an axis of their own."""

    name: str
    count: int


Place = str | Fused | Fill | Behind | Unsqueezed | Blocks
Places = Mapping[str, Place]

QKV = ("q", "k", "v")


@dataclass(frozen=True)
class Naming:
    """How one kind of checkpoint names and keeps a family's tensors.

    Attributes:
        table: canonical names, or parts of a layer (``q``, ``experts.*.up``), to names there; a key ends in ``.weight``
            or ``.bias`` only where the two differ.
        layers: what stands in front of a layer's number.
        interleaved: rotary pairs are neighbours there.
        transposed: matrices of layers are [in, out] there.
        norm_offset: what the published code adds to the stored weights of norms, but those inside of mixers.
    """

    table: Places
    layers: str = "model.layers."
    interleaved: bool = False
    transposed: bool = False
    norm_offset: float = 0.0

    def places(self, spec: DecoderSpec) -> dict[str, Stowed]:
        """Where each canonical tensor of a spec lies."""
        return {name: self._place(name, shape, spec) for name, shape in spec.tensors().items()}

    def _place(self, name: str, shape: tuple[int, ...], spec: DecoderSpec) -> Stowed:
        index, stem, kind = _taken_apart(name)
        number = next((part for part in stem.split(".") if part.isdigit()), "")
        place, ending = self._found(stem.replace(f".{number}.", ".*."), kind)
        if isinstance(place, Fill):
            return Stowed("", fill=place.value)
        own = place if isinstance(place, str) else place.name
        prefix = "" if index is None else f"{self.layers}{index}."
        stowed = Stowed(
            prefix + own.replace("*", number) + ending,
            offset=self.norm_offset if kind == "weight" and stem.endswith("norm") and stem != "out_norm" else 0.0,
            factor=_factor(stem, spec),
        )
        if isinstance(place, Behind):
            last = place.rows + shape[0]
            return replace(stowed, shape=(last, *shape[1:]), rows=(1, place.rows, last))
        if isinstance(place, Blocks):
            return replace(stowed, shape=(place.count, shape[0] // place.count, *shape[1:]))
        if index is None:
            return stowed
        if isinstance(place, Unsqueezed):
            lengths = list(shape)
            for axis in place.axes:
                lengths.insert(axis, 1)
            return replace(stowed, name=stowed.name if kind == "weight" else prefix + own, shape=tuple(lengths))
        if isinstance(place, Fused):
            shape, rows = _rows(stem, place, spec, index)
            stowed = replace(stowed, shape=shape if kind == "weight" else shape[:1], rows=rows)
        if self.transposed and kind == "weight" and len(shape) == 2:
            stowed = replace(stowed, shape=shape[::-1], transposed=True)
        return replace(stowed, heads=self._heads(stem, spec.layers[index].mixer))

    def _found(self, stem: str, kind: str) -> tuple[Place, str]:
        """The table's entry, and what its name lacks."""
        exact = self.table.get(f"{stem}.{kind}")
        if exact is None:
            return self.table[stem], f".{kind}"
        return exact, "" if isinstance(exact, str | Blocks | Fused) else f".{kind}"

    def _heads(self, stem: str, attention: Mixer) -> Heads | None:
        if not isinstance(attention, Attention) or attention.rope is None:
            return None
        part = stem.rpartition(".")[2]
        if part not in ("q", "k", "q_norm", "k_norm"):
            return None
        rotated = attention.rope.rotated or attention.head_dim
        if rotated == attention.head_dim and not self.interleaved:
            return None
        count = attention.heads if part.startswith("q") else attention.kv_heads
        return Heads(1 if part.endswith("norm") and attention.qk_norm != "all" else count, rotated, self.interleaved)


def fused_experts(block: str, router: str = "gate") -> dict[str, Place]:
    """Names in a layer whose experts lie in two tensors, [experts, ...], as transformers 5 has them in memory."""
    upper = Fused(f"{block}.experts.gate_up_proj[*]", ("gate", "up"))
    return {
        "router": f"{block}.{router}",
        "experts.*.gate.weight": upper,
        "experts.*.up.weight": upper,
        "experts.*.down.weight": f"{block}.experts.down_proj[*]",
    }


def with_prefix(places: Mapping[str, Stowed], prefix: str, other: str) -> dict[str, Stowed]:
    """Places of a checkpoint that has another prefix where names have this one."""
    return {
        name: replace(place, name=other + place.name.removeprefix(prefix)) if place.name.startswith(prefix) else place
        for name, place in places.items()
    }


def _taken_apart(name: str) -> tuple[int | None, str, str]:
    """The layer's number (None: no layer's), the part, and ``weight`` or ``bias``."""
    stem, _, kind = name.rpartition(".")
    if not name.startswith("layers."):
        return None, stem, kind
    _, index, part = stem.split(".", 2)
    return int(index), part, kind


def _rows(stem: str, fused: Fused, spec: DecoderSpec, index: int) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """The shape of a fused matrix, and which of its rows are one part's: see :attr:`Stowed.rows`."""
    shapes = spec.layer_tensors(index)
    own, _, _ = stem.rpartition(".")
    names = [f"layers.{index}.{own + '.' if own else ''}{part}.weight" for part in fused.parts]
    sizes = [shapes[name][0] for name in names]
    blocks = getattr(spec.layers[index].mixer, fused.grouped) if fused.grouped else 1
    at = fused.parts.index(stem.rpartition(".")[2])
    first = sum(sizes[:at]) // blocks
    return (sum(sizes), shapes[names[0]][1]), (blocks, first, first + sizes[at] // blocks)


def _factor(stem: str, spec: DecoderSpec) -> float:
    if stem == "final_norm":
        return spec.folded.logits
    return spec.folded.residual if stem.rpartition(".")[2] in ("o", "out", "down") else 1.0
