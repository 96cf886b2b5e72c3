"""Drawing text from a model, token by token, several texts at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from .passage import Passage
from .prompts import asked

if TYPE_CHECKING:
    from ..model.tokenizer import Tokenizer
    from ..progress import Stage

ANSWERS, BEHIND_PREFIX, BEHIND_TOKEN = "self: answers", "self: prefix", "self: first token"


class Writer(Protocol):
    """A model that runs texts of its own.

    Attributes:
        vocab: length of a row of logits.
        together: how many texts it runs at once, at most.
    """

    vocab: int
    together: int

    def start(self, texts: int, length: int) -> None:
        """Begin so many texts of at most ``length`` tokens; the ones before are forgotten."""

    def run(self, ids: torch.Tensor) -> torch.Tensor:
        """Append ids, int64 [texts, tokens]; the logits after the last of each, float32 [texts, vocab]."""


@dataclass(frozen=True)
class Beginnings:
    """What a model's own texts begin with.

    Attributes:
        name: ``self: answers`` (questions in the chat template), ``self: prefix`` (the tokenizer's prefix, or its BOS)
            or ``self: first token`` (a random one each).
        stop: tokens that end a text.
        given: ids to begin with, in turns; () for random tokens.
    """

    name: str
    stop: frozenset[int] = frozenset()
    given: Sequence[list[int]] = ()

    def ids(self, number: int, vocab: int, random: np.random.Generator) -> list[int]:
        """What the text of a number begins with."""
        return list(self.given[number % len(self.given)]) if self.given else [int(random.integers(vocab))]

    @property
    def longest(self) -> int:
        """Tokens of the longest of them."""
        return max(map(len, self.given), default=1)

    def shorter_half(self) -> Beginnings:
        """The half that is no longer than the others, in the same order: texts run together, as long as the longest."""
        most = sorted(map(len, self.given))[(len(self.given) - 1) // 2] if self.given else 0
        return replace(self, given=[ids for ids in self.given if len(ids) <= most])

    def front(self, ids: Sequence[int]) -> int:
        """How many of the ``ids`` that a text begins with stand in front of what the model wrote."""
        return len(ids) if self.given else 0

    def first(self, ids: Sequence[int]) -> int:
        """The first row of logits that counts: what chose an answer's first token, or what came after the prefix."""
        return len(ids) - 1 if self.name == ANSWERS else self.front(ids)


def beginnings(tokenizer: Tokenizer | None, room: int) -> Beginnings:
    """How the texts begin that a model with this tokenizer writes in ``room`` tokens; a question takes at most half.

    Raises:
        ModelError: the chat template refuses a question.
    """
    if tokenizer is None:
        return Beginnings(BEHIND_TOKEN)
    stop = frozenset(tokenizer.special.stop)
    if questions := asked(tokenizer, room // 2):
        return Beginnings(ANSWERS, stop, questions)
    if start := _start(tokenizer):
        return Beginnings(BEHIND_PREFIX, stop, [start])
    return Beginnings(BEHIND_TOKEN, stop)


def _start(tokenizer: Tokenizer) -> list[int]:
    """What stands in front of every text: the prefix, or a BOS that is a special token; [] where there is neither."""
    special = tokenizer.special
    if special.prefix or special.bos is None:
        return list(special.prefix)
    return [special.bos] if special.bos in tokenizer.backend.get_added_tokens_decoder() else []


@dataclass(frozen=True)
class Order:
    """What is to be written.

    Attributes:
        beginnings: of the texts.
        texts: how many.
        length: most tokens of a text, with what it begins with.
        rows: most rows of logits that count of a text, which a stop token ends; None: texts have exactly ``length``
            tokens, and behind one that ends the next begins.
        seed: of the random numbers.
    """

    beginnings: Beginnings
    texts: int
    length: int
    rows: int | None = None
    seed: int = 0


@dataclass
class Draft:
    """A text on its way.

    Attributes:
        number: which of them; it decides what the text begins with.
        begun: how many texts stand in it, one behind the other.
        place: in the batch that runs it.
        ids: its tokens so far, given and drawn.
        front: how many of them stand in front of what the model wrote.
        first: the first row that counts.
        random: what decides its tokens.
        drawn: the tokens that the model chose.
        ended: whether it is complete.
    """

    number: int
    place: int
    ids: list[int]
    front: int
    first: int
    random: np.random.Generator
    drawn: list[int] = field(default_factory=list)
    begun: int = 1
    ended: bool = False

    @property
    def passage(self) -> Passage:
        """The text as it is compared on."""
        return Passage(self.ids, self.front, self.first)


def write_batch(writer: Writer, order: Order, numbers: Sequence[int], attempt: int, stage: Stage) -> list[Draft]:
    """Write the texts of these numbers together; each is the same whatever else is in the batch."""
    drafts = [_begun(writer, order, number, place, attempt) for place, number in enumerate(numbers)]
    writer.start(len(drafts), order.length)
    position = 0
    while going := [draft for draft in drafts if not draft.ended]:
        count = min(len(draft.ids) for draft in going) - position
        rows = [draft.ids[position : position + count] for draft in drafts]
        logits = writer.run(torch.tensor([row + [0] * (count - len(row)) for row in rows]))
        position += count
        stage.advance(count)
        drawing = [draft for draft in going if len(draft.ids) == position and not _complete(order, draft)]
        if drawing:
            tokens = _drawn(logits[[draft.place for draft in drawing]], order, drawing)
            for draft, token in zip(drawing, tokens, strict=True):
                _append(writer, order, draft, token)
        for draft in going:
            draft.ended |= len(draft.ids) == position and _complete(order, draft)
    return drafts


def _begun(writer: Writer, order: Order, number: int, place: int, attempt: int) -> Draft:
    random = np.random.default_rng((order.seed, number, attempt))
    ids = order.beginnings.ids(number, writer.vocab, random)[: order.length]
    return Draft(number, place, ids, order.beginnings.front(ids), order.beginnings.first(ids), random)


def _complete(order: Order, draft: Draft) -> bool:
    enough = order.rows is not None and len(draft.ids) - draft.first >= order.rows
    return enough or len(draft.ids) >= order.length


def _drawn(logits: torch.Tensor, order: Order, drafts: Sequence[Draft]) -> list[int]:
    """One token for each row of logits [texts, vocab], by inverting the distribution at a random chance each.

    Where logits are NaN or infinite it is any token: whoever runs the text then says where values overflow.
    """
    weights = torch.softmax(logits.double(), dim=-1).nan_to_num(nan=1.0)
    if order.beginnings.name != ANSWERS:  # a text of no tokens is none
        empty = torch.tensor([not draft.drawn for draft in drafts])
        for token in filter(lambda token: token < logits.shape[-1], order.beginnings.stop):
            weights[empty, token] = 0
    chances = torch.tensor([[draft.random.random()] for draft in drafts], dtype=torch.float64)
    cumulative = weights.cumsum(-1)
    tokens = torch.searchsorted(cumulative, chances * cumulative[:, -1:]).clamp_(max=logits.shape[-1] - 1)
    found: list[int] = tokens[:, 0].tolist()
    return found


def _append(writer: Writer, order: Order, draft: Draft, token: int) -> None:
    if token not in order.beginnings.stop:
        draft.ids.append(token)
        draft.drawn.append(token)
    elif order.rows is not None:
        draft.ended = True
    else:
        following = draft.number + draft.begun * order.texts
        draft.begun += 1
        draft.ids += [token, *order.beginnings.ids(following, writer.vocab, draft.random)]
        del draft.ids[order.length :]
