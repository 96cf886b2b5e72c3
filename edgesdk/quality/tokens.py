"""The token-exact check: predictions can be compared token by token only where both sides see the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError
from .report import TokenCheck

if TYPE_CHECKING:
    from ..model import Tokenizer
    from .sides import Side

#: Where tokenizers differ: spaces, digits, contractions, scripts, joined and combining characters, code, controls.
TEXTS = (
    "Hello world",
    "  two  leading spaces, and a trailing one ",
    "\n\nlines\r\n\tand\ttabs\n \n",
    "12345 + 678 = 13023, 3.14159e-10, 0xFF",
    "don't we'll they're I'M",
    "naïve café — “quoted” … §5 ½ ﬁ ß İstanbul",
    "cafe\u0301 and caf\u00e9; A\u030a and \u00c5; \u200bzero\u00a0width",
    "東京 日本語のテキスト 한국어 中文。标点",
    "Привет мир, Ελληνικά, שלום עולם, مرحبا بالعالم, नमस्ते, สวัสดี",
    "🚀 👩\u200d👩\u200d👧 🇫🇷 👍🏽",
    "def f(x: int) -> str:\n    return f'{x!r:>8}'  # comment\n",
    '{"key": [1, 2.5, null], "url": "https://example.org/a?b=c&d=%20"}',
    "for (int i = 0; i < n; ++i) { a[i] += b->c[i] * 2; } /* end */",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "CamelCaseIdentifier snake_case_identifier SCREAMING_CASE",
    "\x00\x01\x7f\ufffd",
    "",
)
_HINT = "they come from different models, or one tokenizer was changed: tokens cannot be compared"


def check_tokenizers(
    a: Side, b: Side, eval_text: str | None, where: Path | None
) -> tuple[TokenCheck | None, str | None]:
    """Compare ids of texts, special tokens, a conversation, and the evaluation text.

    Returns: what was compared; or None, and the reason: a side has no tokenizer.

    Raises:
        ModelError: vocabularies of different sizes, or the first text and position where the ids part.
    """
    if a.vocab != b.vocab:
        raise ModelError(
            f"{a.about.name} has a vocabulary of {a.vocab} tokens, {b.about.name} one of {b.vocab}", hint=_HINT
        )
    if a.tokenizer is None or b.tokenizer is None:
        without = " and ".join(side.about.name for side in (a, b) if side.tokenizer is None)
        return None, f"no tokenizer in {without}"
    texts = tokens = 0
    for named, text in _texts(a.tokenizer, b.tokenizer, eval_text, where):
        found = a.tokenizer.encode(text, prefix=True), b.tokenizer.encode(text, prefix=True)
        _refuse_difference(a, b, named, *found)
        texts, tokens = texts + 1, tokens + len(found[0])
    return TokenCheck(texts, tokens), None


def _texts(a: Tokenizer, b: Tokenizer, eval_text: str | None, where: Path | None) -> Iterator[tuple[str, str]]:
    """Texts with what an error calls them."""
    for text in TEXTS:
        yield f"the text {_clipped(text)}", text
    special = {token.content for side in (a, b) for token in side.backend.get_added_tokens_decoder().values()}
    for content in sorted(special):
        yield f"the special token {_clipped(content)}", f"a{content} b"
    for template in (a.chat_template, b.chat_template):
        if template is not None:
            side = a if template is a.chat_template else b
            yield "a conversation in the chat template", side.render([{"role": "user", "content": "Hi! 你好"}])
    if eval_text is not None:
        yield f"the evaluation text {where}", eval_text


def _refuse_difference(a: Side, b: Side, named: str, left: list[int], right: list[int]) -> None:
    if left == right:
        return
    both = min(len(left), len(right))
    at = next((index for index in range(both) if left[index] != right[index]), both)
    ids = [str(side[at]) if at < len(side) else "its end" for side in (left, right)]
    raise ModelError(
        f"the tokenizers of {a.about.name} and {b.about.name} part in {named} at token {at}: {ids[0]} against {ids[1]}",
        hint=_HINT,
    )


def _clipped(text: str) -> str:
    return repr(text) if len(text) <= 60 else repr(text[:57]) + "..."
