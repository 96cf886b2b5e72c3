"""A decoder in a GGUF file: its metadata in transformers' keys, its tensors by the family's places.

What a key means, and what holds where it is missing, is what llama.cpp does (``llama-model.cpp``, ``llama-context.cpp``
of its build in llama-cpp-python 0.3.36).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from ..errors import ModelError
from .config import Config
from .families import Family
from .families.ropes import yarn_magnitude
from .gguf_file import GgufFile
from .spec import Attention, DecoderSpec, Layer, Mlp
from .unread import refuse_unread
from .weights import CheckpointWeights, Stowed, dense

_HUB = "open the original Hugging Face checkpoint"
#: Keys that change no logits, or that say again what tensors say.
_INERT = frozenset(
    {
        *("vocab_size", "tensor_data_layout", "rope.scaling.finetuned", "embedding_length_out"),
        *("attention.layer_norm_epsilon", "decoder_start_token_id", "expert_used_count"),
    }
)
#: Tensors that are read before the family's own.
_ROPE_FREQS, _SHORT, _LONG = "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"
_NOT_MODELS = {
    "adapter": "a LoRA adapter",
    "mmproj": "the part of a model that sees or hears",
    "clip-vision": "the part of a model that sees",
    "imatrix": "an importance matrix",
}


def read_gguf(file: GgufFile, family: Family, architecture: str) -> tuple[DecoderSpec, CheckpointWeights, list[str]]:
    """The spec and the weights of a file, and notes on what was passed over.

    Raises:
        ModelError: a key or a tensor has a meaning that is not built, or is missing.
    """
    prefix = architecture + "."
    named = {key.removeprefix(prefix): value for key, value in file.metadata.items() if key.startswith(prefix)}
    own = Config(named, file.where)
    config = _config(file, own, family)
    spec = _as_stored(family.spec(config), own, file)
    places = {
        name: place
        if place.fill is not None or not name.endswith(".bias") or file.shape(place.name) is not None
        # biases are optional one by one
        else Stowed("", fill=0.0)
        for name, place in family.gguf_places(spec).items()
    }
    weights = CheckpointWeights(file, places, spec.tensors())
    notes = _passed_over(own, architecture)
    return spec, weights, [*notes, *refuse_unread(file.where, file.unread(), (), lambda name: dense(file.read(name)))]


def refuse_other_files(file: GgufFile) -> None:
    """Stop at a GGUF file that holds no model, or a part of one.

    Raises:
        ModelError: what it is.
    """
    metadata = file.metadata
    kind = str(metadata.get("general.type", "model"))
    if kind != "model":
        what = _NOT_MODELS.get(kind, f"of type '{kind}'")
        raise ModelError(f"{file.where}: {what}, no language model", hint="give the GGUF file of the model itself")
    parts = metadata.get("split.count")
    if isinstance(parts, int) and parts > 1:
        number = metadata.get("split.no", 0)
        raise ModelError(
            f"{file.where}: part {number + 1} of {parts} of a split GGUF file",
            hint="merge them with llama.cpp's gguf-split --merge and give the whole file",
        )


def _config(file: GgufFile, own: Config, family: Family) -> Config:
    """The metadata in transformers' keys."""
    _refuse_others(own)
    embedding = file.shape("token_embd.weight")
    heads, hidden = own.integer("attention.head_count"), own.integer("embedding_length")
    head_dim = own.integer("attention.key_length", hidden // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if own.integer(key, head_dim) != head_dim:
            raise ModelError(f"{own.where}: heads of {head_dim} with '{key}' {own.get(key)} are not built", hint=_HUB)
    values = {
        "hidden_size": hidden,
        "intermediate_size": own.get("feed_forward_length"),
        "num_hidden_layers": own.get("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": own.get("attention.head_count_kv"),
        "head_dim": head_dim,
        "rms_norm_eps": own.number("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": own.get("context_length"),
        "rope_theta": own.number("rope.freq_base", 10000.0),
        "vocab_size": embedding[0] if embedding else None,
        "tie_word_embeddings": file.shape("output.weight") is None,
        "rope_scaling": _rope(file, own, head_dim),
        **family.gguf_config(own),
    }
    return Config({key: value for key, value in values.items() if value is not None}, file.where)


def _refuse_others(own: Config) -> None:
    """Stop at what is no dense generator."""
    if own.get("expert_count"):
        raise ModelError(f"{own.where}: a mixture of experts in a GGUF file is not built", hint=_HUB)
    if own.get("pooling_type"):
        raise ModelError(f"{own.where}: an embedder ('pooling_type' {own.get('pooling_type')}), no generator")
    if own.get("classifier.output_labels"):
        raise ModelError(f"{own.where}: a classifier ('classifier.output_labels'), no generator")
    if own.get("use_parallel_residual"):
        raise ModelError(f"{own.where}: attention and MLP side by side are not built from a GGUF file", hint=_HUB)
    window, context = own.values.get("attention.sliding_window"), own.get("context_length")
    if isinstance(window, int) and isinstance(context, int) and window >= context:  # it changes nothing
        own.overruled("attention.sliding_window", "attention.sliding_window_pattern")


def _rope(file: GgufFile, own: Config, head_dim: int) -> dict[str, Any] | None:
    """``rope_scaling`` as the file asks for it, or None."""
    kind = own.get("rope.scaling.type") or "linear"
    factor = own.optional("rope.scaling.factor") or own.optional("rope.scale_linear") or 1.0
    scale = own.number("rope.scaling.attn_factor", 1.0)
    original = own.integer("rope.scaling.original_context_length", own.integer("context_length"))
    if kind == "none":
        factor = 1.0
    elif kind not in ("linear", "yarn", "longrope"):
        raise ModelError(f"{own.where}: rope type '{kind}' is not supported; supported: none, linear, yarn, longrope")
    for key, usual in (("rope.scaling.yarn_ext_factor", (None, 1, -1)), ("rope.scaling.yarn_attn_factor", (None, 1))):
        if own.get(key) not in usual:
            raise ModelError(f"{own.where}: '{key}' {own.get(key)} is not built", hint=_HUB)
    lists = _frequencies(file, kind)
    if lists is not None and kind == "yarn":
        raise ModelError(f"{own.where}: YaRN beside frequencies of its own ({_ROPE_FREQS}) is not built", hint=_HUB)
    if lists is not None or (scale != 1 and kind != "yarn"):
        short, long = lists or ([1.0] * (head_dim // 2),) * 2
        return {
            "rope_type": "longrope",
            "short_factor": [factor * value for value in short],
            "long_factor": [factor * value for value in long],
            "original_max_position_embeddings": original,
            "attention_factor": scale,
        }
    if kind == "yarn":
        above, below = (
            yarn_magnitude(factor, own.get("rope.scaling.yarn_log_multiplier") or 0.0),
            yarn_magnitude(factor, 1.0),
        )
        return {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
            "attention_factor": scale * below / above,
            "beta_fast": own.get("rope.scaling.yarn_beta_fast"),
            "beta_slow": own.get("rope.scaling.yarn_beta_slow"),
        }
    return None if factor == 1 else {"rope_type": "linear", "factor": factor}


def _frequencies(file: GgufFile, kind: str) -> tuple[list[float], list[float]] | None:
    """What pairs' frequencies are divided by, in short texts and in long ones (Llama 3, LongRoPE)."""
    if file.metadata.get("general.architecture") != "llama":
        return None  # llama.cpp has them for no other family of these
    names = (_SHORT, _LONG) if kind == "longrope" else (_ROPE_FREQS, _ROPE_FREQS)
    if file.shape(names[0]) is None or file.shape(names[1]) is None:
        return None
    short, long = (dense(file.read(name)).tolist() for name in names)
    return short, long


def _as_stored(spec: DecoderSpec, own: Config, file: GgufFile) -> DecoderSpec:
    """The spec with the biases that the file has, and with the attention that its keys ask for."""
    layers = tuple(_layer(layer, index, own, file) for index, layer in enumerate(spec.layers))
    return replace(spec, layers=layers, head_bias=file.shape("output.bias") is not None)


def _layer(layer: Layer, index: int, own: Config, file: GgufFile) -> Layer:
    def biased(*parts: str) -> bool:
        return any(file.shape(f"blk.{index}.{part}.bias") is not None for part in parts)

    if isinstance(layer.mixer, Attention):
        mixer = replace(
            layer.mixer,
            qkv_bias=biased("attn_q", "attn_k", "attn_v"),
            out_bias=biased("attn_output"),
            scale=own.number("attention.scale", layer.mixer.scale),
            causal=own.flag("attention.causal", True),
        )
        layer = replace(layer, mixer=mixer)
    if isinstance(layer.ffn, Mlp):
        layer = replace(layer, ffn=replace(layer.ffn, bias=biased("ffn_gate", "ffn_up", "ffn_down")))
    return layer


def _passed_over(own: Config, architecture: str) -> list[str]:
    """Notes on keys that nothing looked at.

    Raises:
        ModelError: one of them has a meaning in GGUF.
    """
    left = [key for key in own.values if not own.looked_at(key) and key not in _INERT]
    meant = [key for key in left if key in _known_keys() and own.values[key] not in (0, 0.0, None, [])]
    if meant:
        raise ModelError(
            f"{own.where}: '{architecture}.{meant[0]}' is {own.values[meant[0]]!r}, which is not built", hint=_HUB
        )
    foreign = [key for key in left if key not in _known_keys()]
    names = ", ".join(f"{architecture}.{key}" for key in foreign)
    return [f"the file has keys that GGUF does not define, so they change nothing: {names}"] if foreign else []


@cache
def _known_keys() -> frozenset[str]:
    """What may stand behind an architecture's name, as the ``gguf`` package lists it."""
    from gguf import Keys

    groups = (group for group in vars(Keys).values() if isinstance(group, type))
    keys = (key for group in groups for key in vars(group).values() if isinstance(key, str))
    return frozenset(key.removeprefix("{arch}.") for key in keys if key.startswith("{arch}."))
