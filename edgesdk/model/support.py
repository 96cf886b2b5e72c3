"""The support matrix: what the tests found of every family in every runtime, kept as data.

``support.json`` is made from the results of the parity tests by ``python -m tests.family_matrix``; CI compares it with
theirs. A cell is *proven* (its test passed, with the difference or error that was seen), or *refused* with the reason
that an export gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..schema import load

FILE = Path(__file__).with_name("support.json")
SCHEMES = ("float32", "float16", "w8", "w4g32")
RUNTIMES = ("onnx", "executorch", "tflite", "tflm", "cortex_m")


@dataclass(frozen=True)
class Cell:
    """What came of one variant of a family in one runtime with one scheme.

    Attributes:
        difference: largest difference of a logit from transformers', with float weights.
        error: mean error against the float reference over the same integers, as a share of the logits' spread.
        refused: why the runtime does not take it, or None: it is proven.
    """

    difference: float | None = None
    error: float | None = None
    refused: str | None = None


@dataclass(frozen=True)
class Variant:
    """One tiny configuration of a family, through every runtime: scheme to cell."""

    name: str
    runtimes: dict[str, dict[str, Cell]] = field(default_factory=dict)


@dataclass(frozen=True)
class FamilySupport:
    """All variants of a family that were tried; ``kind`` is one of :mod:`edgesdk.kinds`."""

    kind: str
    name: str
    variants: tuple[Variant, ...]

    def verdict(self, runtime: str) -> Verdict:
        """What is proven in a runtime for every variant, and why the rest is not."""
        tried = [variant.runtimes[runtime] for variant in self.variants if runtime in variant.runtimes]
        schemes = [scheme for scheme in SCHEMES if any(scheme in cells for cells in tried)]
        proven = [
            scheme for scheme in schemes if all(cells[scheme].refused is None for cells in tried if scheme in cells)
        ]
        if not schemes:
            return Verdict("not tried")
        if len(proven) == len(schemes):
            return Verdict("yes")
        why = "; ".join(dict.fromkeys(_short(cells[s].refused) for cells in tried for s in cells if cells[s].refused))
        if proven:
            return Verdict(", ".join(proven), why)
        some = any(cell.refused is None for cells in tried for cell in cells.values())
        return Verdict("partly" if some else "no", why)


@dataclass(frozen=True)
class Verdict:
    """On a family in a runtime: ``yes``, ``no``, ``partly`` (some variants) or the schemes; and why not the rest."""

    word: str
    why: str = ""


def support() -> tuple[FamilySupport, ...]:
    """Every family that the tests tried, by kind and name.

    Raises:
        EdgeError: the file is damaged.
    """
    data = json.loads(FILE.read_text(encoding="utf-8"))
    return load(_Matrix, data, str(FILE)).families


def numbered(
    families: Iterable[FamilySupport], runtimes: Sequence[str] = RUNTIMES
) -> tuple[dict[str, list[str]], list[str]]:
    """Families and their verdicts, a word a runtime, with numbers of what is not built, and that in words."""
    reasons: dict[str, int] = {}

    def said(verdict: Verdict) -> str:
        if not verdict.why:
            return verdict.word
        return f"{verdict.word} [{reasons.setdefault(verdict.why, len(reasons) + 1)}]"

    rows = {family.name: [said(family.verdict(runtime)) for runtime in runtimes] for family in families}
    return rows, [f"[{number}] {reason}" for reason, number in reasons.items()]


@dataclass(frozen=True)
class _Matrix:
    families: tuple[FamilySupport, ...]


def _short(reason: str | None) -> str:
    """A refusal without what the table says already."""
    text, unbuilt, _ = (reason or "").partition(", which the ")
    if unbuilt:
        return text.partition(" has ")[2] or text.partition(" is ")[2] or text
    return text.partition(": leave out ")[0]
