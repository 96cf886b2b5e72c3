"""Activations as integers: rounding with a scale a token, and what observers keep of a range."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.compress.activations import Histogram, in_int8
from edgesdk.compress.recipe import open_recipe
from edgesdk.doctor import tiny_model
from edgesdk.errors import RecipeError
from edgesdk.estimate import refuse_schemes
from edgesdk.targets import open_target


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40))
def test_int8_rows_are_within_a_step(values: list[float]) -> None:
    x = torch.tensor([values])
    step = (max(0.0, max(values)) - min(0.0, min(values))) / 255
    assert float((in_int8(x) - x).abs().max()) <= step * 1.01 + 1e-6


def test_a_histogram_grows_and_counts_everything() -> None:
    random = np.random.default_rng(0)
    found, pieces = Histogram(), [random.normal(size=1000) * 10**power for power in range(4)]
    for piece in pieces:
        found.add(piece.reshape(10, 100))
    assert found._counts.sum() == 4000
    joined = np.sort(np.concatenate(pieces))
    low, high = found.limits("percentile")
    assert low <= joined[1]
    assert high >= joined[-2]
    assert found.limits("minmax") == (-np.inf, np.inf)


@pytest.mark.parametrize("observer", ["percentile", "mse"])
def test_an_outlier_is_clipped_and_the_rest_gains(observer) -> None:
    random = np.random.default_rng(0)
    values = np.append(random.normal(size=200_000), [60.0])
    found = Histogram()
    found.add(values)
    low, high = found.limits(observer)
    assert -6 < low < -3
    assert 3 < high < (6 if observer == "percentile" else 50)

    def error(least: float, greatest: float) -> float:
        step = (greatest - least) / 255
        return float(np.mean((np.clip(np.round(values / step) * step, least, greatest) - values) ** 2))

    if observer == "mse":
        assert error(low, high) < 0.95 * error(values.min(), values.max())


def test_observers_are_for_static_scales() -> None:
    recipe, spec = open_recipe("w8-mse"), tiny_model().spec
    assert recipe.observer == "mse"
    with pytest.raises(RecipeError, match="for nothing"):
        refuse_schemes(spec, recipe, open_target("host"))
    refuse_schemes(spec, recipe, open_target("cortex-m4f"), static=True)
