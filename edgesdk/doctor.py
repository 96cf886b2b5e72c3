"""A tiny random model through every converter that is installed, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .converter import CONVERTERS, ProgramOptions
from .errors import EdgeError
from .partials import scratch_folder
from .targets import open_target, target_names

if TYPE_CHECKING:
    from .model import Model

_CONTEXT = 64
_TOLERANCE = 1e-3
_INT8_TOLERANCE = 0.3  # of logits between -4 and 4, where activations are int8
_PROMPT = [1, 5, 9, 2]


@dataclass(frozen=True)
class Finding:
    """What the doctor saw of one converter.

    ``ok`` is whether the tiny model came through it with the reference's logits; ``detail`` says how far off, or what
    is missing and how to get it.
    """

    converter: str
    targets: tuple[str, ...]
    ok: bool
    detail: str


def examine() -> list[Finding]:
    """Run the tiny model through every converter."""
    targets: dict[str, list[str]] = {}
    for name in target_names():
        targets.setdefault(open_target(name).converter, []).append(name)
    findings = []
    for converter in sorted({*CONVERTERS.names(), *targets}):
        served = tuple(targets.get(converter, ()))
        try:
            difference = _difference(converter)
        except EdgeError as failure:
            detail = failure.message + (f" ({failure.hint})" if failure.hint else "")
            findings.append(Finding(converter, served, False, detail))
            continue
        fine = difference < (_TOLERANCE if CONVERTERS.get(converter).limits().float_matrices else _INT8_TOLERANCE)
        findings.append(Finding(converter, served, fine, f"largest difference from the reference: {difference:.1e}"))
    return findings


def _difference(converter_name: str) -> float:
    """Largest difference of logits between a converter's program and the reference, on the tiny model."""
    import numpy as np

    from .compress.base import Setting
    from .compress.recipe import open_recipe
    from .errors import MissingExtraError
    from .progress import SILENT

    converter = CONVERTERS.get(converter_name)
    try:
        from .model.reference import ReferenceSession
    except ModuleNotFoundError as failure:
        raise MissingExtraError((failure.name or "torch").partition(".")[0], converter_name) from None

    model, limits = tiny_model(), converter.limits()
    with scratch_folder() as name:
        folder, activations = name, 32
        if not limits.float_matrices:
            (folder / "scratch").mkdir()
            model, _ = open_recipe("w8")(model, Setting(folder / "scratch", SILENT, limits))
            activations = 8
        program = converter.convert(model, ProgramOptions(_CONTEXT, "float32", activations), folder, SILENT)
        session = converter.open(folder / program.main, _CONTEXT)
        reference = ReferenceSession(model, _CONTEXT)
        found = np.concatenate([session.score(_PROMPT), session.decode(3)[None]])
        wanted = np.concatenate([reference.score(_PROMPT), reference.decode(3)[None]])
        return float(np.abs(found - wanted).max())


def tiny_model(seed: int = 0) -> Model:
    """A random two-layer Llama with 64 tokens and no tokenizer."""
    from .model import DecoderSpec, Model
    from .model.random_weights import RandomWeights
    from .model.spec import Attention, Layer, Mlp, Rope

    attention = Attention(heads=4, kv_heads=2, head_dim=16, scale=0.25, rope=Rope(10000.0))
    layer = Layer(attention, Mlp(size=96, activation="silu"))
    spec = DecoderSpec("llama", vocab=64, hidden=64, context=_CONTEXT, layers=(layer, layer), norm_eps=1e-5)
    return Model(spec, RandomWeights(spec, seed))
