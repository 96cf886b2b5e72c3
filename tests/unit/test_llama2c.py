"""llama2.c checkpoints: read right, and refused when they are not whole."""

import struct
from pathlib import Path

import pytest
import torch

from edgesdk.errors import ModelError
from edgesdk.model.opening import open_model
from edgesdk.model.weights import Heads, dense

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, VOCAB, CONTEXT = 16, 24, 2, 2, 1, 259 + 3, 32


def write(folder: Path, *, tied: bool = True) -> dict[str, torch.Tensor]:
    """A random checkpoint with a byte tokenizer; returns its tensors in the file's order."""
    generator = torch.Generator().manual_seed(0)
    kv = HIDDEN // HEADS * KV_HEADS
    shapes = {
        "tok_embeddings": (VOCAB, HIDDEN),
        "attention_norm": (LAYERS, HIDDEN),
        "wq": (LAYERS, HIDDEN, HIDDEN),
        "wk": (LAYERS, kv, HIDDEN),
        "wv": (LAYERS, kv, HIDDEN),
        "wo": (LAYERS, HIDDEN, HIDDEN),
        "ffn_norm": (LAYERS, HIDDEN),
        "w1": (LAYERS, INNER, HIDDEN),
        "w2": (LAYERS, HIDDEN, INNER),
        "w3": (LAYERS, INNER, HIDDEN),
        "norm": (HIDDEN,),
        "tables": (2, CONTEXT, HIDDEN // HEADS // 2),
    }
    if not tied:
        shapes["output"] = (VOCAB, HIDDEN)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    head = struct.pack("<7i", HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, VOCAB if tied else -VOCAB, CONTEXT)
    body = b"".join(tensor.numpy().tobytes() for tensor in tensors.values())
    (folder / "model.bin").write_bytes(head + body)
    pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(b"<0x%02X>" % byte for byte in range(256)), b" ", b"a", b" a"]
    table = b"".join(struct.pack("<fi", -float(n), len(piece)) + piece for n, piece in enumerate(pieces))
    (folder / "tokenizer.bin").write_bytes(struct.pack("<i", 8) + table)
    return tensors


@pytest.mark.parametrize("tied", [True, False])
def test_tensors_and_tokenizer(tmp_path: Path, tied: bool) -> None:
    tensors = write(tmp_path, tied=tied)
    model = open_model(tmp_path / "model.bin")
    assert model.spec.tied == tied and model.spec.context == CONTEXT and model.spec.layers[1].attention.kv_heads == 1
    assert torch.equal(dense(model.weights.get("embed.weight")), tensors["tok_embeddings"])
    assert torch.equal(dense(model.weights.get("layers.1.down.weight")), tensors["w2"][1])
    order = Heads(HEADS, HIDDEN // HEADS, interleaved=True).order(HIDDEN)
    assert torch.equal(dense(model.weights.get("layers.1.q.weight")), tensors["wq"][1][order])
    assert torch.equal(dense(model.weights.get("final_norm.weight")), tensors["norm"])
    if not tied:
        assert torch.equal(dense(model.weights.get("head.weight")), tensors["output"])
    assert model.tokenizer is not None
    ids = model.tokenizer.encode("a aé", prefix=True)
    assert ids == [1, 261, 261, 3 + 0xC3, 3 + 0xA9]
    assert model.tokenizer.decode(ids) == "a aé"
    assert model.tokenizer.special.stop == (2, 1)


def test_refused_when_damaged(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "model.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(ModelError, match="its header asks for"):
        open_model(path)
    path.write_bytes(b"\x00" * 64)
    with pytest.raises(ModelError, match=r"no llama2\.c checkpoint"):
        open_model(path)
    path.write_bytes(b"abc")
    with pytest.raises(ModelError, match="less than its header"):
        open_model(path)
    path.write_bytes(whole)
    table = tmp_path / "tokenizer.bin"
    intact = table.read_bytes()
    table.write_bytes(intact[:-1])
    with pytest.raises(ModelError, match="past the end"):
        open_model(path)
    table.write_bytes(intact + bytes(9))
    with pytest.raises(ModelError, match="holds more than the 262 pieces"):
        open_model(path)
    table.unlink()
    with pytest.raises(ModelError, match="no tokenizer beside it"):
        open_model(path)


def test_documents_are_windows(tmp_path: Path) -> None:
    from edgesdk.passages.cutting import file_windows

    write(tmp_path)
    text = tmp_path / "eval.txt"
    text.write_text("a a a\n<|endoftext|>\n a \n<|endoftext|>\n")
    found = file_windows(open_model(tmp_path / "model.bin").tokenizer, text, 6, context=3)
    assert [(window.ids, window.scored) for window in found] == [([1, 261, 261], [261, 261]), ([1, 261], [261])]
