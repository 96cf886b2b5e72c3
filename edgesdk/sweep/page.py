"""``sweep.html``: one page that holds all it shows; figures by the report's drawings, in its colours."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .. import __version__
from ..profile import report
from ..profile.reasons import REASONS
from ..profile.report.page import write_page
from ..profile.report.svg import Drawing, span
from ..profile.report.words import DASH, Scale, clean, number, said, scale, short
from .front import Better, Point, front
from .table import FIGURES, Figure, Row, Table

_WIDE, _NARROW, _HEIGHT = 520, 350, 300
_COLOURS = 6
_LETTER = 6.9  # pixels of a letter, about
_BEFORE = "uncompressed"
_Box = tuple[float, float, float, float]
_COLUMNS = {
    "bytes": "Size",
    "compression": "Compression",
    "perplexity": "Perplexity",
    "kl": "KL divergence",
    "decode_rate": "Decode",
    "prefill_rate": "Prefill",
    "time_to_first_token": "First token",
    "peak_rss": "Peak RSS",
    "decode_energy": "Energy, decode",
}
_QUALITY = {"perplexity": "perplexity", "kl": "KL divergence, nats a token"}


@dataclass(frozen=True)
class Panel:
    """One figure, or why there is none."""

    title: str
    wide: str = ""
    narrow: str = ""
    note: str = ""
    missing: str = ""


def write(table: Table, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        EdgeError: the file cannot be written.
    """
    write_page(render(table), path)


def render(table: Table) -> str:
    """The page as text."""
    here = Path(__file__).parent
    css = "\n".join(
        path.read_text(encoding="utf-8") for path in (Path(report.__file__).parent / "page.css", here / "sweep.css")
    )
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    loaded = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, finalize=_finalize,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    models = list(dict.fromkeys(row.model for row in table.rows))
    used = [name for name in _COLUMNS if any(row.figures[name].value is not None for row in table.rows)]
    codes = {code for row in table.rows for code in row.reasons if row.validity != "valid"}
    text: str = loaded.get_template("sweep.html").render(
        css=Markup(css),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        version=__version__,
        title=short(models[0], 80) if len(models) == 1 else f"{len(models)} models compared",
        counts=_counts(table),
        models=[_model(model, index, table) for index, model in enumerate(models)],
        several=len(models) > 1,
        columns=[_column(name, table) for name in used],
        rows=[_row(row, used, table) for row in table.rows],
        said=_said(table),
        glossary=[(code, REASONS[code]) for code in sorted(codes) if code in REASONS],
    )
    return text


def _finalize(value: Any) -> Any:
    return clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _counts(table: Table) -> str:
    states = [row.status for row in table.rows]
    found = [f"{states.count(word)} {word}" for word in dict.fromkeys(states)]
    return f"{len(states)} combinations: {', '.join(found)}" if len(states) != 1 else f"1 combination: {states[0]}"


def _model(model: str, index: int, table: Table) -> tuple[str, list[tuple[str, str]], list[Panel]]:
    rows = [row for row in table.rows if row.model == model]
    targets = list(dict.fromkeys(row.target for row in rows))
    kinds = {target: f"c{place % _COLOURS}" for place, target in enumerate(targets)}
    quality = next((name for name in _QUALITY if any(row.figures[name].value is not None for row in rows)), None)
    panels = [_panel(f"m{index}p{at}", each, kinds) for at, each in enumerate(_asked(rows, quality))]
    return short(model, 80), [(kinds[each], each) for each in targets], panels


@dataclass(frozen=True)
class _Asked:
    """A panel to draw: the figure across, the rows that compare, and the quality."""

    title: str
    metric: str
    axis: str
    better: Better
    rows: Sequence[Row]
    quality: str | None


