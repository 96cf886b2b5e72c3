"""Text that a model writes itself, at temperature 1: what it will be asked to predict, without any data set.

A chat model answers questions through its template; any other model writes behind the tokenizer's prefix, or its BOS,
where every text that it was trained on began. Only a model without either begins with a random token (LLM-QAT, arXiv
2305.17888). What it writes is checked: a loop is drawn again, and a model that writes many loops is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .loops import DegenerateTextError, is_loop
from .reference import ReferenceWriter
from .sampling import ANSWERS, Draft, Order, beginnings, write_batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model.reference import ReferenceModel
    from ..model.tokenizer import Tokenizer
    from ..progress import Progress
    from .passage import Passage
    from .sampling import Writer

SEED = 0
#: Texts that predictions are compared on, and rows of each; questions, which are run too, make up for the difference.
_ANSWERS, _TEXTS = (16, 32), (16, 40)
_ATTEMPTS = 3  # draws of one text
_MOST_LOOPS = 0.25  # of all draws: a model on its own ground writes next to none


@dataclass(frozen=True)
class OwnText:
    """What a model wrote.

    Attributes:
        name: what it was written behind: ``self: answers``, ``self: prefix`` or ``self: first token``.
        passages: the texts; those that the model ended itself are shorter.
        hidden: final hidden states of the rows that count, passage after passage, float32 [rows, hidden]: far smaller
            than logits. None where a program wrote the text.
        loops: why nothing can be concluded from it, in words, or None: it is a text.
    """

    name: str
    passages: list[Passage]
    hidden: torch.Tensor | None
    loops: str | None


def own_text(
    writer: Writer, tokenizer: Tokenizer | None, context: int, progress: Progress, *, seed: int = SEED
) -> OwnText:
    """Sample 16 texts of 40 rows that count, or 16 answers of at most 32; the same for the same seed.

    Args:
        writer: the model.
        tokenizer: its own; None for a model made without one.
        context: most tokens of a text, with the question or the prefix before it.
        progress: told of every token.
        seed: of the random numbers.
    """
    begin = beginnings(tokenizer, context).shorter_half()
    texts, rows = _ANSWERS if begin.name == ANSWERS else _TEXTS
    order = Order(begin, texts, min(context, begin.longest + rows), rows, seed)
    states: dict[int, torch.Tensor] = {}

    def keep(draft: Draft) -> None:
        if isinstance(writer, ReferenceWriter):
            states[draft.number] = writer.states(draft.place, draft.first, len(draft.ids))

    drafts, loops = _written(writer, order, progress, keep)
    hidden = torch.cat([states[draft.number] for draft in drafts]) if states else None
    return OwnText(order.beginnings.name, [draft.passage for draft in drafts], hidden, loops)


def own_rows(
    reference: ReferenceModel, tokenizer: Tokenizer | None, sequences: int, length: int, seed: int, progress: Progress
) -> list[list[int]]:
    """Rows of exactly ``length`` tokens to calibrate on: texts that the model writes, one behind the other.

    Raises:
        DegenerateTextError: the model writes loops.
    """
    order = Order(beginnings(tokenizer, length), sequences, length, seed=seed)
    drafts, loops = _written(ReferenceWriter(reference), order, progress)
    if loops is not None:
        raise DegenerateTextError(
            f"{loops}: nothing can be learned from that",
            hint="give text of the kind that it is for: --calibration FILE",
        )
    return [draft.ids for draft in drafts]


def _written(
    writer: Writer, order: Order, progress: Progress, keep: Callable[[Draft], None] | None = None
) -> tuple[list[Draft], str | None]:
    """The texts of an order without those that stayed loops, and where many were, all of them and why they are no text.

    ``keep`` is called with each text while the writer still knows its batch.
    """
    drafts: dict[int, Draft] = {}
    wanted = list(range(order.texts))
    loops = draws = 0
    batches = -(-order.texts // writer.together)
    with progress.stage("Sampling text from the model", order.length * batches) as stage:
        for attempt in range(_ATTEMPTS):
            again: list[int] = []
            for at in range(0, len(wanted), writer.together):
                for draft in write_batch(writer, order, wanted[at : at + writer.together], attempt, stage):
                    drafts[draft.number] = draft
                    if keep is not None:
                        keep(draft)
                    again += [draft.number] if is_loop(draft.drawn) else []
            loops, draws, wanted = loops + len(again), draws + len(wanted), again
    if loops > _MOST_LOOPS * draws:
        return (
            list(map(drafts.__getitem__, range(order.texts))),
            f"what this model writes by itself repeats the same tokens over and over, in {loops} of {draws} samples",
        )
    return [drafts[number] for number in range(order.texts) if number not in wanted], None
