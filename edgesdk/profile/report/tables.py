"""The tables of a report: figures side by side, what differs, what was measured on what, and what is to be doubted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..schema import Case, Profile, Section, Value
from .charts import Named, sections, unread
from .words import (
    CASE_SECTIONS,
    DASH,
    RUN_SECTIONS,
    Scale,
    digest,
    emulated,
    interval,
    metric,
    number,
    of_time,
    said,
    scale,
    section,
    tick,
)

CaseKey = tuple[int, int, int | None]


@dataclass(frozen=True)
class Cell:
    """One figure: as text, its interval, and the code of why there is none."""

    text: str
    interval: str = ""
    code: str = ""


@dataclass(frozen=True)
class Row:
    """One value of every column, and what it is of the first column's."""

    label: str
    unit: str
    cells: tuple[Cell, ...]
    ratios: tuple[Cell, ...] = ()


@dataclass(frozen=True)
class Group:
    """The values of one section; ``validity`` is of every column, ``emulated`` whether its times are an emulator's."""

    title: str
    validity: tuple[str, ...]
    rows: tuple[Row, ...]
    emulated: tuple[bool, ...]


@dataclass(frozen=True)
class Table:
    """A summary."""

    title: str
    columns: tuple[tuple[str, str], ...]
    ratios: tuple[str, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Note:
    """A reason, of what, and whose."""

    letter: str
    where: str
    code: str
    text: str
    more: str = ""


_Column = tuple[str, str, Profile, Case | Profile | None]


def summaries(named: Sequence[Named]) -> list[Table]:
    """One profile: cases side by side. Several: one table for each case, with ratios to the first."""
    several = len(named) > 1
    if not several:
        profile = named[0].profile
        single: list[_Column] = [(case.title, "", profile, case) for case in profile.cases]
        tables = [_table("Cases", single, CASE_SECTIONS, False)] if single else []
        return [*tables, _table("Run", [("whole run", "", profile, profile)], RUN_SECTIONS, False)]
    tables = []
    cases: list[_Column]
    for key in case_keys(named):
        cases = [(it.letter, it.kind, it.profile, find_case(it.profile, key)) for it in named]
        columns = [column for column in cases if column[3] is not None]
        title = next(column[3].title for column in columns if isinstance(column[3], Case))
        tables.append(_table(title, columns, CASE_SECTIONS, True))
    runs: list[_Column] = [(it.letter, it.kind, it.profile, it.profile) for it in named]
    return [*tables, _table("Run", runs, RUN_SECTIONS, True)]


def case_keys(named: Sequence[Named]) -> list[CaseKey]:
    """Every case that any profile has, once."""
    return list(dict.fromkeys((c.prompt_tokens, c.new_tokens, c.threads) for it in named for c in it.profile.cases))


def find_case(profile: Profile, key: CaseKey) -> Case | None:
    """A profile's case of that plan."""
    return next((c for c in profile.cases if (c.prompt_tokens, c.new_tokens, c.threads) == key), None)


def _table(title: str, columns: list[_Column], names: Sequence[str], ratios: bool) -> Table:
    heads = tuple((label, kind) for label, kind, _, _ in columns)
    against = tuple(f"{label} / {heads[0][0]}" for label, _ in heads[1:]) if ratios else ()
    groups = [_group(name, columns, ratios) for name in names]
    return Table(title, heads, against, tuple(group for group in groups if group.rows))


def _group(name: str, columns: list[_Column], ratios: bool) -> Group:
    found = [None if where is None else section(where, name) for _, _, _, where in columns]
    unreal = [emulated(profile) is not None for _, _, profile, _ in columns]
    keys = dict.fromkeys(key for it in found if it for key in it.values)
    rows = [row for key in keys for row in _rows(key, [it.values.get(key) if it else None for it in found], unreal,
                                                  ratios)]  # fmt: skip
    validity = tuple(it.validity if it else "" for it in found)
    timed = [
        it is not None and any(v.value is not None and of_time(v.unit) for v in it.values.values()) for it in found
    ]
    return Group(name, validity, tuple(rows), tuple(a and b for a, b in zip(timed, unreal, strict=True)))


def _rows(key: str, values: list[Value | None], unreal: list[bool], ratios: bool) -> list[Row]:
    """One row; one for each unit where they differ, for a tick is no second."""
    units = dict.fromkeys(value.unit for value in values if value is not None)
    with_value = dict.fromkeys(value.unit for value in values if value is not None and value.value is not None)
    rows = []
    for unit in with_value or list(units)[:1]:
        of_unit = [None if v is None or (v.unit != unit and v.value is not None) else v for v in values]
        by = scale([value.value for value in of_unit if value], unit)
        cells = tuple(_cell(value, by) for value in of_unit)
        against = tuple(_ratio(of_unit, index, unreal) for index in range(1, len(values))) if ratios else ()
        rows.append(Row(metric(key), by.unit, cells, against))
    return rows


def _cell(value: Value | None, by: Scale) -> Cell:
    if value is None:
        return Cell(DASH)
    if value.value is None:
        return Cell(DASH, code=value.reason or "not-reported")
    return Cell(by(value.value), interval(value, by))


def _ratio(values: list[Value | None], index: int, unreal: list[bool]) -> Cell:
    first, other = values[0], values[index]
    if first is None or other is None or first.value is None or other.value is None:
        return Cell(DASH)
    if first.unit != other.unit or (of_time(first.unit) and unreal[0] != unreal[index]):
        return Cell(DASH, code="emulated")
    if first.unit == "°C":
        difference = other.value - first.value
        text = f"{'+' if difference >= 0 else ''}{number(difference)} °C"
    elif first.value == 0:
        return Cell(DASH)
    else:
        text = f"\u00d7 {_three(other.value / first.value)}"
    return Cell(text, "intervals overlap" if _overlap(first, other) else "")


def _three(ratio: float) -> str:
    """Three significant digits."""
    ratio = float(f"{ratio:.3g}")
    return f"{ratio:.{max(0, min(6, 2 - math.floor(math.log10(abs(ratio)))))}f}" if ratio else "0"


def _overlap(a: Value, b: Value) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.low <= b.high and b.low <= a.high


Facts = list[tuple[str, list[str], bool]]


def _facts(named: Sequence[Named], rows: Sequence[tuple[str, Callable[[Profile], str]]]) -> Facts:
    """Rows of facts: label, what every profile says, whether they differ; those that none says are left out."""
    found = [(label, [read(it.profile) or DASH for it in named]) for label, read in rows]
    return [(label, texts, len(set(texts)) > 1) for label, texts in found if set(texts) != {DASH}]


def differences(named: Sequence[Named]) -> Facts:
    """What makes profiles unlike, so that a ratio is of more than one cause."""
    rows: list[tuple[str, Callable[[Profile], str]]] = [
        ("bundle", lambda p: f"{p.bundle.model}, {p.bundle.recipe}, {digest(p.bundle.digest)}"),
        ("device", lambda p: f"{p.device.model or p.device.name} ({p.device.identity})"),
        ("emulated", lambda p: emulated(p) or "no"),
        ("runtime", lambda p: p.runtime),
        ("regime", _regime),
        ("energy scope", lambda p: p.energy_scope or "none"),
        ("sustained", lambda p: _or(p.plan.sustained, "s") or "none"),
    ]
    return [row for row in _facts(named, rows) if row[2]]


def _regime(profile: Profile) -> str:
    return "; ".join(f"{key}: {value}" for key, value in sorted(profile.regime.items())) or "not recorded"


def identity(named: Sequence[Named]) -> Facts:
    """The head of the page."""
    return _facts(
        named,
        [
            ("Model", lambda p: p.bundle.model),
            ("Recipe, target", lambda p: f"{p.bundle.recipe}, {p.bundle.target}"),
            ("Bundle", lambda p: digest(p.bundle.digest)),
            ("Device", lambda p: p.device.model or p.device.name),
            ("Runtime", lambda p: p.runtime),
            ("Measured", lambda p: p.started),
            ("Commit", lambda p: p.commit or ""),
        ],
    )


def environment(named: Sequence[Named]) -> list[tuple[str, Facts]]:
    """Device, bundle, regime, clock and plan."""
    regime = sorted({key for it in named for key in it.profile.regime})
    return [
        ("Device", _facts(named, _DEVICE)),
        ("Bundle", _facts(named, _BUNDLE)),
        ("Regime", _facts(named, [(key, lambda p, key=key: p.regime.get(key, "")) for key in regime])),  # type: ignore[misc]
        ("Clock and software", _facts(named, _SOFTWARE)),
        ("Plan", _facts(named, _PLAN)),
    ]


def _or(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    by = scale([value], unit)
    return f"{tick(value / by.by)} {by.unit}"


def _threads(profile: Profile) -> str:
    return ", ".join("runtime's choice" if it is None else str(it) for it in profile.plan.threads)


_DEVICE: list[tuple[str, Callable[[Profile], str]]] = [
    ("name", lambda p: p.device.name),
    ("identity", lambda p: p.device.identity),
    ("model", lambda p: p.device.model or ""),
    ("system", lambda p: " ".join(filter(None, (p.device.os, p.device.release)))),
    ("architecture", lambda p: p.device.architecture or ""),
    ("RAM", lambda p: _or(p.device.ram, "B")),
    ("cores", lambda p: str(p.device.cores or "")),
    ("emulated", lambda p: emulated(p) or "no sign of it"),
]
_BUNDLE: list[tuple[str, Callable[[Profile], str]]] = [
    ("digest", lambda p: p.bundle.digest),
    ("target", lambda p: p.bundle.target),
    ("converter", lambda p: p.bundle.converter),
    ("recipe", lambda p: p.bundle.recipe),
    ("size", lambda p: _or(p.bundle.bytes, "B")),
    ("compression of weights", lambda p: f"{number(p.bundle.compression)} : 1" if p.bundle.compression else ""),
    ("perplexity at export", lambda p: "" if p.bundle.perplexity is None else number(p.bundle.perplexity)),
]
_SOFTWARE: list[tuple[str, Callable[[Profile], str]]] = [
    ("runner", lambda p: p.runner),
    ("runtime", lambda p: p.runtime),
    ("edgesdk", lambda p: p.edgesdk),
    ("runner's clock", lambda p: p.clock.runner),
    ("sampler's clock", lambda p: p.clock.sampler or ""),
    ("uncertainty between them", lambda p: f"± {_or(p.clock.uncertainty, 's')}" if p.clock.uncertainty else ""),
    ("energy scope", lambda p: p.energy_scope or "none"),
    ("throttling", lambda p: p.throttling.verdict),
]
_PLAN: list[tuple[str, Callable[[Profile], str]]] = [
    ("prompt tokens", lambda p: ", ".join(map(str, p.plan.prompt_tokens))),
    ("new tokens", lambda p: str(p.plan.new_tokens)),
    ("threads", _threads),
    ("repeats, warm-ups", lambda p: f"{p.plan.repeats}, {p.plan.warmup}"),
    ("cool-down to", lambda p: f"{_or(p.plan.cooldown_to, '°C')}, at most {tick(p.plan.cooldown_limit)} s"
     if p.plan.cooldown_to is not None else "none"),
    ("idle baseline", lambda p: _or(p.plan.idle, "s")),
    ("sustained", lambda p: _or(p.plan.sustained, "s") or "none"),
    ("sampling interval", lambda p: _or(p.plan.interval, "s")),
    ("own run for memory", lambda p: "yes" if p.plan.memory else "no"),
    ("own run for operators", lambda p: "yes" if p.plan.operators else "no"),
    ("pairs for the sampler's cost", lambda p: str(p.plan.cost)),
    ("seed", lambda p: str(p.plan.seed)),
]  # fmt: skip


def notes(named: Sequence[Named]) -> list[Note]:
    """Reasons of the profile and its sections, evidence of throttling, and what has no value."""
    found = []
    for it in named:
        profile = it.profile
        found += [Note(it.letter, "profile", reason.code, reason.text) for reason in profile.reasons]
        for where, part in sections(profile):
            found += _section_notes(it.letter, where, part)
        for case in profile.cases:
            if case.throttling.verdict != "none":
                evidence = "; ".join(case.throttling.evidence) or "no evidence recorded"
                found.append(Note(it.letter, case.title, f"throttling: {case.throttling.verdict}", evidence))
        silent = unread(profile)
        if silent:
            found.append(Note(it.letter, "sensors", "sensor-lost", "no value at all", ", ".join(silent)))
    return found


def _section_notes(letter: str, where: str, part: Section) -> list[Note]:
    """One note for a code: what it says, and the values that it leaves out."""
    without: dict[str, list[str]] = {}
    for name, value in part.values.items():
        if value.value is None:
            without.setdefault(value.reason or "not-reported", []).append(metric(name))
    texts = {code: said(code) for code in without} | {reason.code: reason.text for reason in part.reasons}
    return [Note(letter, where, code, text, "no value: " + ", ".join(without[code]) if code in without else "")
            for code, text in texts.items()]  # fmt: skip
