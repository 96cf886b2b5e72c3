"""Apps for iPhones as they are built: an .ipa, or the .app folder in it."""

from __future__ import annotations

import plistlib
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import IO, Any

from ..stores import AppStore, app_store, coming, in_force, when
from .entries import ArtifactError, Entries, below, folder_entries, text_of
from .findings import Finding, level_of
from .machos import MACHO, is_macho
from .models import bundles, check_bundle
from .play import table_age
from .privacy import FILE, no_manifest, read_privacy, shown_calls, undeclared

_PLIST, _PROFILE = "Info.plist", "embedded.mobileprovision"
_PARTS = re.compile(r"(Frameworks/[^/]+\.framework|PlugIns/[^/]+\.appex|Extensions/[^/]+\.appex)/")
_APP = "an app of the App Store"  # among the ways to bring a bundle to users


def check_ipa(path: Path, file: IO[bytes], entries: Entries, today: date) -> Iterator[Finding]:
    """An app as the App Store takes it."""
    apps = sorted({found[1] for name in entries if (found := re.match(r"Payload/([^/]+\.app)/", name))})
    if len(apps) != 1:
        yield Finding(
            "error", path.name, f"{len(apps)} apps in Payload, and there must be one", "export it again in Xcode"
        )
        return
    yield from _app(apps[0], below(entries, f"Payload/{apps[0]}"), today)


def check_app(folder: Path, today: date) -> Iterator[Finding]:
    """An app's folder."""
    yield from _app(folder.name, folder_entries(folder), today)


def _app(name: str, entries: Entries, today: date) -> Iterator[Finding]:
    rules = app_store()
    if _PLIST not in entries:
        yield Finding("error", name, f"no {_PLIST}, so no app")
        return
    info = _info(entries, name)
    yield from _sdk(info, name, rules, today)
    yield from _presented(info, name, rules, today)
    yield from _privacy(info, entries, name, rules, today)
    yield from _profile(entries, name, rules)
    size = sum(entry.size for entry in entries.values()) / 1e6
    limit = next(delivery.max_mb for delivery in rules.delivery if delivery.way == _APP)
    if size > limit:
        yield Finding("error", name, f"{size:.1f} MB, and {_APP} takes {limit} MB", "--set delivery=background")
    for folder, manifest in bundles(entries):
        yield from check_bundle(entries, folder, manifest, mapped=False)
    yield table_age(rules.store, rules.checked, today)


def _info(entries: Entries, name: str) -> dict[str, Any]:
    data = text_of(entries[_PLIST])
    try:
        info = plistlib.loads(data)
    except Exception as failure:  # damaged ones end in a dozen kinds of exception
        raise ArtifactError(f"{name}: {_PLIST} cannot be read ({failure or type(failure).__name__})") from None
    if not isinstance(info, dict):
        raise ArtifactError(f"{name}: {_PLIST} is no dictionary")
    return info


def _sdk(info: dict[str, Any], name: str, rules: AppStore, today: date) -> Iterator[Finding]:
    if str(info.get("DTPlatformName", "")).endswith("simulator"):
        yield Finding("error", name, "built for the simulator", "build it for a device: Product, Archive in Xcode")
    found = re.search(r"\d+", str(info.get("DTPlatformVersion") or info.get("DTSDKName") or "")[:100])
    if found is None:
        yield Finding("note", name, "which SDK it was built with is not said in it")
        return
    built, held = int(found[0]), in_force(rules.sdk, today)
    if held and built < held.minimum:
        yield Finding(
            "error",
            name,
            f"built with the SDK of iOS {built}: {when(held, today)} the {rules.store} takes iOS {held.minimum}'s "
            "and newer",
            f"build it with Xcode {held.xcode} or newer ({held.source})",
        )
        return
    later = [rule for rule in coming(rules.sdk, today) if built < rule.minimum]
    for rule in later[:1]:
        said = f"{when(rule, today)} the {rules.store} takes iOS {rule.minimum}'s and newer"
        yield Finding("warning", name, f"built with the SDK of iOS {built}: {said}", f"Xcode {rule.xcode} or newer")
    if not later:
        yield Finding("good", name, f"built with the SDK of iOS {built}")


