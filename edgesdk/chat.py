"""Talking to a bundle: its session, its tokenizer, and a conversation that keeps its cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from .bundle import Bundle, check_runtime
from .converter import CONVERTERS
from .errors import BundleError, EdgeError
from .generation import Sampling, Statistics, generate
from .model.tokenizer import Message, SpecialTokens, Tokenizer

if TYPE_CHECKING:
    from .session import RunnerStatistics, Session


def open_session(bundle: Bundle, threads: int | None = None) -> Session:
    """A session over a bundle's program.

    Raises:
        EdgeError: the runtime is missing, of the wrong version, or refuses the program.
    """
    check_runtime(bundle.manifest)
    converter = CONVERTERS.get(bundle.manifest.program.converter)
    return converter.open(bundle.main, bundle.manifest.context, threads)


def bundle_tokenizer(bundle: Bundle) -> Tokenizer:
    """The tokenizer of a bundle, with its special-token policy.

    Raises:
        EdgeError: the bundle carries none.
    """
    record = bundle.manifest.tokenizer
    if not record.file:
        raise EdgeError("this bundle has no tokenizer, so it cannot run text")
    template = None
    if record.chat_template:
        template = (bundle.folder / record.chat_template).read_text(encoding="utf-8")
    special = SpecialTokens(record.bos, record.stop, record.pad, record.prefix)
    tokenizer = Tokenizer((bundle.folder / record.file).read_text(encoding="utf-8"), special, template)
    vocab = bundle.manifest.model.spec["vocab"]
    if tokenizer.size > vocab:
        raise BundleError(
            f"{bundle.folder / record.file}: gives ids up to {tokenizer.size - 1}, but the program knows {vocab}",
            hint="the tokenizer belongs to another model: export again",
        )
    return tokenizer


def answer_with_runner(
    bundle: Bundle, prompt: str, on_text: Callable[[str], None], *, max_tokens: int = 256, temperature: float = 0.0
) -> RunnerStatistics:
    """Answer one prompt with the runtime's own text runner, as an app would: its tokenizer, its stop tokens.

    Raises:
        EdgeError: the runtime has none, or it fails.
    """
    check_runtime(bundle.manifest)
    tokenizer = bundle_tokenizer(bundle)
    templated = tokenizer.chat_template is not None
    text = tokenizer.render([{"role": "user", "content": prompt}]) if templated else prompt
    converter = CONVERTERS.get(bundle.manifest.program.converter)
    runner = converter.text_runner(bundle.main, bundle.folder / bundle.manifest.tokenizer.file)
    bos_tokens = 0 if templated else len(tokenizer.special.prefix)
    return runner.generate(text, on_text, max_tokens=max_tokens, temperature=temperature, bos_tokens=bos_tokens)


class Chat:
    """A conversation with a bundle; each turn runs only the tokens that the cache does not hold yet.

    A bundle without a chat template continues plain text instead: each prompt stands alone.
    """

    def __init__(self, bundle: Bundle, *, sampling: Sampling | None = None, threads: int | None = None) -> None:
        self.tokenizer = bundle_tokenizer(bundle)
        self.session = open_session(bundle, threads)
        self.sampling = sampling or Sampling()
        self.messages: list[Message] = []
        self.statistics = Statistics()
        self._cached: list[int] = []

    @property
    def templated(self) -> bool:
        return self.tokenizer.chat_template is not None

    def ask(self, prompt: str, *, max_tokens: int = 256, stop: Sequence[str] = ()) -> str:
        """The whole answer to one prompt."""
        return "".join(self.stream(prompt, max_tokens=max_tokens, stop=stop))

    def stream(self, prompt: str, *, max_tokens: int = 256, stop: Sequence[str] = ()) -> Iterator[str]:
        """The answer piece by piece.

        Raises:
            EdgeError: the conversation no longer fits the context; it stays as it was.
        """
        if self.templated:
            asked: list[Message] = [*self.messages, {"role": "user", "content": prompt}]
            ids = self.tokenizer.chat(asked)
        else:
            asked, ids = [], self.tokenizer.encode(prompt, prefix=True)
        if len(ids) >= self.session.context:
            raise EdgeError(
                f"{len(ids)} tokens leave no room for an answer in the context of {self.session.context}",
                hint="start a new conversation, or export with a larger --context",
            )
        new = self._keep_common(ids)
        self.statistics = Statistics()
        answer = ""
        try:
            for piece in generate(
                self.session,
                self.tokenizer,
                new,
                sampling=self.sampling,
                max_tokens=max_tokens,
                stop=stop,
                statistics=self.statistics,
            ):
                answer += piece
                yield piece
        finally:
            self._cached = [*ids, *self.statistics.tokens][: self.session.position]
            if self.templated:
                self.messages = [*asked, {"role": "assistant", "content": answer}]

    def _keep_common(self, ids: list[int]) -> list[int]:
        """Rewind the session to the longest common beginning; returns the tokens that remain to run (at least one)."""
        common = 0
        for old, new in zip(self._cached, ids[:-1], strict=False):
            if old != new:
                break
            common += 1
        self.session.rewind(self.session.position - common)
        return ids[common:]
