"""A tiny model that says what it is told to: each token is followed by one other, whatever came before.

Attention and feed-forward add nothing; the head answers each embedding with its successor's. The program is a real one
all the same, and so are its tokenizer, its cache and its end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import edgesdk
from edgesdk.model.random_weights import RandomWeights
from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope
from edgesdk.model.tokenizer import SpecialTokens, Tokenizer

if TYPE_CHECKING:
    import torch

END = "</s>"
TEMPLATE = (
    "{% for message in messages %}{{ '<s>' + message['role'] + ':' + message['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant:' }}{% endif %}"
)
# Written in bytes, so that a token may be half a character. ":" is what an answer to a chat follows.
SAYINGS: tuple[tuple[bytes, ...], ...] = (
    (b":", b"Gr", "ü".encode(), b"n", "日".encode(), b"\xf0\x9f", b"\x98\x80", b"!", END.encode()),
    (b"A", b"aa", "é".encode(), b"bb", b"\xf0\x9f\x8e", b"A"),  # never whole: the last token is half an emoji
    (b"L", b"la", b"lo", b"lu", b"la"),  # never ends
    (b"H", b"\xf0\x9f\xa6", b"H"),  # begins with half an emoji
    (b"N", b"x", b"\n", b"y", b"\n"),  # line ends, which the runner prints of its own too
    (b"Z", END.encode(), END.encode()),  # ends at once
)
_WIDTH = 128


class _Chained:
    """Weights of :data:`SAYINGS`."""

    def __init__(self, spec: DecoderSpec, follows: Mapping[int, int]) -> None:
        self._random, self._follows = RandomWeights(spec, 1), follows

    def get(self, name: str) -> torch.Tensor:
        import torch

        if name == "final_norm.weight":
            return torch.ones(_WIDTH)
        if name.endswith(("o.weight", "down.weight")):
            return torch.zeros_like(self._random.get(name))
        if name != "head.weight":
            return self._random.get(name)
        embedding = self._random.get("embed.weight")
        head = torch.zeros_like(embedding)
        for token, following in self._follows.items():
            head[following] += embedding[token]
        return head


def chain_bundle(
    out: Path,
    *,
    sayings: Sequence[tuple[bytes, ...]] = SAYINGS,
    context: int = 512,
    template: str | None = TEMPLATE,
    prefix: bool = False,
    post_processor: bool = True,
    target: str = "android-arm64",
) -> Path:
    """Export the model.

    Args:
        out: the bundle.
        sayings: tokens in the order in which they follow each other.
        context: most tokens.
        template: of chats.
        prefix: whether plain text begins with a BOS.
        post_processor: whether the tokenizer's definition says so too.
        target: a phone.
    """
    letters = _letters()
    vocab = dict.fromkeys(sorted(letters.values()))
    vocab |= dict.fromkeys("".join(letters[byte] for byte in token) for saying in sayings for token in saying)
    names = [*(name for name in vocab if name != END), "<s>", END]
    ids = {name: index for index, name in enumerate(names)}
    special = [
        {"id": ids[name], "content": name, "special": True, "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False}
        for name in ("<s>", END)
    ]
    definition = {
        "version": "1.0",
        "added_tokens": special,
        "post_processor": _prefixing(ids["<s>"]) if prefix and post_processor else None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {"type": "BPE", "vocab": {name: ids[name] for name in names}, "merges": []},
    }
    spelled = [[ids["".join(letters[byte] for byte in token)] for token in saying] for saying in sayings]
    follows = {a: b for saying in spelled for a, b in pairwise(saying)}
    layer = Layer(Attention(2, 1, 64, 0.125, Rope(10000.0)), Mlp(64, "silu"))
    spec = DecoderSpec("llama", len(ids), _WIDTH, context, (layer,), 1e-5)
    bos, end = ids["<s>"], ids[END]
    tokenizer = Tokenizer(json.dumps(definition), SpecialTokens(bos, (end,), end, (bos,) if prefix else ()), template)
    model = edgesdk.Model(spec, _Chained(spec, follows), tokenizer)
    edgesdk.export(model, target, out, recipe="none", context=context, checks=edgesdk.Checks(skip=True))
    return out


@contextmanager
def as_a_ring() -> Iterator[None]:
    """Programs say that a call holds 256 tokens, as those of earlier bundles did: ExecuTorch takes them for rings."""
    from edgesdk_converters.executorch import convert

    facts = convert._facts
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(convert, "_facts", lambda *given: facts(*given) | {"get_max_seq_len": 256})
        yield


def _prefixing(bos: int) -> dict[str, Any]:
    """Where ExecuTorch's tokenizer takes a BOS from: it has none of its own."""
    start, text = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    special = {"<s>": {"id": "<s>", "ids": [bos], "tokens": ["<s>"]}}
    return {
        "type": "TemplateProcessing",
        "single": [start, text],
        "pair": [start, text, second],
        "special_tokens": special,
    }


def _letters() -> dict[int, str]:
    """How byte-level tokenizers write each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + index) for index, byte in enumerate(others)}
