"""GGUF files: values equal the gguf package's own dequantization; tokenizers come out of the metadata."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from edgesdk.errors import ModelError
from edgesdk.model.gguf_file import GgufFile
from edgesdk.model.gguf_tokenizer import tokenizer_from_gguf
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceSession
from edgesdk.model.tensors import QuantizedTensor
from edgesdk.model.weights import dense

from ..conftest import make_checkpoint

KINDS = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
#: Kinds that the gguf package cannot quantize to: any bytes are valid blocks of them, but scales must be finite.
_SCALE_BYTES = {"Q2_K": [(80, 84)], "Q3_K": [(108, 110)], "Q4_K": [(0, 4)], "Q5_K": [(0, 4)], "Q6_K": [(208, 210)]}


def quantized(values: np.ndarray, kind: str) -> tuple[np.ndarray, gguf.GGMLQuantizationType]:
    form = gguf.GGMLQuantizationType[kind]
    if kind not in _SCALE_BYTES:
        return gguf.quants.quantize(values, form), form
    block, size = gguf.GGML_QUANT_SIZES[form]
    raw = np.random.default_rng(5).integers(0, 256, (values.shape[0], values.shape[1] // block, size), dtype=np.uint8)
    for start, stop in _SCALE_BYTES[kind]:
        raw[..., start:stop] = np.frombuffer(np.full((stop - start) // 2, 0.01, np.float16).tobytes(), np.uint8)
    return raw.reshape(values.shape[0], -1), form


def write_gguf(
    path: Path, tensors: dict[str, tuple[np.ndarray, str]], architecture: str = "llama", **fields: object
) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in fields.items():
        key = name.replace("__", ".")
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    for name, (values, kind) in tensors.items():
        raw, form = quantized(values, kind)
        writer.add_tensor(name, raw, raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", KINDS)
def test_values_equal_the_gguf_packages(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(0).standard_normal((6, 512)).astype(np.float32)
    path = tmp_path / "one.gguf"
    write_gguf(path, {"t": (values, kind)})
    reader = gguf.GGUFReader(path)
    wanted = gguf.quants.dequantize(reader.tensors[0].data, reader.tensors[0].tensor_type)
    found = GgufFile(path).read("t")
    assert np.array_equal(dense(found).numpy(), wanted.reshape(values.shape))
    assert isinstance(found, QuantizedTensor) == (kind in ("Q8_0", "Q4_0"))


def llama_gguf(
    path: Path,
    folder: Path,
    kind: str = "F32",
    *,
    extra: dict[str, np.ndarray] | None = None,
    architecture: str = "llama",
    **fields: object,
) -> None:
    """The tiny checkpoint as llama.cpp's converter writes it: interleaved q and k for a Llama.

    ``extra`` tensors and ``fields`` (keys with ``__`` for dots, without the architecture) go into it as well.
    """
    from safetensors.torch import load_file

    from edgesdk.model.families.places import GGUF_TENSORS, LLAMA_TENSORS

    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        parts = name.removeprefix("model.").split(".")
        if parts[0] == "layers":
            key = ".".join(parts[2:-1])
            ours = next(mine for mine, theirs in LLAMA_TENSORS.items() if theirs == key)
            stored = f"blk.{parts[1]}.{GGUF_TENSORS[ours]}.weight"
            heads = {"q": 4, "k": 2}.get(ours)
            if heads and architecture == "llama":
                rows, columns = tensor.shape
                tensor = tensor.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)
        else:
            stem = name.removesuffix(".weight")
            ours = next(mine for mine, theirs in LLAMA_TENSORS.items() if theirs in (name, stem))
            stored = f"{GGUF_TENSORS[ours].removesuffix('.weight')}.weight"
        tensors[stored] = (tensor.numpy(), kind if tensor.dim() == 2 else "F32")
    from tokenizers import Tokenizer

    vocab = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab(with_added_tokens=True)
    words = sorted(vocab, key=lambda word: vocab[word])
    words.append(words[60] + words[61])
    tensors |= {name: (values, "F32") for name, values in (extra or {}).items()}
    own = {
        "context_length": 1024,
        "embedding_length": 64,
        "feed_forward_length": 128,
        "block_count": 2,
        "attention__head_count": 4,
        "attention__head_count_kv": 2,
        "attention__layer_norm_rms_epsilon": 1e-5,
        "rope__freq_base": 10000.0,
        **fields,
    }
    write_gguf(
        path,
        tensors,
        architecture,
        **{f"{architecture}__{key}": value for key, value in own.items() if value is not None},
        tokenizer__ggml__model="gpt2",
        tokenizer__ggml__pre="gpt-2",
        tokenizer__ggml__tokens=words,
        tokenizer__ggml__token_type=[1] * 256 + [3] * 3 + [1],
        tokenizer__ggml__merges=[f"{words[60]} {words[61]}"],
        tokenizer__ggml__bos_token_id=256,
        tokenizer__ggml__eos_token_id=257,
        tokenizer__ggml__add_bos_token=True,
    )


def test_a_gguf_llama_equals_its_folder(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    llama_gguf(path, checkpoint)
    wanted, found = open_model(checkpoint), open_model(path)
    assert found.spec == wanted.spec
    ids = [3, 5, 90, 200, 1]
    assert np.abs(ReferenceSession(found).score(ids) - ReferenceSession(wanted).score(ids)).max() < 1e-5
    assert found.tokenizer is not None
    assert found.tokenizer.special.bos == 256
    assert found.tokenizer.special.stop == (257,)
    assert found.tokenizer.encode("a b", prefix=True)[0] == 256


def test_q8_0_rows_are_reordered_with_their_scales(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    llama_gguf(path, checkpoint, "Q8_0")
    model = open_model(path)
    tensor = model.weights.get("layers.0.q.weight")
    assert isinstance(tensor, QuantizedTensor)
    original = dense(open_model(checkpoint).weights.get("layers.0.q.weight"))
    assert float((tensor.dequantize() - original).abs().max()) < 0.01


@pytest.mark.parametrize("cut", [3, 20, 400, -2000, -1])
def test_a_truncated_file_is_one_clear_error(checkpoint: Path, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "tiny.gguf"
    llama_gguf(path, checkpoint)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match=r"GGUF|truncated|ends at"):
        open_model(path)


def test_an_empty_file_and_another_format_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04 something else entirely"):
        path = tmp_path / "x.gguf"
        path.write_bytes(content)
        with pytest.raises(ModelError, match="GGUF"):
            open_model(path)


def test_sentencepiece_tokenizer_merges_by_score() -> None:
    pieces = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    words = ["\u2581", "h", "e", "l", "o", "he", "ll", "hell", "hello", "\u2581hello"]
    tokens = pieces + words
    scores = [0.0] * len(pieces) + [-1000.0] * 5 + [-1.0, -2.0, -3.0, -4.0, -5.0]
    tokenizer = tokenizer_from_gguf(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": scores,
            "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(words),
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.unknown_token_id": 0,
        },
        "test",
    )
    assert tokenizer.encode("hello", prefix=True) == [1, tokens.index("\u2581hello")]
    assert tokenizer.decode(tokenizer.encode("hello hello \u00e9")) == "hello hello \u00e9"


def test_an_unknown_pre_tokenizer_is_named() -> None:
    with pytest.raises(ModelError, match="'martian'"):
        tokenizer_from_gguf(
            {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.pre": "martian"}, "test"
        )


def test_bfloat16_is_read_as_such(tmp_path: Path) -> None:
    values = torch.randn(2, 32).to(torch.bfloat16).float().numpy()
    write_gguf(tmp_path / "b.gguf", {"t": (values, "BF16")})
    found = GgufFile(tmp_path / "b.gguf").read("t")
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.bfloat16


def test_make_checkpoint_is_deterministic(checkpoint: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "again")
    assert (other / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()


def test_a_type_that_the_package_only_names_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "one.gguf"
    write_gguf(path, {"t": (np.zeros((2, 32), np.float32), "Q8_0")})
    data = path.read_bytes()
    described = b"t" + struct.pack("<IQQI", 2, 32, 2, gguf.GGMLQuantizationType.Q8_0)
    assert described in data
    for kind in gguf.GGMLQuantizationType:
        path.write_bytes(data.replace(described, described[:-4] + struct.pack("<I", kind)))
        try:
            GgufFile(path).read("t")
        except ModelError:
            continue
