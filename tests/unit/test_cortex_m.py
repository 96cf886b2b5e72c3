"""The C99 runtime for microcontrollers, its Python double and its image."""

from __future__ import annotations

import ctypes
import json
import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgesdk.compress.base import Setting
from edgesdk.compress.recipe import open_recipe
from edgesdk.converter import CONVERTERS, ProgramOptions
from edgesdk.errors import BundleError, RecipeError, TargetError
from edgesdk.exporting import Checks, export
from edgesdk.model import Model
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceSession
from edgesdk.model.tensors import QuantizedTensor
from edgesdk.progress import SILENT
from edgesdk.session import Session
from edgesdk.targets import open_target
from edgesdk_converters.cortex_m import arithmetic, layout
from edgesdk_converters.cortex_m.double import DoubleSession
from edgesdk_converters.cortex_m.image_file import ImageFile

from .c_runtime import BAD_CRC, BAD_IMAGE, BAD_TOKEN, FLAGS, FULL, CModel, Sampler, build, c_compiler
from .family_cells import IDS, fixture, refusal
from .family_rows import CONTEXT, CORE, LAYER_NORMS, ROWS, save_checkpoint

CONVERTER = CONVERTERS.get("cortex_m")


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> ctypes.CDLL:
    return build(tmp_path_factory.mktemp("runtime"))


case = fixture(ROWS)


@pytest.fixture(scope="module", params=CORE + LAYER_NORMS, ids=lambda row: row.name)
def family(request, tmp_path_factory) -> Model:
    folder = tmp_path_factory.mktemp(request.param.name)
    save_checkpoint(request.param, folder)
    return replace(open_model(folder), tokenizer=None)


def converted(model: Model, recipe: str, folder: Path, context: int = CONTEXT) -> tuple[Model, Path]:
    """The model after the recipe, and its image."""
    scratch = folder / "scratch"
    scratch.mkdir()
    compressed, _ = open_recipe(recipe)(model, Setting(scratch, SILENT, CONVERTER.limits()))
    program = CONVERTER.convert(compressed, ProgramOptions(context, "float32", 8), folder, SILENT)
    return compressed, folder / program.main


def bits(logits: np.ndarray) -> list[int]:
    return np.asarray(logits, np.float32).view(np.uint32).tolist()


@pytest.mark.parametrize("recipe", ["w8", "w4g32", "w4-e4"])
def test_c_equals_the_double_bit_for_bit(family, tmp_path, library, recipe) -> None:
    _, image = converted(family, recipe, tmp_path)
    session, runtime = DoubleSession(image), CModel(library, image.read_bytes())
    assert runtime.status == 0
    for token in IDS:
        assert bits(session.decode(token)) == bits(runtime.step(token))


def test_the_double_follows_the_reference(case, tmp_path) -> None:
    """int8 activations cost something; a wrong graph costs everything (tiny random models amplify what it costs)."""
    reason = refusal(CONVERTER, case.model, "w8", ProgramOptions(CONTEXT, "float32", 8))
    if reason is not None:
        case.record("cortex_m", "w8", refused=reason)
        assert "which the cortex_m converter does not build" in reason
        return
    compressed, image = converted(replace(case.model, tokenizer=None), "w8", tmp_path)
    found = DoubleSession(image).score(IDS)
    wanted = ReferenceSession(compressed, CONTEXT).score(IDS)
    alike, same = np.corrcoef(found.ravel(), wanted.ravel())[0, 1], (found.argmax(1) == wanted.argmax(1)).mean()
    error = float(np.abs(found - wanted).mean() / wanted.std())
    case.record("cortex_m", "w8", error=error, passed=bool(alike > 0.99 and same > 0.7))
    assert alike > 0.99
    assert same > 0.7


def test_rewind_and_chunks_repeat_the_same_logits(family, tmp_path) -> None:
    session: Session = DoubleSession(converted(family, "w8", tmp_path)[1])
    whole = session.score(IDS)
    session.rewind(25)  # further back than a sliding window's ring
    assert session.position == 15
    assert bits(session.prefill(IDS[15:30])) == bits(whole[29])
    assert bits(session.decode(IDS[30])) == bits(whole[30])


