"""The charts of a report. Each is drawn twice, for wide screens and paper, and for phones."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from ..schema import Case, Profile, Section, SensorFacts, Series, Stretch
from .svg import Drawing, Point, Span, span
from .words import emulated, finite, said, scale, section, short, tick, time_unit, why
from .words import known as has_values

WIDE, NARROW = 1000, 350
_DRAWN = 5  # curves of one quantity in colour; the others are grey
_GREY = 24
_SHARES = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
Draw = Callable[[int, str], Markup]


@dataclass(frozen=True)
class Key:
    """One entry of a legend."""

    kind: str
    text: str
    swatch: str = "stroke"


@dataclass(frozen=True)
class Missing:
    """What is not drawn, and why."""

    what: str
    code: str
    letter: str = ""

    @property
    def text(self) -> str:
        return said(self.code)


@dataclass(frozen=True)
class Chart:
    """A panel of the page: drawn, or saying why not."""

    title: str
    draw: Draw | None = None
    keys: tuple[Key, ...] = ()
    missing: tuple[Missing, ...] = ()
    note: str = ""
    half: bool = False
    emulated: bool = False

    def drawn(self, width: int, name: str) -> Markup:
        """The drawing for a width; ``name`` is unique on the page."""
        return self.draw(width, name) if self.draw else Markup("")


@dataclass(frozen=True)
class Named:
    """A profile with the letter that the page calls it."""

    letter: str
    index: int
    profile: Profile
    several: bool

    @property
    def kind(self) -> str:
        return f"c{self.index}"

    def of(self, text: str) -> str:
        """Text that says whose it is, where there are several."""
        return f"{self.letter}: {text}" if self.several else text

    def missing(self, what: str, code: str) -> Missing:
        """That this profile has none of it."""
        return Missing(what, code, self.letter if self.several else "")


@dataclass
class _Curves:
    """Curves of one panel while they are gathered."""

    lines: list[tuple[str, list[Point]]] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    levels: list[tuple[float, str]] = field(default_factory=list)

    def values(self) -> list[float]:
        return list(finite(y for _, points in self.lines for _, y in points))


def timeline(named: Sequence[Named]) -> list[Chart]:
    """Phases, token latency, clocks, temperature and power, on one time axis."""
    named, apart = comparable(named, "curve on this time axis")
    across = _time_axis(named)
    if across is None:
        return [Chart("Timeline", missing=(Missing("run or sensor with times", "not-reported"), *apart))]
    shaded = phases(named[0].profile, across) if len(named) == 1 else {}
    emulation = unreal(named)
    panels = [
        _track(named, across),
        _latency(named, across, shaded),
        *(_sensed(named, across, shaded, quantity) for quantity in ("frequency", "temperature", "power")),
    ]
    panels[0] = dataclasses.replace(panels[0], missing=(*panels[0].missing, *apart))
    return [dataclasses.replace(panel, emulated=emulation and panel.draw is not None) for panel in panels]


def comparable(named: Sequence[Named], what: str) -> tuple[Sequence[Named], tuple[Missing, ...]]:
    """Profiles whose clocks have one unit, and what is said of the others: a tick is no second."""
    unit = "s" if any(time_unit(it.profile) == "s" for it in named) else "ticks"
    kept = [it for it in named if time_unit(it.profile) == unit]
    return kept, tuple(it.missing(what, "emulated") for it in named if it not in kept)


def _time_axis(named: Sequence[Named]) -> Span | None:
    ends = [max(it.prefilled, *it.tokens[-1:]) for each in named for it in each.profile.stretches]
    ends += [series.seconds[-1] for each in named for series in each.profile.series if series.seconds]
    known = list(finite(ends))
    return Span(0.0, max(known) * 1.005) if known and max(known) > 0 else None


def phases(profile: Profile, across: Span) -> dict[str, list[tuple[float, float]]]:
    """Stretches of the time axis by phase."""
    found: dict[str, list[tuple[float, float]]] = {"idle": [], "prefill": [], "decode": []}
    reached = across.low
    for it in sorted(profile.stretches, key=lambda each: each.start):
        if it.start > reached:
            found["idle"].append((reached, it.start))
        end = it.tokens[-1] if it.tokens else it.prefilled
        found["prefill"].append((it.start, it.prefilled))
        found["decode"].append((it.prefilled, end))
        reached = max(reached, end)
    last = max((series.seconds[-1] for series in profile.series if series.seconds), default=reached)
    if last > reached:
        found["idle"].append((reached, last))
    return found


_PHASES = (
    Key("idle", "idle: rest, warm-up, cool-down", "fill"),
    Key("prefill", "prefill", "fill"),
    Key("decode", "decode", "fill"),
)


def _track(named: Sequence[Named], across: Span) -> Chart:
    without = tuple(each.missing("phases", "not-reported") for each in named if not each.profile.stretches)

    def draw(width: int, name: str) -> Markup:
        height = 18 * len(named) + 6
        text = "; ".join(f"{each.letter}: {len(each.profile.stretches)} counted runs" for each in named)
        drawing = Drawing(name, "Phases over time", text, (width, height), across, Span(0, 1))
        for row, each in enumerate(named):
            if each.several:
                drawing.label(drawing.left - 8, 18 * row + 14, each.letter, "end")
            for kind, pieces in phases(each.profile, across).items():
                drawing.shade(pieces, f"{kind} full", (18 * row + 3, 18 * row + 17))
        return drawing.svg()

    return Chart("Phases", draw, _PHASES, without)


def _latency(named: Sequence[Named], across: Span, shaded: dict[str, list[tuple[float, float]]]) -> Chart:
    curves, ticks = _Curves(), time_unit(named[0].profile)
    for each in named:
        points: list[Point] = []
        for it in each.profile.stretches:
            points += [*zip(it.tokens, it.latencies, strict=False), (it.prefilled, None)]
        if any(y is not None for _, y in points):
            curves.lines.append((each.kind, points))
            curves.keys.append(Key(each.kind, each.of("every decoded token")))
        else:
            code = why([case.latency for case in each.profile.cases], "not-reported")
            curves.missing.append(each.missing("token latency", code))
    up, note = _without_tail(curves.values(), ticks)
    return _curve_chart("Token latency", ticks, curves, across, up, shaded, note, ticks == "ticks")


def _without_tail(values: list[float], unit: str) -> tuple[Span, str]:
    """An axis from 0 that a few stragglers do not flatten, and a word about them."""
    if len(values) < 20:
        return span(values, zero=True), ""
    ordered = sorted(values)
    limit = 2.5 * ordered[int(len(ordered) * 0.99)]
    beyond = sum(value > limit for value in values)
    if not beyond:
        return span(values, zero=True), ""
    by = scale([ordered[-1]], unit)
    note = f"{beyond} of {len(values)} above the axis, up to {by(ordered[-1])} {by.unit}"
    return Span(0.0, limit), note


_SENSED = {"frequency": "Clocks", "temperature": "Temperature", "power": "Power"}


def _sensed(named: Sequence[Named], across: Span, shaded: dict[str, list[tuple[float, float]]], quantity: str) -> Chart:
    curves = _Curves()
    for each in named:
        found = list(_series(each.profile, quantity))
        if not found:
            curves.missing.append(each.missing(_SENSED[quantity].lower(), _why_unsensed(each.profile, quantity)))
        _add_sensors(curves, each, found)
    unit = {"frequency": "Hz", "temperature": "°C", "power": "W"}[quantity]
    values = curves.values()
    high = max(values, default=0.0)
    if values:
        curves.levels = [level for level in curves.levels if level[0] <= high * 1.25]
        values += [level[0] for level in curves.levels]
    up = span(values, zero=quantity != "temperature", room=0.08)
    return _curve_chart(_SENSED[quantity], unit, curves, across, up, shaded, "")


def _series(profile: Profile, quantity: str) -> Iterator[tuple[SensorFacts, Series]]:
    """Those that were read at all: the total first, then by their greatest value."""
    facts = {sensor.name: sensor for sensor in profile.sensors if sensor.quantity == quantity}
    known = [(facts[it.sensor], it) for it in profile.series if it.sensor in facts and has_values(it.values)]
    return iter(sorted(known, key=lambda pair: (not pair[0].total, -max(finite(pair[1].values)))))


def _add_sensors(curves: _Curves, each: Named, found: list[tuple[SensorFacts, Series]]) -> None:
    drawn = found[:1] if each.several else found[:_DRAWN]
    others = [] if each.several else found[_DRAWN:]
    for _, it in others[:_GREY]:
        curves.lines.append(("rest", list(zip(it.seconds, it.values, strict=False))))
    for index, (sensor, it) in enumerate(drawn):
        kind = each.kind if each.several else f"c{index}"
        curves.lines.append((kind, list(zip(it.seconds, it.values, strict=False))))
        more = ", total" if sensor.total else ""
        curves.keys.append(Key(kind, each.of(f"{short(sensor.name, 40)} ({sensor.scope}{more})")))
    if others:
        curves.keys.append(Key("rest", f"{len(others)} others"))
    if each.several and len(found) > 1:
        kind = "total or greatest" if found[0][0].quantity == "power" else "greatest"
        curves.keys[-1] = Key(each.kind, f"{curves.keys[-1].text}, {kind} of {len(found)}")
    limits = {sensor.limit for sensor, _ in drawn if sensor.limit is not None}
    if len(limits) == 1 and drawn[0][0].limit is not None:
        by = scale(limits, drawn[0][0].unit)
        limit = drawn[0][0].limit
        same = [i for i, (value, _) in enumerate(curves.levels) if value == limit]
        if same:
            curves.levels[same[0]] = (limit, curves.levels[same[0]][1].replace(":", f", {each.letter}:", 1))
        else:
            curves.levels.append((limit, each.of(f"limit {tick(limit / by.by)} {by.unit}")))


def _why_unsensed(profile: Profile, quantity: str) -> str:
    if quantity == "frequency":
        return why([profile.sampler], "no-sensor")
    name = "energy" if quantity == "power" else "temperature"
    return why([section(case, name) for case in profile.cases], "no-sensor")


def _curve_chart(
    title: str,
    unit: str,
    curves: _Curves,
    across: Span,
    up: Span,
    shaded: dict[str, list[tuple[float, float]]],
    note: str,
    ticks: bool = False,
) -> Chart:
    by, axis = scale([up.high], unit), "ticks" if ticks else "s"

    def draw(width: int, name: str) -> Markup:
        values = curves.values()
        middle = statistics.median(values)
        figures = f"least {by(min(values))}, median {by(middle)}, greatest {by(max(values))} {by.unit}"
        text = f"{len(curves.lines)} curves over time ({axis}): {figures}"
        drawing = Drawing(name, title, text, (width, 190), across, up)
        for kind, pieces in shaded.items():
            drawing.shade(pieces, kind)
        drawing.axes(by.by, unit=axis)
        for value, _ in curves.levels:
            drawing.level(value)
        for kind, points in curves.lines:
            drawing.line(points, kind)
        for value, words in curves.levels:
            drawing.level_text(value, words)
        return drawing.svg()

    missing = tuple(curves.missing)
    return Chart(f"{title}, {by.unit}", draw if curves.lines else None, tuple(curves.keys), missing, note)


def positions(named: Sequence[Named], key: tuple[int, int, int | None], title: str) -> Chart:
    """Token latency by position in the answer: median and range of the repeats."""
    named, apart = comparable([it for it, _, _ in _runs(named, key)], "token latency in seconds")
    curves: list[tuple[Named, list[tuple[float, float, float, float]]]] = []
    missing = [*apart]
    for each, case, runs in _runs(named, key):
        rows = [
            (float(i + 1), min(column), statistics.median(column), max(column))
            for i, column in enumerate(_columns(runs))
        ]
        if rows:
            curves.append((each, rows))
        else:
            missing.append(each.missing("token latency", why([case.latency], "not-reported")))
    unit, values = time_unit(named[0].profile), [row[3] for _, rows in curves for row in rows]
    up, note = _without_tail(values, unit)
    by = scale([up.high], unit)

    def draw(width: int, name: str) -> Markup:
        across = Span(0, max(row[0] for _, rows in curves for row in rows))
        text = "; ".join(
            f"{each.letter}: median {by(rows[0][2])} {by.unit} at first, {by(rows[-1][2])} at last"
            for each, rows in curves
        )
        drawing = Drawing(name, title, text, (width, 230), across, up)
        drawing.axes(by.by)
        for each, rows in curves:
            drawing.band(_fewer([(x, low, high) for x, low, _, high in rows], drawing.columns), each.kind)
        for each, rows in curves:
            drawing.line([(x, middle) for x, _, middle, _ in rows], each.kind)
        return drawing.svg()

    keys = tuple(Key(each.kind, each.of("median; band: least to greatest of the repeats")) for each, _ in curves)
    return Chart(f"{title}, {by.unit}", draw if curves else None, keys, tuple(missing), note, half=True,
                 emulated=unreal(named))  # fmt: skip


def _fewer(rows: list[tuple[float, float, float]], most: int) -> list[tuple[float, float, float]]:
    """Rows of a band, joined until they are few enough."""
    size = -(-len(rows) // most)
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [(part[0][0], min(low for _, low, _ in part), max(high for _, _, high in part)) for part in parts]


def _columns(runs: list[Stretch]) -> list[tuple[float, ...]]:
    length = min((len(run.latencies) for run in runs), default=0)
    return [tuple(finite(run.latencies[i] for run in runs)) or (0.0,) for i in range(length)]


def _runs(
    named: Sequence[Named], key: tuple[int, int, int | None], kind: str = "repeat"
) -> Iterator[tuple[Named, Case, list[Stretch]]]:
    for each in named:
        for index, case in enumerate(each.profile.cases):
            if (case.prompt_tokens, case.new_tokens, case.threads) == key:
                yield each, case, [it for it in each.profile.stretches if it.case == index and it.kind == kind]


def unreal(named: Sequence[Named]) -> bool:
    """Whether any of them has an emulator's time."""
    return any(emulated(each.profile) for each in named)


