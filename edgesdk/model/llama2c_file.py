"""llama2.c checkpoints, version 0 (github.com/karpathy/llama2.c, export.py): seven int32, then float32 tensors.

The tokenizer lies beside the checkpoint as ``tokenizer.bin`` or ``tok<vocabulary>.bin``: the longest piece's length,
then a score, a length and bytes for each piece.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bounds.amounts import LAYERS, TOKENIZER
from ..bounds.regular import read_limited, regular_file
from ..errors import ModelError
from .gguf_tokenizer import is_byte, tokenizer_from_gguf

if TYPE_CHECKING:
    import torch

    from .tokenizer import Tokenizer

_HEADER = struct.Struct("<7i")
_MAGIC = 0x616B3432  # versions 1 and 2 begin with it, and their number
_BOS, _EOS = 1, 2
_CONTROL, _BYTE, _NORMAL = 3, 6, 1  # piece types of SentencePiece, as GGUF numbers them


class Llama2cFile:
    """Tensors of a llama2.c checkpoint, memory-mapped; layers are named ``wq.0``, ``wq.1`` and so on."""

    def __init__(self, path: Path) -> None:
        """Read the header and check the file's size against it.

        Raises:
            ModelError: no llama2.c checkpoint of version 0, or one of another size than its header says.
        """
        self.where = str(path)
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
        if len(head) < _HEADER.size:
            raise ModelError(f"{path}: no llama2.c checkpoint: {size} bytes are less than its header")
        hidden, inner, layers, heads, kv_heads, vocab, context = _HEADER.unpack(head)
        if hidden == _MAGIC:
            what = {1: " (float32 in another order)", 2: " (8-bit weights)"}.get(inner, "")
            raise ModelError(
                f"{path}: a llama2.c checkpoint of version {inner}{what}; edgesdk reads version 0",
                hint="write it again from the original with llama2.c (python export.py OUT --version 0 --checkpoint "
                "FILE.pt, or --hf FOLDER), or give the Hugging Face folder",
            )
        sizes = (hidden, inner, layers, heads, kv_heads, abs(vocab), context)
        whole = all(0 < value < 1 << 24 for value in sizes) and layers <= LAYERS
        if not whole or hidden % heads or heads % kv_heads:
            raise ModelError(
                f"{path}: no llama2.c checkpoint of version 0 (its header says {', '.join(map(str, sizes))})",
                hint="export it with llama2.c's export.py --version 0, or give a Hugging Face folder",
            )
        self.tied = vocab > 0
        head_dim = hidden // heads
        kv_size = kv_heads * head_dim
        #: The configuration in transformers' keys.
        self.config: dict[str, Any] = {
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "vocab_size": abs(vocab),
            "max_position_embeddings": context,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": self.tied,
        }
        groups = (
            ("tok_embeddings", 0, (abs(vocab), hidden)),
            ("attention_norm", layers, (hidden,)),
            ("wq", layers, (hidden, hidden)),
            ("wk", layers, (kv_size, hidden)),
            ("wv", layers, (kv_size, hidden)),
            ("wo", layers, (hidden, hidden)),
            ("ffn_norm", layers, (hidden,)),
            ("w1", layers, (inner, hidden)),
            ("w2", layers, (hidden, inner)),
            ("w3", layers, (inner, hidden)),
            ("norm", 0, (hidden,)),
            ("rotary tables", 0, (2, context, head_dim // 2)),
            *((("output", 0, (abs(vocab), hidden)),) if not self.tied else ()),
        )
        end = _HEADER.size + sum(4 * math.prod(shape) * max(1, count) for _, count, shape in groups)
        if end != size:
            raise ModelError(
                f"{path}: {size} bytes, but its header asks for {end}", hint="the file is cut short or damaged"
            )
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        at = _HEADER.size
        for name, count, shape in groups:
            for piece in [f"{name}.{index}" for index in range(count)] or [name]:
                self._places[piece] = (at, shape)
                at += 4 * math.prod(shape)

    def shape(self, name: str) -> tuple[int, ...] | None:
        found = self._places.get(name)
        return None if found is None else found[1]

    def read(self, name: str) -> torch.Tensor:
        import torch

        at, shape = self._places[name]
        with Path(self.where).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            raw = bytearray(data[at : at + 4 * math.prod(shape)])
        return torch.frombuffer(raw, dtype=torch.float32).view(shape)


def llama2c_tokenizer(checkpoint: Path, vocab: int, *, prefix_space: bool = True) -> Tokenizer:
    """The tokenizer beside a checkpoint.

    Args:
        checkpoint: the ``.bin`` file.
        vocab: its vocabulary.
        prefix_space: whether a space goes before each text, as llama2.c puts one; the files do not say how the model
            was trained.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    for name in (f"tok{vocab}.bin", "tokenizer.bin"):
        path = regular_file(checkpoint.parent, name, ModelError)
        if path is not None:
            return _tokenizer(path, vocab, prefix_space)
    raise ModelError(
        f"{checkpoint}: no tokenizer beside it", hint=f"put llama2.c's tokenizer.bin or tok{vocab}.bin into its folder"
    )


def _tokenizer(path: Path, vocab: int, prefix_space: bool) -> Tokenizer:
    data, at = read_limited(path, TOKENIZER, ModelError), 4
    tokens: list[str] = []
    scores: list[float] = []
    try:
        for _ in range(vocab):
            score, length = struct.unpack_from("<fi", data, at)
            piece = data[at + 8 : at + 8 + length]
            if length < 0 or len(piece) != length:
                raise ModelError(f"{path}: piece {len(tokens)} reaches past the end of the file")
            tokens.append(piece.decode().replace(" ", "\u2581"))
            scores.append(score)
            at += 8 + length
    except (struct.error, UnicodeDecodeError) as failure:
        raise ModelError(f"{path}: no llama2.c tokenizer of {vocab} pieces ({failure})") from None
    if at != len(data):
        raise ModelError(
            f"{path}: holds more than the {vocab} pieces of the checkpoint", hint="it belongs to another model"
        )
    tokens[:3] = ["<unk>", "<s>", "</s>"]
    if (twice := next((piece for piece, count in Counter(tokens).items() if count > 1), None)) is not None:
        raise ModelError(
            f"{path}: two pieces are both {twice!r} (a space and U+2581 are one)",
            hint="write the file again from the SentencePiece model with llama2.c's tokenizer.py",
        )
    types = [_CONTROL] * 3 + [_BYTE if is_byte(piece) else _NORMAL for piece in tokens[3:]]
    return tokenizer_from_gguf(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": scores,
            "tokenizer.ggml.token_type": types,
            "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.ggml.bos_token_id": _BOS,
            "tokenizer.ggml.eos_token_id": _EOS,
            "tokenizer.ggml.eot_token_id": _BOS,  # llama2.c ends a text at the start of the next one
            "tokenizer.ggml.add_space_prefix": prefix_space,
        },
        str(path),
    )
