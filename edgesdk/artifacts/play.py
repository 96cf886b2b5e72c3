"""What Google Play would say of an app, by the rules in its table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from ..stores import GooglePlay, Rule, coming, days_old, in_force, is_old, when
from .findings import Finding, level_of
from .manifests import AppManifest


def play_findings(manifest: AppManifest, place: str, rules: GooglePlay, today: date) -> Iterator[Finding]:
    """What of a manifest the store refuses.

    Args:
        manifest: the app's.
        place: the manifest's, in what is said.
        rules: of the store.
        today: which of them hold, and which come later.
    """
    if manifest.split:
        yield Finding("note", place, "one part of an app: what the store asks of an app is looked for in its base")
        return
    yield from _target_sdk(manifest, place, rules, today)
    if manifest.sdks > 1:
        yield Finding(
            "warning", place, f"{manifest.sdks} elements uses-sdk, of which Android takes the last", "keep one"
        )
    for said, rule, what, out in (
        (manifest.debuggable, rules.debuggable, "debuggable", "build the release variant, and sign it with your key"),
        (manifest.test_only, rules.test_only, "testOnly", "build it with Gradle, not with Android Studio's Run"),
    ):
        yield from _refused(said, rule, what, out, place, rules, today)
    if not manifest.icon:
        yield Finding("warning", place, "no icon: launchers show Android's own", "android:icon of the application")


def _target_sdk(manifest: AppManifest, place: str, rules: GooglePlay, today: date) -> Iterator[Finding]:
    form = rules.form_of(manifest.required)
    ours = [rule for rule in rules.target_sdk if rule.form == form.name]
    held, found = in_force(ours, today), manifest.target_sdk
    if found is None:
        yield Finding("note", place, "targetSdkVersion is a resource that cannot be read (aapt2 dump badging says it)")
        return
    if isinstance(found, str):
        yield Finding(
            "error",
            place,
            f"targetSdkVersion '{found}' is the name of a preview, and {rules.store} takes none",
            f"targetSdk = {held.minimum if held else rules.build.compile_sdk}",
        )
        return
    why = " (minSdkVersion, as there is no targetSdkVersion)" if manifest.implied else ""
    if held and found < held.minimum:
        yield Finding(
            "error",
            place,
            f"targetSdk {found}{why}: {when(held, today)} {rules.store} takes {held.minimum} and newer "
            f"for {form.title}",
            f"targetSdk = {held.minimum}, compileSdk = {max(held.minimum, rules.build.compile_sdk)} ({held.source})",
        )
        return
    later = [rule for rule in coming(ours, today) if found < rule.minimum]
    for rule in later[:1]:
        yield Finding(
            "warning",
            place,
            f"targetSdk {found}{why}: {when(rule, today)} {rules.store} takes {rule.minimum} and newer "
            f"for {form.title}",
            f"targetSdk = {rule.minimum} ({rule.source})",
        )
    if not later:
        yield Finding("good", place, f"targetSdk {found}, for {form.title}")


def _refused(
    said: bool | None, rule: Rule, what: str, out: str, place: str, rules: GooglePlay, today: date
) -> Iterator[Finding]:
    if said is None:
        yield Finding("note", place, f"{what} is a resource that cannot be read (aapt2 dump badging says it)")
    elif said:
        yield Finding(level_of(rule, today), place, f"{what}: {rules.store} refuses it ({when(rule, today)})", out)


def table_age(store: str, checked: date, today: date) -> Finding:
    """How old the rules are that an artifact was judged by."""
    days = days_old(checked, today)
    said = f"judged by its rules as of {checked}, {days} days ago"
    if is_old(checked, today):
        return Finding("warning", store, f"{said}: they may have changed", "a newer edgesdk, or the store's own pages")
    return Finding("note", store, said)
