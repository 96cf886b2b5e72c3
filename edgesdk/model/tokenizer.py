"""Text to ids and back: a ``tokenizer.json``, a policy for special tokens, and a chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from .chat_template import Variable, render_template
from .sealed import Sealed, encode_ids
from .template_runner import Mark
from .tokenizer_bounds import no_panic
from .tokenizer_files import STANDARD, load_backend, optional_json, read_folder, read_text, written_names

if TYPE_CHECKING:
    import tokenizers

Message = Mapping[str, str]
_TRIED = 1000  # words, for one that the tokenizer knows
_MOST_BEYOND = 64  # added tokens without a row; more, and the tokenizer belongs to another model


@dataclass(frozen=True)
class SpecialTokens:
    """Special tokens as ids: what starts a text, what ends an answer.

    ``prefix`` is put in front of plain text (a BOS where the model wants one); a chat template brings its own.
    """

    bos: int | None = None
    stop: tuple[int, ...] = ()
    pad: int | None = None
    prefix: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer as data; the ``tokenizers`` library loads when it is first used.

    Attributes:
        definition: the text of ``tokenizer.json``.
        special: the special-token policy.
        chat_template: Jinja source, or None.
        names: named special tokens (``bos_token`` ...), the variables of a template; None for those of ``special``.
        rows: rows of the model's embedding, or None where they are not known. Ids from there on are tokens that the
            model does not have: the definition keeps them, a text that holds one is refused.
        stop_sources: for each stop id what says so: files and their keys.
        notes: what was decided where the checkpoint's files contradict each other, in words.
    """

    definition: str
    special: SpecialTokens
    chat_template: str | None = None
    names: Mapping[str, str] | None = field(default=None, hash=False)
    rows: int | None = None
    stop_sources: Mapping[int, str] = field(default_factory=dict, hash=False, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    @cached_property
    def backend(self) -> tokenizers.Tokenizer:
        """The loaded tokenizer.

        Raises:
            ModelError: the definition cannot be read.
        """
        return load_backend(self.definition)

    @property
    def added(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the definition's own post-processor puts in front of a text, and behind it."""
        backend, text = self.backend, "a"
        with no_panic("the tokenizer cannot be used"):
            plain = backend.encode(text, add_special_tokens=False).ids
            if not plain:  # a vocabulary of another script
                words = islice((word for word in backend.get_vocab(with_added_tokens=False) if len(word) < 64), _TRIED)
                text = next((word for word in words if backend.encode(word, add_special_tokens=False).ids), "")
                plain = backend.encode(text, add_special_tokens=False).ids
            whole = backend.encode(text, add_special_tokens=True).ids
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return tuple(whole[:start]), tuple(whole[start + len(plain) :])
        return (), ()

    @property
    def size(self) -> int:
        """One more than the largest id that a text may have."""
        largest = max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1)
        return largest + 1 if self.rows is None else min(largest + 1, self.rows)

    def within(self, rows: int) -> Tokenizer:
        """The tokenizer of a model with so many rows in its embedding.

        A few added tokens may lie beyond them (Gemma 3's text models have none for images); they stay in the
        definition, for its other readers. A padding token among them is no padding token: programs never see one.

        Raises:
            ModelError: ids of the vocabulary, special tokens, or more than a few added ones lie beyond.
        """
        vocabulary = self.backend.get_vocab(with_added_tokens=True)
        beyond = {index for index in vocabulary.values() if index >= rows}
        if not beyond <= set(self.backend.get_added_tokens_decoder()) or len(beyond) > _MOST_BEYOND:
            raise ModelError(
                f"the tokenizer has ids up to {max(beyond)}, but the embedding has {rows} rows",
                hint="the tokenizer belongs to another model, or the embedding was not resized for added tokens",
            )
        special = self.special
        if special.pad is not None and special.pad in beyond:
            special = replace(special, pad=None)
        for index in (special.bos, special.pad, *special.stop, *special.prefix):
            if index is not None and not 0 <= index < rows:
                raise ModelError(
                    f"special token id {index} lies outside the vocabulary of {rows}",
                    hint="the tokenizer belongs to another model, or the embedding was not resized for added tokens",
                )
        return replace(self, special=special, rows=rows if beyond else None)

    def encode(self, text: str, *, prefix: bool = False) -> list[int]:
        """Ids of ``text``; special tokens in it are recognised, ``prefix`` puts the policy's prefix in front.

        Raises:
            ModelError: the text is not valid Unicode, or holds a token that the model does not have.
        """
        _check_unicode(text)
        with no_panic("the text cannot be encoded"):
            ids = self._own(encode_ids(self.backend, text))
        return [*self.special.prefix, *ids] if prefix else ids

    def _own(self, ids: list[int]) -> list[int]:
        """The ids, which are all of tokens that the model has."""
        if self.rows is not None and (beyond := next((index for index in ids if index >= self.rows), None)) is not None:
            raise ModelError(
                f"the text holds the token {self.token(beyond)} (id {beyond}), which this model does not have: its "
                f"embedding has {self.rows} rows",
                hint="take it out of the text: it is for a larger model of the family, such as one that sees images",
            )
        return ids

    def written_prefix(self) -> tuple[str, int]:
        """How plain text gets its prefix from a runtime that goes by the definition's post-processor alone.

        Returns: what has to be written in front of each text, and how many tokens the runtime then adds by itself.

        Raises:
            ModelError: neither gives the prefix.
        """
        prefix = self.special.prefix
        if not prefix or self.added[0] == prefix:
            return "", len(prefix)
        text = "".join(self.token(index) for index in prefix)
        if any(self.encode(text + each) != self.encode(each, prefix=True) for each in ("a", " a", "A b\n")):
            raise ModelError(
                f"the tokenizer's {text} in front of plain text comes neither from its post-processor nor as text",
                hint="give tokenizer.json a post_processor (TemplateProcessing) that puts it there, and export again",
            )
        return text, 0

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids`` without special tokens."""
        with no_panic("the tokens cannot be decoded"):
            return self.backend.decode(list(ids), skip_special_tokens=True)

    def token(self, index: int | None) -> str:
        """The written form of one id ('' for None)."""
        return "" if index is None else self.backend.id_to_token(index) or ""

    @property
    def variables(self) -> Mapping[str, str]:
        """Named special tokens, as a template sees them."""
        if self.names is not None:
            return self.names
        special = self.special
        named = (("bos_token", special.bos), ("eos_token", next(iter(special.stop), None)), ("pad_token", special.pad))
        return {name: self.token(index) for name, index in named if index is not None}

    def config_text(self) -> str:
        """A ``tokenizer_config.json`` for runtimes that read one beside ``tokenizer.json``."""
        config: dict[str, Any] = {name: token for name, token in self.variables.items() if name in STANDARD}
        special = self.special
        config |= {
            "add_bos_token": special.bos is not None and special.prefix[:1] == (special.bos,),
            "clean_up_tokenization_spaces": False,
            "tokenizer_class": "PreTrainedTokenizerFast",
        }
        more = {name: token for name, token in self.variables.items() if name not in STANDARD}
        if more:
            config["extra_special_tokens"] = more
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        return json.dumps(config, indent=2, ensure_ascii=False) + "\n"

    def chat(self, messages: Sequence[Message], variables: Mapping[str, Variable] | None = None) -> list[int]:
        """Ids of a conversation, ready for the assistant's answer; special tokens in its messages are plain text.

        ``variables`` are more of the template's own, such as ``enable_thinking``.

        Raises:
            ModelError: there is no chat template, or it refuses the conversation.
        """
        return self.sealed_ids(self.render_sealed(messages, variables))

    @cached_property
    def sealed(self) -> Sealed:
        """The marks of special tokens, and their tokenizer."""
        backend, special = self.backend, self.special
        named = (backend.token_to_id(text) for text in self.variables.values())
        policy = (special.bos, special.pad, *special.stop, *special.prefix, *named)
        return Sealed(backend, (index for index in policy if index is not None), self.chat_template or "")

    def render_sealed(
        self, messages: Sequence[Mapping[str, object]], variables: Mapping[str, Variable] | None = None
    ) -> str:
        """As :meth:`render`, with marks in the place of the template's own special tokens.

        Raises:
            ModelError: there is no chat template, or it refuses the conversation.
        """
        return self._rendered(messages, answering=True, marks=tuple(self.sealed.marks.values()), variables=variables)

    def sealed_ids(self, text: str) -> list[int]:
        """Ids of a text in which marks are special tokens, and nothing else is.

        Raises:
            ModelError: the text is not valid Unicode, or holds a token that the model does not have.
        """
        _check_unicode(text)
        return self._own(self.sealed.ids(text))

    def render(self, messages: Sequence[Mapping[str, object]], *, answering: bool = True) -> str:
        """The conversation as the chat template writes it, with the opening of the assistant's turn when it answers.

        Raises:
            ModelError: there is no chat template, or it refuses the conversation.
        """
        return self._rendered(messages, answering=answering, marks=())

    def _rendered(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        answering: bool,
        marks: Sequence[Mark],
        variables: Mapping[str, Variable] | None = None,
    ) -> str:
        if self.chat_template is None:
            raise ModelError("this model has no chat template", hint="give a plain prompt")
        return render_template(
            self.chat_template, messages, self.variables, answering=answering, marks=marks, variables=variables
        )


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ModelError("the text is not valid Unicode (it holds half of a surrogate pair)") from None


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder, as ``transformers`` reads its files.

    Raises:
        ModelError: there is no ``tokenizer.json``, a file cannot be read, or two contradict each other.
    """
    files = read_folder(folder)
    tokenizer = Tokenizer(
        files.definition,
        SpecialTokens(files.bos, tuple(files.stops), files.pad),
        files.template,
        files.names,
        stop_sources=files.stops,
        notes=files.notes,
    )
    return replace(tokenizer, special=replace(tokenizer.special, prefix=tokenizer.added[0]))


def written_tokenizer(
    folder: Path, special: SpecialTokens, rows: int, *, file: str = "tokenizer.json", template: str | None
) -> Tokenizer:
    """The tokenizer that a bundle or a compressed checkpoint carries.

    Args:
        folder: of the bundle or checkpoint; ``tokenizer_config.json`` in it names special tokens.
        special: the policy, which the bundle or checkpoint says itself.
        rows: of the model's embedding.
        file: the definition in the folder.
        template: the chat template in the folder, or None.

    Raises:
        ModelError: a file cannot be read, or belongs to another model.
    """
    config = folder / "tokenizer_config.json"
    return Tokenizer(
        read_text(folder / file),
        special,
        None if template is None else read_text(folder / template),
        written_names(optional_json(config)) if config.is_file() else None,
    ).within(rows)


def with_prefix(definition: Mapping[str, Any], prefix: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """A definition whose post-processor puts tokens in front of a text, so that every reader of it does.

    Args:
        definition: ``tokenizer.json`` without a post-processor.
        prefix: the tokens, each with its id.
    """
    if not prefix:
        return dict(definition)
    start = [{"SpecialToken": {"id": token, "type_id": 0}} for token, _ in prefix]
    first, second = ({"Sequence": {"id": name, "type_id": kind}} for name, kind in (("A", 0), ("B", 1)))
    processor = {
        "type": "TemplateProcessing",
        "single": [*start, first],
        "pair": [*start, first, *({"SpecialToken": {"id": token, "type_id": 1}} for token, _ in prefix), second],
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]} for token, index in prefix},
    }
    return {**definition, "post_processor": processor}
