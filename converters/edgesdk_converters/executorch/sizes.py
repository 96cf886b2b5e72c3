"""Sizes of steps and caches, as the program is built with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesdk.model.spec import Attention

CHUNK = 256  # most tokens of one step
SCORE_CHUNK = 32  # the same when every token's logits are kept
WIDE_STATES = ("ssm", "wkv")  # float32 whatever the program's type
ALIBI_COLUMNS = 2  # that queries, keys and values have for its biases; see positions.py


def step_sizes(context: int) -> tuple[int, int]:
    """Most tokens of one step of ``forward`` and of ``score``."""
    return min(CHUNK, context), min(SCORE_CHUNK, context)


def capacity(window: int | None, context: int) -> int:
    """Entries of a layer's cache: the context, or a ring of the window, a step, and as many that may be taken back."""
    chunk, _ = step_sizes(context)
    return context if window is None else min(context, window + 2 * chunk)


def rewind_limit(windows: list[int | None], context: int, recurrent: bool) -> int:
    """Tokens that may be taken back before a ring has lost what an older query would see; none where there are states.

    States can go back to where the last call of several tokens began, and to the first position.
    """
    if recurrent:
        return 0
    chunk, _ = step_sizes(context)
    return chunk if any(capacity(window, context) < context for window in windows) else context


def head_width(attention: Attention) -> int:
    """Entries of a cached key or value of one head."""
    return attention.head_dim + (0 if attention.alibi is None else ALIBI_COLUMNS)
