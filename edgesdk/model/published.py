"""What transformers' own classes say of a ``config.json``: the defaults of its keys, and which keys mean anything.

A key that a checkpoint leaves out has the default of its family's own configuration class, and no other. Those defaults
are data (``published.json``), made from an installed transformers by ``python -m tests.published_classes``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .config import Config

FILE = Path(__file__).with_name("published.json")
#: Keys that say something of a checkpoint whatever its class knows: what it is, and how long a text it was trained for.
_ALWAYS = frozenset({"model_type", "architectures", "quantization_config", "seq_length"})
#: Keys that change no logits of a generator, by what they are about instead.
_INERT: dict[str, tuple[str, ...]] = {
    "training": (
        *("attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "resid_dropout", "embed_dropout", "dropout"),
        *("hidden_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "activation_dropout", "layerdrop"),
        *("initializer_range", "initializer_factor", "initializer_std", "init_std", "rescale_prenorm_residual"),
        *("output_router_logits", "router_aux_loss_coef", "input_jitter_noise", "hidden_dropout_probability"),
        *("embedding_dropout", "attention_dropout_prob", "dropout_rate", "label_smoothing", "mlp_dropout"),
        *("time_step_init_scheme", "time_step_scale", "time_step_floor", "time_step_max", "time_step_min"),
        *("classifier_dropout", "classifier_dropout_prob", "classifier_activation", "classifier_bias"),
        *(
            "residual_dropout",
            "router_jitter_noise",
            "emb_dropout_prob",
            "attn_dropout_prob",
            "gradient_checkpointing",
            "use_mambapy",
            "use_falcon_mambapy",
        ),
    ),
    "how it is run": (
        *("use_cache", "return_dict", "output_attentions", "output_hidden_states", "torchscript", "pruned_heads"),
        *("chunk_size_feed_forward", "use_bfloat16", "tf_legacy_loss", "pretraining_tp", "slow_but_exact"),
        *("use_mamba_kernels", "chunk_size", "mamba_chunk_size", "num_logits_to_keep", "reorder_and_upcast_attn"),
        *("use_flash_attn", "use_flash_attention", "use_long_context", "cache_implementation", "_attn_implementation"),
        *("attn_implementation", "rescale_every", "reference_compile", "deterministic_flash_attn", "use_dynamic_ntk"),
        *("hybrid_layer_ids", "rescale_layer", "mamba_ssm_dtype", "fp32_residual_connection", "residual_in_fp32"),
        *("use_associative_scan", "use_mem_eff_path", "time_step_rank"),
    ),
    "tokens": (
        *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id", "mask_token_id"),
        *("unk_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id"),
        *("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id", "image_token_index"),
        *("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "tokenizer_class", "prefix"),
        *("pad_vocab_size_multiple", "unpadded_vocab_size"),
    ),
    "generation": (
        *("do_sample", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty"),
        *("max_length", "min_length", "max_new_tokens", "num_beams", "num_beam_groups", "num_return_sequences"),
        *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "diversity_penalty", "early_stopping"),
        *("remove_invalid_values", "exponential_decay_length_penalty", "output_scores", "return_dict_in_generate"),
        *("transformers_weights", "task_specific_params"),
    ),
    "other heads": (
        *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "num_choices", "sparse_prediction"),
        *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),
        *("summary_first_dropout", "classifier_pooling", "sparse_pred_ignore_index", "mtp_num_hidden_layers"),
    ),
    "provenance": (
        *("_name_or_path", "name_or_path", "_commit_hash", "_from_model_config", "transformers_version"),
        *("torch_dtype", "dtype", "architectures", "model_type", "license", "is_llama_config", "unsloth_version"),
        *("unsloth_fixed", "transformers.js_config", "quantization_config", "compression_config", "is_decoder"),
        *("cross_attention_hidden_size", "add_cross_attention", "tie_encoder_decoder", "is_encoder_decoder"),
        *("mamba_d_head", "n_ctx", "seq_length", "sliding_window_pattern", "_sliding_window_pattern"),
        *("use_cache_quantization", "use_cache_kernel", "softmax_in_fp32", "model_max_length", "rotary"),
        *("mrope_section", "mrope_interleaved", "base_config_key", "language"),
    ),
}
INERT = frozenset(key for keys in _INERT.values() for key in keys)


@dataclass(frozen=True)
class Published:
    """One ``model_type`` of transformers.

    Attributes:
        name: of the configuration class.
        network: the class that generates text, or None: there is none.
        defaults: what keys have that a checkpoint leaves out (null ones are left out here).
        nullable: keys that may be null.
        renamed: other names of keys, which mean the same.
        further: keys that are no fields of the class but that it, or its network, asks for.
        theta: base of the rotary positions where nothing says one; by layer type where those differ.
        whole_heads: its network has rotary positions, and turns whole heads whatever ``partial_rotary_factor`` says.
        ignored: patterns of tensors that its network passes over.
        sections: the ``model_type`` of parts with a configuration of their own.
    """

    name: str
    network: str | None = None
    defaults: dict[str, Any] = field(default_factory=dict)
    nullable: Sequence[str] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    further: Sequence[str] = ()
    theta: float | dict[str, float] | None = None
    whole_heads: bool = False
    ignored: Sequence[str] = ()
    sections: dict[str, str] = field(default_factory=dict)

    def knows(self, key: str) -> bool:
        """Whether a key means something to the class or its network."""
        return key in self.defaults or key in self.nullable or key in self.further or key in self.sections


@cache
def published_types() -> dict[str, Published]:
    """Every ``model_type`` of the families here that transformers has."""
    data = json.loads(FILE.read_text(encoding="utf-8"))
    return {kind: Published(**record) for kind, record in data["types"].items()}


def published_ignored(kind: str) -> Sequence[str]:
    """Patterns of tensors that the published network of a ``model_type`` passes over."""
    record = published_types().get(kind)
    return () if record is None else record.ignored


def completed(config: Config) -> Config:
    """A checkpoint's configuration with its class's defaults, without the keys that its class does not know.

    A ``model_type`` that transformers does not have stays as it is.

    Raises:
        ModelError: a key that cannot be null is, or one value stands under two names with two values.
    """
    record = published_types().get(str(config.values.get("model_type")))
    if record is None:
        return config
    theta = record.theta if isinstance(record.theta, float) else None
    return Config(
        _merged(record, config.values, config.where), config.where, theta=theta, whole_heads=record.whole_heads
    )


def _merged(record: Published, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    merged = dict(record.defaults)
    for key, value in values.items():
        name = record.renamed.get(key, key)
        if name != key and name in values and values[name] != value:
            raise ModelError(
                f"{where}: '{key}' is {value!r} and '{name}' is {values[name]!r}, which are two names of the same",
                hint="remove the one that does not belong to the weights",
            )
        if value is None and name in record.defaults and name not in record.nullable:
            raise ModelError(
                f"{where}: '{key}' is null, which {record.name} of transformers does not take",
                hint=f"give its value, or remove the key: it then is {record.defaults[name]!r}",
            )
        if name in _ALWAYS or record.knows(name):
            merged[name] = value
    for name, kind in record.sections.items():
        section = values.get(name)
        section = section if isinstance(section, Mapping) else {}
        inner = published_types().get(str(section.get("model_type", kind)))
        merged[name] = section if inner is None else _merged(inner, section, f"{where}: {name}")
    return merged


def passed_over(given: Config, read: Config) -> list[str]:
    """Notes on keys of a checkpoint that nothing here looked at, and that may have a meaning all the same.

    Args:
        given: the file as it is.
        read: what :func:`completed` made of it, after a family read it.

    Raises:
        ModelError: one of them means something to the network that transformers builds, and differs from the default.
    """
    kind = str(given.values.get("model_type"))
    unknown: list[str] = []
    for path, value in _leaves(given.values):
        record, name = _owner(published_types().get(kind), path)
        key = name.rpartition(".")[2]
        if value is None or key in INERT or name.partition(".")[0] in INERT or read.looked_at(name):
            continue
        if "rope_" in name and not read.looked_into(name.rpartition(".")[0]):
            continue  # a network without rotary positions
        if record is None or "rope_" in name or not record.knows(key):
            unknown.append(path)
        elif record.defaults.get(key) != value:
            default = record.defaults.get(key)
            raise ModelError(
                f"{given.where}: '{path}' is {_short(value)}, and edgesdk does not build that of {record.name}"
                f" (its default is {_short(default)})",
                hint="remove the key if the model was trained without it; otherwise this variant cannot be carried",
            )
    if not unknown:
        return []
    what = f"{kind} of transformers does not know" if kind in published_types() else "nothing here looks at"
    return [f"config.json has keys that {what}, so they change nothing: {', '.join(unknown)}"]


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its value; of sections and of rotary parameters, those inside."""
    for key, value in values.items():
        if isinstance(value, Mapping) and (key.startswith("rope_") or key.endswith("_config") or path):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield path + key, value


def _owner(record: Published | None, path: str) -> tuple[Published | None, str]:
    """The class that a key belongs to, and the key's path under the names that families read."""
    first, _, rest = path.partition(".")
    if record is None or not rest:
        return record, record.renamed.get(path, path) if record else path
    if first in record.sections:
        inner, name = _owner(published_types().get(record.sections[first]), rest)
        return inner, f"{first}.{name}"
    return record, path


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
