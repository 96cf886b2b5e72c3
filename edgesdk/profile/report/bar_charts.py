"""The bars of a report: memory, and time by kind of operator."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from ..schema import Operator, Value
from .charts import Chart, Key, Named, comparable, unreal
from .svg import Bar, bars
from .words import metric, number, scale, short, why

_OPERATORS = 12


def memory(named: Sequence[Named]) -> Chart:
    """Bars of memory."""
    names = list(dict.fromkeys(name for each in named for name in each.profile.memory.values))
    known = [_memory(each, name) for each in named for name in names]
    by = scale([value.value for value in known if value], "B")
    missing = []
    for each in named:
        if not any(value.value is not None for value in each.profile.memory.values.values()):
            default = "not-reported" if each.profile.plan.memory else "not-asked"
            missing.append(each.missing("memory", why([each.profile.memory], default)))

    def draw(width: int, name: str) -> Markup:
        rows = [(metric(it), [_memory_bar(each, it, by.by, by.unit) for each in named]) for it in names]
        text = "; ".join(f"{label}: {', '.join(bar.text for bar in group)}" for label, group in rows)
        return bars(name, "Memory", text, width, rows)

    drawn = any(value is not None and value.value is not None for value in known)
    return Chart("Memory of the runner", draw if drawn else None, _letters(named), tuple(missing))


def _memory(each: Named, name: str) -> Value | None:
    return each.profile.memory.values.get(name)


def _memory_bar(each: Named, name: str, by: float, unit: str) -> Bar:
    value = _memory(each, name)
    if value is None or value.value is None:
        return Bar(each.kind, None, each.of(f"— {value.reason if value else 'not-reported'}"))
    return Bar(each.kind, value.value, f"{number(value.value / by)} {unit}")


def _letters(named: Sequence[Named]) -> tuple[Key, ...]:
    if len(named) == 1:
        return ()
    return tuple(Key(it.kind, f"{it.letter}: {short(it.profile.bundle.model, 60)}", "fill") for it in named)


def operators(named: Sequence[Named], phase: str) -> Chart:
    """Bars of time by kind of operator."""
    title = f"{phase.capitalize()}: time of {'one prompt' if phase == 'prefill' else 'one decoded token'}"
    named, apart = comparable(named, f"operators of {phase} in seconds")
    tables = [{it.name: it for it in each.profile.operators if it.phase == phase} for each in named]
    missing = [
        each.missing(f"operators of {phase}", "not-reported" if each.profile.plan.operators else "not-asked")
        for each, table in zip(named, tables, strict=True)
        if not table
    ]
    names = sorted({name for table in tables for name in table}, key=lambda name: -_most(tables, name))
    shown, others = names[:_OPERATORS], names[_OPERATORS:]

    def draw(width: int, name: str) -> Markup:
        rows = [(it, [_operator_bar(each, table, [it]) for each, table in zip(named, tables, strict=True)])
                for it in shown]  # fmt: skip
        if others:
            both = zip(named, tables, strict=True)
            rows.append((f"{len(others)} others", [_operator_bar(each, table, others) for each, table in both]))
        text = "; ".join(f"{label}: {', '.join(bar.text for bar in group)}" for label, group in rows[:6])
        return bars(name, title, text, width, rows)

    return Chart(title, draw if names else None, _letters(named), (*missing, *apart), emulated=unreal(named))


def _most(tables: list[dict[str, Operator]], name: str) -> float:
    return max(table[name].seconds for table in tables if name in table)


def _operator_bar(each: Named, table: dict[str, Operator], names: list[str]) -> Bar:
    found = [table[name] for name in names if name in table]
    if not found:
        return Bar(each.kind, None, each.of("—"))
    value, total = sum(it.seconds for it in found), sum(it.seconds for it in table.values())
    by = scale([value], found[0].unit)
    share = f" · {value / total:.1%}".replace("%", " %") if total > 0 else ""
    return Bar(each.kind, value, f"{by(value)} {by.unit}{share}")
