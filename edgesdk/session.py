"""One interface to a running model, whatever runtime is behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from .errors import BundleError, EdgeError

if TYPE_CHECKING:
    import numpy as np


State = TypeVar("State")
_BETWEEN_STATES = 32  # tokens, of those that come one by one
_KEPT_STATES = 4


class Session(Protocol):
    """A model with its key-value cache. Logits are float32 numpy arrays; token ids are ints.

    Attributes:
        context: most tokens that the cache holds.
        vocab: length of a row of logits.
    """

    context: int
    vocab: int

    @property
    def position(self) -> int:
        """Tokens in the cache now."""

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Append tokens; return the logits after the last one, [vocab].

        Raises:
            EdgeError: no tokens, or more than the context holds (the cache is left as it was).
        """

    def decode(self, token: int) -> np.ndarray:
        """Append one token; return the logits after it, [vocab]."""

    def score(self, ids: Sequence[int]) -> np.ndarray:
        """Append tokens; return the logits after each of them, [tokens, vocab]."""

    def reset(self) -> None:
        """Empty the cache."""

    def rewind(self, count: int) -> None:
        """Forget the last ``count`` tokens."""


def scores_apart(session: Session) -> bool:
    """Whether ``score`` has a cache of its own, so that it and ``prefill`` or ``decode`` in turns run tokens twice."""
    return bool(getattr(session, "scores_apart", False))


def sums_over_steps(session: Session) -> bool:
    """Whether attention sums over a whole step, so that a token's last bits follow from where its step ends."""
    return bool(getattr(session, "sums_over_steps", False))


@contextmanager
def usable(program: Path, runtime: str) -> Iterator[None]:
    """Make one error of whatever a runtime raises for a program that is not of its kind.

    Raises:
        BundleError: the program cannot be used, and why.
    """
    try:
        yield
    except EdgeError:
        raise
    except Exception as failure:  # bindings raise a class per status code, and a wrong input or output any other
        reason = (str(failure).strip() or type(failure).__name__).splitlines()[0]
        raise BundleError(f"{program.name}: {runtime} cannot load it: {reason}") from None


def refuse_rewind(session: Session, count: int) -> None:
    """Stop when more tokens shall be forgotten than there are.

    Raises:
        EdgeError: with both counts.
    """
    if not 0 <= count <= session.position:
        raise EdgeError(f"cannot rewind {count} of {session.position} tokens")


def refuse_tokens(session: Session, ids: Sequence[int]) -> None:
    """Stop before tokens reach a runtime that cannot take them.

    Raises:
        EdgeError: none, too many for the context, or outside the vocabulary.
    """
    if not ids:
        raise EdgeError("no tokens to run")
    if session.position + len(ids) > session.context:
        raise EdgeError(
            f"{session.position + len(ids)} tokens exceed the context of {session.context}",
            hint="export with a larger --context, or shorten the text",
        )
    if min(ids) < 0 or max(ids) >= session.vocab:
        raise EdgeError(f"token ids must lie in 0 to {session.vocab - 1}, found {min(ids)} to {max(ids)}")


class Recall(Generic[State]):
    """Going back in a model whose states cannot be cut: an earlier state is restored, and tokens after it run again.

    States are saved before every step of several tokens, and now and then between single ones; the newest few are kept.
    """

    def __init__(
        self,
        save: Callable[[], State],
        restore: Callable[[int, State | None], None],
        run: Callable[[Sequence[int]], object],
    ) -> None:
        """Nothing has run yet.

        Args:
            save: gives the states as they are.
            restore: goes back to a position and its states; None: to position 0.
            run: runs tokens, and tells :meth:`note` of them.
        """
        self._save, self._restore, self._run = save, restore, run
        self._ids: list[int] = []
        self._saved: list[tuple[int, State]] = []

    def note(self, position: int, ids: Sequence[int]) -> None:
        """Tokens are about to run from ``position`` on."""
        newest = self._saved[-1][0] if self._saved else 0
        if position > newest and (len(ids) > 1 or position - newest >= _BETWEEN_STATES):
            self._saved = [*self._saved[1 - _KEPT_STATES :], (position, self._save())]
        del self._ids[position:]
        self._ids += ids

    def rewind(self, position: int) -> None:
        """Go back to the state after the first ``position`` tokens."""
        if position == len(self._ids):
            return
        again = self._ids[:position]
        self._saved = [(at, state) for at, state in self._saved if at <= position]
        at, state = self._saved[-1] if self._saved else (0, None)
        self._restore(at, state)
        if again[at:]:
            self._run(again[at:])
        del self._ids[position:]


@dataclass(frozen=True)
class RunnerStatistics:
    """What a runtime's own text runner says about one answer.

    Attributes:
        prompt_tokens: tokens of the prompt.
        new_tokens: tokens after the first one, as the runner counts them.
        prefill_seconds: until the first token, tokenization included.
        decode_seconds: for the tokens after it.
    """

    prompt_tokens: int
    new_tokens: int
    prefill_seconds: float
    decode_seconds: float


class TextRunner(Protocol):
    """A runtime's own way from text to text: its tokenizer, its sampling, its stop tokens, as an app would run it."""

    def generate(
        self,
        prompt: str,
        on_text: Callable[[str], None],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        bos_tokens: int = 0,
    ) -> RunnerStatistics:
        """Answer a prompt, calling ``on_text`` with each piece; ``bos_tokens`` are put in front of the prompt.

        Raises:
            EdgeError: the runner failed.
        """


