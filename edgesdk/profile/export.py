"""Profiles as CSV for programs, and as Markdown for people."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence

from .report.words import (
    CASE_SECTIONS,
    DASH,
    RUN_SECTIONS,
    clean,
    digest,
    emulated,
    interval,
    metric,
    said,
    scale,
    section,
)
from .schema import Case, Profile, Section, Value

#: Columns of :func:`to_csv`. ``repeat`` counts from 1 and is empty where there is one value for all; ``emulated`` is
#: 1 where time is an emulator's.
COLUMNS = (
    "started", "bundle", "model", "recipe", "device", "runtime", "commit", "emulated", "section", "prompt_tokens",
    "new_tokens", "threads", "metric", "repeat", "value", "unit", "outlier", "validity", "reason",
)  # fmt: skip
_ACTS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet takes what begins so for a formula


def to_csv(*profiles: Profile) -> str:
    """One row for every repeat of every value of every case, in the units of the profile; null has an empty value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for profile in profiles:
        writer.writerows(_csv_rows(profile))
    return text.getvalue()


def to_markdown(profile: Profile) -> str:
    """Summary tables and notes on validity."""
    bundle, device = profile.bundle, profile.device
    lines = [f"# {_inline(bundle.model)} on {_inline(device.model or device.name)}", ""]
    what = emulated(profile)
    if what:
        lines += [f"**EMULATED TIME: {_inline(what)}. No time below is a device's.**", ""]
    rows = [
        ("Validity", profile.validity),
        ("Throttling", profile.throttling.verdict),
        ("Bundle", f"{digest(bundle.digest)} ({bundle.recipe}, {bundle.target})"),
        ("Runtime", profile.runtime),
        ("Regime", "; ".join(f"{key}: {value}" for key, value in sorted(profile.regime.items())) or "not recorded"),
        ("Energy scope", profile.energy_scope or "none"),
        ("Measured", profile.started),
        ("Commit", profile.commit or DASH),
    ]
    lines += _table(("", ""), [(name, _inline(value)) for name, value in rows])
    for case in profile.cases:
        lines += [f"## {_inline(case.title)}", "", *_sections(case, CASE_SECTIONS)]
    lines += ["## Run", "", *_sections(profile, RUN_SECTIONS)]
    return "\n".join([*lines, *_notes(profile)]).rstrip() + "\n"


def _csv_rows(profile: Profile) -> Iterator[tuple[object, ...]]:
    bundle, device = profile.bundle, profile.device
    texts = (profile.started, bundle.digest, bundle.model, bundle.recipe, device.name, profile.runtime)
    head = (*map(_cell, texts), _cell(profile.commit or ""), 1 if emulated(profile) else 0)
    for name in RUN_SECTIONS:
        yield from _section_rows((*head, name, "", "", ""), section(profile, name))
    for case in profile.cases:
        plan = (case.prompt_tokens, case.new_tokens, "" if case.threads is None else case.threads)
        for name in CASE_SECTIONS:
            yield from _section_rows((*head, name, *plan), section(case, name))


def _section_rows(head: tuple[object, ...], part: Section) -> Iterator[tuple[object, ...]]:
    for name, value in part.values.items():
        unit, end = _cell(value.unit), (part.validity, _cell(value.reason or ""))
        if value.value is None or not value.each:
            yield (*head, _cell(name), "", "" if value.value is None else repr(value.value), unit, "", *end)
            continue
        for index, each in enumerate(value.each):
            yield (*head, _cell(name), index + 1, repr(each), unit, int(index in value.outliers), *end)


def _cell(text: str) -> str:
    """Text that no spreadsheet runs."""
    text = clean(text)
    return f"'{text}" if text.startswith(_ACTS) else text


def _inline(text: str) -> str:
    """Text that is no Markdown and no HTML, whatever it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#~!&])", r"\\\1", clean(text))


def _code(text: str) -> str:
    """A code as code, with nothing in it that ends a code or a cell."""
    return f"`{re.sub(r'[^a-zA-Z0-9.: -]', '_', text)}`"


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join(['---'] * len(heads))}|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _sections(where: Case | Profile, names: tuple[str, ...]) -> list[str]:
    rows = []
    for name in names:
        part = section(where, name)
        mark = "" if part.validity == "valid" else f" ({part.validity})"
        rows += [(f"{name}{mark}", *_row(key, value)) for key, value in part.values.items()]
    return _table(("Section", "Value", "Median", "95 % interval", "Unit"), rows)


def _row(name: str, value: Value) -> tuple[str, str, str, str]:
    by = scale([value.value], value.unit)
    if value.value is None:
        return _inline(metric(name)), f"{DASH} {_code(value.reason or 'not-reported')}", "", by.unit
    return _inline(metric(name)), by(value.value), interval(value, by), _inline(by.unit)


def _notes(profile: Profile) -> list[str]:
    parts = [("profile", profile.reasons)]
    parts += [(name, section(profile, name).reasons) for name in RUN_SECTIONS]
    parts += [(f"{case.title}, {name}", section(case, name).reasons) for case in profile.cases
              for name in CASE_SECTIONS]  # fmt: skip
    lines = [f"- {_inline(where)}: {_code(reason.code)} {_inline(reason.text or said(reason.code))}"
             for where, reasons in parts for reason in reasons]  # fmt: skip
    for case in profile.cases:
        if case.throttling.verdict != "none":
            evidence = "; ".join(case.throttling.evidence) or "no evidence recorded"
            lines.append(f"- {_inline(case.title)}: throttling {case.throttling.verdict}: {_inline(evidence)}")
    return ["## Validity", "", *(lines or ["No section is in doubt."])]
