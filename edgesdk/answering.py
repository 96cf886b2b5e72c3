"""Asking an encoder-decoder's bundle: a text is read once, its answer is greedy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .bundle import Bundle, kind_of
from .bundle.admission import admit
from .chat import bundle_tokenizer
from .converter import kind_converter
from .errors import EdgeError
from .kinds import SEQ2SEQ
from .model.encoders.model import text_ids

if TYPE_CHECKING:
    from .session import Seq2SeqSession


@dataclass
class Answer:
    """What became of one text: tokens read, tokens written, and whether a stop token ended it."""

    read: int
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False


def open_seq2seq_session(bundle: Bundle, threads: int | None = None) -> Seq2SeqSession:
    """A session over the programs of an encoder-decoder's bundle.

    Raises:
        EdgeError: it is none, or the runtime is missing, of the wrong version, or refuses a program.
    """
    manifest = bundle.manifest
    if kind_of(manifest) != SEQ2SEQ:
        raise EdgeError(f"{manifest.model.name} is no encoder-decoder")
    admit(bundle, threads)
    converter = kind_converter(manifest.program.converter, SEQ2SEQ, manifest.model.name)
    session: Seq2SeqSession = converter.open(bundle.main, manifest.context, threads)
    return session


class Answerer:
    """A bundle's encoder-decoder with its tokenizer.

    Attributes:
        last: what became of the last text.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        self.session = open_seq2seq_session(bundle, threads)
        self._tokenizer = bundle_tokenizer(bundle)
        self.last = Answer(0)

    def answer(self, text: str, *, max_tokens: int = 256) -> str:
        """The whole answer."""
        return "".join(self.stream(text, max_tokens=max_tokens))

    def stream(self, text: str, *, max_tokens: int = 256) -> Iterator[str]:
        """The answer piece by piece; a longer text is cut to the context."""
        session, shown = self.session, ""
        ids = text_ids(self._tokenizer, text, session.context)
        found = self.last = Answer(len(ids))
        session.encode(ids)
        token = session.start
        while len(found.tokens) < min(max_tokens, session.context - 1):
            token = int(session.decode([token])[-1].argmax())
            if token in self._tokenizer.special.stop:
                found.stopped = True
                break
            found.tokens.append(token)
            whole = self._tokenizer.decode(found.tokens)
            if whole.startswith(shown) and not whole.endswith("\ufffd"):  # half of a character waits for the rest
                yield whole[len(shown) :]
                shown = whole
        whole = self._tokenizer.decode(found.tokens)
        if whole != shown and whole.startswith(shown):
            yield whole[len(shown) :]