def _presented(info: dict[str, Any], name: str, rules: AppStore, today: date) -> Iterator[Finding]:
    """Launch screen, icon, and the answer about encryption."""
    if not {"UILaunchScreen", "UILaunchScreens", "UILaunchStoryboardName"} & info.keys():
        level = level_of(rules.launch_screen, today)
        yield Finding(level, name, "no launch screen", f"UILaunchScreen in {_PLIST} ({rules.launch_screen.source})")
    if not {"CFBundleIcons", "CFBundleIconName"} & info.keys():
        level = level_of(rules.icon, today)
        yield Finding(level, name, "no icon", f"an AppIcon in the asset catalogue ({rules.icon.source})")
    if rules.encryption.key not in info:
        said = f"no {rules.encryption.key}: App Store Connect asks about encryption at every upload"
        yield Finding("warning", name, said, f"false where it only uses the system's ({rules.encryption.source})")


def _privacy(info: dict[str, Any], entries: Entries, name: str, rules: AppStore, today: date) -> Iterator[Finding]:
    own = {path: entry for path, entry in entries.items() if not _PARTS.match(path)}
    main = own.get(str(info.get("CFBundleExecutable", name.removesuffix(".app"))))
    if main is None:
        yield Finding("error", name, "its executable is missing")
    elif not is_macho(main):
        yield Finding("error", main.name, f"no program for Apple's systems ({MACHO})")
    files = [path for path in own if path.rpartition("/")[2] == FILE]
    declared: dict[str, tuple[str, ...]] = {}
    for path in files:
        found = read_privacy(text_of(own[path]), path, rules)
        yield from found.findings
        declared |= found.reasons
    needed = {} if main is None else shown_calls(main, rules)
    if any(manifest.program.runtime == "executorch" for _, manifest in bundles(own)):
        for category in rules.reasons(["executorch"]):
            needed.setdefault(category, "ExecuTorch")  # linked into the executable, whose names may be stripped
    if not files:
        yield no_manifest(name, rules, today, needed=bool(needed))
    yield from undeclared(needed, declared, name, rules, today)
    yield from _parts(entries, declared, rules, today)
    if declared:
        said = ", ".join(f"{category} ({', '.join(reasons)})" for category, reasons in sorted(declared.items()))
        yield Finding("good", name, f"declares {said}")


def _parts(entries: Entries, declared: dict[str, tuple[str, ...]], rules: AppStore, today: date) -> Iterator[Finding]:
    """Frameworks and extensions, which have manifests of their own, beside which the app's counts too."""
    for part in sorted({found[1] for path in entries if (found := _PARTS.match(path))}):
        inside = below(entries, part)
        binary = inside.get(part.rpartition("/")[2].rpartition(".")[0])
        reasons = dict(declared)
        if FILE in inside:
            found_in = read_privacy(text_of(inside[FILE]), f"{part}/{FILE}", rules)
            yield from found_in.findings
            reasons |= found_in.reasons
        if binary is not None:
            yield from undeclared(shown_calls(binary, rules), reasons, part, rules, today)


def _profile(entries: Entries, name: str, rules: AppStore) -> Iterator[Finding]:
    """A profile is a signed message with a property list in it, as it is."""
    if _PROFILE not in entries:
        return
    data = text_of(entries[_PROFILE])
    start, end = data.find(b"<?xml"), data.rfind(b"</plist>")
    try:
        found = plistlib.loads(data[start : end + len(b"</plist>")])
        allowed = found["Entitlements"].get(rules.development.entitlement)
    except Exception:  # damaged ones end in a dozen kinds of exception
        yield Finding("warning", _PROFILE, "cannot be read")
        return
    if allowed is True:
        said = f"a development build ({rules.development.entitlement}): the {rules.store} refuses it"
        yield Finding("error", name, said, "Product, Archive in Xcode, and distribute it to App Store Connect")
