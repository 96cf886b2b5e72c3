"""Talking to a bundle: its session, its tokenizer, and a conversation that keeps its cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bundle import Bundle, refuse_kind
from .bundle.admission import admit
from .bundle.contents import vocabulary_size
from .converter import CONVERTERS, open_program
from .drafting import Drafting, with_drafting
from .errors import BundleError, EdgeError, ModelError
from .generation import Sampling, Statistics, generate
from .model.tokenizer import Message, SpecialTokens, Tokenizer, written_tokenizer
from .registry import unknown
from .speculative import DraftStatistics, SpeculativeSession

if TYPE_CHECKING:
    import numpy as np

    from .session import RunnerStatistics, Session


def open_session(
    bundle: Bundle, threads: int | None = None, providers: Sequence[str] = (), adapter: str | None = None
) -> Session:
    """A session over a bundle's program.

    Args:
        bundle: the bundle.
        threads: of its kernels; None leaves the choice to the runtime.
        providers: what to run it with, the first choice first, where the runtime has more than one way; () for the
            one that exports are verified with.
        adapter: one of the bundle's own, by name, to run the program with; None: as the model is without.

    Raises:
        EdgeError: the runtime is missing, of the wrong version, without such providers, or refuses the program; or the
            bundle holds no decoder.
    """
    refuse_kind(bundle.manifest, "a session with a key-value cache")
    admit(bundle, threads)
    name = bundle.manifest.program.converter
    converter = CONVERTERS.get(name)
    on_device = converter.on_device
    choices: dict[str, Any] = {}
    if adapter is not None:
        choices["adapter"] = _adapter_file(bundle, adapter)
    if providers:
        if on_device is None or not on_device.providers:
            raise EdgeError(f"programs of '{name}' run in one way only: they know no providers")
        choices["providers"] = providers
    return open_program(converter, bundle.main, bundle.manifest.context, threads, **choices)


def _adapter_file(bundle: Bundle, name: str) -> Path:
    """The file of one of a bundle's adapters.

    Raises:
        EdgeError: it has none of that name.
    """
    files = {record.name: record.file for record in bundle.manifest.adapters if record.file is not None}
    if name not in files:
        merged = [record.name for record in bundle.manifest.adapters if record.file is None]
        what = unknown("adapter of this bundle", name, files) if files else "this bundle has no adapters to switch to"
        raise EdgeError(
            f"{what}; {name} is merged into its weights, for good" if name in merged else what,
            hint=None if files else "export with --switchable NAME=FOLDER",
        )
    return bundle.folder / files[name]


def bundle_tokenizer(bundle: Bundle) -> Tokenizer:
    """The tokenizer of a bundle, with its special-token policy.

    Raises:
        EdgeError: the bundle carries none.
    """
    record = bundle.manifest.tokenizer
    if not record.file:
        raise EdgeError("this bundle has no tokenizer, so it cannot run text")
    special = SpecialTokens(record.bos, record.stop, record.pad, record.prefix)
    rows = vocabulary_size(bundle.manifest)
    try:
        return written_tokenizer(bundle.folder, special, rows, file=record.file, template=record.chat_template or None)
    except ModelError as failure:
        raise BundleError(f"{bundle.folder / record.file}: {failure.message}", hint="export again") from None


def answer_with_runner(
    bundle: Bundle, prompt: str, on_text: Callable[[str], None], *, max_tokens: int = 256, temperature: float = 0.0
) -> RunnerStatistics:
    """Answer one prompt with the runtime's own text runner, as an app would: its tokenizer, its stop tokens.

    Raises:
        EdgeError: the runtime has none, or it fails.
    """
    refuse_kind(bundle.manifest, "a text runner")
    admit(bundle)
    tokenizer = bundle_tokenizer(bundle)
    templated = tokenizer.chat_template is not None
    start, bos_tokens = ("", 0) if templated else tokenizer.written_prefix()
    text = _templated(tokenizer, prompt) if templated else start + prompt
    converter = CONVERTERS.get(bundle.manifest.program.converter)
    runner = converter.text_runner(bundle.main, bundle.folder / bundle.manifest.tokenizer.file)
    return runner.generate(text, on_text, max_tokens=max_tokens, temperature=temperature, bos_tokens=bos_tokens)


def _templated(tokenizer: Tokenizer, prompt: str) -> str:
    """A question in its template, for a reader that takes every special token in it for one.

    Raises:
        EdgeError: the question holds one itself.
    """
    asked: list[Message] = [{"role": "user", "content": prompt}]
    text = tokenizer.render(asked)
    if tokenizer.encode(text) != tokenizer.chat(asked):
        raise EdgeError(
            "the prompt holds special tokens of this model, which the runtime's own runner takes for those of the "
            "chat template",
            hint="take them out of the prompt, or ask without the runtime's own runner: there they are plain text",
        )
    return text


class Answering:
    """A session that answers one prompt after the other; each runs only the tokens that the cache does not hold yet.

    An answer is that of a new session: what is reused changes no token of it.

    Attributes:
        reused: how many tokens of the last prompt the cache held.
    """

    def __init__(self, session: Session, tokenizer: Tokenizer) -> None:
        self._session, self._tokenizer = session, tokenizer
        self._cached: list[int] = []
        self.reused = 0

    def stream(
        self,
        ids: list[int],
        *,
        sampling: Sampling,
        max_tokens: int,
        stop: Sequence[str],
        statistics: Statistics,
        observe: Callable[[int, np.ndarray], object] | None = None,
    ) -> Iterator[str]:
        """The answer to a prompt of token ids, piece by piece; ``statistics`` are filled in meanwhile.

        ``observe`` is told each token with its logits, as :func:`~edgesdk.generation.generate` does.

        Raises:
            EdgeError: the prompt leaves no room for an answer; the cache stays as it was.
        """
        session = self._session
        if len(ids) >= session.context:
            raise EdgeError(
                f"{len(ids)} tokens leave no room for an answer in the context of {session.context}",
                hint="start a new conversation, or export with a larger --context",
            )
        self.reused = self._keep_common(ids)
        new = generate(
            session,
            self._tokenizer,
            ids,
            sampling=sampling,
            max_tokens=max_tokens,
            stop=stop,
            statistics=statistics,
            held=self.reused,
            observe=observe,
        )
        return self._remembering(new, ids, statistics)

    def forget(self) -> None:
        """Empty the cache, of which nothing is reused then."""
        self._session.reset()
        self._cached = []

    def _remembering(self, pieces: Iterator[str], ids: list[int], statistics: Statistics) -> Iterator[str]:
        try:
            yield from pieces
        finally:
            self._cached = [*ids, *statistics.tokens][: self._session.position]

    def _keep_common(self, ids: list[int]) -> int:
        """Rewind the session to the longest common beginning, at least one token short of the prompt; its length."""
        common = 0
        for old, new in zip(self._cached, ids[:-1], strict=False):
            if old != new:
                break
            common += 1
        self._session.rewind(self._session.position - common)
        del self._cached[common:]
        return common


class Chat:
    """A conversation with a bundle; each turn runs only the tokens that the cache does not hold yet.

    A bundle without a chat template continues plain text instead: each prompt stands alone.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        sampling: Sampling | None = None,
        threads: int | None = None,
        adapter: str | None = None,
        drafting: Drafting = "auto",
    ) -> None:
        self.tokenizer = bundle_tokenizer(bundle)
        self.session = with_drafting(bundle, open_session(bundle, threads, adapter=adapter), drafting, threads)
        self.sampling = sampling or Sampling()
        self.messages: list[Message] = []
        self.statistics = Statistics()
        self._answering = Answering(self.session, self.tokenizer)

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
        statistics = Statistics()
        if isinstance(self.session, SpeculativeSession):
            self.session.statistics = DraftStatistics()
        pieces = self._answering.stream(
            ids, sampling=self.sampling, max_tokens=max_tokens, stop=stop, statistics=statistics
        )
        self.statistics, answer = statistics, ""
        try:
            for piece in pieces:
                answer += piece
                yield piece
        finally:
            if isinstance(self.session, SpeculativeSession):
                statistics.draft = self.session.summary()
            if self.templated:
                self.messages = [*asked, {"role": "assistant", "content": answer}]
