"""A head that is tied to an embedding of other bits becomes a matrix of its own, in the spec and in the weights."""

from __future__ import annotations

import pytest
import torch

from edgesdk.compress.base import Setting
from edgesdk.compress.recipe import open_recipe
from edgesdk.errors import RecipeError
from edgesdk.model.opening import open_model
from edgesdk.progress import SILENT

from ..conftest import make_checkpoint


@pytest.mark.parametrize(("recipe", "tied"), [("w4g32-e8-h4", False), ("w4g32-e8", True), ("w8-h16", True)])
def test_the_head_is_untied_only_when_its_bits_differ(checkpoint, tmp_path, recipe, tied) -> None:
    model = open_model(checkpoint)
    assert model.spec.tied
    made, _ = open_recipe(recipe)(model, Setting(tmp_path, SILENT))
    assert made.spec.tied is tied
    assert made.spec == open_recipe(recipe).spec(model.spec)
    if not tied:
        head, table = made.weights.get("head.weight"), made.weights.get("embed.weight")
        assert (head.bits, table.bits) == (4, 8)
        assert torch.nn.functional.mse_loss(head.dequantize(), table.dequantize()) < 1e-3


def test_a_head_that_no_group_divides_is_refused(tmp_path) -> None:
    folder = make_checkpoint(tmp_path / "m", hidden_size=48, num_attention_heads=4)
    with pytest.raises(RecipeError, match="cannot be a 4-bit matrix of its own"):
        open_recipe("w8-e8-h4")(open_model(folder), Setting(tmp_path, SILENT))
