"""The tables of stores' rules: whole, dated, with sources; and days on which rules begin."""

from __future__ import annotations

import shutil
import tomllib
from datetime import date, timedelta

import pytest
from packaging.version import Version

from edgesdk.errors import TargetError
from edgesdk.package.android import VERSIONS
from edgesdk.stores import STORES, TargetSdk, app_store, coming, google_play, in_force, is_old
from edgesdk.targets import open_target, targets_dir


def rule(minimum: int, since: date) -> TargetSdk:
    return TargetSdk("phone", minimum, since, "https://example.org")


RULES = [rule(36, date(2026, 8, 31)), rule(34, date(2024, 8, 31)), rule(35, date(2025, 8, 31))]


@pytest.mark.parametrize(
    ("today", "held", "later"),
    [
        (date(2024, 8, 30), None, [34, 35, 36]),
        (date(2024, 8, 31), 34, [35, 36]),
        (date(2026, 8, 30), 35, [36]),
        (date(2026, 8, 31), 36, []),
        (date(2040, 1, 1), 36, []),
    ],
)
def test_rules_begin_on_their_day(today, held, later) -> None:
    found = in_force(RULES, today)
    assert (found and found.minimum) == held
    assert [each.minimum for each in coming(RULES, today)] == later


def test_an_old_table_is_one_of_half_a_year() -> None:
    checked = date(2026, 1, 1)
    assert not is_old(checked, checked + timedelta(days=183)) and is_old(checked, checked + timedelta(days=184))
    assert not is_old(checked, checked - timedelta(days=400))


@pytest.mark.parametrize("target", ["android-arm64", "ios-arm64"])
def test_every_rule_has_a_source_and_no_rule_is_younger_than_its_table(target) -> None:
    table = tomllib.loads((targets_dir() / target / STORES).read_text())

    def rules(value: object) -> list[dict[str, object]]:
        if isinstance(value, list):
            return [found for each in value for found in rules(each)]
        if not isinstance(value, dict):
            return []
        return [*([value] if "source" in value else []), *(found for each in value.values() for found in rules(each))]

    sources = [str(each["source"]) for each in rules(table)]
    assert len(sources) > 9 and all(source.startswith("https://") for source in sources)
    assert isinstance(table["checked"], date) and table["checked"] >= date(2026, 9, 1)
    assert not [
        key for key in ("delivery",) if key in tomllib.loads((targets_dir() / target / "target.toml").read_text())
    ]


def test_what_phones_are_asked_for() -> None:
    rules = google_play()
    minima = {
        form.name: in_force([each for each in rules.target_sdk if each.form == form.name], date(2026, 12, 1))
        for form in rules.form
    }
    found = {name: each.minimum for name, each in minima.items() if each is not None}
    assert found == {"phone": 36, "wear": 35, "automotive": 35, "tv": 34, "xr": 34}
    assert rules.newest_target_sdk() == 36 <= rules.build.compile_sdk
    assert Version(VERSIONS["agp"]) >= Version(rules.build.plugin)


def test_limits_of_a_target_are_those_of_its_store() -> None:
    assert open_target("android-arm64").delivery == google_play().delivery
    assert open_target("ios-arm64").delivery == app_store().delivery
    assert open_target("linux-arm64").delivery == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("checked = 2026-", "cheked = 2026-", "unknown key 'cheked'"),
        ("minimum = 36", "minimum = '36'", "minimum"),
        ("since = 2026-08-31 #", "since = 2026-08-31T00:00:00 #", "datetime"),
        ('forms = ["wear"]', 'forms = ["watch"]', "form 'wear' needs one rule"),
    ],
)
def test_a_wrong_table_is_refused_with_its_key(tmp_path, monkeypatch, old, new, message) -> None:
    shutil.copytree(targets_dir() / "android-arm64", tmp_path / "android-arm64", ignore=shutil.ignore_patterns("app"))
    path = tmp_path / "android-arm64" / STORES
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    monkeypatch.setenv("EDGESDK_TARGETS", str(tmp_path))
    with pytest.raises(TargetError, match=message):
        google_play()
