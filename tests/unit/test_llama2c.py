"""llama2.c checkpoints: read right, and refused when they are not whole."""

import json
import struct
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

import edgesdk
from edgesdk.errors import ModelError
from edgesdk.model.opening import open_model
from edgesdk.model.weights import Heads, dense

from ..conftest import edgesdk_process

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, CONTEXT = 16, 24, 2, 2, 1, 32


BYTES = [b"<0x%02X>" % byte for byte in range(256)]
#: A vocabulary of characters, of another language: no piece stands for a byte.
CHARACTERS = [*(letter.encode() for letter in "\u0430\u0431\u0432\u0433\u0434\u0435.\n"), b" ", "\u0430\u0431".encode()]


def write(folder: Path, *, tied: bool = True, pieces: list[bytes] | None = None) -> dict[str, torch.Tensor]:
    """A random checkpoint with a byte tokenizer, or one of other pieces; returns its tensors in the file's order."""
    generator = torch.Generator().manual_seed(0)
    words = [*BYTES, b" ", b"a", b" a"] if pieces is None else pieces
    vocab = 3 + len(words)
    kv = HIDDEN // HEADS * KV_HEADS
    shapes = {
        "tok_embeddings": (vocab, HIDDEN),
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
        shapes["output"] = (vocab, HIDDEN)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    head = struct.pack("<7i", HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, vocab if tied else -vocab, CONTEXT)
    body = b"".join(tensor.numpy().tobytes() for tensor in tensors.values())
    (folder / "model.bin").write_bytes(head + body)
    named = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *words]
    table = b"".join(struct.pack("<fi", -float(n), len(piece)) + piece for n, piece in enumerate(named))
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


def test_a_vocabulary_of_characters(tmp_path: Path) -> None:
    write(tmp_path, pieces=CHARACTERS)
    tokenizer = open_model(tmp_path / "model.bin").tokenizer
    assert tokenizer is not None and '"byte_fallback": false' in tokenizer.definition
    space, v, stop, ab = (3 + CHARACTERS.index(piece.encode()) for piece in (" ", "\u0432", ".", "\u0430\u0431"))
    assert tokenizer.encode("\u0430\u0431\u0432 xyz.", prefix=True) == [1, space, ab, v, space, 0, stop]
    assert tokenizer.decode([1, space, ab, 0, stop]) == "\u0430\u0431."
    plain = Backend.from_str(tokenizer.definition)
    assert plain.encode("\u0430 x").ids == tokenizer.encode("\u0430 x", prefix=True)


def test_some_bytes_are_fallback_where_they_are_there(tmp_path: Path) -> None:
    write(tmp_path, pieces=[b"<0xC3>", b"<0xA9>", b" ", b"a"])
    tokenizer = open_model(tmp_path / "model.bin").tokenizer
    assert tokenizer is not None
    assert tokenizer.encode("a\u00e9\u00ea") == [5, 6, 3, 4, 0] and tokenizer.decode([6, 3, 4]) == "a\u00e9"


@pytest.mark.parametrize("pieces", [None, CHARACTERS])
def test_the_space_before_a_text_can_be_named(tmp_path: Path, pieces: list[bytes] | None) -> None:
    write(tmp_path, pieces=pieces)
    spaced, bare = (open_model(tmp_path / "model.bin", prefix_space=space).tokenizer for space in (True, False))
    assert spaced is not None and bare is not None
    usual = open_model(tmp_path / "model.bin").tokenizer
    assert usual == spaced
    text = "a a" if pieces is None else "\u0430 \u0430"
    first, *rest = spaced.encode(text)
    assert bare.encode(text) == ([260, 261] if pieces is None else rest) and spaced.token(first).startswith("\u2581")
    assert spaced.decode(spaced.encode(text)) == bare.decode(bare.encode(text)) == text


def test_the_space_reaches_bundles_and_checkpoints(tmp_path: Path) -> None:
    write(tmp_path, pieces=CHARACTERS)
    for command in ("export", "compress"):
        out = tmp_path / command
        choices = ("--target", "host", "--recipe", "w8", "--skip-checks", "--no-prefix-space", "--out", out)
        ran = edgesdk_process(command, tmp_path / "model.bin", *choices)
        assert ran.returncode == 0, ran.stderr
        definition = json.loads((out / "tokenizer.json").read_text())
        assert [step["type"] for step in definition["normalizer"]["normalizers"]] == ["Replace"]
    ran = edgesdk_process("lint", tmp_path / "model.bin", "--target", "host", "--recipe", "w8", "--no-prefix-space")
    assert ran.returncode == 0, ran.stderr


def test_other_files_say_themselves_whether_a_space_goes_before_a_text(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="says itself whether a space") as refused:
        open_model(checkpoint, prefix_space=False)
    assert refused.value.hint and "llama2.c" in refused.value.hint
    ran = edgesdk_process("lint", checkpoint, "--target", "host", "--no-prefix-space")
    assert ran.returncode == 1 and "--no-prefix-space is for llama2.c files" in ran.stderr


@pytest.mark.parametrize("target", ["host", "cortex-m4f"])
def test_a_vocabulary_of_characters_runs_on_boards_and_microcontrollers(tmp_path: Path, target: str) -> None:
    write(tmp_path, pieces=CHARACTERS)
    out = tmp_path / "b"
    edgesdk.export(tmp_path / "model.bin", target, out, recipe="w8", checks=edgesdk.Checks(skip=True))
    with edgesdk.open_bundle(out) as bundle:
        tokenizer = edgesdk.Chat(bundle).tokenizer
    assert tokenizer.encode("x\u0430", prefix=True) == [1, 3 + CHARACTERS.index(b" "), 0, 3]
    assert AutoTokenizer.from_pretrained(out)("x\u0430").input_ids == tokenizer.encode("x\u0430", prefix=True)


def test_a_piece_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path, pieces=[b" ", b"a", "\u2581".encode()])
    with pytest.raises(ModelError, match="two pieces are both"):
        open_model(tmp_path / "model.bin")


@pytest.mark.parametrize(
    ("version", "what"), [(1, "float32 in another order"), (2, "8-bit weights"), (3, "version 3;")]
)
def test_later_versions_are_named(tmp_path: Path, version: int, what: str) -> None:
    write(tmp_path)
    path = tmp_path / "model.bin"
    path.write_bytes(struct.pack("<Ii", 0x616B3432, version) + bytes(248))
    with pytest.raises(ModelError, match=f"version {version}") as refused:
        open_model(path)
    assert what in refused.value.message and "--version 0" in str(refused.value.hint)


def test_documents_are_windows(tmp_path: Path) -> None:
    from edgesdk.passages.cutting import file_windows

    write(tmp_path)
    text = tmp_path / "eval.txt"
    text.write_text("a a a\n<|endoftext|>\n a \n<|endoftext|>\n")
    found = file_windows(open_model(tmp_path / "model.bin").tokenizer, text, 6, context=3)
    assert [(window.ids, window.scored) for window in found] == [([1, 261, 261], [261, 261]), ([1, 261], [261])]
