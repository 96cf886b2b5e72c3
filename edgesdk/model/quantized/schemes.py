"""What ``config_groups`` of compressed-tensors say (source: its quantization/quant_{config,scheme,args}.py, 0.20)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import ModelError
from ..config import Config
from .folder import BITS, FOREIGN, UNQUANTIZED

PACKED = "pack-quantized"
LAYOUTS = (PACKED, "int-quantized", "naive-quantized")
_HINT = "save integer weights (W4A16, W8A16, W8A8) as pack-quantized or int-quantized, or " + UNQUANTIZED


@dataclass(frozen=True)
class Scheme:
    """How the weights of some modules are stored.

    Attributes:
        targets: module names, ``re:`` patterns of them, or classes.
        layout: one of :data:`LAYOUTS`.
        bits: of one value.
        group: inputs that share a scale, or 0 for a row.
        whole: one scale for the matrix.
        activations: 8 for int8 activations, or None.
        notes: sentences that the user should read.
    """

    targets: tuple[str, ...]
    layout: str
    bits: int
    group: int
    whole: bool
    activations: int | None
    notes: tuple[str, ...]


def read_schemes(config: Config) -> list[Scheme]:
    """Every group with weights.

    Raises:
        ModelError: a format, a number type or a transform that integers with scales cannot carry.
    """
    sparsity = config.section("sparsity_config").get("format")
    if sparsity not in (None, "dense"):
        raise ModelError(f"{config.where}: the sparse format '{sparsity}' cannot be read", hint=UNQUANTIZED)
    if config.section("transform_config").get("config_groups"):
        raise ModelError(
            f"{config.where}: transform_config rotates activations between layers, which no family here does",
            hint=UNQUANTIZED,
        )
    groups = config.section("config_groups")
    sections = [groups.section(name) for name in groups.values]
    schemes = [_scheme(group, str(group.get("format") or config.get("format"))) for group in sections]
    return [scheme for scheme in schemes if scheme is not None]


def scheme_of(module: str, schemes: Sequence[Scheme], config: Config) -> Scheme:
    """The scheme of a module: by its name, else by a pattern, else by its class."""
    kind = "Embedding" if module.endswith("embed_tokens") else "Linear"

    def rank(target: str) -> int | None:
        if target == module:
            return 0
        if target.startswith("re:"):
            return 1 if re.match(target.removeprefix("re:"), module) else None
        return 2 if target == kind else None

    ranked = [(found, number) for number, each in enumerate(schemes) for found in map(rank, each.targets)]
    known = [(found, number) for found, number in ranked if found is not None]
    if not known:
        raise ModelError(
            f"{config.where}: no group of config_groups names '{module}', which has scales",
            hint=FOREIGN,
        )
    return schemes[min(known)[1]]


def _scheme(group: Config, layout: str) -> Scheme | None:
    weights = group.section("weights")
    if not weights.values:
        return None
    if layout not in LAYOUTS or weights.get("type") not in (None, "int"):
        number = f"{weights.get('type') or 'int'}{weights.get('num_bits') or ''}"
        raise ModelError(
            f"{group.where}: the compressed-tensors format '{layout}' ({number} weights) is not one of integers with "
            f"scales; {', '.join(LAYOUTS)} with int weights can be read",
            hint=_HINT,
        )
    bits = weights.integer("num_bits", 8)
    if bits not in BITS:
        raise ModelError(f"{weights.where}: {bits} bits; {BITS} can be carried", hint=_HINT)
    size = weights.get("group_size")
    strategy = weights.get("strategy") or ("tensor" if size is None else "channel" if size == -1 else "group")
    if strategy not in ("tensor", "channel", "group"):
        raise ModelError(f"{weights.where}: scales by '{strategy}' cannot be carried", hint=_HINT)
    activations, notes = _activations(group)
    return Scheme(
        _targets(group),
        layout,
        bits,
        weights.integer("group_size") if strategy == "group" else 0,
        strategy == "tensor",
        activations,
        notes,
    )


def _targets(group: Config) -> tuple[str, ...]:
    targets = group.get("targets")
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise ModelError(f"{group.where}: 'targets' must be a list of names")
    for target in targets:
        try:
            re.compile(target.removeprefix("re:"))
        except re.error as failure:
            raise ModelError(f"{group.where}: '{target}' is no pattern ({failure})") from None
    return tuple(targets)


def _activations(group: Config) -> tuple[int | None, tuple[str, ...]]:
    inputs = group.get("input_activations")
    notes = ["the checkpoint's scales of outputs are not used"] if group.get("output_activations") else []
    if not isinstance(inputs, Mapping):
        return None, tuple(notes)
    kind, bits = inputs.get("type") or "int", inputs.get("num_bits") or 8
    if (kind, bits) != ("int", 8):
        notes.append(f"the checkpoint was made for {kind}{bits} activations; the target's choice is used instead")
        return None, tuple(notes)
    if not inputs.get("dynamic"):
        notes.append("the checkpoint's fixed scales of int8 activations are not used: every token gets its own")
    return 8, tuple(notes)
