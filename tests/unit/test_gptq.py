"""GPTQ: a smaller error of the product than rounding each weight by itself, on the same grid."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from edgesdk.compress.base import Limits, Setting
from edgesdk.compress.calibration import Calibration
from edgesdk.compress.gptq import Gptq, Grid, Kept, sweep
from edgesdk.compress.recipe import open_recipe
from edgesdk.compress.rtn import round_to_nearest
from edgesdk.errors import EdgeError, RecipeError
from edgesdk.model.opening import open_model
from edgesdk.model.spec import is_linear
from edgesdk.model.tensors import QuantizedTensor
from edgesdk.progress import SILENT

SMALL = Calibration(sequences=4, length=24)


def products(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix, and inputs whose entries are correlated as real ones are."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn((96, 96), generator=random) * torch.linspace(0.1, 3, 96)
    return torch.randn((80, 96), generator=random), torch.randn((512, 96), generator=random) @ mix


def solve(weight: torch.Tensor, hessian: torch.Tensor, bits: int, group: int, signed: bool) -> QuantizedTensor:
    grid = Grid(weight, bits, group, signed_scales=signed)
    sweep(weight, hessian, grid, Gptq())
    return grid.tensor()


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 96), (8, 96)])
def test_the_product_is_nearer_than_after_plain_rounding(signed, bits, group) -> None:
    weight, inputs = products()
    hessian = inputs.T @ inputs
    plain, _ = round_to_nearest(weight, bits, group, signed_scales=signed)
    solved = solve(weight, hessian, bits, group, signed)
    assert torch.equal(solved.scales, plain.scales)
    assert signed or bool((solved.scales > 0).all())

    def lost(tensor: QuantizedTensor) -> float:
        return float(((weight - tensor.dequantize()) @ inputs.T).square().sum())

    assert lost(solved) < 0.7 * lost(plain)


def test_zeros_that_were_pruned_stay() -> None:
    weight, inputs = products()
    gone = weight.abs() < 0.5
    settle = Kept(Grid(weight.masked_fill(gone, 0), 4, 32, signed_scales=True), gone)
    sweep(weight.masked_fill(gone, 0), inputs.T @ inputs, settle, Gptq())
    assert bool((settle.tensor().dequantize()[gone] == 0).all())


def test_a_hessian_that_is_not_positive_definite_is_damped() -> None:
    weight, _ = products()
    hessian = torch.zeros((96, 96))
    hessian[:4, :4] = torch.tensor([[1.0, 2, 0, 0], [2, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, -0.5]])
    solved = solve(weight, hessian, 4, 32, True)
    assert solved.dequantize().isfinite().all()


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False, "attention_bias": True}])
def test_a_model_goes_through_with_its_own_text(checkpoint, tmp_path, changes) -> None:
    model = open_model(checkpoint)
    setting = Setting(tmp_path, SILENT, Limits(signed_scales=False), SMALL)
    made, (report,) = open_recipe("w4g32-gptq-e8")(model, setting)
    assert report.name == "gptq"
    assert report.tensors == {"w8": 1, "w4g32": 14}
    for name in made.spec.tensors():
        stored = made.weights.get(name)
        assert isinstance(stored, QuantizedTensor) is (is_linear(name) or name == "embed.weight")


def test_the_same_options_give_the_same_integers(checkpoint, tmp_path) -> None:
    model, found = open_model(checkpoint), []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        made, _ = open_recipe("w4g32-gptq")(model, Setting(tmp_path / name, SILENT, calibration=SMALL))
        found.append(made.weights.get("layers.1.down.weight").values.clone())
    assert torch.equal(*found)


def test_calibration_text_comes_from_a_file(checkpoint, tmp_path) -> None:
    model, file = open_model(checkpoint), tmp_path / "text.txt"
    file.write_text(" ".join(f"{number} words" for number in range(60)))
    chosen = dataclasses.replace(SMALL, file=file)
    assert chosen.tokens(model, SILENT).shape == (4, 24)
    file.write_text("x")
    with pytest.raises(EdgeError, match="less than one calibration sequence"):
        chosen.tokens(model, SILENT)
    with pytest.raises(EdgeError, match="No such file"):
        dataclasses.replace(SMALL, file=tmp_path / "none.txt").tokens(model, SILENT)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(RecipeError, match="damping"):
        Gptq(damping=0)
    with pytest.raises(RecipeError, match="bits"):
        Gptq(bits=5)
