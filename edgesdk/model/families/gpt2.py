"""GPT-2: learned positions, layer norms with biases, plain MLP (Radford et al., 2019)."""

from __future__ import annotations

from ...errors import ModelError
from ..config import Config
from ..spec import Attention, DecoderSpec, Layer, Mlp
from ..weights import Stowed
from .base import ACTIVATIONS, Family

_TENSORS = {
    "embed.weight": "transformer.wte.weight",
    "positions.weight": "transformer.wpe.weight",
    "final_norm.weight": "transformer.ln_f.weight",
    "final_norm.bias": "transformer.ln_f.bias",
    "head.weight": "lm_head.weight",
}
_PARTS = {
    "attn_norm": "ln_1",
    "q": "attn.c_attn",
    "k": "attn.c_attn",
    "v": "attn.c_attn",
    "o": "attn.c_proj",
    "mlp_norm": "ln_2",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
}


def _spec(config: Config) -> DecoderSpec:
    if config.flag("scale_attn_by_inverse_layer_idx", False) or not config.flag("scale_attn_weights", True):
        raise ModelError(
            f"{config.where}: GPT-2 with another attention scale than 1 / sqrt(head size) is not supported"
        )
    hidden, heads = config.integer("n_embd"), config.integer("n_head")
    size = hidden // heads
    attention = Attention(heads, heads, size, size**-0.5, rope=None, qkv_bias=True, out_bias=True)
    mlp = Mlp(
        config.integer("n_inner", 4 * hidden),
        config.choice("activation_function", ACTIVATIONS, "gelu_new"),
        gated=False,
        bias=True,
    )
    return DecoderSpec(
        "gpt2",
        config.integer("vocab_size"),
        hidden,
        config.integer("n_positions"),
        (Layer(attention, mlp),) * config.integer("n_layer"),
        config.number("layer_norm_epsilon", 1e-5),
        norm="layer",
        learned_positions=True,
        tied=config.flag("tie_word_embeddings", True),
    )


class _Gpt2(Family):
    """GPT-2 keeps matrices as [in, out], and q, k and v in one."""

    def transformers_places(self, spec: DecoderSpec) -> dict[str, Stowed]:
        return {name: _place(name, shape, spec.hidden) for name, shape in spec.tensors().items()}


def _place(name: str, shape: tuple[int, ...], hidden: int) -> Stowed:
    if not name.startswith("layers."):
        return Stowed(_TENSORS[name])
    _, index, part, kind = name.split(".")
    stowed = f"transformer.h.{index}.{_PARTS[part]}.{kind}"
    if part.endswith("norm"):
        return Stowed(stowed)
    rows, shape = None, shape
    if part in ("q", "k", "v"):
        first = "qkv".index(part) * hidden
        rows, shape = (first, first + hidden), (3 * hidden, *shape[1:])
    return Stowed(stowed, shape=shape[::-1], transposed=len(shape) == 2, rows=rows)


FAMILY = _Gpt2("gpt2", ("gpt2",), _spec)