class EncoderSession(Protocol):
    """An encoder: a text becomes one row of numbers, its embedding or the logits of its labels.

    Attributes:
        context: most tokens of a text.
        size: length of a row.
    """

    context: int
    size: int

    def encode(self, texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None) -> np.ndarray:
        """Rows of texts given as token ids (with segments of the same lengths; default: all the first).

        Returns: float32 [texts, size].

        Raises:
            EdgeError: no texts, no tokens, more than the context holds, or ids outside the vocabulary.
        """

    def states(self, ids: Sequence[int], types: Sequence[int] | None = None) -> np.ndarray:
        """The last states of every token of one text, float32 [tokens, hidden]."""


def refuse_texts(
    texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None, context: int, vocab: int
) -> None:
    """Stop before texts reach a runtime that cannot take them.

    Raises:
        EdgeError: nothing to encode, a text too long, ids outside the vocabulary, or segments that fit no text.
    """
    if not texts or not all(texts):
        raise EdgeError("no tokens to encode")
    longest = max(map(len, texts))
    if longest > context:
        raise EdgeError(
            f"{longest} tokens exceed the context of {context}",
            hint="export with a larger --context, or shorten the text",
        )
    low, high = min(map(min, texts)), max(map(max, texts))
    if low < 0 or high >= vocab:
        raise EdgeError(f"token ids must lie in 0 to {vocab - 1}, found {low} to {high}")
    if types is not None and [len(text) for text in texts] != [len(text) for text in types]:
        raise EdgeError("a text and its segments differ in length")


def padded(
    texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, segments and mask of texts as int64 [texts, longest]; the mask is 1 where there is a token."""
    import numpy as np

    longest = max(map(len, texts))
    ids, kinds, mask = (np.zeros((len(texts), longest), dtype=np.int64) for _ in range(3))
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
        if types is not None:
            kinds[row, : len(text)] = types[row]
    return ids, kinds, mask


class Seq2SeqSession(Protocol):
    """An encoder-decoder: it reads a text once, then continues an answer, whose keys and values it keeps.

    Attributes:
        context: most tokens of a text, and of an answer.
        vocab: length of a row of logits.
        start: the token that an answer begins after.
    """

    context: int
    vocab: int
    start: int
    position: int

    def encode(self, ids: Sequence[int]) -> None:
        """Read a text; the answer is empty then.

        Raises:
            EdgeError: no tokens, more than the context holds, or ids outside the vocabulary.
        """

    def decode(self, tokens: Sequence[int]) -> np.ndarray:
        """Append tokens to the answer (the first is :attr:`start`); logits after each, float32 [tokens, vocab].

        Raises:
            EdgeError: nothing was read before, or the answer is longer than the context.
        """

    def reset(self) -> None:
        """Empty the answer; the text stays."""


def refuse_answer(session: Seq2SeqSession, tokens: Sequence[int], encoded: bool) -> None:
    """Stop before tokens of an answer reach a runtime that cannot take them.

    Raises:
        EdgeError: nothing was encoded, none, too many for the context, or outside the vocabulary.
    """
    if not encoded:
        raise EdgeError("nothing was encoded yet, so there is nothing to answer")
    if not tokens or session.position + len(tokens) > session.context:
        raise EdgeError(f"{session.position + len(tokens)} tokens of an answer, of a context of {session.context}")
    if min(tokens) < 0 or max(tokens) >= session.vocab:
        raise EdgeError(f"token ids must lie in 0 to {session.vocab - 1}, found {min(tokens)} to {max(tokens)}")


class VisionSession(Session, Protocol):
    """A decoder that reads images too: each takes the place of :attr:`image_rows` image tokens in a row.

    Attributes:
        image_token: the token in whose place rows of images stand, in order.
        image_rows: how many an image takes.
        image_size: edge of an image, in pixels.
    """

    image_token: int
    image_rows: int
    image_size: int

    def show(self, pixels: np.ndarray) -> np.ndarray:
        """Keep an image, float32 [channels, size, size] as the model was trained on, for image tokens to come.

        Returns: its rows, float32 [image_rows, hidden]. :meth:`reset` forgets all images.
        """


class ImageRows:
    """Rows of images, by the image tokens before them."""

    def __init__(self, token: int, hidden: int) -> None:
        self.token, self._hidden = token, hidden
        self.clear()

    def clear(self) -> None:
        """Forget all images."""
        self._rows: list[np.ndarray] = []
        self._ids: list[int] = []

    def add(self, rows: np.ndarray) -> None:
        """Keep the rows of one more image, [rows, hidden]."""
        self._rows.extend(rows)

    def take(self, position: int, ids: Sequence[int]) -> np.ndarray:
        """Rows for the image tokens among ``ids``, which begin at ``position``: float32 [image tokens, hidden].

        Raises:
            EdgeError: more image tokens than rows.
        """
        import numpy as np

        del self._ids[position:]
        first = self._ids.count(self.token)
        self._ids += ids
        last = self._ids.count(self.token)
        if last > len(self._rows):
            raise EdgeError(
                f"{last} image tokens (id {self.token}), but {len(self._rows)} rows of images",
                hint="show every image before the tokens that stand for it",
            )
        return np.array(self._rows[first:last], dtype=np.float32).reshape(last - first, self._hidden)