def distribution(named: Sequence[Named], key: tuple[int, int, int | None], title: str) -> Chart:
    """Shares of tokens below a latency, with the percentiles of the summary marked."""
    named, apart = comparable([it for it, _, _ in _runs(named, key)], "token latency in seconds")
    unit, curves, missing = time_unit(named[0].profile), list(_sorted_runs(named, key)), [*apart]
    marks = [mark for each, case, _ in _runs(named, key) for mark in _marks(each, case)]
    for each, case, _ in _runs(named, key):
        if not any(it is each for it, _, _ in curves):
            missing.append(each.missing("token latency", why([case.latency], "not-reported")))
    across, note = _without_tail([value for _, _, values in curves for value in values], unit)
    if curves:
        least = min(values[0] for _, _, values in curves)
        across = Span(least - (across.high - least) * 0.05, across.high)
    by = scale([across.high], unit)
    keys = [*(_distribution_key(*curve[:2], key, unit) for curve in curves), Key("", _DOTS, "")] if curves else []

    def draw(width: int, name: str) -> Markup:
        shown = Span(across.low / by.by, across.high / by.by)
        drawing = Drawing(name, title, "; ".join(it.text for it in keys), (width, 230), shown, Span(0, 1))
        drawing.axes(levels=[(share, f"{share * 100:g} %") for share in (0, 0.25, 0.5, 0.75, 0.9, 0.99)], unit=by.unit)
        for each, kind, values in curves:
            drawing.line(
                _steps([value / by.by for value in values if value <= across.high], len(values)),
                each.kind if kind == "repeat" else f"{each.kind} dashed",
            )
        for each, value, share, words in marks:
            if value <= across.high:
                drawing.dot(value / by.by, share, each.kind, words)
        return drawing.svg()

    return Chart(f"{title}, {by.unit}", draw if curves else None, tuple(keys), tuple(missing), note, half=True,
                 emulated=unreal(named))  # fmt: skip