@pytest.mark.parametrize("recipe", ["w8", "w4g32", "w8-h4"])
def test_the_image_holds_the_integers_and_scales_of_the_model(family, tmp_path, recipe) -> None:
    compressed, path = converted(family, recipe, tmp_path)
    image = ImageFile(path)
    records = image.matrices()
    if compressed.spec.tied:
        del records["head.weight"]
    for name, record in records.items():
        stored = compressed.weights.get(name)
        assert isinstance(stored, QuantizedTensor)
        values, scales = image.matrix(record)
        assert np.array_equal(values, stored.values.numpy())
        assert np.array_equal(scales, stored.scales.numpy())
    matrices = {name for name in compressed.spec.tensors() if len(compressed.spec.tensors()[name]) == 2}
    assert set(records) == matrices - {"positions.weight"}


def test_ram_is_what_the_image_says(family, tmp_path, library) -> None:
    image = converted(family, "w8", tmp_path)[1].read_bytes()
    wider = 4 * (ctypes.sizeof(ctypes.c_void_p) - 4) * len(family.spec.layers)  # four pointers for each cache
    assert CModel(library, image).ram_bytes == layout.ram(family.spec, CONTEXT).total + wider


def test_a_full_context_stops_or_slides(family, tmp_path, library) -> None:
    path = converted(family, "w8", tmp_path, context=16)[1]
    session, runtime = DoubleSession(path), CModel(library, path.read_bytes())
    for token in IDS[:16]:
        session.decode(token)
        runtime.step(token)
    assert runtime.step(IDS[16]) == FULL
    with pytest.raises(Exception, match="exceed the context of 16"):
        session.decode(IDS[16])
    session.slides = True
    runtime.slide()
    if family.spec.learned_positions:
        assert runtime.step(IDS[16]) == FULL
        return
    for token in IDS[16:]:
        assert bits(session.decode(token)) == bits(runtime.step(token))


def test_sliding_keeps_the_newest_token_in_sight(tmp_path, library) -> None:
    """What was said last changes the answer also when the ring has gone round."""
    folder = tmp_path / "model"
    save_checkpoint(ROWS[0], folder)
    path = converted(replace(open_model(folder), tokenizer=None), "w8", tmp_path, context=16)[1]
    answers = []
    for last in (3, 4):
        session = DoubleSession(path)
        session.slides = True
        session.score([*IDS, last])
        answers.append(bits(session.decode(5)))
    assert answers[0] != answers[1]


def test_damaged_images_are_refused(tmp_path, library) -> None:
    folder = tmp_path / "model"
    save_checkpoint(ROWS[0], folder)
    path = converted(replace(open_model(folder), tokenizer=None), "w8", tmp_path)[1]
    whole = path.read_bytes()
    for at in np.random.default_rng(0).integers(16, len(whole), 50).tolist():
        changed = bytearray(whole)
        changed[at] ^= 0x10
        assert CModel(library, bytes(changed)).status == BAD_CRC
    path.write_bytes(bytes(changed))
    with pytest.raises(BundleError, match="changed since it was written"):
        DoubleSession(path)
    assert CModel(library, whole[:-16]).status == BAD_IMAGE
    path.write_bytes(whole[:-16])
    with pytest.raises(BundleError, match="changed since"):
        DoubleSession(path)
    path.write_bytes(b"")
    with pytest.raises(BundleError, match="no image of a model"):
        DoubleSession(path)
    newer = whole[:4] + struct.pack("<I", 2) + whole[8:]
    assert CModel(library, newer).status == BAD_IMAGE
    path.write_bytes(newer)
    with pytest.raises(BundleError, match="image version 2"):
        DoubleSession(path)
    assert CModel(library, whole).step(96) == BAD_TOKEN


