"""The lint of TFLite-Micro programs: each silent trap of the stock tools is built, shown to be one, and refused."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
import pytest

from edgesdk.compress.base import Setting
from edgesdk.compress.calibration import Calibration
from edgesdk.compress.recipe import open_recipe
from edgesdk.converter import ProgramOptions
from edgesdk.doctor import tiny_model
from edgesdk.errors import BundleError, TargetError
from edgesdk.model import Model
from edgesdk.model.reference import ReferenceSession
from edgesdk.progress import SILENT
from edgesdk_converters.tflite import calibrate
from edgesdk_converters.tflite.convert import CONVERTER
from edgesdk_converters.tflite.decode import ancillary
from edgesdk_converters.tflite.decoder import DecoderGraph
from edgesdk_converters.tflite.format import read_file
from edgesdk_converters.tflite.graph import Graph, Grid
from edgesdk_converters.tflite.lint import refuse_clipped, require_clean, violations
from edgesdk_converters.tflite.micro import TFLM
from edgesdk_converters.tflite.numerics import Numerics, Range
from edgesdk_converters.tflite.ops import Ops
from edgesdk_converters.tflite.session import MicroSession

CONTEXT = 64
IDS = [1, 5, 9, 2, 33, 60, 7]
ROWS = np.array([[10, 20, 30, 40], [50, 60, 70, 80], [-10, -20, -30, -40]], np.int8)


@pytest.fixture(scope="module")
def rounded(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The tiny Llama with int8 weights, one scale a row."""
    setting = Setting(tmp_path_factory.mktemp("scratch"), SILENT, TFLM.limits())
    return open_recipe("w8")(tiny_model(), setting)[0]


def graph_file(path: Path, graph: Graph, *outputs) -> Path:
    graph.outputs.extend(outputs)
    graph.write(path)
    return path


def refused(path: Path, message: str, hint: str) -> None:
    with pytest.raises(TargetError, match=message) as failure:
        require_clean(read_file(path))
    assert failure.value.hint is not None and hint in failure.value.hint


