"""Rules of app stores, as data in ``targets/<name>/stores.toml``: each with its source and the day since when it holds.

They are read with a day in mind, which callers pass: what holds then, what comes later, and how old the table is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Protocol, TypeVar

from .documents import read_toml
from .errors import TargetError
from .schema import load
from .targets import STORES, Delivery, targets_dir

ANDROID, IOS = "android-arm64", "ios-arm64"
_OLD = 183  # days after which a table should be looked at again; stores change their rules about twice a year


@dataclass(frozen=True)
class Rule:
    """Something that a store refuses, or asks for, by itself.

    Attributes:
        source: where that is written.
        since: the day from which on; None: always.
    """

    source: str
    since: date | None = None


@dataclass(frozen=True)
class Total:
    """The largest sum of sizes that is taken, 10^6 bytes; ``of`` says what is added up."""

    of: str
    max_mb: int
    source: str


@dataclass(frozen=True)
class Size:
    """A size from which on something happens, 10^6 bytes."""

    max_mb: int
    source: str


@dataclass(frozen=True)
class Build:
    """What an Android project is written with.

    Attributes:
        compile_sdk: API level.
        plugin: the oldest Android Gradle plugin that knows it.
        source: where that is written.
    """

    compile_sdk: int
    plugin: str
    source: str


@dataclass(frozen=True)
class Form:
    """A kind of Android device.

    Attributes:
        name: in :class:`TargetSdk`.
        title: for people.
        features: an app that requires one of them is for such devices alone.
    """

    name: str
    title: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class TargetSdk:
    """The lowest API level that an app of one form may target from a day on."""

    form: str
    minimum: int
    since: date
    source: str


@dataclass(frozen=True)
class Pages:
    """Pages of memory that native libraries must fit, bytes, in apps of these forms for this SDK or a newer one."""

    forms: tuple[str, ...]
    bytes: int
    target_sdk: int
    since: date
    source: str


@dataclass(frozen=True)
class Wide:
    """From when on apps of these forms need native libraries for 64-bit processors, where they have any."""

    forms: tuple[str, ...]
    since: date
    source: str


@dataclass(frozen=True)
class GooglePlay:
    """``targets/android-arm64/stores.toml``; see there."""

    store: str
    checked: date
    build: Build
    form: tuple[Form, ...]
    target_sdk: tuple[TargetSdk, ...]
    pages: tuple[Pages, ...]
    wide: tuple[Wide, ...]
    debuggable: Rule
    test_only: Rule
    icon: Rule
    delivery: tuple[Delivery, ...]
    total: tuple[Total, ...]

    def pages_of(self, form: Form) -> Pages:
        """The rule of pages for such devices."""
        return next(rule for rule in self.pages if form.name in rule.forms)

    def wide_of(self, form: Form) -> Wide:
        """The rule of 64-bit libraries for such devices."""
        return next(rule for rule in self.wide if form.name in rule.forms)

    def newest_target_sdk(self) -> int:
        """What an app for phones targets: the highest minimum that is known, whether it holds yet or not."""
        return max(rule.minimum for rule in self.target_sdk if rule.form == self.form[0].name)

    def form_of(self, required: Iterable[str]) -> Form:
        """What an app is for that requires these features; with several, or none of them, for phones."""
        asked = set(required)
        found = [form for form in self.form if asked.intersection(form.features)]
        return found[0] if len(found) == 1 else self.form[0]


@dataclass(frozen=True)
class Sdk:
    """The iOS SDK that an app must be built with from a day on, and the Xcode that has it."""

    minimum: int
    xcode: int
    since: date
    source: str


@dataclass(frozen=True)
class Icon:
    """The icon that an app must have, points a side."""

    points: int
    since: date
    source: str


@dataclass(frozen=True)
class Key:
    """A key of a property list."""

    key: str
    source: str


@dataclass(frozen=True)
class Entitlement:
    """An entitlement that an app may not have."""

    entitlement: str
    source: str


@dataclass(frozen=True)
class Category:
    """Functions that need a reason, as Apple groups them.

    Attributes:
        name: in privacy manifests.
        reasons: those that Apple takes.
        symbols: names that a binary has which calls one of them.
    """

    name: str
    reasons: tuple[str, ...]
    symbols: tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """Such a function that a library of ExecuTorch calls.

    Attributes:
        product: the library, as SwiftPM names it.
        symbol: what it calls.
        files: where, in ExecuTorch's sources.
        category: the function's, in Apple's words.
        reason: why.
    """

    product: str
    symbol: str
    files: tuple[str, ...]
    category: str
    reason: str


@dataclass(frozen=True)
class AppStore:
    """``targets/ios-arm64/stores.toml``; see there."""

    store: str
    checked: date
    sdk: tuple[Sdk, ...]
    icon: Icon
    launch_screen: Rule
    encryption: Key
    development: Entitlement
    privacy: Rule
    category: tuple[Category, ...]
    call: tuple[Call, ...]
    delivery: tuple[Delivery, ...]
    mobile: Size

    def reasons(self, products: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """What an app with these libraries declares: reasons by category, both sorted."""
        linked = set(products)
        found: dict[str, set[str]] = {}
        for call in self.call:
            if call.product in linked:
                found.setdefault(call.category, set()).add(call.reason)
        return {name: tuple(sorted(found[name])) for name in sorted(found)}


class Dated(Protocol):
    """What holds from a day on; None: always."""

    @property
    def since(self) -> date | None: ...


_Rule = TypeVar("_Rule", bound=Dated)


def in_force(rules: Iterable[_Rule], today: date) -> _Rule | None:
    """The newest rule that holds on a day."""
    return max((rule for rule in rules if _begins(rule) <= today), key=_begins, default=None)


def coming(rules: Iterable[_Rule], today: date) -> list[_Rule]:
    """The rules that will hold later, the next one first."""
    return sorted((rule for rule in rules if _begins(rule) > today), key=_begins)


def when(rule: Dated, today: date) -> str:
    """From when on a rule holds, in words."""
    if rule.since is None:
        return "always"
    return f"since {rule.since}" if rule.since <= today else f"from {rule.since} on"


def _begins(rule: Dated) -> date:
    return rule.since or date.min


def days_old(checked: date, today: date) -> int:
    """The age of a table; 0 on a day before it."""
    return max(0, (today - checked).days)


def is_old(checked: date, today: date) -> bool:
    """Whether a table should be looked at again."""
    return days_old(checked, today) > _OLD


def google_play() -> GooglePlay:
    """The rules of Google Play.

    Raises:
        TargetError: the file is missing, or has a wrong key or value.
    """
    rules = _open(GooglePlay, ANDROID)
    for form in rules.form:
        ruled = [rule.forms for rule in rules.pages], [rule.forms for rule in rules.wide]
        if any(sum(form.name in forms for forms in each) != 1 for each in ruled):
            raise TargetError(f"{ANDROID}/{STORES}: form '{form.name}' needs one rule of pages, and one of wide")
    return rules


def app_store() -> AppStore:
    """The rules of the App Store.

    Raises:
        TargetError: the file is missing, or has a wrong key or value.
    """
    return _open(AppStore, IOS)


_Table = TypeVar("_Table")


def _open(cls: type[_Table], target: str) -> _Table:
    path = targets_dir() / target / STORES
    return load(cls, read_toml(path, TargetError), str(path), TargetError)