def test_float_functions_are_accurate() -> None:
    x = np.linspace(-20, 20, 20001).astype(np.float32)
    wide = x.astype(np.float64)
    assert np.abs(arithmetic.exp(x) / np.exp(wide) - 1).max() < 3e-7
    assert np.abs(arithmetic.tanh(x) - np.tanh(wide)).max() < 3e-7
    assert np.abs(arithmetic.erf(x) - torch.erf(torch.from_numpy(wide)).numpy()).max() < 5e-7
    phases = np.random.default_rng(0).integers(0, 1 << 32, 20000, dtype=np.uint32)
    cosine, sine = arithmetic.cos_sin(phases)
    turns = phases / 2**32 * 2 * np.pi
    assert np.abs(cosine - np.cos(turns)).max() < 2e-7
    assert np.abs(sine - np.sin(turns)).max() < 2e-7


def test_crc_is_zlibs(library) -> None:
    data = np.random.default_rng(0).bytes(1000)
    assert library.lm_crc32(0, data, ctypes.c_size_t(len(data))) == zlib.crc32(data)


def drawn(library: ctypes.CDLL, logits: np.ndarray, count: int, **options: float) -> list[int]:
    sampler = Sampler(options.get("temperature", 1.0), options.get("top_p", 1.0), int(options.get("seed", 1)))
    found = []
    for _ in range(count):
        row = (ctypes.c_float * len(logits))(*logits.tolist())
        found.append(library.lm_sample(ctypes.byref(sampler), row, ctypes.c_uint32(len(logits))))
    return found


def test_sampling(library) -> None:
    probabilities = np.array([0.05, 0.5, 0.15, 0.3], np.float32)
    logits = np.log(probabilities) + 3
    assert drawn(library, logits, 3, temperature=0) == [1, 1, 1]
    frequencies = np.bincount(drawn(library, logits, 20000), minlength=4) / 20000
    assert np.abs(frequencies - probabilities).max() < 0.015
    assert set(drawn(library, logits, 500, top_p=0.79)) == {1, 3}  # 0.5 + 0.3 is the first sum to reach 0.79
    assert set(drawn(library, logits, 500, top_p=0.81)) == {1, 2, 3}
    assert set(drawn(library, logits, 500, top_p=0.0)) == {1}
    assert drawn(library, logits, 50, seed=9) == drawn(library, logits, 50, seed=9)
    assert drawn(library, logits, 50, seed=9) != drawn(library, logits, 50, seed=8)
    sharp = np.bincount(drawn(library, logits, 20000, temperature=0.5), minlength=4) / 20000
    assert np.abs(sharp - probabilities**2 / (probabilities**2).sum()).max() < 0.015


@pytest.mark.parametrize(
    ("recipe", "context", "error", "message"),
    [
        ("none", 32, RecipeError, "leaves embed.weight in float"),
        ("w8-a16", 32, RecipeError, "int8 activations, not with the 16 bits"),
        ("w8-a32", 32, RecipeError, "int8 activations, not with the 32 bits"),
        ("w8-e16", 32, RecipeError, "leaves embed.weight in float"),
    ],
)
def test_recipes_that_the_runtime_cannot_hold(checkpoint, tmp_path, recipe, context, error, message) -> None:
    with pytest.raises(error, match=message):
        export(str(checkpoint), "cortex-m4f", tmp_path / "b", recipe=recipe, context=context)
    assert not (tmp_path / "b").exists()


