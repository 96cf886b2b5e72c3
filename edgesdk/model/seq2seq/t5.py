"""T5 and Flan-T5: relative position buckets, RMS norms, no biases, plain or gated feed-forward (arXiv 1910.10683)."""

from __future__ import annotations

from ...errors import ModelError
from ..config import Config
from ..encoder_spec import (
    Embedding,
    EncoderAttention,
    EncoderLayer,
    EncoderSpec,
    Normalization,
    RelativePositions,
    TokenEmbedding,
)
from ..families.base import ACTIVATIONS
from ..seq2seq_spec import Seq2SeqSpec
from ..spec import Mlp
from .base import Seq2SeqFamily

_WHOLE = {
    "embed.weight": "shared.weight",
    "head.weight": "lm_head.weight",
    "relative.weight": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "decoder_relative.weight": "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "final_norm.weight": "encoder.final_layer_norm.weight",
    "decoder_norm.weight": "decoder.final_layer_norm.weight",
}
_ATTENTION = {name: f"layer.0.SelfAttention.{name}" for name in "qkvo"} | {"attn_norm": "layer.0.layer_norm"}
_CROSS = {f"cross_{name}": f"layer.1.EncDecAttention.{name}" for name in "qkvo"} | {"cross_norm": "layer.1.layer_norm"}
_GATED, _PLAIN = {"gate": "wi_0", "up": "wi_1", "down": "wo"}, {"up": "wi", "down": "wo"}
_TRAINED = 512  # tokens, where the configuration does not say: positions are relative, so nothing breaks behind them


def _stowed(name: str, gated: bool) -> str:
    if name in _WHOLE:
        return _WHOLE[name]
    _, side, index, part, kind = name.split(".")
    number = 1 if side == "encoder" else 2
    parts = _ATTENTION | _CROSS | {"mlp_norm": f"layer.{number}.layer_norm"}
    parts |= {key: f"layer.{number}.DenseReluDense.{stem}" for key, stem in (_GATED if gated else _PLAIN).items()}
    return f"{side}.block.{index}.{parts[part]}.{kind}"


def _mlp(config: Config) -> Mlp:
    form = str(config.get("feed_forward_proj") or "relu")
    gated, _, kind = form.rpartition("-")
    kind = "gelu_new" if form == "gated-gelu" else kind
    if gated not in ("", "gated") or kind not in ACTIVATIONS:
        raise ModelError(f"{config.where}: 'feed_forward_proj' is {form!r}; supported: relu, gated-gelu, gated-silu")
    for key, value in (("dense_act_fn", kind), ("is_gated_act", bool(gated))):
        if config.get(key) not in (None, value):
            raise ModelError(f"{config.where}: '{key}' is {config.get(key)!r}, which 'feed_forward_proj' contradicts")
    return Mlp(config.integer("d_ff"), ACTIVATIONS[kind], gated=bool(gated))


def _spec(config: Config, own_head: bool) -> Seq2SeqSpec:
    count, hidden = config.integer("num_layers"), config.integer("d_model")
    attention = EncoderAttention(config.integer("num_heads"), config.integer("d_kv"), 1.0, bias=False)
    layer = EncoderLayer(attention, _mlp(config), pre_norm=True)
    norm = Normalization("rms", config.number("layer_norm_epsilon", 1e-6), bias=False)
    buckets = config.integer("relative_attention_num_buckets", 32)
    farthest = config.integer("relative_attention_max_distance", 128)
    config.overruled("tie_word_embeddings")  # whether the file has a head says it
    scaled = config.get("scale_decoder_outputs")  # transformers 5; before, only untied models did not scale
    if scaled is None:
        scaled = config.get("tie_word_embeddings") is not False and config.get("model_type") != "mt5"
    encoder = EncoderSpec(
        "t5",
        config.integer("vocab_size"),
        hidden,
        config.integer("n_positions", _TRAINED),
        TokenEmbedding(hidden, normed=False),
        (layer,) * count,
        norm,
        Embedding(),
        final_norm=True,
        relative=RelativePositions(buckets, farthest),
        prefix="layers.encoder.",
    )
    start = config.get("decoder_start_token_id")
    return Seq2SeqSpec(
        "t5",
        encoder,
        (layer,) * config.integer("num_decoder_layers", count),
        norm,
        RelativePositions(buckets, farthest, bidirectional=False),
        start=int(config.get("pad_token_id") or 0) if start is None else int(start),
        tied=not own_head,
        output_scale=hidden**-0.5 if scaled else 1.0,
    )


FAMILY = Seq2SeqFamily("t5", ("t5", "mt5"), _spec, _stowed)
