"""Rotary embeddings as configurations describe them: in ``rope_parameters`` since transformers 5, before in keys.

Which key wins is what transformers does (``modeling_rope_utils.py``, 5.23): a ``rope_scaling`` that somebody wrote into
the file stands in place of ``rope_parameters``; base and part are those of the section, else the file's own keys, else
the class's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...errors import ModelError
from ..config import SET_RIGHT, Config
from ..spec import LinearRopeScaling, Llama3RopeScaling, PairRopeScaling, Rope, RopeScaling

_KINDS = ("default", "dynamic", "linear", "llama3", "longrope", "su", "yarn")


def rope(config: Config, head_dim: int, default_theta: float = 10000.0, default_part: float = 1.0) -> Rope:
    """The rotary embedding of a configuration, whose heads have ``head_dim`` dimensions.

    ``default_theta`` and ``default_part`` (the part of a head that turns) hold where neither the configuration nor its
    published class says anything.

    Raises:
        ModelError: a value that cannot be used, a kind that is not built, or two sections that contradict each other.
    """
    section = rope_section(config)
    kind = section.get("rope_type") or section.get("type") or "default"
    if kind not in _KINDS:
        raise ModelError(
            f"{section.where}: rope type '{kind}' is not supported; supported: {', '.join(_KINDS)}",
            hint="only a model trained with one of these can be carried",
        )
    theta = section.number("rope_theta", config.number("rope_theta", config.theta or default_theta))
    part = section.number("partial_rotary_factor", config.number("partial_rotary_factor", default_part))
    if part != 1 and config.whole_heads:
        raise ModelError(
            f"{config.where}: 'partial_rotary_factor' is {part:g}, but the published network turns whole heads",
            hint="remove the key if the model was trained with transformers' class; another network cannot be carried",
        )
    rotated = int(head_dim * part)
    if part > 1 or rotated % 2 or (head_dim - rotated) % 2:
        raise ModelError(f"{config.where}: {rotated} of {head_dim} dimensions of a head cannot turn in pairs")
    scaling = rope_scaling(section, config, theta, rotated)
    return Rope(theta, scaling, None if rotated == head_dim else rotated)


def rope_section(config: Config) -> Config:
    """The section that counts: ``rope_scaling`` if somebody wrote one, else ``rope_parameters``.

    Raises:
        ModelError: ``rope_scaling`` would put another base, or another part of a head, in place of a value that
            ``rope_parameters`` gives: transformers takes the default then, in silence.
    """
    scaling, parameters = config.values.get("rope_scaling"), config.values.get("rope_parameters")
    for key, value in (("rope_scaling", scaling), ("rope_parameters", parameters)):
        if value is not None and not isinstance(value, Mapping):
            raise ModelError(f"{config.where}: '{key}' is {value!r}, no object with keys", hint=SET_RIGHT)
    if not scaling:
        return config.section("rope_parameters")
    assert isinstance(scaling, Mapping)
    if isinstance(parameters, Mapping):
        for key, fallback in (("rope_theta", config.theta), ("partial_rotary_factor", None)):
            lost = parameters.get(key)
            kept = scaling.get(key, config.values.get(key, fallback))
            if lost is not None and lost != kept:
                raise ModelError(
                    f"{config.where}: 'rope_scaling' stands in place of 'rope_parameters', and '{key}' is {lost!r} in "
                    f"the second, but would be {kept!r} with the first",
                    hint=f"write '{key}' into 'rope_scaling' too, or merge both into 'rope_parameters'",
                )
        config.get("rope_parameters")
    return config.section("rope_scaling")


def rope_scaling(section: Config, config: Config, theta: float, rotated: int) -> RopeScaling | None:
    """The scaling that a ``rope_parameters`` or ``rope_scaling`` section of ``config`` asks for.

    ``dynamic`` scaling changes nothing up to the longest context that a model says it has.
    """
    older = section.get("type")
    kind = section.get("rope_type") or older or "default"
    if kind == "default":
        config.overruled("original_max_position_embeddings")
        return None
    if kind == "dynamic":
        section.number("factor")
        section.get("original_max_position_embeddings")
        return None
    if kind == "linear":
        return LinearRopeScaling(section.number("factor"))
    if kind == "llama3":
        return Llama3RopeScaling(
            factor=section.number("factor"),
            low_freq_factor=section.number("low_freq_factor"),
            high_freq_factor=section.number("high_freq_factor"),
            original_context=_original(section, config),
        )
    if kind in ("longrope", "su"):
        return _longrope(section, config, rotated)
    if kind == "yarn":
        return _yarn(section, config, theta, rotated)
    raise ModelError(f"{section.where}: rope type '{kind}' is not supported; supported: {', '.join(_KINDS)}")


def _original(section: Config, config: Config) -> int:
    """The context before it was stretched: the file's own key where the class has one, else the section's."""
    of_section = section.get("original_max_position_embeddings")
    key = "original_max_position_embeddings"
    if config.get(key) is not None:
        return config.integer(key)
    return config.integer("max_position_embeddings") if of_section is None else section.integer(key)


def _longrope(section: Config, config: Config, rotated: int) -> PairRopeScaling:
    original = _original(section, config)
    stretch = section.optional("factor") or config.integer("max_position_embeddings") / original
    magnitude = 1.0 if stretch <= 1 else math.sqrt(1 + math.log(stretch) / math.log(original))
    magnitude = section.number("attention_factor", magnitude)
    return PairRopeScaling(
        _divisors(section, "short_factor", rotated),
        _divisors(section, "long_factor", rotated),
        original,
        magnitude,
        magnitude,
    )


def _divisors(section: Config, key: str, rotated: int) -> tuple[float, ...]:
    values = section.get(key)
    if not isinstance(values, list) or len(values) != rotated // 2 or not all(value > 0 for value in values):
        raise ModelError(f"{section.where}: '{key}' must be {rotated // 2} positive numbers")
    return tuple(float(value) for value in values)


def _yarn(section: Config, config: Config, theta: float, rotated: int) -> PairRopeScaling:
    original = _original(section, config)
    factor = section.optional("factor") or config.integer("max_position_embeddings") / original
    divisors = yarn_divisors(
        theta,
        rotated,
        factor,
        original,
        fast=section.optional("beta_fast") or 32.0,
        slow=section.optional("beta_slow") or 1.0,
        whole=section.flag("truncate", True),
    )
    magnitude = section.optional("attention_factor")
    above, below = section.get("mscale"), section.get("mscale_all_dim")
    if magnitude is None and above and below:
        magnitude = yarn_magnitude(factor, section.number("mscale")) / yarn_magnitude(
            factor, section.number("mscale_all_dim")
        )
    if magnitude is None:
        magnitude = yarn_magnitude(factor, 1.0)
    return PairRopeScaling(divisors, divisors, original, magnitude, magnitude)


def yarn_magnitude(factor: float, scale: float) -> float:
    """YaRN's factor on cosines and sines (arXiv 2309.00071, section 3.4)."""
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def yarn_divisors(
    theta: float, rotated: int, factor: float, original: int, *, fast: float, slow: float, whole: bool
) -> tuple[float, ...]:
    """YaRN's divisor of each pair's frequency (arXiv 2309.00071, section 3.2).

    Frequencies of few turns within the ``original`` context are divided by ``factor``, those of many turns are kept,
    and those between ``slow`` and ``fast`` turns are blended; ``whole`` rounds the pairs where that begins and ends.
    """

    def pair_with(turns: float) -> float:
        return rotated * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_with(fast), pair_with(slow)
    if whole:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotated - 1)
    high += 0.001 if low == high else 0
    ramps = [min(max((pair - low) / (high - low), 0.0), 1.0) for pair in range(rotated // 2)]
    return tuple(1 / (ramp / factor + 1 - ramp) for ramp in ramps)