def _asked(rows: Sequence[Row], quality: str | None) -> Iterator[_Asked]:
    bundles = {row.bundle: row for row in reversed(rows) if row.bundle}  # one point for each, however often profiled
    sizes = [row for row in rows if row.bundle and bundles[row.bundle] is row]
    yield _Asked("Quality against size", "bytes", "size", "lower", sizes, quality)
    profiled = [row for row in rows if row.status == "measured"]
    for group in _groups(profiled, lambda row: (row.device, row.case, row.figures["decode_rate"].unit)):
        where = f"{group[0].device}, {group[0].case}"
        marked = " (EMULATED TIME)" if any("emulated" in row.reasons for row in group) else ""
        title = f"Quality against decode rate on {where}{marked}"
        yield _Asked(title, "decode_rate", "decode rate", "higher", group, quality)
    for group in _groups(profiled, lambda row: (row.device, row.case, row.energy_scope)):
        title = f"Quality against energy on {group[0].device}, {group[0].case}"
        scope = f": {group[0].energy_scope}" if group[0].energy_scope else ""
        yield _Asked(title + scope, "decode_energy", "energy of a decoded token", "lower", group, quality)


def _groups(rows: Sequence[Row], key: Callable[[Row], object]) -> list[list[Row]]:
    found: dict[object, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return list(found.values())


def _panel(name: str, asked: _Asked, kinds: dict[str, str]) -> Panel:
    if asked.quality is None:
        figure = next((row.figures["kl"] for row in asked.rows), None)
        return Panel(asked.title, missing=f"No quality was measured: {_why(figure)}.")
    by = scale([row.figures[asked.metric].value for row in asked.rows], asked.rows[0].figures[asked.metric].unit)
    points = []
    for row in asked.rows:
        x, y = row.figures[asked.metric].value, row.figures[asked.quality].value
        if x is not None and y is not None:
            text = f"{row.recipe} for {row.target}: {by(x)} {by.unit}, {_QUALITY[asked.quality]} {number(y)}"
            sure = asked.metric == "bytes" or _believed(row)
            said_too = text if sure else f"{text} ({', '.join(row.reasons)})"
            points.append(Point(x / by.by, y, row.recipe, kinds[row.target], said_too, sure))
    if not points:
        missing = [row.figures[asked.metric] for row in asked.rows if row.figures[asked.metric].value is None]
        return Panel(asked.title, missing=f"Not measured: {_why(next(iter(missing), None))}.")
    before = next((row.figures["perplexity_before"].value for row in asked.rows), None)
    level = before if asked.quality == "perplexity" else None
    best = front(points, asked.better)
    axis = f"{asked.axis}, {by.unit} ({asked.better} is better)"
    wide, narrow = (
        _drawn(f"{name}{kind}", asked.title, axis, width, points, best, _QUALITY[asked.quality], level)
        for kind, width in (("w", _WIDE), ("n", _NARROW))
    )
    return Panel(asked.title, wide, narrow, _note(asked, points, best))


def _note(asked: _Asked, points: Sequence[Point], best: Sequence[Point]) -> str:
    left = len(asked.rows) - len(points)
    names = ", ".join(dict.fromkeys(point.name for point in best)) or "none"
    grey = sum(not point.sure for point in points)
    doubted = f" {grey} in grey {'is' if grey == 1 else 'are'} not to be believed (see the table)." if grey else ""
    more = f" {left} without one of the figures {'is' if left == 1 else 'are'} not drawn." if left else ""
    return f"On the front: {names}.{doubted}{more}"


def _believed(row: Row) -> bool:
    """Whether a profile's figures are: a panel of emulated time says so in its title, and compares nothing else."""
    return row.validity == "valid" or "emulated" in row.reasons


def _why(figure: Figure | None) -> str:
    return said(figure.reason or "not-reported") if figure is not None else "nothing was exported"


def _drawn(
    name: str,
    title: str,
    axis: str,
    width: int,
    points: Sequence[Point],
    best: Sequence[Point],
    quality: str,
    level: float | None,
) -> Markup:
    text = f"{len(points)} points; on the front {'; '.join(point.text for point in best)}"
    ys = [point.y for point in points] + ([] if level is None else [level])
    drawing = Drawing(
        name, title, text, (width, _HEIGHT), span((point.x for point in points), room=0.12), span(ys, room=0.14)
    )
    drawing.top, drawing.bottom = 26, 42
    drawing.axes()
    drawing.label(drawing.left - 44, 14, f"{quality} (lower is better)", "axisname")
    drawing.label(drawing.left + drawing.columns / 2, _HEIGHT - 6, axis, "axisname mid")
    if level is not None:
        drawing.level(level)
    drawing.line([(point.x, point.y) for point in best], "front")
    for point in points:
        kind = "unsure" if not point.sure else point.kind if point in best else f"{point.kind} off"
        drawing.dot(point.x, point.y, kind, point.text)
    _named(drawing, points, best, level)
    return drawing.svg()


def _named(drawing: Drawing, points: Sequence[Point], best: Sequence[Point], level: float | None) -> None:
    """Names beside points, those of the front first, where there is room; the table and the pointer tell the others."""
    taken = [(drawing.x(it.x) - 6, drawing.y(it.y) - 6, drawing.x(it.x) + 6, drawing.y(it.y) + 6) for it in points]
    if level is not None:
        y, wide = drawing.y(level), len(_BEFORE) * _LETTER
        ends = (drawing.left + 6, drawing.width - drawing.right - wide - 2, drawing.left + (drawing.columns - wide) / 2)
        _placed(drawing, _BEFORE, [(x, base) for x in ends for base in (y - 5, y + 14)], taken)
        taken.append((drawing.left, y - 1, drawing.width, y + 1))
    for point in [*best, *(it for it in points if it not in best)]:
        text = short(point.name, 24)
        wide, x, y = len(text) * _LETTER, drawing.x(point.x), drawing.y(point.y)
        places = ((x + 9, y + 4), (x - 9 - wide, y + 4), (x - wide / 2, y - 10), (x - wide / 2, y + 19),
                  (x + 7, y - 7), (x + 7, y + 15), (x - 7 - wide, y - 7), (x - 7 - wide, y + 15))  # fmt: skip
        _placed(drawing, text, places, taken)


def _placed(drawing: Drawing, text: str, places: Sequence[tuple[float, float]], taken: list[_Box]) -> None:
    """Text at the first place that is free, or nowhere."""
    for left, base in places:
        box = (left, base - 10, left + len(text) * _LETTER, base + 3)
        inside = box[0] >= drawing.left and box[2] <= drawing.width and box[1] >= drawing.top
        if inside and box[3] <= drawing.height - drawing.bottom and not any(_meet(box, other) for other in taken):
            taken.append(box)
            drawing.label(left, base, text, "name")
            return


def _meet(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _scale(name: str, table: Table) -> Scale:
    """One for a column; microcontrollers' ticks stay what they are, in cells that say so."""
    unit = FIGURES[name]
    return scale([row.figures[name].value for row in table.rows if row.figures[name].unit == unit], unit)


def _column(name: str, table: Table) -> tuple[str, str]:
    unit = _scale(name, table).unit
    return _COLUMNS[name], unit or ("16 bits = 1" if name == "compression" else "")


def _row(row: Row, used: Sequence[str], table: Table) -> dict[str, Any]:
    return {
        "recipe": row.recipe if row.recipe == row.decoded else f"{row.recipe} ({row.decoded})",
        "model": short(row.model, 60),
        "target": row.target,
        "device": row.device or DASH,
        "case": row.case,
        "cells": [_cell(row.figures[name], name, table) for name in used],
        "badge": row.validity,
        "status": row.status,
        "note": "" if row.validity == "valid" else " ".join(row.reasons),
    }


def _cell(figure: Figure, name: str, table: Table) -> tuple[str, str]:
    if figure.value is None:
        return DASH, ""
    usual = figure.unit == FIGURES[name]
    by = _scale(name, table) if usual else scale([figure.value], figure.unit)
    known = figure.low is not None and figure.high is not None
    more = f"{by(figure.low or 0.0)} \u2013 {by(figure.high or 0.0)}" if known else ""
    return by(figure.value) if usual else f"{by(figure.value)} {by.unit}", more


def _said(table: Table) -> list[tuple[str, str, str]]:
    """What was refused or failed, each once."""
    found = {}
    for row in table.rows:
        if row.reason:
            where = f" on {row.device}" if row.device and row.bundle else ""
            found[f"{short(row.model, 60)} {row.recipe} for {row.target}{where}"] = (row.status, row.reason)
    return [(what, *rest) for what, rest in found.items()]
