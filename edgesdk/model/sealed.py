"""Special tokens come from the chat template, never from what users, tools or earlier answers say.

Tokens that a template writes are rendered as marks, which nobody outside this process knows. A second tokenizer over
the same model has the marks as its added tokens in the place of the tokens themselves: the ids of a conversation are
those of its text, but ``<|im_end|>`` in a message is ten characters, as in any other text.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from functools import cached_property
from string import ascii_lowercase
from typing import TYPE_CHECKING

from .template_runner import Mark

if TYPE_CHECKING:
    import tokenizers

_LETTERS = 24  # 112 bits: a mark cannot be guessed
_NOWHERE = "\U0010fffd"  # a letter of no vocabulary
_LONG = 4096  # characters; the library holds Python's lock while it encodes one text, and not while it encodes several


def encode_ids(backend: tokenizers.Tokenizer, text: str) -> list[int]:
    """Ids of a text without a post-processor's; other threads go on while a long one is encoded."""
    if len(text) < _LONG:
        return list(backend.encode(text, add_special_tokens=False).ids)
    return list(backend.encode_batch_fast([text], add_special_tokens=False)[0].ids)


class Sealed:
    """A tokenizer whose special tokens are marks.

    Attributes:
        marks: of every token that only the template may write.
    """

    def __init__(self, backend: tokenizers.Tokenizer, special: Iterable[int], template: str) -> None:
        """Make the marks.

        Args:
            backend: the tokenizer.
            special: ids of special tokens besides those that the definition calls so.
            template: the chat template; other added tokens that stand in it are marked too, but for blank ones.
        """
        self._backend, self._nonce = backend, _word(secrets.randbits(112), _LETTERS)
        kinds, also = backend.get_added_tokens_decoder(), set(special)
        self.marks: dict[int, Mark] = {}
        for index, token in kinds.items():
            is_special = bool(token.special) or index in also
            if token.content and (is_special or (token.content.strip() and token.content in template)):
                self.marks[index] = Mark(token.content, self._mark(index), is_special, bool(token.single_word))

    def ids(self, marked: str) -> list[int]:
        """Ids of a text with marks."""
        names, plain = self._ids, self._plain
        ids: list[int] = []
        for index in encode_ids(self._tokenizer, marked):
            if index in names:
                ids.append(names[index])
            elif index in plain:
                ids += plain[index]
            else:
                ids.append(index)
        return ids

    def marked(self, text: str) -> str:
        """A text of this program's own, with marks in the place of its tokens."""
        for mark in sorted(self.marks.values(), key=lambda mark: -len(mark.text)):
            text = text.replace(mark.text, mark.mark)
        return text

    def _mark(self, index: int) -> str:
        return f"{self._nonce}{_word(index, 7)}"

    @cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        from tokenizers import AddedToken, Tokenizer

        backend = self._backend
        sealed = Tokenizer(backend.model)  # the same model, not a copy
        if backend.normalizer is not None:
            sealed.normalizer = backend.normalizer
        if backend.pre_tokenizer is not None:
            sealed.pre_tokenizer = backend.pre_tokenizer
        model = backend.get_vocab(with_added_tokens=False)
        gap = max(model.values(), default=-1) + 1 - len(model)  # new ids begin behind the count of words
        sealed.add_tokens([f"{self._nonce}gap{_word(number, 7)}" for number in range(gap)])
        sealed.add_tokens(
            [
                AddedToken(
                    self.marks[index].mark if index in self.marks else token.content,
                    single_word=token.single_word and index not in self.marks,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    normalized=token.normalized,
                )
                for index, token in sorted(backend.get_added_tokens_decoder().items())
            ]
        )
        return sealed

    @cached_property
    def _ids(self) -> Mapping[int, int]:
        """The ids of added tokens, by those that the sealed tokenizer has for them."""
        found: dict[int, int] = {}
        for index, token in self._backend.get_added_tokens_decoder().items():
            name = self.marks[index].mark if index in self.marks else token.content
            here = self._tokenizer.token_to_id(name)
            assert here is not None
            found[here] = index
        return found

    @cached_property
    def _plain(self) -> Mapping[int, list[int]]:
        """The ids of the letters of tokens that are words of the model too, which some models find in any text."""
        model = self._backend.model
        unknown = {piece.id for piece in model.tokenize(_NOWHERE)}
        found: dict[int, list[int]] = {}
        for index, mark in self.marks.items():
            if model.token_to_id(mark.text) != index or index in unknown:
                continue
            letters = [piece.id for letter in mark.text for piece in model.tokenize(letter)]
            found[index] = [piece for piece in letters if piece not in self.marks or piece in unknown]
        return found


def _word(number: int, letters: int) -> str:
    """A number in letters, which no normalizer changes."""
    text = ""
    for _ in range(letters):
        number, digit = divmod(number, len(ascii_lowercase))
        text += ascii_lowercase[digit]
    return text