_DOTS = "dots: p50, p90, p99, medians over the repeats"


def _sorted_runs(named: Sequence[Named], key: tuple[int, int, int | None]) -> Iterator[tuple[Named, str, list[float]]]:
    for kind in ("repeat", "sustained"):
        for each, _, runs in _runs(named, key, kind):
            values = sorted(finite(value for run in runs for value in run.latencies))
            if values:
                yield each, kind, values


def _distribution_key(each: Named, kind: str, key: tuple[int, int, int | None], unit: str) -> Key:
    if kind == "sustained":
        return Key(f"{each.kind} dashed", each.of("sustained, without rest"))
    case = next(case for it, case, _ in _runs([each], key))
    return Key(each.kind, each.of(_percentiles(case, unit)))


def _steps(values: list[float], count: int) -> list[Point]:
    points: list[Point] = []
    for index, value in enumerate(values):
        points += [(value, index / count), (value, (index + 1) / count)]
    return points


def _marks(each: Named, case: Case) -> Iterator[tuple[Named, float, float, str]]:
    for share, name in _SHARES:
        value = case.latency.values.get(f"token_{name}")
        if value is not None and value.value is not None:
            by = scale([value.value], value.unit)
            yield each, value.value, share, each.of(f"{name} {by(value.value)} {by.unit}")


def _percentiles(case: Case, unit: str) -> str:
    known = [(name, case.latency.values.get(f"token_{name}")) for _, name in _SHARES]
    by = scale([value.value for _, value in known if value], unit)
    return ", ".join(f"{name} {by(it.value)}" for name, it in known if it and it.value is not None) + f" {by.unit}"


def unread(profile: Profile) -> list[str]:
    """Sensors that were there, and said nothing at all."""
    return [it.sensor for it in profile.series if not has_values(it.values)]


def sections(profile: Profile) -> list[tuple[str, Section]]:
    """Every section of a profile with its name."""
    found = [(name, section(profile, name)) for name in ("load", "memory", "idle", "sampler")]
    for case in profile.cases:
        found += [(f"{case.title}: {name}", section(case, name)) for name in ("latency", "energy", "temperature")]
    return found
