"""Plain SVG whose colours are classes, so that one drawing serves light, dark and paper."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from .words import clean, tick

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Span:
    """What an axis shows."""

    low: float
    high: float

    @property
    def length(self) -> float:
        return self.high - self.low

    def ticks(self, count: int) -> list[float]:
        """Round figures within, about so many."""
        rough = self.length / max(count, 1)
        size = 10.0 ** math.floor(math.log10(rough))
        step = next(size * each for each in (1, 2, 5, 10) if size * each >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def span(values: Iterable[float], *, zero: bool = False, room: float = 0.06) -> Span:
    """What an axis must show to hold these values."""
    known = list(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    if zero:
        low = min(low, 0.0)
    if high == low:
        return Span(low - (0 if zero and low >= 0 else 0.5), high + (abs(high) * 0.1 or 1.0))
    extra = (high - low) * room
    return Span(low if zero else low - extra, high + extra)


def thinned(points: Iterable[Point], across: Span, columns: int) -> list[list[tuple[float, float]]]:
    """Lines that look the same: of every pixel column the first, least, greatest and last; None begins a new line."""
    lines: list[list[tuple[float, float]]] = [[]]
    held: list[tuple[float, float]] = []
    column = -1

    def put() -> None:
        if held:
            keep = {0, len(held) - 1}
            keep.add(min(range(len(held)), key=lambda i: held[i][1]))
            keep.add(max(range(len(held)), key=lambda i: held[i][1]))
            lines[-1].extend(held[i] for i in sorted(keep))
            held.clear()

    for x, y in points:
        if y is None or not (math.isfinite(y) and math.isfinite(x)):
            put()
            if lines[-1]:
                lines.append([])
            continue
        now = int((x - across.low) / across.length * columns)
        if now != column:
            put()
            column = now
        held.append((x, y))
    put()
    return [line for line in lines if line]


class Drawing:
    """One panel with two linear axes.

    Args:
        name: unique on the page.
        title: of the panel.
        text: what it shows, for those who do not see it.
        size: width and height, in pixels.
        across: of the x axis.
        up: of the y axis.
    """

    def __init__(self, name: str, title: str, text: str, size: tuple[int, int], across: Span, up: Span) -> None:
        self.name, self.title, self.text = name, title, text
        self.width, self.height = size
        self.across, self.up = across, up
        self.left, self.right, self.top, self.bottom = 50, 14, 8, 22
        self._parts: list[str] = []

    @property
    def columns(self) -> int:
        return self.width - self.left - self.right

    def x(self, value: float) -> float:
        return self.left + (value - self.across.low) / self.across.length * self.columns

    def y(self, value: float) -> float:
        inner = self.height - self.top - self.bottom
        value = min(max(value, self.up.low), self.up.high)
        return self.top + inner - (value - self.up.low) / self.up.length * inner

    def axes(
        self,
        by: float = 1.0,
        *,
        levels: Sequence[tuple[float, str]] = (),
        unit: str = "",
        marks: Sequence[tuple[float, str]] = (),
    ) -> None:
        """Grid and figures of both axes; ``by`` divides those of y, ``levels`` replace them.

        ``unit`` is of x, whose figures ``marks`` replace: as many as there is room for.
        """
        left, right, floor = self.left, self.width - self.right, self.height - self.bottom
        lines = Span(self.up.low / by, self.up.high / by)
        rows = levels or [(each * by, tick(each)) for each in lines.ticks(max(2, self.height // 45))]
        for value, text in rows:
            y = self.y(value)
            self._parts.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
            self._parts.append(f'<text class="end" x="{left - 6}" y="{y + 4:.1f}">{escape(text)}</text>')
        room = max(3, self.columns // 95)
        ticks = self.across.ticks(room)
        texts = [(each, f"{tick(each)} {unit if each == ticks[-1] else ''}".rstrip()) for each in ticks]
        for each, text in marks[:: -(-len(marks) // room)] if marks else texts:
            x = self.x(each)
            self._parts.append(f'<path class="grid" d="M{x:.1f} {self.top}V{floor}"/>')
            self._parts.append(f'<text class="mid" x="{x:.1f}" y="{floor + 16}">{escape(text)}</text>')
        self._parts.append(f'<path class="axis" d="M{left} {self.top}V{floor}H{right}"/>')

    def line(self, points: Iterable[Point], kind: str) -> None:
        """A curve, thinned to what can be seen."""
        for each in thinned(points, self.across, self.columns):
            path = "".join(f"{'M' if i == 0 else 'L'}{self.x(x):.1f} {self.y(y):.1f}" for i, (x, y) in enumerate(each))
            self._parts.append(f'<path class="line {kind}" d="{path}{"h.1" if len(each) == 1 else ""}"/>')

    def band(self, rows: Sequence[tuple[float, float, float]], kind: str) -> None:
        """An area between two curves: x, least, greatest."""
        if len(rows) > 1:
            there = "L".join(f"{self.x(x):.1f} {self.y(high):.1f}" for x, _, high in rows)
            back = "L".join(f"{self.x(x):.1f} {self.y(low):.1f}" for x, low, _ in reversed(rows))
            self._parts.append(f'<path class="band {kind}" d="M{there}L{back}Z"/>')

    def shade(self, pieces: Iterable[tuple[float, float]], kind: str, rows: tuple[float, float] | None = None) -> None:
        """Stretches of the x axis, one path for all; those thinner than a third of a pixel join their neighbours."""
        top, floor = rows or (self.top, self.height - self.bottom)
        path, reached = "", -1.0
        for start, end in pieces:
            x0, x1 = max(self.x(start), reached), self.x(end)
            if x1 - x0 >= 0.33:
                path += f"M{x0:.1f} {top:g}H{x1:.1f}V{floor:g}H{x0:.1f}Z"
                reached = x1
        if path:
            self._parts.append(f'<path class="{kind}" d="{path}"/>')

    def level(self, value: float) -> None:
        """A dashed line across."""
        self._parts.append(f'<path class="level" d="M{self.left} {self.y(value):.1f}H{self.width - self.right}"/>')

    def level_text(self, value: float, text: str) -> None:
        """What a dashed line stands for, readable above curves."""
        y = self.y(value)
        above = y - 5 if y - self.top > 16 else y + 14
        place = f'x="{self.left + 6}" y="{above:.1f}"'
        self._parts.append(f'<text class="halo" {place}>{escape(clean(text))}</text>')

    def dot(self, x: float, y: float, kind: str, text: str) -> None:
        """A mark that tells its value when pointed at."""
        place = f'cx="{self.x(x):.1f}" cy="{self.y(y):.1f}"'
        self._parts.append(f'<circle class="dot {kind}" {place} r="4"><title>{escape(clean(text))}</title></circle>')

    def whisker(self, x: float, low: float, high: float, kind: str) -> None:
        """An interval."""
        at = self.x(x)
        ends = f"M{at - 4:.1f} {self.y(low):.1f}h8M{at - 4:.1f} {self.y(high):.1f}h8"
        self._parts.append(f'<path class="line {kind}" d="{ends}M{at:.1f} {self.y(low):.1f}V{self.y(high):.1f}"/>')

    def label(self, x: float, y: float, text: str, kind: str = "") -> None:
        """Text at pixels."""
        self._parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(clean(text))}</text>')

    def svg(self) -> Markup:
        """The drawing."""
        return _wrapped(self.name, self.title, self.text, self.width, self.height, self._parts)


@dataclass(frozen=True)
class Bar:
    """One bar: its group's colour, length, and what is written after it."""

    kind: str
    value: float | None
    text: str


