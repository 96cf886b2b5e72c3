"""Counts in a configuration against what a checkpoint holds, before anything is built from them."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import ModelError
from .spec import DecoderSpec, Moe


def refuse_experts(spec: DecoderSpec, shapes: Iterable[tuple[int, ...]], where: str) -> None:
    """Stop at more experts than a checkpoint has tensors for.

    Args:
        spec: the architecture that a configuration asks for.
        shapes: of every tensor in the checkpoint; one of three dimensions holds an expert in each row of its first.
        where: the checkpoint, for messages.

    Raises:
        ModelError: both counts.
    """
    asked = sum(layer.ffn.experts for layer in spec.layers if isinstance(layer.ffn, Moe))
    held = sum(shape[0] if len(shape) == 3 and all(shape) else 1 for shape in shapes)
    if asked > held:
        raise ModelError(
            f"{where}: the configuration asks for {asked} experts, and the checkpoint's tensors hold at most {held}",
            hint="the configuration belongs to another checkpoint: download both together",
        )
