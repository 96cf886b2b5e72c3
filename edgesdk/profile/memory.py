"""Memory as the kernel accounts it: what of the runner is its own, and what are pages of the model's file."""

from __future__ import annotations

import re

from .reasons import REASONS
from .record import Line
from .schema import Reason, Section, Value

_FIELDS = {
    "peak_rss": ("after_run", "VmHWM"),
    "pss": ("after_run", "Pss"),
    "anonymous": ("after_run", "Pss_Anon"),
    "file": ("after_run", "Pss_File"),
    "after_load": ("after_load", "VmRSS"),
}


def memory_section(line: Line | None, hello: Line, *, asked: bool) -> Section:
    """Bytes of the runner at its peak and after a run; of a microcontroller the arena that it was built with.

    ``peak_rss`` counts pages that are shared or come back from the file; ``pss`` is each process's honest part of them
    (Linux, Documentation/filesystems/proc.rst).

    Args:
        line: of the record; None where memory was not measured.
        hello: of the runner.
        asked: whether the plan wants it.
    """
    if "ram" in hello:
        return _microcontroller(line, hello)
    if line is None:
        code = "cut-short" if asked else "not-asked"
        return Section("invalid", (Reason(code, REASONS[code]),), {n: Value(None, "B", code) for n in _FIELDS})
    looks = {name: _fields(text or "") for name, text in line["looks"].items()}
    values = {name: _value(looks[look].get(field)) for name, (look, field) in _FIELDS.items()}
    peak = line["done"].get("peak_rss_kb")
    if values["peak_rss"].value is None and isinstance(peak, int) and peak > 0:
        values["peak_rss"] = _value(1024.0 * peak)
    if values["peak_rss"].value is None:
        return Section("invalid", (Reason("not-reported", REASONS["not-reported"]),), values)
    return Section("valid", (), values)


def _microcontroller(line: Line | None, hello: Line) -> Section:
    stack = (line or {}).get("done", {}).get("stack")
    values = {"arena": _value(hello.get("ram")), "stack": _value(stack)}
    return Section("valid", (), values)


def _fields(text: str) -> dict[str, float]:
    """Bytes by name, of the lines ``Name:  123 kB`` of /proc/PID/status and smaps_rollup."""
    return {name: 1024.0 * float(kilo) for name, kilo in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def _value(found: float | None) -> Value:
    return Value(None, "B", "not-reported") if found is None else Value(float(found), "B", each=(float(found),))