def test_the_bundles_own_snippet_runs(tmp_path) -> None:
    """What firmware/README.md shows a user compiles as it stands, and gives the golden tokens."""
    model = uneven()
    export(model, "cortex-m4f", tmp_path / "b", recipe="w8", context=16, checks=Checks(skip=True))
    project = tmp_path / "b" / "firmware"
    golden = json.loads((project / "golden.json").read_text())
    snippet = (project / "README.md").read_text().partition("In your own program:\n\n")[2]
    lines = [line[4:] for line in snippet.partition("\n\nThe tokenizer")[0].splitlines()]
    split = next(number for number, line in enumerate(lines) if line.startswith("lm_sampler"))
    step = "\n".join(lines[split:]).replace("{0.8f, 0.95f, 1}", "{0.0f, 1.0f, 1}")
    source = "\n".join(lines[:split]) + (
        "\n#include <stdio.h>\nstatic void feed_watchdog(void) {}\nint main(void) {\n"
        f'uint32_t token = {golden["prompt"][0]};\n{step}\nprintf("%u", (unsigned)token);\nreturn (int)status;\n}}\n'
    )
    (tmp_path / "main.c").write_text(source)
    files = [tmp_path / "main.c", project / "model" / "model_image.c", *sorted((project / "runtime").glob("*.c"))]
    includes = [f"-I{project / 'model'}", f"-I{project / 'runtime'}"]
    command = [c_compiler(), *FLAGS, *includes, *map(str, files), "-lm", "-o", str(tmp_path / "main")]
    subprocess.run(command, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    assert int(done.stdout) == golden["tokens"][0]


def test_a_finished_program_that_fits_no_board_is_refused(tmp_path) -> None:
    """The tokenizer's table is only known to the export: the last check is exact."""
    from edgesdk_converters.cortex_m.sizing import arena_verdicts, refuse_verdicts, verdicts

    with pytest.raises(TargetError, match="of flash are missing"):
        refuse_verdicts(verdicts(3_000_000, 1000, ["cortex-m4f"]), ["cortex-m4f"])
    with pytest.raises(TargetError, match="of RAM are missing"):
        refuse_verdicts(arena_verdicts(1000, 600_000, ["cortex-m4f"]), ["cortex-m4f"])
    fine = arena_verdicts(1000, 1000, ["cortex-m4f"])
    refuse_verdicts(fine, ["cortex-m4f"])
    assert {entry["fits"] for entry in fine.values()} == {None}


def test_a_model_that_fits_no_board_is_told_by_how_much() -> None:
    from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope

    attention = Attention(8, 8, 64, 0.125, Rope(10000.0))
    spec = DecoderSpec("llama", 32000, 512, 2048, (Layer(attention, Mlp(1376, "silu")),) * 8, 1e-5)
    with pytest.raises(TargetError) as caught:
        CONVERTER.check(spec, open_recipe("w4g32-e4"), ProgramOptions(2048, "float32", 8), open_target("cortex-m4f"))
    assert "KB of flash and" in caught.value.message
    assert "are missing" in caught.value.message
    assert "a model of at most" in str(caught.value.hint)
    assert "its 32000 rows are" in str(caught.value.hint)
    assert "--context" in str(caught.value.hint)


def uneven() -> Model:
    """Sizes that leave tails in every kernel: heads of 10, 66 hidden, 172 inner."""
    from edgesdk.model.random_weights import RandomWeights
    from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope

    attention = Attention(6, 3, 10, 0.3, Rope(10000.0))
    spec = DecoderSpec("llama", 97, 66, 64, (Layer(attention, Mlp(172, "gelu")),) * 2, 1e-5, tied=True)
    return Model(spec, RandomWeights(spec))


@pytest.mark.parametrize("recipe", ["w8", "w4", "w4-e8-h8"])
def test_tails_of_rows(tmp_path, library, recipe) -> None:
    _, image = converted(uneven(), recipe, tmp_path)
    session, runtime = DoubleSession(image), CModel(library, image.read_bytes())
    for token in IDS:
        assert bits(session.decode(token)) == bits(runtime.step(token))


@pytest.mark.parametrize(("recipe", "inner"), [("w4g32", 172), ("w4g32-gptq", 172), ("w4", 171)])
def test_rows_that_no_group_divides_get_8_bits(tmp_path, recipe, inner) -> None:
    from edgesdk.model.random_weights import RandomWeights
    from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope

    attention = Attention(4, 2, 16, 0.25, Rope(10000.0))
    spec = DecoderSpec("llama", 96, 64, 64, (Layer(attention, Mlp(inner, "silu")),), 1e-5, tied=True)
    compressed, image = converted(Model(spec, RandomWeights(spec)), recipe, tmp_path)
    down = compressed.weights.get("layers.0.down.weight")
    assert isinstance(down, QuantizedTensor)
    assert (down.scheme, compressed.weights.get("layers.0.up.weight").scheme) == ("w8", recipe.partition("-")[0])
    assert ImageFile(image).matrices()["layers.0.down.weight"].bits == 8
