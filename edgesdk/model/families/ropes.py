"""Rotary embeddings as configurations describe them: in ``rope_parameters`` since transformers 5, before in keys."""

from __future__ import annotations

import math

from ...errors import ModelError
from ..config import Config
from ..spec import LinearRopeScaling, Llama3RopeScaling, PairRopeScaling, Rope, RopeScaling


def rope(config: Config, head_dim: int, default_theta: float = 10000.0, default_part: float = 1.0) -> Rope:
    """The rotary embedding of a configuration, whose heads have ``head_dim`` dimensions.

    ``default_part`` is the part of a head that turns where the configuration does not say.
    """
    section = config.section("rope_parameters")
    if not section.values:
        section = config.section("rope_scaling")
    theta = section.number("rope_theta", config.number("rope_theta", default_theta))
    part = section.number("partial_rotary_factor", config.number("partial_rotary_factor", default_part))
    rotated = int(head_dim * part)
    if part > 1 or rotated % 2 or (head_dim - rotated) % 2:
        raise ModelError(f"{config.where}: {rotated} of {head_dim} dimensions of a head cannot turn in pairs")
    scaling = rope_scaling(section, config, theta, rotated)
    return Rope(theta, scaling, None if rotated == head_dim else rotated)


def rope_scaling(section: Config, config: Config, theta: float, rotated: int) -> RopeScaling | None:
    """The scaling that a ``rope_parameters`` or ``rope_scaling`` section of ``config`` asks for.

    ``dynamic`` scaling changes nothing up to the longest context that a model says it has.
    """
    kind = section.get("rope_type") or section.get("type") or "default"
    if kind in ("default", "dynamic"):
        return None
    if kind == "linear":
        return LinearRopeScaling(section.number("factor"))
    if kind == "llama3":
        return Llama3RopeScaling(
            factor=section.number("factor"),
            low_freq_factor=section.number("low_freq_factor"),
            high_freq_factor=section.number("high_freq_factor"),
            original_context=section.integer("original_max_position_embeddings"),
        )
    if kind in ("longrope", "su"):
        return _longrope(section, config, rotated)
    if kind == "yarn":
        return _yarn(section, config, theta, rotated)
    known = "default, dynamic, linear, llama3, longrope, yarn"
    raise ModelError(f"{section.where}: rope type '{kind}' is not supported; supported: {known}")


def _longrope(section: Config, config: Config, rotated: int) -> PairRopeScaling:
    original = section.integer(
        "original_max_position_embeddings",
        config.integer("original_max_position_embeddings", config.integer("max_position_embeddings")),
    )
    stretch = config.integer("max_position_embeddings") / original
    magnitude = 1.0 if stretch <= 1 else math.sqrt(1 + math.log(stretch) / math.log(original))
    magnitude = section.number("attention_factor", magnitude)
    return PairRopeScaling(
        _divisors(section, "short_factor", rotated),
        _divisors(section, "long_factor", rotated),
        original,
        section.number("short_mscale", magnitude),
        section.number("long_mscale", magnitude),
    )


def _divisors(section: Config, key: str, rotated: int) -> tuple[float, ...]:
    values = section.get(key)
    if not isinstance(values, list) or len(values) != rotated // 2 or not all(value > 0 for value in values):
        raise ModelError(f"{section.where}: '{key}' must be {rotated // 2} positive numbers")
    return tuple(float(value) for value in values)


def _yarn(section: Config, config: Config, theta: float, rotated: int) -> PairRopeScaling:
    """Frequencies between those of few turns (divided by ``factor``) and of many (kept) are blended, pair by pair."""
    factor = section.number("factor")
    original = section.integer("original_max_position_embeddings", config.integer("max_position_embeddings"))

    def pair_with(turns: float) -> float:
        return rotated * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_with(section.number("beta_fast", 32.0)), pair_with(section.number("beta_slow", 1.0))
    if section.flag("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotated - 1)
    high += 0.001 if low == high else 0
    ramps = [min(max((pair - low) / (high - low), 0.0), 1.0) for pair in range(rotated // 2)]
    divisors = tuple(1 / (ramp / factor + 1 - ramp) for ramp in ramps)
    magnitude = section.number("attention_factor", 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0)
    return PairRopeScaling(divisors, divisors, original, magnitude, magnitude)
