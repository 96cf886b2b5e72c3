"""Delegates that only compile here: the graph that is compiled equals the reference; the program is built, not run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgesdk.bundle import open_bundle
from edgesdk.converter import CONVERTERS
from edgesdk.errors import EdgeError, RecipeError, TargetError
from edgesdk.exporting import export
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceSession
from edgesdk_converters.executorch.ahead import StepDecoder

from .family_rows import CONTEXT, CORE, save_checkpoint


@pytest.mark.parametrize("row", CORE, ids=lambda row: row.name)
def test_the_graph_that_is_compiled_equals_the_reference(row, tmp_path) -> None:
    save_checkpoint(row, tmp_path)
    model = open_model(tmp_path)
    decoder, reference = StepDecoder(model, CONTEXT), ReferenceSession(model, CONTEXT)
    for position, token in enumerate(np.random.default_rng(3).integers(0, 96, 24).tolist()):
        with torch.no_grad():
            found = decoder(torch.tensor([[token]]), torch.tensor([position]))[0, 0].numpy()
        assert np.abs(found - reference.decode(token)).max() < 1e-4


@pytest.mark.parametrize("delegate", ["vulkan", "coreml"])
def test_a_program_is_built_and_says_that_it_was_not_run(checkpoint, tmp_path, delegate) -> None:
    target = {"vulkan": "android-arm64", "coreml": "ios-arm64"}[delegate]
    manifest = export(
        str(checkpoint), target, tmp_path / "b", recipe="none", context=32, float_type="float16", delegate=delegate
    )
    facts = manifest.program.facts
    assert facts["delegate"] == delegate
    assert facts["delegated"] >= 1
    assert manifest.parity is None
    assert manifest.parity_reason == f"built for {delegate}, not run here"
    assert manifest.quality.divergence_reason == manifest.parity_reason
    with open_bundle(tmp_path / "b") as bundle, pytest.raises(EdgeError, match="cannot load it"):
        CONVERTERS.get("executorch").open(bundle.main, 32)


@pytest.mark.parametrize(
    ("delegate", "recipe", "error", "message"),
    [
        ("vulkan", "w8", RecipeError, "hold float weights"),
        ("qualcomm", "none", TargetError, "Qualcomm AI Engine Direct SDK"),
        ("hexagon", "none", TargetError, "there are: mediatek, qualcomm, samsung, vulkan, xnnpack"),
    ],
)
def test_what_cannot_be_built_is_refused(checkpoint, tmp_path, delegate, recipe, error, message) -> None:
    with pytest.raises(error, match=message):
        export(str(checkpoint), "android-arm64", tmp_path / "b", recipe=recipe, delegate=delegate)
    assert not list(tmp_path.glob("*b*"))
