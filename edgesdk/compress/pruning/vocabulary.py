"""Tokens that a corpus does not need are dropped from the vocabulary, the embedding and the head.

What it does: the corpus is tokenized, and the tokens that occur in it stay; with ``size``, the most frequent ones. So
do special and added tokens, bytes, what the chat template writes, and the tokens that merging passes through, so that a
text in the kept vocabulary gets the same tokens as before. Other text is written with more, shorter tokens. Ids are new
in the tokenizer and the bundle.
When to use it: for one language or domain; in a model of 100 M parameters the embedding is a fifth of the weights. The
head is faster with it.
What it costs: one pass over the corpus.
Example: ``edgesdk compress MODEL --recipe w4g32-vocab --calibration corpus.txt --out DIR``.
Source: Abdaoui et al., Load What You Need, arXiv 2010.05609; Yang et al., TextPruner, arXiv 2203.15996.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...errors import ModelError, RecipeError
from ...model import Model
from ...model.features import ALL
from ...model.tokenizer import Tokenizer
from ...model.vocabulary import closed, required_ids, restricted, without, without_others
from ...passages.cutting import parts_of
from ..base import PassReport, PassResult, Setting, Shapes
from ..kept import kept_json

_FIRST = 1_000_000_000  # occurrences that stand for "always"


@dataclass(frozen=True)
class Vocabulary(Shapes):
    """Options of the pass.

    Attributes:
        size: most tokens that are left, or None: all that the corpus needs.
        corpus: a text file (or chats as .jsonl) that shows what is needed; default: the calibration text.
        least: how often a token must occur to stay.
    """

    takes: ClassVar[frozenset[str]] = ALL - {"head_bias"}

    size: int | None = None
    corpus: str | None = None
    least: int = 1

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise RecipeError("vocabulary: 'size' must be above 0")
        if self.least < 1:
            raise RecipeError("vocabulary: 'least' must be 1 or more")

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        if model.tokenizer is None:
            raise ModelError("a vocabulary can only be pruned where there is a tokenizer, and this model has none")
        path = Path(self.corpus) if self.corpus else setting.calibration.file
        if path is None:
            raise RecipeError(
                "vocabulary: a corpus must show which tokens are needed; what the model writes by itself does not",
                hint="name a text file with --calibration",
            )
        whole = model.tokenizer

        def needed() -> list[int]:
            with setting.progress.stage("Counting tokens", None):
                return sorted(self._chosen(whole, _counts(whole, path)))

        found = kept_json(setting.scratch / "vocabulary.json", needed)
        ids = [index for index in found if index < model.spec.vocab]
        tokenizer = without_others(model.tokenizer, ids)
        note = (
            f"of {model.spec.vocab} tokens {len(ids)} are left; quality is measured over these, on text as they write "
            f"it, and {without(model.tokenizer)}"
        )
        return PassResult(restricted(model, ids, tokenizer), PassReport("vocabulary", True, notes=(note,)))

    def _chosen(self, tokenizer: Tokenizer, counts: Counter[int]) -> set[int]:
        frequent = [index for index, count in counts.most_common() if count >= self.least]
        required = required_ids(tokenizer)
        if self.size is None:
            return closed(tokenizer, required | set(frequent))
        smallest = closed(tokenizer, required)
        if len(smallest) > self.size:
            ending = ", ".join(repr(tokenizer.token(index)) for index in tokenizer.special.stop) or "none"
            raise RecipeError(
                f"vocabulary: {self.size} tokens have no room for those that every text needs: {len(smallest)} special "
                f"and byte tokens (end-of-sequence among them: {ending})",
                hint=f"allow at least {len(smallest)}",
            )
        low, high = 0, len(frequent)
        while low < high:  # the most frequent ones that fit with all that their merging passes through
            middle = (low + high + 1) // 2
            fits = len(closed(tokenizer, required | set(frequent[:middle]))) <= self.size
            low, high = (middle, high) if fits else (low, middle - 1)
        return closed(tokenizer, required | set(frequent[:low]))


def _counts(tokenizer: Tokenizer, path: Path) -> Counter[int]:
    """How often each token occurs in a file."""
    found: Counter[int] = Counter()
    if tokenizer.chat_template is not None:  # what the template itself writes
        found.update(dict.fromkeys(tokenizer.chat([{"role": "user", "content": "Hello"}]), _FIRST))
    for part in parts_of(tokenizer, path):
        found.update(tokenizer.encode(part.text, prefix=True))
    return found
