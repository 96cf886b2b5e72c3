"""The program carries the pass's integers and scales bit for bit, and computes with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgesdk.compress.base import Setting
from edgesdk.compress.recipe import open_recipe
from edgesdk.converter import CONVERTERS, ProgramOptions
from edgesdk.errors import EdgeError
from edgesdk.model import Model
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceSession
from edgesdk.model.spec import is_linear
from edgesdk.model.tensors import QuantizedTensor
from edgesdk.progress import SILENT
from edgesdk_converters.onnx.readback import read_packed

from ..conftest import make_checkpoint

CONTEXT = 64
IDS = [5, 80, 200, 3, 255, 17]


def program(model: Model, folder: Path, float_type: str = "float32", activations: int = 32) -> Path:
    made = CONVERTERS.get("onnx").convert(model, ProgramOptions(CONTEXT, float_type, activations), folder, SILENT)
    return folder / made.main


def compressed(model: Model, recipe: str, scratch: Path) -> Model:
    scratch.mkdir()
    return open_recipe(recipe)(model, Setting(scratch, SILENT))[0]


@pytest.mark.parametrize("recipe", ["w4g32", "w4g64-e4", "w8", "w4-e8", "w4g32-e16"])
@pytest.mark.parametrize("float_type", ["float32", "float16"])
def test_integers_and_scales_read_back_bit_for_bit(checkpoint, tmp_path, recipe, float_type) -> None:
    model = compressed(open_model(checkpoint), recipe, tmp_path / "scratch")
    found = read_packed(program(model, tmp_path, float_type))
    parts = {"qkv": ["q", "k", "v"]}
    seen = 0
    for name, tensor in found.items():
        prefix, _, last = name.rpartition(".")
        names = [f"{prefix}.{part}.weight" for part in parts.get(last, [last])] if prefix else [f"{name}.weight"]
        wanted = [model.weights.get(each) for each in names]
        assert all(isinstance(each, QuantizedTensor) for each in wanted)
        assert torch.equal(tensor.values, torch.cat([each.values for each in wanted]))
        assert torch.equal(tensor.scales, torch.cat([each.scales for each in wanted]))
        assert tensor.bits == wanted[0].bits
        seen += len(names)
    quantized = [name for name in model.spec.tensors() if isinstance(model.weights.get(name), QuantizedTensor)]
    assert seen == len(quantized)
    assert any(is_linear(name) for name in quantized)


@pytest.mark.parametrize("recipe", ["w4g32", "w4g64-e4", "w8", "w4g32-e16"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_runtime_computes_what_the_reference_does(tmp_path, recipe, tied) -> None:
    folder = make_checkpoint(tmp_path / "model", tie_word_embeddings=tied)
    model = compressed(open_model(folder), recipe, tmp_path / "scratch")
    session = CONVERTERS.get("onnx").open(program(model, tmp_path), CONTEXT)
    reference = ReferenceSession(model, CONTEXT)
    assert np.abs(session.score(IDS) - reference.score(IDS)).max() < 1e-4


def test_steps_of_all_lengths_and_kinds_follow_each_other(checkpoint, tmp_path) -> None:
    """What a step binds is bound again only where it changes."""
    model = open_model(checkpoint)
    session = CONVERTERS.get("onnx").open(program(model, tmp_path), CONTEXT)
    wanted = ReferenceSession(model, CONTEXT).score(IDS)
    for _ in range(2):
        session.reset()
        found = [session.prefill(IDS[:2]), session.decode(IDS[2]), session.decode(IDS[3])]
        assert np.abs(np.stack(found) - wanted[1:4]).max() < 1e-4
        assert np.abs(session.score(IDS[4:]) - wanted[4:]).max() < 1e-4


def test_int8_activations_stay_close(checkpoint, tmp_path) -> None:
    model = compressed(open_model(checkpoint), "w4g32", tmp_path / "scratch")
    session = CONVERTERS.get("onnx").open(program(model, tmp_path, activations=8), CONTEXT)
    found, wanted = session.score(IDS), ReferenceSession(model, CONTEXT).score(IDS)
    assert 0 < np.abs(found - wanted).max() < 0.1


def test_zero_points_are_carried(checkpoint, tmp_path) -> None:
    """No built-in pass makes an asymmetric grid yet; a plugin's may."""
    model = open_model(checkpoint)
    random = torch.Generator().manual_seed(0)

    class Asymmetric:
        def get(self, name: str):
            if not is_linear(name) and name != "embed.weight":
                return model.weights.get(name)
            rows, columns = model.spec.tensors()[name]
            values = torch.randint(-8, 8, (rows, columns), generator=random, dtype=torch.int8)
            zeros = torch.randint(-8, 8, (rows, columns // 32), generator=random, dtype=torch.int8)
            return QuantizedTensor(values, torch.full((rows, columns // 32), 2.0**-6), 4, 32, zeros)

    cached: dict[str, object] = {}

    class Once:
        def get(self, name: str):
            if name not in cached:
                cached[name] = Asymmetric().get(name)
            return cached[name]

    changed = model.with_weights(Once())
    path = program(changed, tmp_path)
    found = read_packed(path)["layers.0.o"]
    wanted = changed.weights.get("layers.0.o.weight")
    assert torch.equal(found.values, wanted.values)
    assert torch.equal(found.zero_points, wanted.zero_points)
    session = CONVERTERS.get("onnx").open(path, CONTEXT)
    assert np.abs(session.score(IDS) - ReferenceSession(changed, CONTEXT).score(IDS)).max() < 1e-4


@pytest.mark.parametrize("recipe", ["w4g32-e4", "w8", "none"])
def test_a_tied_table_is_stored_once(checkpoint, tmp_path, recipe) -> None:
    model = compressed(open_model(checkpoint), recipe, tmp_path / "scratch")
    path = program(model, tmp_path)
    stored = sum(file.stat().st_size for file in (path, path.with_name("model.onnx.data")))
    bits = {"w4g32-e4": 4.5, "w8": 8.3, "none": 32}[recipe]
    rope = 2 * CONTEXT * 16 // 2 * 4
    assert stored < model.spec.parameters * bits / 8 + rope + 40_000


def test_a_session_refuses_what_does_not_fit_and_keeps_its_cache(checkpoint, tmp_path) -> None:
    model = open_model(checkpoint)
    session = CONVERTERS.get("onnx").open(program(model, tmp_path), CONTEXT)
    session.prefill(IDS)
    for wrong in ([], [1] * CONTEXT, [-1], [10_000]):
        with pytest.raises(EdgeError):
            session.prefill(wrong)
    with pytest.raises(EdgeError):
        session.rewind(len(IDS) + 1)
    after = session.decode(7).copy()
    reference = ReferenceSession(model, CONTEXT)
    reference.prefill(IDS)
    assert np.abs(after - reference.decode(7)).max() < 1e-4


def test_a_cut_program_is_refused(checkpoint, tmp_path) -> None:
    path = program(open_model(checkpoint), tmp_path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(EdgeError, match="cannot load"):
        CONVERTERS.get("onnx").open(path, CONTEXT)


def test_blocks_that_layers_share_are_stored_once(tmp_path) -> None:
    import edgesdk

    from .family_rows import ROWS, save_checkpoint

    sizes = {}
    for name, folder in (("mobilellm-shared", tmp_path / "shared"), ("llama", tmp_path / "plain")):
        (row,) = [row for row in ROWS if row.name == name]
        folder.mkdir()
        save_checkpoint(row, folder)
        edgesdk.export(folder, "linux-x86_64", folder / "bundle", context=64, checks=edgesdk.Checks(skip=True))
        sizes[name] = (folder / "bundle" / "model.onnx.data").stat().st_size
    assert sizes["mobilellm-shared"] < sizes["llama"]  # four layers of two blocks against three of three


def test_blocks_that_take_turns_are_stored_once(tmp_path) -> None:
    from .family_rows import ROWS, save_checkpoint

    (row,) = [row for row in ROWS if row.name == "zamba2-rope"]
    save_checkpoint(row, tmp_path)
    model = open_model(tmp_path)
    stored = (program(model, tmp_path).parent / "model.onnx.data").stat().st_size
    once = (tmp_path / "model.safetensors").stat().st_size
    assert stored < 1.1 * once < 0.8 * 4 * model.spec.parameters
