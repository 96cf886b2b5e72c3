"""Programs that nobody vouches for: verified without the runtime, and opened in a child first."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edgesdk
from edgesdk.bounds.flatbuffer import FlatbufferError, Table, verified
from edgesdk.bounds.flatbuffer_schema import Schema, read_schema
from edgesdk.bundle import Bundle, Manifest, admission, open_bundle, seal
from edgesdk.errors import BundleError, EdgeError
from tests.conftest import edgesdk_process

_ROUNDS = 400


def resealed(folder: Path, **program: Any) -> Path:
    """A bundle whose hashes are right again, as an attacker leaves it."""
    path = folder / "manifest.json"
    manifest = Manifest.parse(path.read_text(), "manifest.json")
    path.unlink()
    seal(folder, replace(manifest, program=replace(manifest.program, **program)))
    return folder


@pytest.fixture(scope="module")
def executorch_bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("executorch") / "bundle"
    edgesdk.export(checkpoint, "host", out, context=64, checks=edgesdk.Checks(skip=True))
    return out


@pytest.fixture(scope="module")
def litert_bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("litert") / "bundle"
    edgesdk.export(checkpoint, "litert-arm64", out, context=64, checks=edgesdk.Checks(skip=True))
    return out


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that remembers no bundle."""
    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(admission, "_admitted", set())
    return tmp_path / "cache"


# flatbuffers


def places(table: Table, schema: Schema) -> Iterator[int]:
    """Where a table, its description and its fields lie, and those of the tables below it."""
    waiting, seen = [table], set()
    while waiting:
        here = waiting.pop()
        if here.at in seen:
            continue
        seen.add(here.at)
        yield here.at
        for name in schema.tables[here.name]:
            value = here.get(name)
            waiting += value if isinstance(value, list) else [value]
            waiting = [each for each in waiting if isinstance(each, Table)]


def executorch_schema() -> Schema:
    from edgesdk_converters.executorch.wheel import PROGRAM_SCHEMA, folder

    return read_schema(folder() / PROGRAM_SCHEMA)


def litert_schema() -> Schema:
    from edgesdk_converters.tflite.schema import tflite_schema

    return tflite_schema()


def test_a_whole_flatbuffer_is_read_as_its_compiler_reads_it(executorch_bundle) -> None:
    from edgesdk_converters.executorch.format import check_file
    from edgesdk_converters.executorch.wheel import PROGRAM_SCHEMA, decompile_flatbuffer

    path = executorch_bundle / "model.pte"
    content = path.read_bytes()[: check_file(path).program_bytes]
    program, expected = (
        verified(memoryview(content), executorch_schema()),
        decompile_flatbuffer(PROGRAM_SCHEMA, content),
    )
    plan, other = program.tables("execution_plan")[0], expected["execution_plan"][0]
    assert plan.get("name").decode() == other["name"]
    assert plan.numbers("inputs") == other["inputs"]
    assert len(plan.tables("values")) == len(other["values"])
    assert [it.get("size") for it in program.tables("segments")] == [it["size"] for it in expected["segments"]]


def test_a_whole_tflite_file_is_read_as_its_own_reader_reads_it(litert_bundle) -> None:
    from ai_edge_litert import schema_py_generated as reader

    content = (litert_bundle / "model.tflite").read_bytes()
    model, expected = verified(memoryview(content), litert_schema()), reader.ModelT.InitFromPackedBuf(content)
    tensors, others = model.tables("Subgraphs")[0].tables("Tensors"), expected.subgraphs[0].tensors
    assert [it.get("Name") for it in tensors] == [it.name for it in others]
    assert [it.numbers("Shape") for it in tensors] == [list(it.shape) for it in others]
    assert len(model.tables("Buffers")) == len(expected.buffers)


