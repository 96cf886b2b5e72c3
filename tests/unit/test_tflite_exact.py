"""LiteRT and TFLite-Micro programs carry the pass's integers bit for bit, compute with them, and repeat."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from edgesdk.compress.base import Setting
from edgesdk.compress.calibration import Calibration
from edgesdk.compress.recipe import open_recipe
from edgesdk.converter import ProgramOptions
from edgesdk.doctor import tiny_model
from edgesdk.errors import EdgeError, MissingExtraError, RecipeError, TargetError
from edgesdk.model import Model
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceSession
from edgesdk.model.spec import is_linear
from edgesdk.model.tensors import QuantizedTensor
from edgesdk.options import program_options
from edgesdk.progress import SILENT, Progress
from edgesdk.targets import open_target
from edgesdk_converters.tflite import calibrate
from edgesdk_converters.tflite.convert import CONVERTER
from edgesdk_converters.tflite.decoder import DecoderGraph
from edgesdk_converters.tflite.format import read_file
from edgesdk_converters.tflite.micro import TFLM
from edgesdk_converters.tflite.numerics import Numerics, Range
from edgesdk_converters.tflite.readback import read_packed

from ..conftest import make_checkpoint

if TYPE_CHECKING:
    from edgesdk.model.weights import Stored, Weights

CONTEXT = 64
IDS = [5, 80, 200, 3, 255, 17]
GOLDEN = Path(__file__).with_name("tflm_logits.json")


@pytest.fixture(autouse=True)
def short_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "TEXT", Calibration(sequences=2, length=32))


class Spoken(Calibration):
    """A text that is not sampled."""

    def tokens(self, model: Model, progress: Progress) -> torch.Tensor:
        return (torch.arange(CONTEXT) * 37 % model.spec.vocab).view(1, -1)


class Widened:
    """The same integers, said to have 8 bits."""

    def __init__(self, base: Weights) -> None:
        self._base = base

    def get(self, name: str) -> Stored:
        found = self._base.get(name)
        return replace(found, bits=8) if isinstance(found, QuantizedTensor) else found


class Replaced:
    """Weights with another embedding."""

    def __init__(self, base: Weights, table: QuantizedTensor) -> None:
        self._base, self._table = base, table

    def get(self, name: str) -> Stored:
        return self._table if name == "embed.weight" else self._base.get(name)


def compressed(model: Model, recipe: str, scratch: Path, converter=CONVERTER) -> Model:
    scratch.mkdir()
    return open_recipe(recipe)(model, Setting(scratch, SILENT, converter.limits()))[0]


def program(converter, model: Model, folder: Path, activations: int, kv_bits: int | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    return (
        folder / converter.convert(model, ProgramOptions(CONTEXT, "float32", activations, kv_bits), folder, SILENT).main
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("converter", "recipe", "activations", "kv_bits"),
    [
        (CONVERTER, "w8", 8, None),
        (CONVERTER, "w8", 32, None),
        (CONVERTER, "w8t", 8, None),
        (CONVERTER, "w4g32", 8, None),
        (CONVERTER, "w4g64-e4", 8, None),
        (CONVERTER, "w4-e8-h4", 8, None),
        (TFLM, "w8", 8, None),
        (TFLM, "w8", 16, 8),
        (TFLM, "w8t", 16, None),
        (TFLM, "w8-e16", 8, None),
        (TFLM, "w4", 8, None),
        (TFLM, "w4-a16", 16, 8),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_integers_and_scales_read_back_bit_for_bit(tmp_path, tied, converter, recipe, activations, kv_bits) -> None:
    checkpoint = make_checkpoint(tmp_path / "model", tie_word_embeddings=tied)
    model = compressed(open_model(checkpoint), recipe, tmp_path / "scratch", converter)
    found = read_packed(program(converter, model, tmp_path / "out", activations, kv_bits))
    wanted = {name: model.weights.get(name) for name in model.spec.tensors()}
    wanted = {name: tensor for name, tensor in wanted.items() if isinstance(tensor, QuantizedTensor)}
    if model.spec.tied and "head.weight" in found:
        wanted["head.weight"] = wanted["embed.weight"]
    assert found.keys() == wanted.keys() and len(found) >= 14
    for name, tensor in wanted.items():
        assert torch.equal(found[name].values, tensor.values), name
        repeats = tensor.group // found[name].group
        assert torch.equal(found[name].scales, tensor.scales.repeat_interleave(repeats, dim=1)), name


def test_whole_matrices_have_one_scale(checkpoint, tmp_path) -> None:
    model = compressed(open_model(checkpoint), "w8t", tmp_path / "scratch", TFLM)
    for name, tensor in read_packed(program(TFLM, model, tmp_path / "out", 16)).items():
        assert len(tensor.scales.unique()) == 1, name
    file = read_file(tmp_path / "out" / "model.tflite")
    matrices = [
        tensor for tensor in file.graph.tensors if tensor.name.decode().endswith(".weight") and tensor.type == 9
    ]
    assert len(matrices) == 15 and all(len(tensor.quantization.scale) == 1 for tensor in matrices)


@pytest.mark.parametrize(
    ("converter", "recipe", "activations", "kv_bits", "bits"),
    [
        (CONVERTER, "w8", 8, None, 8.6),
        (CONVERTER, "w4g32-e4", 8, None, 4.6),
        (TFLM, "w8", 8, None, 8.6),
        (TFLM, "none", 32, None, 32),
    ],
)
def test_a_tied_table_is_stored_once(checkpoint, tmp_path, converter, recipe, activations, kv_bits, bits) -> None:
    model = compressed(open_model(checkpoint), recipe, tmp_path / "scratch", converter)
    path = program(converter, model, tmp_path / "out", activations, kv_bits)
    scales = sum(12 * shape[0] for shape in model.spec.tensors().values() if len(shape) == 2)
    rope = 2 * CONTEXT * 16 * 4
    assert path.stat().st_size < model.spec.parameters * bits / 8 + scales + rope + 50_000


@pytest.mark.parametrize("recipe", ["w8", "none", "w8-e16"])
def test_with_float_activations_litert_computes_what_the_reference_does(checkpoint, tmp_path, recipe) -> None:
    model = compressed(open_model(checkpoint), recipe, tmp_path / "scratch")
    session = CONVERTER.open(program(CONVERTER, model, tmp_path / "out", 32), CONTEXT)
    assert np.abs(session.score(IDS) - ReferenceSession(model, CONTEXT).score(IDS)).max() < 1e-4


@pytest.mark.parametrize("recipe", ["w8", "w8t", "w4g32", "w4g128-e4", "w4-h4"])
def test_dynamic_activations_stay_close(checkpoint, tmp_path, recipe) -> None:
    model = compressed(open_model(checkpoint), recipe, tmp_path / "scratch")
    session = CONVERTER.open(program(CONVERTER, model, tmp_path / "out", 8), CONTEXT)
    found, wanted = session.score(IDS), ReferenceSession(model, CONTEXT).score(IDS)
    assert 1e-5 < np.abs(found - wanted).max() < 0.15 * np.abs(wanted).max()


@pytest.mark.parametrize("recipe", ["w8", "w4"])
def test_bytes_repeat(checkpoint, tmp_path, recipe) -> None:
    made = []
    for number in range(2):
        model = compressed(open_model(checkpoint), recipe, tmp_path / f"scratch{number}", TFLM)
        made.append(program(TFLM, model, tmp_path / f"out{number}", 8).read_bytes())
    assert made[0] == made[1]


def test_logits_of_integer_programs_in_tflm_equal_the_golden_ones(tmp_path) -> None:
    """On a fixed text and rounded ranges, so that nothing hangs on torch; EDGESDK_WRITE_GOLDEN=1 writes them anew."""
    found = {}
    for name, recipe, arithmetic in (("w8-a8", "w8", "int8"), ("w8t-a16", "w8t", "int16"), ("w8-a16", "w8", "int16")):
        model = compressed(tiny_model(), recipe, tmp_path / f"scratch-{name}", TFLM)
        measured = calibrate.measure(model, CONTEXT, SILENT, Spoken())
        ranges = {key: Range(np.floor(8 * each.low) / 8, np.ceil(8 * each.high) / 8) for key, each in measured.items()}
        decoder = DecoderGraph(model, CONTEXT, Numerics(arithmetic, arithmetic, ranges))
        assert len(list(decoder.emit())) == 2
        decoder.graph.write(tmp_path / f"{name}.tflite")
        session = TFLM.open(tmp_path / f"{name}.tflite", CONTEXT)
        rows = [session.decode(token) for token in range(40)]
        found[name] = [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in rows]
    if os.environ.get("EDGESDK_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize(("activations", "kv_bits"), [(8, None), (16, 8)])
@pytest.mark.parametrize("width", [64, 76])
def test_decoded_weights_compute_what_the_same_integers_in_8_bits_do(tmp_path, activations, kv_bits, width) -> None:
    """76 inputs: rows that begin inside the 16 values which the kernel reads at a time."""
    checkpoint = make_checkpoint(tmp_path / "model", intermediate_size=width)
    model = compressed(open_model(checkpoint), "w4", tmp_path / "scratch", TFLM)
    wide = model.with_weights(Widened(model.weights))
    sizes, rows = [], []
    for name, each in (("packed", model), ("wide", wide)):
        path = program(TFLM, each, tmp_path / name, activations, kv_bits)
        sizes.append(path.stat().st_size)
        rows.append(TFLM.open(path, CONTEXT).score(IDS * 4))
        assert ("TFLM_DECODE" in {*read_file(path).codes}) == (name == "packed")
    assert np.array_equal(*rows) and rows[0].std() > 0
    saved = sum(math.prod(shape) for name, shape in model.spec.tensors().items() if is_linear(name)) // 2
    assert 0 < sizes[1] - sizes[0] < saved


def test_a_checkpoints_4_bit_table_is_looked_up_in_8_bits(tmp_path) -> None:
    model = compressed(tiny_model(), "w8", tmp_path / "scratch", TFLM)
    table = model.weights.get("embed.weight")
    narrow = QuantizedTensor(table.values.clamp(-8, 7), table.scales, 4, table.group)
    found = read_packed(program(TFLM, model.with_weights(Replaced(model.weights, narrow)), tmp_path / "out", 8))
    assert torch.equal(found["embed.weight"].values, narrow.values)


def test_facts_say_what_a_firmware_needs(tmp_path) -> None:
    model = compressed(tiny_model(), "w8", tmp_path / "scratch", TFLM)
    made = TFLM.convert(model, ProgramOptions(CONTEXT, "float32", 16, 8), tmp_path, SILENT)
    facts = made.facts
    names = [each["name"] for each in facts["inputs"]]
    assert names[:3] == ["tok", "pos", "layers.0.k_cache"] and len(names) == 2 + 2 * 2
    outputs = facts["outputs"]
    assert outputs[0]["type"] == "FLOAT32" or outputs[0]["scale"] > 0
    for cache, row in zip(facts["inputs"][2:], outputs[1:5], strict=True):
        assert (cache["scale"], cache["zero_point"], cache["type"]) == (row["scale"], 0, "INT8")
    assert [each["name"] for each in outputs[5:]] == names[2:]  # caches are listed again
    assert (facts["activations"], facts["caches"]) == ("int16", "int8")
    assert facts["arena_bytes"] >= 1.1 * facts["arena_host_bytes"]


def test_the_arena_is_the_smallest_that_works(tmp_path) -> None:
    from edgesdk_converters.tflite.arena import _fits, arena_bytes

    path = program(TFLM, tiny_model(), tmp_path, 32)
    size = arena_bytes(path)
    assert _fits(path.read_bytes(), size) and not _fits(path.read_bytes(), size - 64)


@pytest.mark.parametrize("converter", [CONVERTER, TFLM], ids=["litert", "tflm"])
def test_a_session_refuses_what_does_not_fit_and_keeps_its_cache(tmp_path, converter) -> None:
    model = tiny_model()
    session = converter.open(program(converter, model, tmp_path, 32), CONTEXT)
    session.prefill([1, 2, 3])
    for ids, message in (([], "no tokens"), ([64], "0 to 63"), ([1] * 62, "exceed the context of 64")):
        with pytest.raises(EdgeError, match=message):
            session.prefill(ids)
    with pytest.raises(EdgeError, match="cannot rewind 4 of 3"):
        session.rewind(4)
    wanted = ReferenceSession(model, CONTEXT).prefill([1, 2, 3, 4])
    assert np.abs(session.decode(4) - wanted).max() < 1e-4
    session.reset()
    assert session.position == 0 and len(session.score([7] * CONTEXT)) == CONTEXT


@pytest.mark.parametrize(
    ("converter", "recipe", "message"),
    [
        (TFLM, "w4g32", "one scale a row, but recipe w4g32 makes .* in groups of 32"),
        (TFLM, "w4-e4", "makes embed.weight 4-bit in groups of 32"),
        (TFLM, "w4-a32", "no kernel for int8 weights with float activations"),
        (TFLM, "w8-a32", "no kernel for int8 weights with float activations"),
        (CONVERTER, "w8-kv8", "keeps the key-value cache in float"),
        (CONVERTER, "w8-a16", "has no int16 activations"),
        (CONVERTER, "w4g32-a32", "no 4-bit weights with float activations"),
    ],
)
def test_what_a_runtime_cannot_hold_is_refused_before_work(checkpoint, converter, recipe, message) -> None:
    model, target, opened = open_model(checkpoint), open_target("litert-arm64"), open_recipe(recipe)
    with pytest.raises(RecipeError, match=message):
        converter.check(model.spec, opened, program_options(model, target, opened), target)


def test_rows_that_no_block_divides_are_refused_or_stay_float(tmp_path) -> None:
    model, target = open_model(make_checkpoint(tmp_path / "model", intermediate_size=72)), open_target("litert-arm64")
    rows, blocks = open_recipe("w4"), open_recipe("w4g32")
    with pytest.raises(RecipeError, match=r"layers\.0\.down\.weight has 72 inputs"):
        CONVERTER.check(model.spec, rows, program_options(model, target, rows), target)
    CONVERTER.check(model.spec, blocks, program_options(model, target, blocks), target)
    rounded = compressed(model, "w4g32", tmp_path / "scratch")
    found = read_packed(program(CONVERTER, rounded, tmp_path / "out", 8))
    assert "layers.0.up.weight" in found and "layers.0.down.weight" not in found


def test_float16_and_large_programs_are_refused(checkpoint) -> None:
    spec, target, recipe = open_model(checkpoint).spec, open_target("litert-arm64"), open_recipe("none")
    for converter in (CONVERTER, TFLM):
        with pytest.raises(TargetError, match="computes in float32, not float16"):
            converter.check(spec, recipe, ProgramOptions(CONTEXT, "float16", 32), target)
        with pytest.raises(TargetError, match=r"a \.tflite file holds 2147 MB"):
            converter.check(replace(spec, vocab=1 << 24), recipe, ProgramOptions(CONTEXT, "float32", 32), target)


@pytest.mark.parametrize(("converter", "extra"), [(CONVERTER, "tflite"), (TFLM, "tflm")], ids=["litert", "tflm"])
def test_a_missing_wheel_names_its_extra(tmp_path, monkeypatch, converter, extra) -> None:
    import builtins

    path, real = program(converter, tiny_model(), tmp_path, 32), builtins.__import__

    def without(name: str, *arguments: object, **named: object) -> object:
        if name in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tflite_micro"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError) as failure:
        converter.open(path, CONTEXT)
    assert failure.value.extra == extra


def test_export_to_a_litert_target_and_back(checkpoint, tmp_path) -> None:
    import edgesdk

    manifest = edgesdk.export(checkpoint, "litert-arm64", tmp_path / "bundle", recipe="w8", context=128)
    assert manifest.program.main == "model.tflite"
    assert manifest.parity is not None and all(row["top1"] > 0.9 for row in manifest.parity)
    assert CONVERTER.open(tmp_path / "bundle" / "model.tflite", 128).context == 128
