"""Tensors of a checkpoint that no one read: each is a refusal, unless it is known to change nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import ModelError

if TYPE_CHECKING:
    import torch

#: Tensors that a network makes anew whenever it is built: tables of rotary positions, causal masks, numbers of rows.
_BUFFERS = re.compile(
    r"(^|\.)(rotary_emb|rotary_pos_emb)\.inv_freq$|\.masked_bias$|(^|\.)position_ids$|(^|\.)num_batches_tracked$"
)
_MASK = re.compile(r"\.(attn|attention|attn\.attention|self_attention)\.bias$")  # [1, 1, positions, positions]
#: What a decoder does without, with the words for it.
_LEFT_OUT = {
    r"(^|\.)mtp\.": "layers that predict several tokens at once",
    r"^(model\.)?(visual|vision_tower|vision_model|multi_modal_projector|audio_tower|embed_vision|embed_audio)\.": "the"
    " part for images or sound",
}
#: Heads and parts that make a checkpoint another kind of model.
_OTHER_MODELS = {
    r"^(score|classifier|v_head|value_head|reward_head|regression_head|cls_out|cls)\.|^(cls|cls\.output)\b": "a head "
    "that classifies or scores: the model is a classifier or reward model, no generator",
    r"(^|\.)qa_outputs\.": "a head that answers questions by spans, no generator",
    r"\.lora_|^base_model\.|\.base_layer\.": "parts of a LoRA adapter that were not merged",
    r"(^|\.)crossattention\.|(^|\.)cross_attn\.": "attention to an encoder, which this family does not have",
    r"(^|\.)(qweight|qzeros|g_idx|weight_packed|weight_scale(_inv)?|weight_zero_point|absmax)$": "a part of a "
    "quantization that config.json does not describe",
}


def refuse_unread(
    where: str,
    names: Iterable[str],
    ignored: Sequence[str],
    read: Callable[[str], torch.Tensor],
) -> list[str]:
    """Notes on the tensors of a checkpoint that nothing reads.

    Args:
        where: the checkpoint, for messages.
        names: those tensors.
        ignored: patterns of names that the published network passes over too.
        read: gives one of them.

    Raises:
        ModelError: one of them may change what the model computes.
    """
    left_out: dict[str, int] = {}
    for name in names:
        if words := _words(name, _LEFT_OUT):
            left_out[words] = left_out.get(words, 0) + 1
        elif not _inert(name, ignored) and not _changes_nothing(name, read):
            what = (
                _words(name, _OTHER_MODELS) or "the architecture that the configuration describes has no place for it"
            )
            raise ModelError(
                f"{where}: tensor '{name}' is not used: {what}",
                hint="check that the configuration belongs to these weights; edgesdk does not build other variants",
            )
    return [f"left out: {words} ({count} tensors)" for words, count in left_out.items()]


def _inert(name: str, ignored: Sequence[str]) -> bool:
    return _BUFFERS.search(name) is not None or any(re.search(pattern, name) for pattern in ignored)


def _words(name: str, table: dict[str, str]) -> str | None:
    return next((words for pattern, words in table.items() if re.search(pattern, name)), None)


def _changes_nothing(name: str, read: Callable[[str], torch.Tensor]) -> bool:
    """Whether a tensor is a causal mask, or a bias or zero points of zeros."""
    if not name.endswith((".bias", "zero_point")):
        return False
    tensor = read(name)
    return (tensor.dim() == 4 and _MASK.search(name) is not None) or not tensor.any()