@pytest.mark.parametrize("runtime", ["executorch", "litert"])
def test_a_changed_offset_is_refused_or_harmless(executorch_bundle, litert_bundle, runtime: str) -> None:
    schema = executorch_schema() if runtime == "executorch" else litert_schema()
    path = executorch_bundle / "model.pte" if runtime == "executorch" else litert_bundle / "model.tflite"
    whole, refused = path.read_bytes(), 0
    found = sorted(places(verified(memoryview(whole), schema), schema))
    chance = random.Random(7)
    for _ in range(_ROUNDS):
        data = bytearray(whole)
        at = chance.choice(found) + 4 * chance.randrange(-4, 6)
        struct.pack_into(
            "<I", data, at, chance.choice((0, 1, 4, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data)))
        )
        try:
            list(places(verified(memoryview(data), schema), schema))
        except FlatbufferError:
            refused += 1
    assert _ROUNDS // 4 < refused < _ROUNDS


def test_indices_of_an_executorch_program(executorch_bundle, tmp_path) -> None:
    from edgesdk_converters.executorch.format import HEADER, MAGIC, check_file
    from edgesdk_converters.executorch.verifying import check_program
    from edgesdk_converters.executorch.wheel import PROGRAM_SCHEMA, compile_flatbuffers, decompile_flatbuffer

    source = executorch_bundle / "model.pte"
    layout, content = check_file(source), source.read_bytes()
    path = tmp_path / "model.pte"

    def refused(message: str, *keys: Any, value: Any) -> None:
        program = decompile_flatbuffer(PROGRAM_SCHEMA, content[: layout.program_bytes])
        inner = program
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (flat,) = compile_flatbuffers(PROGRAM_SCHEMA, [json.loads(json.dumps(program))])
        start = -(-(HEADER.size + len(flat)) // 16) * 16
        header = HEADER.pack(MAGIC, HEADER.size, HEADER.size + len(flat), start, layout.data_bytes)
        root = int.from_bytes(flat[:4], "little") + HEADER.size
        joined = root.to_bytes(4, "little") + flat[4:8] + header + flat[8:]
        path.write_bytes(joined.ljust(start, b"\0") + content[layout.data_start :])
        with pytest.raises(BundleError, match=message):
            check_program(path)

    plan = ("execution_plan", 0)
    refused("input", *plan, "inputs", value=[100_000])
    refused("output", *plan, "outputs", value=[-1])
    refused("segment 0 ends", "segments", 0, "size", value=1 << 40)
    refused("of negative size", *plan, "non_const_buffer_sizes", value=[0, -1])
    values = decompile_flatbuffer(PROGRAM_SCHEMA, content[: layout.program_bytes])["execution_plan"][0]["values"]
    number = next(at for at, value in enumerate(values) if value["val_type"] == "Tensor")
    tensor = (*plan, "values", number, "val")
    refused("has sizes", *tensor, "dim_order", value=[9] * len(values[number]["val"]["sizes"]))
    refused("bytes", *tensor, "sizes", value=[1 << 30] * len(values[number]["val"]["sizes"]))
    refused("has no inputs", *plan, "inputs", value=None)


def test_a_damaged_program_is_one_error_from_verify_and_run(executorch_bundle, tmp_path) -> None:
    copy = Path(shutil.copytree(executorch_bundle, tmp_path / "b"))
    data = bytearray((copy / "model.pte").read_bytes())
    table = int.from_bytes(data[:4], "little")
    struct.pack_into("<I", data, table, 0x7FFFFFFF)
    (copy / "model.pte").write_bytes(data)
    resealed(copy)
    for command in (("verify", copy), ("run", copy, "hi", "--max-tokens", "2")):
        done = edgesdk_process(*command)
        assert done.returncode == 1 and "does not hold together" in done.stderr
        assert "Traceback" not in done.stderr


# where the weights of an ONNX program lie


def repointed(bundle: Path, copy: Path, **entries: str) -> Path:
    import onnx

    shutil.copytree(bundle, copy)
    model = onnx.load(str(copy / "model.onnx"), load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    for entry in tensor.external_data:
        entry.value = entries.get(entry.key, entry.value)
    (copy / "model.onnx").write_bytes(model.SerializeToString())
    return resealed(copy)


@pytest.mark.parametrize(
    "location",
    [
        *("../secret", "/etc/passwd", "licences/../../secret", "licences\\..\\secret", "", "secret"),
        *("*/_ORT_MEM_ADDR_/*", "licences", "manifest.json"),
    ],
)
def test_external_data_outside_of_the_bundle(bundle, tmp_path, location: str) -> None:
    copy = repointed(bundle, tmp_path / "b", location=location)
    with pytest.raises(BundleError, match="takes its data from"), open_bundle(copy):
        pass


@pytest.mark.parametrize(
    "entries", [{"offset": str(1 << 40)}, {"length": str(1 << 40)}, {"offset": "-1"}, {"offset": "x"}]
)
def test_external_data_beyond_the_end_of_a_file(bundle, tmp_path, entries: dict[str, str]) -> None:
    with (
        pytest.raises(BundleError, match=r"ends at byte|begins or ends at"),
        open_bundle(repointed(bundle, tmp_path / "b", **entries)),
    ):
        pass


def test_external_data_of_a_graph_inside_of_a_node(bundle, tmp_path) -> None:
    import onnx

    copy = Path(shutil.copytree(bundle, tmp_path / "b"))
    model = onnx.load(str(copy / "model.onnx"), load_external_data=False)
    inner = onnx.GraphProto(name="inner")
    tensor = inner.initializer.add(name="hidden", data_type=1, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value="../secret")
    node = model.graph.node[0]
    node.attribute.add(name="body", type=onnx.AttributeProto.GRAPH, g=inner)
    (copy / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="tensor 'hidden' takes its data from"), open_bundle(resealed(copy)):
        pass


def test_every_cut_of_an_onnx_program_is_one_error(bundle, tmp_path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "b"))
    whole = (copy / "model.onnx").read_bytes()
    from edgesdk_converters.onnx.verifying import check_program

    files = {path.relative_to(copy).as_posix(): path.stat().st_size for path in copy.rglob("*") if path.is_file()}
    check_program(copy / "model.onnx", copy, files)
    refused = 0
    for size in range(0, len(whole), 61):
        (copy / "model.onnx").write_bytes(whole[:size])
        try:
            check_program(copy / "model.onnx", copy, files)
        except BundleError:
            refused += 1
    assert refused > len(whole) // 61 // 2


# the child

CONVERTER = """
import ctypes, os, sys, time
import numpy
from edgesdk.errors import EdgeError

class Converter:
    name, on_device = "harmful", None
    def open(self, main, context, threads=None):
        what = main.with_name("what").read_text()
        if what == "segfault":
            ctypes.string_at(0)
        elif what == "abort":
            os.abort()
        elif what == "exit":
            os._exit(3)
        elif what == "endless":
            while True:
                time.sleep(1)
        elif what == "memory":
            held = []
            while True:
                held.append(numpy.zeros(1 << 32, numpy.uint8))  # not touched
        elif what == "noise":
            print("noise", flush=True)
            raise EdgeError("the runtime refuses it", hint="take another")
        raise TypeError("an input of another kind")

CONVERTER = Converter()
"""


@pytest.fixture
def harmful(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle for a converter whose native code does what a file beside the program says; it is a real plugin."""
    site = tmp_path / "site"
    (site / "harmful-1.dist-info").mkdir(parents=True)
    (site / "harmful-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: harmful\nVersion: 1\n")
    (site / "harmful-1.dist-info" / "entry_points.txt").write_text(
        "[edgesdk.converters]\nharmful = harmful:CONVERTER\n"
    )
    (site / "harmful.py").write_text(CONVERTER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(site), *filter(None, sys.path))))
    monkeypatch.syspath_prepend(str(site))
    return Path(shutil.copytree(bundle, tmp_path / "b"))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("segfault", "crashes while it opens it .SIGSEGV."),
        ("abort", "crashes while it opens it .SIGABRT."),
        ("exit", "ends the process that opens it .status 3."),
        ("endless", "does not end opening it within|SIGALRM"),
        ("memory", "more memory than this machine has left"),
        ("noise", "the runtime refuses it"),
        ("other", "an input of another kind"),
    ],
)
def test_what_a_program_does_to_its_process_is_one_error(harmful, monkeypatch, what: str, message: str) -> None:
    monkeypatch.setattr(admission, "_SECONDS", 6)
    (harmful / "what").write_text(what)
    resealed(harmful, converter="harmful")
    with open_bundle(harmful) as opened:
        for _ in range(2):  # nothing is remembered of what went wrong
            with pytest.raises(BundleError, match=message):
                admission.admit(opened)
            if what in ("endless", "memory"):
                break


def test_what_a_child_has_opened_needs_none_again(bundle, tmp_path, monkeypatch, cache) -> None:
    started: list[object] = []
    run = subprocess.run
    monkeypatch.setattr(admission.subprocess, "run", lambda *a, **k: (started.append(a), run(*a, **k))[1])

    def admitted(folder: Path) -> int:
        with open_bundle(folder) as opened:
            admission.admit(opened)
        return len(started)

    assert admitted(bundle) == 1
    assert admitted(bundle) == 1  # by this process
    monkeypatch.setattr(admission, "_admitted", set())
    assert admitted(bundle) == 1  # by the cache
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    (other / "chat_template.jinja").write_text("{{ messages }}")
    assert admitted(resealed(other)) == 2  # other bytes


def test_what_this_machine_exported_is_opened_as_it_is(checkpoint, tmp_path, monkeypatch) -> None:
    out = tmp_path / "b"
    edgesdk.export(checkpoint, "linux-x86_64", out, context=64, checks=edgesdk.Checks(skip=True))
    monkeypatch.setattr(admission, "_admitted", set())
    monkeypatch.setattr(admission.subprocess, "run", lambda *_, **__: pytest.fail("a child"))
    with open_bundle(out) as opened:
        assert admission.opened_here(opened) is None


def test_a_cache_that_cannot_be_written_costs_a_child_each_time(bundle, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path / "file"))
    with open_bundle(bundle) as opened:
        admission.admit(opened)


@pytest.mark.parametrize("runtime", ["executorch", "litert", "onnx"])
def test_verify_opens_programs_of_every_runtime(executorch_bundle, litert_bundle, bundle, runtime: str) -> None:
    folder = {"executorch": executorch_bundle, "litert": litert_bundle, "onnx": bundle}[runtime]
    done = edgesdk_process("verify", folder)
    assert done.returncode == 0, done.stderr
    assert "hold together" in done.stdout and "opened in a process of their own" in done.stdout


def test_a_runtime_that_is_none_is_one_error(bundle, tmp_path) -> None:
    for number, changes in enumerate(({"runtime": ""}, {"runtime_versions": ">=x y"})):
        copy = resealed(Path(shutil.copytree(bundle, tmp_path / str(number))), **changes)
        with open_bundle(copy) as opened, pytest.raises(BundleError, match="which is none"):
            admission.admit(opened)


def test_a_session_over_a_program_of_another_kind(bundle, tmp_path) -> None:
    import onnx

    from edgesdk_converters.onnx.session import OnnxSession

    copy = Path(shutil.copytree(bundle, tmp_path / "b"))
    model = onnx.load(str(copy / "model.onnx"), load_external_data=False)
    for value in model.graph.input:
        if value.name == "logits_start":
            value.name = "start"
    for node in model.graph.node:
        node.input[:] = ["start" if name == "logits_start" else name for name in node.input]
    (copy / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="cannot load it"):
        OnnxSession(copy / "model.onnx", 64)


def test_a_bundle_object_is_admitted_by_its_folder(bundle) -> None:
    manifest = Manifest.parse((bundle / "manifest.json").read_text(), "manifest.json")
    admission.admit(Bundle(bundle, manifest))
    assert admission.is_known(manifest)


def test_errors_are_of_one_family() -> None:
    assert issubclass(admission.CrashError, EdgeError)
