"""Random models whose greedy answers are clear of rounding, so that processors that round differently agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import edgesdk
from edgesdk.converter import CONVERTERS
from edgesdk.model.random_weights import RandomWeights
from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope


@dataclass(frozen=True)
class Case:
    """A bundle, a prompt, and what this machine answers; ``margin`` is the closest call among its tokens."""

    bundle: Path
    program: Path
    prompt: list[int]
    tokens: list[int]
    margin: float


def answered(
    model: edgesdk.Model, target: str, recipe: str, context: int, prompt: list[int], out: Path, count: int
) -> Case:
    """Export for a target and answer here."""
    checks = edgesdk.Checks(skip=True)
    manifest = edgesdk.export(model, target, out, recipe=recipe, context=context, checks=checks)
    program = out / manifest.program.main
    session = CONVERTERS.get(manifest.program.converter).open(program, context)
    tokens: list[int] = []
    margins: list[float] = []
    logits = session.prefill(prompt)
    while len(tokens) < count:
        second, best = np.sort(logits)[-2:]
        margins.append(float(best - second))
        tokens.append(int(logits.argmax()))
        logits = session.decode(tokens[-1])
    return Case(out, program, prompt, tokens, min(margins))


def clear_case(
    spec: DecoderSpec, target: str, recipe: str, prompt: list[int], folder: Path, *, count: int, margin: float
) -> Case:
    """The first random model of a spec whose answer is varied, and never as close a call as ``margin``."""
    for seed in range(100):
        model = edgesdk.Model(spec, RandomWeights(spec, seed))
        case = answered(model, target, recipe, spec.context, prompt, folder / str(seed), count)
        if case.margin > margin and len(set(case.tokens)) >= 4:
            return case
    raise AssertionError("no random model of this kind gives a clear answer")


def tiny_firmware(folder: Path) -> Path:
    """A bundle of a random model with a firmware project, for a Cortex-M4F."""
    attention = Attention(4, 2, 16, 0.25, Rope(10000.0))
    spec = DecoderSpec("llama", 256, 64, 64, (Layer(attention, Mlp(128, "silu")),) * 2, 1e-5, tied=True)
    model = edgesdk.Model(spec, RandomWeights(spec))
    edgesdk.export(model, "cortex-m4f", folder, recipe="w8", context=64, checks=edgesdk.Checks(skip=True))
    return folder
