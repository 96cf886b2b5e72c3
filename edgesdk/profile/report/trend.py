"""A value over the history: series that may be compared, and their figure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ...errors import EdgeError, MissingExtraError
from ...files import replacing, writing_failed
from .svg import Drawing, Span, span
from .words import DASH, clean, digest, finite, metric, number, of_time, scale, short
from .words import known as has_values

if TYPE_CHECKING:
    from ..history import Point

_FORMATS = (".svg", ".png", ".html")
_COLOURS = ("#0067a8", "#c44e00", "#00805c", "#a0438a", "#7a6200", "#4a4f57")


@dataclass(frozen=True)
class Trend:
    """Points of one model, recipe, device, regime, case, unit and scope of energy; the bundle changes with commits."""

    model: str
    recipe: str
    device: str
    regime: str
    case: str
    unit: str
    scope: str
    emulated: bool
    points: tuple[Point, ...]

    @property
    def shown(self) -> str:
        """The unit that figures are shown in."""
        return scale([point.value for point in self.points], self.unit).unit

    @property
    def title(self) -> str:
        parts = (short(self.model, 50), self.recipe, short(self.device, 40), self.case, short(self.scope, 40),
                 short(self.regime, 60))  # fmt: skip
        mark = ("EMULATED TIME",) if self.emulated and of_time(self.unit) else ()
        return ", ".join(clean(part) for part in (*parts, *mark) if part)


def trends(points: Sequence[Point]) -> list[Trend]:
    """Points in the order given, by what makes them comparable; a null belongs to the series of its unit."""
    found: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        it = point.entry
        key = (it.model, it.recipe, it.identity, it.regime, point.case, point.unit, _scope(point), it.emulated)
        found.setdefault(key, []).append(point)
    return [_trend(tuple(group)) for group in found.values()]


def _trend(points: tuple[Point, ...]) -> Trend:
    first = points[0]
    it = first.entry
    return Trend(it.model, it.recipe, it.device, it.regime, first.case, first.unit, _scope(first), it.emulated, points)


def _scope(point: Point) -> str:
    """What the energy is of: joules of a board are not those of a battery."""
    return point.entry.energy_scope if point.section in ("energy", "idle") else ""


def figures(trend: Trend) -> list[tuple[str, str, str, str, str]]:
    """Rows for people: started, commit, bundle, value with unit, interval or reason."""
    by = scale([point.value for point in trend.points], trend.unit)
    rows = []
    for point in trend.points:
        text, more = DASH, point.reason or ""
        if point.value is not None:
            text = f"{by(point.value)} {by.unit}".rstrip()
            known = point.low is not None and point.high is not None
            more = f"{by(point.low or 0.0)} \u2013 {by(point.high or 0.0)}" if known else ""
        commit = short(point.entry.commit, 12) if point.entry.commit else DASH
        rows.append((point.entry.started, commit, digest(point.entry.bundle), text, more))
    return rows


def check_plot(path: Path) -> None:
    """Stop before any work when a figure cannot be drawn.

    Raises:
        EdgeError: another format, or no folder to write to.
        MissingExtraError: matplotlib is not installed, for .svg and .png.
    """
    if path.suffix.lower() not in _FORMATS:
        raise EdgeError(f"{path}: a trend is drawn as .svg, .png or .html", hint="name the file accordingly")
    if not path.absolute().parent.is_dir():
        raise EdgeError(f"{path.parent}: no such folder", hint="make it, or choose another")
    if path.suffix.lower() != ".html":
        try:
            import matplotlib  # noqa: F401
        except ModuleNotFoundError:
            raise MissingExtraError("matplotlib", "quality") from None


def draw(name: str, found: Sequence[Trend], path: Path) -> None:
    """Draw the trend of a value; series without any value are named, not drawn.

    Raises:
        EdgeError: the format, or the file cannot be written.
    """
    check_plot(path)
    if path.suffix.lower() == ".html":
        from .page import template, write_page

        panels = [(trend, _panel(trend, index), figures(trend)) for index, trend in enumerate(found)]
        write_page(template("trend.html").render(title=metric(name), panels=panels), path)
        return
    _matplotlib(name, [trend for trend in found if has_values(p.value for p in trend.points)], path)


def _panel(trend: Trend, index: int) -> tuple[Markup, Markup] | None:
    values = list(finite(each for p in trend.points for each in (p.value, p.low, p.high)))
    if not values:
        return None
    wide, narrow = (_drawn(trend, f"t{index}{kind}", width, values) for kind, width in (("w", 1000), ("n", 350)))
    return wide, narrow


def _drawn(trend: Trend, name: str, width: int, values: list[float]) -> Markup:
    by, count = scale(values, trend.unit), len(trend.points)
    text = f"{count} profiles, from {number(min(values) / by.by)} to {number(max(values) / by.by)} {by.unit}"
    drawing = Drawing(name, trend.title, text, (width, 220), Span(0, count + 1), span(values, room=0.15))
    drawing.axes(by.by, marks=[(i + 1, _when(point)) for i, point in enumerate(trend.points)])
    kind = f"c{int(name[1:-1]) % len(_COLOURS)}"
    drawing.line([(i + 1, point.value) for i, point in enumerate(trend.points)], kind)
    for i, point in enumerate(trend.points):
        if point.low is not None and point.high is not None:
            drawing.whisker(i + 1, point.low, point.high, kind)
        if point.value is not None:
            words = f"{point.entry.started} {point.entry.commit or ''}: {by(point.value)} {by.unit}"
            drawing.dot(i + 1, point.value, kind, words)
    return drawing.svg()


def _when(point: Point) -> str:
    return clean(point.entry.commit)[:8] if point.entry.commit else point.entry.started[:10]


def _matplotlib(name: str, found: Sequence[Trend], path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    if not found:
        raise EdgeError(f"no value of {name} to draw", hint="the table says why each is missing")
    with matplotlib.rc_context({"svg.hashsalt": "edgesdk", "font.size": 9, "axes.spines.top": False, "text.parse_math":
                                False}):  # fmt: skip
        figure = Figure(figsize=(8.0, 2.9 * len(found) + 0.3), dpi=150, layout="constrained")
        figure.suptitle(metric(name), fontsize=11)
        for index, (trend, axis) in enumerate(zip(found, figure.subplots(len(found), 1, squeeze=False)[:, 0],
                                                  strict=True)):  # fmt: skip
            _axis(axis, trend, _COLOURS[index % len(_COLOURS)])
        form = path.suffix.lower()[1:]
        try:
            with replacing(path) as partial:
                figure.savefig(partial, format=form, metadata={"Date": None} if form == "svg" else {"Software": None})
        except OSError as failure:
            raise writing_failed(path, failure) from None


def _axis(axis: Any, trend: Trend, colour: str) -> None:
    by = scale([point.value for point in trend.points], trend.unit)
    known = [(i, point, point.value / by.by) for i, point in enumerate(trend.points) if point.value is not None]
    axis.plot([i for i, _, _ in known], [value for _, _, value in known], "o-", color=colour, markersize=4, linewidth=1)
    for i, point, _ in known:
        if point.low is not None and point.high is not None:
            axis.vlines(i, point.low / by.by, point.high / by.by, color=colour, linewidth=1.5)
    labels = [f"{point.entry.started[:10]}\n{clean(point.entry.commit or '')[:8]}" for point in trend.points]
    step = -(-len(labels) // 10)
    axis.set_xticks(range(0, len(labels), step), labels[::step])
    axis.set_title(textwrap.fill(trend.title, 110), fontsize=8, loc="left")
    axis.set_ylabel(by.unit)
    axis.grid(axis="y", alpha=0.3)
