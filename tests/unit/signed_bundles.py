"""Small bundles without a model, keys, and what an attacker makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path

from onnx import TensorProto, helper

from edgesdk.bundle import seal
from edgesdk.bundle.manifest import (
    Manifest,
    MemoryRecord,
    ModelIdentity,
    ProgramRecord,
    QualityRecord,
    RecipeRecord,
    TargetRecord,
    TokenizerRecord,
)
from edgesdk.signing.keys import make_key
from edgesdk.signing.signature import sign


def small_bundle(folder: Path, weights: bytes = b"weights" * 1000, *, os: str = "linux", cpu: str = "x86_64") -> Path:
    """A sealed bundle of a program that is never run."""
    folder.mkdir(parents=True)
    tensor = helper.make_tensor("w", TensorProto.UINT8, [len(weights)], weights, raw=True)
    graph = helper.make_graph([], "g", [], [], [tensor])
    (folder / "model.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    (folder / "tokenizer.json").write_text("{}")
    program = ProgramRecord("onnx", "model.onnx", "onnxruntime", ">=1", "float32", {})
    manifest = Manifest(
        1,
        ModelIdentity("tiny", "llama", 7, "apache-2.0", (), {"vocab": 7}),
        RecipeRecord("none", 0, (), ()),
        TargetRecord("linux-x86_64", os, cpu, 4096),
        program,
        1024,
        MemoryRecord(0, 0, 0, 0, 0),
        TokenizerRecord("tokenizer.json", None, None, (), None, ()),
        QualityRecord(None, "not measured", None, "not measured"),
        None,
        "not measured",
        {},
    )
    seal(folder, manifest)
    return folder


def flip(path: Path, at: int = 40) -> None:
    """Change one bit of one byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


class Signers:
    """Two owners of keys, A and B, and bundles that one of them signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.a, self.b = folder / "a", folder / "b"
        self.public_a, self.public_b = make_key(self.a), make_key(self.b)

    def signed(self, bundle: Path, key: Path | None = None, version: int = 5) -> Path:
        """A copy of a bundle, signed."""
        copy = self.folder / f"bundle-{len(list(self.folder.iterdir()))}"
        shutil.copytree(bundle, copy)
        sign(copy, key or self.a, version)
        return copy
