"""Privacy manifests of Apple's systems: what they declare, and what a binary shows that needs declaring."""

from __future__ import annotations

import plistlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from ..stores import AppStore, when
from .entries import Entry
from .findings import Finding, level_of

FILE = "PrivacyInfo.xcprivacy"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Declared:
    """A privacy manifest.

    Attributes:
        reasons: by category.
        findings: what is wrong in it.
    """

    reasons: Mapping[str, tuple[str, ...]]
    findings: tuple[Finding, ...] = ()


def read_privacy(data: bytes, place: str, rules: AppStore) -> Declared:
    """Read a privacy manifest; categories and reasons that the store does not know count as not declared."""
    try:
        said = plistlib.loads(data)
    except Exception as failure:  # damaged ones end in a dozen kinds of exception
        return Declared({}, (Finding("error", place, f"no property list ({failure or type(failure).__name__})"),))
    types = said.get("NSPrivacyAccessedAPITypes", []) if isinstance(said, dict) else None
    if not isinstance(types, list):
        return Declared({}, (Finding("error", place, "NSPrivacyAccessedAPITypes is no list (ITMS-91056)"),))
    known = {category.name: category.reasons for category in rules.category}
    reasons: dict[str, tuple[str, ...]] = {}
    findings = []
    for item in types:
        entry = item if isinstance(item, dict) else {}
        name, given = entry.get("NSPrivacyAccessedAPIType"), entry.get("NSPrivacyAccessedAPITypeReasons")
        listed = given if isinstance(given, list) else []
        if not isinstance(name, str) or name not in known:
            findings.append(
                Finding("error", place, f"{name!r} is no category of Apple's (ITMS-91055)", rules.privacy.source)
            )
            continue
        wrong = [reason for reason in listed if reason not in known[name]]
        if wrong or not listed:
            said_of = f"reason {wrong[0]!r} is none" if wrong else "no reason"
            findings.append(
                Finding("error", place, f"{name}: {said_of} (ITMS-91055)", f"one of {', '.join(known[name])}")
            )
        taken = tuple(reason for reason in listed if reason in known[name])
        if taken:
            reasons[name] = (*reasons.get(name, ()), *taken)
    return Declared(reasons, tuple(findings))


def shown_calls(entry: Entry, rules: AppStore) -> dict[str, str]:
    """Categories whose functions a binary names, each with the first of their names."""
    names = {symbol.encode(): category.name for category in rules.category for symbol in category.symbols}
    pattern = re.compile(rb"(?<=\0)(" + b"|".join(map(re.escape, names)) + rb")(?=\0)")
    overlap = max(map(len, names)) + 2
    found: dict[str, str] = {}
    rest = b""
    with entry.open() as file:
        while block := file.read(_BLOCK):
            data = rest + block
            for match in pattern.finditer(data):
                found.setdefault(names[match[1]], match[1].decode())
            rest = data[-overlap:]
    return found


def no_manifest(place: str, rules: AppStore, today: date, *, needed: bool) -> Finding:
    """That there is none, where something needs it or nothing is known to."""
    return Finding(level_of(rules.privacy, today) if needed else "warning", place, f"no {FILE}", rules.privacy.source)


def undeclared(
    needed: Mapping[str, str], declared: Mapping[str, tuple[str, ...]], place: str, rules: AppStore, today: date
) -> Iterator[Finding]:
    """What needs declaring and is not.

    Args:
        needed: by category, what shows it.
        declared: reasons by category.
        place: in what is said.
        rules: of the store.
        today: whether it refuses that already.
    """
    usual = {call.category: call.reason for call in rules.call}
    for category in rules.category:
        if category.name not in needed or category.name in declared:
            continue
        usually = usual.get(category.name)
        reasons = f"{usually} for what ExecuTorch does" if usually else " or ".join(category.reasons)
        yield Finding(
            level_of(rules.privacy, today),
            place,
            f"{needed[category.name]} needs a reason in {FILE}, and none is declared for {category.name}: "
            f"{when(rules.privacy, today)} the {rules.store} refuses it",
            f"{reasons} ({rules.privacy.source})",
        )
