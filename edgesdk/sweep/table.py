"""The result as a table: one row for each combination and case; a figure is a number, or null with the reason."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import __version__
from ..files import replacing
from ..profile.schema import Case, Plan, Profile, Value
from ..schema import dump

if TYPE_CHECKING:
    from ..bundle import Manifest
    from .jobs import Outcome
    from .matrix import Cell

SCHEMA = 1
Status = Literal["measured", "exported", "refused", "failed"]
#: Figures of a row, with the unit that each has where there is none to read it from.
FIGURES = {
    "bytes": "B",
    "compression": "1",
    "perplexity": "1",
    "perplexity_before": "1",
    "kl": "nats/token",
    "decode_rate": "tokens/s",
    "prefill_rate": "tokens/s",
    "time_to_first_token": "s",
    "peak_rss": "B",
    "decode_energy": "J/token",
}
_ON_DEVICE = ("decode_rate", "prefill_rate", "time_to_first_token", "peak_rss", "decode_energy")
_ACTS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet takes what begins so for a formula


@dataclass(frozen=True)
class Figure:
    """A number with its unit, or null with the reason: a code of profiles, or a sentence.

    Attributes:
        low: of the 95 % interval of the median over repeats; None for fewer than three.
        high: likewise.
    """

    value: float | None
    unit: str
    reason: str | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """One model, recipe, target and device, with one case of the plan.

    Attributes:
        model: as the sweep names it.
        recipe: likewise.
        decoded: the recipe's own name: what a preset of the target stands for.
        target: as the sweep names it.
        device: likewise; None where the bundle is not profiled.
        status: ``measured``, ``exported`` (no device serves the target), ``refused`` by the target, or ``failed``.
        reason: why it was refused or failed.
        prompt_tokens: of the case; None where nothing was profiled.
        new_tokens: likewise.
        threads: likewise; None also where the runtime chose.
        bundle: its folder in the sweep's.
        profile: its file in the sweep's.
        validity: of the profile.
        reasons: codes of what is in doubt about it.
        energy_scope: what the energy is of.
        figures: by name, as in :data:`FIGURES`.
    """

    model: str
    recipe: str
    decoded: str
    target: str
    device: str | None
    status: Status
    reason: str | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    threads: int | None = None
    bundle: str | None = None
    profile: str | None = None
    validity: str | None = None
    reasons: tuple[str, ...] = ()
    energy_scope: str | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)

    @property
    def case(self) -> str:
        """The case in words."""
        if self.prompt_tokens is None:
            return ""
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.prompt_tokens} + {self.new_tokens} tokens{threads}"


@dataclass(frozen=True)
class Table:
    """What a sweep found.

    Attributes:
        schema: of ``sweep.json``.
        edgesdk: version that wrote it.
        plan: of the profiles.
        rows: in the order of the sweep's file.
    """

    schema: int
    edgesdk: str
    plan: Plan
    rows: tuple[Row, ...]

    @property
    def failed(self) -> bool:
        """Whether any job failed; a refusal is an answer."""
        return any(row.status == "failed" for row in self.rows)


@dataclass(frozen=True)
class Measured:
    """How a profile ended: it is there, or why it is not."""

    name: str | None = None
    profile: Profile | None = None
    error: str | None = None
    hint: str | None = None
    refused: bool = False


def tabulated(
    cells: Sequence[Cell],
    manifests: Mapping[str, Manifest],
    outcomes: Mapping[str, Outcome],
    measured: Mapping[tuple[str, str], Measured],
    plan: Plan,
) -> Table:
    """The table.

    Args:
        cells: of the sweep.
        manifests: of bundles that are there, by key.
        outcomes: of exports that made none, by key.
        measured: profiles by key and device.
        plan: of the profiles.
    """
    rows: list[Row] = []
    for cell in cells:
        manifest = None if cell.job is None else manifests.get(cell.job.key)
        if cell.job is None or manifest is None:
            outcome = None if cell.job is None else outcomes.get(cell.job.key)
            rows += _without_bundle(cell, outcome)
        else:
            rows += _with_bundle(cell, cell.job.key, manifest, measured)
    return Table(SCHEMA, __version__, plan, tuple(rows))


def _without_bundle(cell: Cell, outcome: Outcome | None) -> Iterator[Row]:
    refused = outcome is None or outcome.refused
    said = cell.refused if outcome is None else _sentence(outcome.error, outcome.hint)
    word: Status = "refused" if refused else "failed"
    figures = {name: Figure(None, unit, word) for name, unit in FIGURES.items()}
    decoded = cell.recipe if cell.job is None else cell.job.recipe.name
    for place in cell.places or (None,):
        device = None if place is None else place.name
        yield Row(cell.model, cell.recipe, decoded, cell.target, device, word, said, figures=figures)


def _with_bundle(
    cell: Cell, key: str, manifest: Manifest, measured: Mapping[tuple[str, str], Measured]
) -> Iterator[Row]:
    named = (cell.model, cell.recipe, manifest.recipe.name, cell.target)
    bundle, made = f"bundles/{key}", _of_bundle(manifest)
    if not cell.places:
        figures = made | _missing("no-device")
        yield Row(*named, None, "exported", bundle=bundle, figures=figures)
    for place in cell.places:
        found = measured[key, place.name]
        if found.profile is None:
            word: Status = "refused" if found.refused else "failed"
            said = _sentence(found.error, found.hint)
            yield Row(*named, place.name, word, said, bundle=bundle, figures=made | _missing(word))
            continue
        for case in found.profile.cases:
            yield _measured(named, place.name, bundle, made, found, found.profile, case)


def _measured(
    named: tuple[str, str, str, str],
    device: str,
    bundle: str,
    made: dict[str, Figure],
    found: Measured,
    profile: Profile,
    case: Case,
) -> Row:
    values = {**profile.memory.values, **case.latency.values, **case.energy.values}
    figures = made | {name: _figure(values.get(name), FIGURES[name]) for name in _ON_DEVICE}
    sections = (case.latency, case.energy, profile.memory)
    codes = [each.code for each in (*profile.reasons, *(it for part in sections for it in part.reasons))]
    return Row(
        *named, device, "measured", None, case.prompt_tokens, case.new_tokens, case.threads, bundle,
        f"profiles/{found.name}", profile.validity, tuple(dict.fromkeys(codes)), profile.energy_scope, figures,
    )  # fmt: skip


def _missing(reason: str) -> dict[str, Figure]:
    return {name: Figure(None, FIGURES[name], reason) for name in _ON_DEVICE}


def _of_bundle(manifest: Manifest) -> dict[str, Figure]:
    """Figures that the manifest has."""
    quality = manifest.quality
    perplexity, apart = quality.perplexity or {}, quality.divergence or {}
    tables = [e.size for e in manifest.files if not e.path.endswith((".json", ".jinja", ".txt", ".md"))]
    before = 2 * manifest.model.parameters  # bytes in 16 bits, as profiles count
    return {
        "bytes": Figure(sum(entry.size for entry in manifest.files), "B"),
        "compression": Figure(before / sum(tables), "1") if sum(tables) else Figure(None, "1", "no tables"),
        "perplexity": _plain(perplexity.get("after"), "1", quality.perplexity_reason),
        "perplexity_before": _plain(perplexity.get("before"), "1", quality.perplexity_reason),
        "kl": _plain(apart.get("kl"), "nats/token", quality.divergence_reason),
    }


def _plain(value: Any, unit: str, reason: str | None) -> Figure:
    number = float(value) if isinstance(value, (int, float)) else None
    return Figure(number, unit, None if number is not None else reason or "not measured")


def _figure(value: Value | None, unit: str) -> Figure:
    if value is None:
        return Figure(None, unit, "not-reported")
    return Figure(value.value, value.unit, value.reason, value.low, value.high)


def _sentence(text: str | None, hint: str | None) -> str:
    return (text or "unknown") + (f" ({hint})" if hint else "")


def write_table(table: Table, out: Path) -> None:
    """Write ``sweep.json``, ``sweep.csv`` and ``sweep.html``, each whole or not at all."""
    from .page import write

    with replacing(out / "sweep.json") as partial:
        partial.write_text(json.dumps(dump(table), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    with replacing(out / "sweep.csv") as partial:
        partial.write_text(to_csv(table), encoding="utf-8")
    write(table, out / "sweep.html")


def to_csv(table: Table) -> str:
    """One line a row; a figure that is null is empty, and the column after it says why."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    plain = [name for name in Row.__dataclass_fields__ if name not in ("figures", "reasons")]
    figures = [f"{name}{part}" for name in FIGURES for part in ("", "_unit", "_reason")]
    writer.writerow([*plain, "reasons", *figures])
    for row in table.rows:
        cells: list[object] = [_cell(getattr(row, name)) for name in plain]
        cells.append(_cell(" ".join(row.reasons)))
        for name in FIGURES:
            figure = row.figures[name]
            cells += ["" if figure.value is None else repr(figure.value), _cell(figure.unit), _cell(figure.reason)]
        writer.writerow(cells)
    return text.getvalue()


def _cell(value: object) -> str:
    """Text that no spreadsheet runs."""
    from ..profile.report.words import clean

    text = "" if value is None else clean(str(value))
    return f"'{text}" if text.startswith(_ACTS) else text