def logits(model: Model, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What TFLM says without the lint, and what the model says."""
    found = MicroSession(read_file(path)).score(IDS)
    return found, ReferenceSession(model, CONTEXT).score(IDS)


def test_what_we_write_is_clean(rounded, tmp_path) -> None:
    for name, model, activations, kv in (
        ("f", tiny_model(), 32, None),
        ("a8", rounded, 8, None),
        ("kv8", rounded, 16, 8),
        ("w4", open_recipe("w4")(tiny_model(), Setting(tmp_path, SILENT, TFLM.limits()))[0], 8, None),
    ):
        (tmp_path / name).mkdir()
        program = TFLM.convert(model, ProgramOptions(CONTEXT, "float32", activations, kv), tmp_path / name, SILENT)
        assert list(violations(read_file(tmp_path / name / program.main))) == []


def test_trap_1_weights_outside_the_flatbuffer(tmp_path) -> None:
    CONVERTER.convert(tiny_model(), ProgramOptions(CONTEXT, "float32", 32), tmp_path, SILENT)
    model = read_file(tmp_path / "model.tflite").model
    largest = max((each for each in model.buffers if each.data is not None), key=lambda each: len(each.data))
    moved, largest.data = largest.data, None
    largest.offset, largest.size = 4096, len(moved)
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "outside.tflite"
    path.write_bytes(bytes(builder.Output()) + moved.tobytes())
    refused(path, r"lies outside the flatbuffer \(offset 4096, \d+ bytes\)", "inside the flatbuffer")


def test_trap_2_a_lookup_with_a_scale_for_each_row(tmp_path) -> None:
    from tflite_micro import runtime

    graph = Graph()
    ids, scales = graph.input("ids", [1], "INT32"), np.array([1.0, 2.0, 3.0], np.float32)
    row = Ops(graph).lookup(ids, graph.constant("table", ROWS, Grid(scales)), "row")
    path = graph_file(tmp_path / "lookup.tflite", graph, row)
    run = runtime.Interpreter.from_file(str(path), arena_size=1 << 16)
    run.set_input(np.array([1], np.int32), 0)
    run.invoke()
    assert not np.array_equal(run.get_output(0)[0], ROWS[1] * 2.0)  # TFLM says nothing and uses the first scale
    refused(path, "the table has 3 scales", "w8t")


def test_trap_3_weights_dequantized_row_by_row(rounded, tmp_path) -> None:
    CONVERTER.convert(rounded, ProgramOptions(CONTEXT, "float32", 32), tmp_path, SILENT)
    path = tmp_path / "model.tflite"
    assert np.abs(CONVERTER.open(path, CONTEXT).score(IDS) - logits(rounded, path)[1]).max() < 1e-4
    found, wanted = logits(rounded, path)
    assert np.abs(found - wanted).max() > 0.1  # the same file in TFLM, without a word
    refused(path, r"layers\.0\.q\.weight has 64 scales", "-a8 or -a16")


def test_trap_4_ranges_of_a_moving_average(rounded, tmp_path) -> None:
    text = Calibration(sequences=4, length=CONTEXT)
    ranges = calibrate.measure(rounded, CONTEXT, SILENT, text)
    smoothed = {name: Range(0.6 * each.low, 0.6 * each.high) for name, each in ranges.items()}
    for declared, clean in ((ranges, True), (smoothed, False)):
        decoder = DecoderGraph(rounded, CONTEXT, Numerics("int8", "int8", declared))
        assert len(list(decoder.emit())) == 2
        path = graph_file(tmp_path / "ranges.tflite", decoder.graph)
        require_clean(read_file(path))  # nothing in the file itself tells
        if clean:
            refuse_clipped(read_file(path), ranges)
            continue
        with pytest.raises(TargetError, match=r"was measured from .* but its grid holds only") as failure:
            refuse_clipped(read_file(path), ranges)
        assert "moving average" in str(failure.value.hint)


def test_float_activations_with_int8_weights(rounded, tmp_path) -> None:
    CONVERTER.convert(rounded, ProgramOptions(CONTEXT, "float32", 8), tmp_path, SILENT)
    refused(tmp_path / "model.tflite", "INT8 weights with float activations", "-a16")


def test_int16_activations_with_a_scale_for_each_row(tmp_path) -> None:
    graph = Graph()
    one = Grid(np.array([0.01], np.float32))
    x = graph.input("x", [1, 4], "INT16", one)
    weight = graph.constant("weight", ROWS, Grid(np.array([1.0, 2.0, 3.0], np.float32)))
    path = graph_file(tmp_path / "short.tflite", graph, Ops(graph).fully_connected(x, weight, "y", one))
    refused(path, "3 scales with int16 activations: the host runs it, CMSIS-NN on the device refuses", "w8t")


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (None, 0, None),
        (0, 9, r"header that TFLM knows: \[9, 1\]"),
        (1, 2, r"header that TFLM knows: \[0, 2\]"),
        (5, 0xF0, "indices of 0 bits"),
        (5, 0xF7, "6 bytes of indices for 12 values of 7 bits"),
        (6, 16, "one table with the step 16"),
        (-1, None, r"index 15 lies past the 15 bytes"),
    ],
)
def test_lookup_tables_that_tflm_would_read_past(tmp_path, at, value, message) -> None:
    header = ancillary()
    if value is None:
        header = header[:at]
    elif at is not None:
        header[at] = value
    graph = Graph()
    ops, one = Ops(graph), Grid(np.array([0.01], np.float32))
    x = graph.input("x", [1, 4], "INT8", one)
    ops._table = graph.constant("decode.table", header)
    weight = ops.decode(np.arange(-8, 4, dtype=np.int8).reshape(3, 4), "weight", Grid(np.ones(3, np.float32)))
    path = graph_file(tmp_path / "decode.tflite", graph, ops.fully_connected(x, weight, "y", one))
    if message is None:
        require_clean(read_file(path))
    else:
        refused(path, message, "export")


def test_decoded_constants_that_are_read_late(tmp_path) -> None:
    graph = Graph()
    ops, one = Ops(graph), Grid(np.array([0.01], np.float32))
    x = graph.input("x", [1, 3], "INT8", one)
    weight = ops.decode(np.arange(-4, 5, dtype=np.int8).reshape(3, 3), "weight", one)
    once = ops.fully_connected(x, weight, "once", one)
    path = graph_file(tmp_path / "late.tflite", graph, ops.fully_connected(once, weight, "twice", one))
    refused(path, "operator 0 .* not read by the next operator alone", "before every reader")


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [("GELU", "TFLM has no such operator", "gelu_tanh"), ("ELU", None, None), ("RELU_0_TO_1", "no such", "RELU6")],
)
def test_operators_that_tflm_lacks(tmp_path, code, message, hint) -> None:
    graph = Graph()
    path = graph_file(tmp_path / "one.tflite", graph, Ops(graph).unary(code, graph.input("x", [4], "FLOAT32"), "y"))
    if message is None:
        require_clean(read_file(path))
    else:
        refused(path, message, hint)


def test_a_kernel_that_lacks_the_type(tmp_path) -> None:
    graph = Graph()
    x = graph.input("x", [4], "INT16", Grid(np.array([0.01], np.float32)))
    path = graph_file(tmp_path / "one.tflite", graph, Ops(graph).unary("RSQRT", x, "y"))
    refused(path, "kernel does not take INT16", "FLOAT32, INT8")


def test_constants_that_are_not_aligned(tmp_path, monkeypatch) -> None:
    from edgesdk_converters.tflite import graph as writer

    monkeypatch.setattr(writer, "ALIGNMENT", 4)
    graph = Graph()
    ops = Ops(graph)
    x = graph.input("x", [1, 3], "FLOAT32")
    for number in range(4):  # 12 bytes each: one of them lies wrong whatever surrounds them
        x = ops.add(x, ops.floats(f"c{number}", np.full((1, 3), number)), f"sum{number}")
    refused(graph_file(tmp_path / "tight.tflite", graph, x), "no multiple of 16", "align")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_file_cut_short_is_one_clear_error(tmp_path, share) -> None:
    CONVERTER.convert(tiny_model(), ProgramOptions(CONTEXT, "float32", 32), tmp_path, SILENT)
    path = tmp_path / "model.tflite"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for converter in (TFLM, CONVERTER):
        with pytest.raises(BundleError, match=r"model\.tflite") as failure:
            converter.open(path, CONTEXT)
        assert failure.value.hint is not None


def test_a_missing_file_is_one_clear_error(tmp_path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        TFLM.open(tmp_path / "none.tflite", CONTEXT)


@pytest.mark.parametrize("part", ["inputs", "outputs"])
def test_operators_without_their_tensors_are_named(rounded, tmp_path, part) -> None:
    program = TFLM.convert(rounded, ProgramOptions(CONTEXT, "float32", 8), tmp_path, SILENT)
    file = read_file(tmp_path / program.main)
    for operator in file.graph.operators:
        setattr(operator, part, [])
    found = [violation.message for violation in violations(file)]
    assert any("FULLY_CONNECTED): it lacks inputs or outputs" in message for message in found)
    assert any("QUANTIZE): it lacks inputs or outputs" in message for message in found)