def bars(
    name: str, title: str, text: str, width: int, rows: Sequence[tuple[str, Sequence[Bar]]], room: int = 170
) -> Markup:
    """Horizontal bars from 0 in rows of groups; names stand left, or above where there is no room."""
    beside = 300 if width > 600 else 0
    largest = max((bar.value or 0.0 for _, group in rows for bar in group), default=0.0) or 1.0
    length = width - beside - room
    parts, y = [], 4.0
    for label, group in rows:
        fits = (beside or width) // 8
        cut = clean(label) if len(label) <= fits else clean(label)[: fits - 1] + "…"
        place = f'class="end" x="{beside - 8}"' if beside else 'x="0"'
        parts.append(f'<text {place} y="{y + 12:g}">{escape(cut)}<title>{escape(clean(label))}</title></text>')
        y += 0 if beside else 17
        for bar in group:
            if bar.value is not None:
                drawn = max(bar.value / largest * length, 0.7)
                parts.append(f'<path class="bar {bar.kind}" d="M{beside} {y:g}h{drawn:.1f}v15h-{drawn:.1f}Z"/>')
            at = beside + (bar.value or 0.0) / largest * length + 6
            parts.append(f'<text x="{at:.1f}" y="{y + 12:g}">{escape(clean(bar.text))}</text>')
            y += 18
        y += 7
    if beside:
        parts.append(f'<path class="axis" d="M{beside} 0V{y - 4:g}"/>')
    return _wrapped(name, title, text, width, int(y), parts)


def _wrapped(name: str, title: str, text: str, width: int, height: int, parts: Sequence[str]) -> Markup:
    head = (
        f'<svg role="img" aria-labelledby="{name}-t {name}-d" viewBox="0 0 {width} {height}">'
        f'<title id="{name}-t">{escape(clean(title))}</title><desc id="{name}-d">{escape(clean(text))}</desc>'
    )
    return Markup(f"{head}{''.join(parts)}</svg>")
