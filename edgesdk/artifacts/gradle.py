"""A Gradle project of Android apps, read as far as a store judges what it will build."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from ..bounds.regular import read_limited, regular_file
from ..stores import google_play
from .findings import Finding
from .manifests import AppManifest
from .play import play_findings, table_age

_NAMES = ("build.gradle.kts", "build.gradle")
_MANIFEST = "src/main/AndroidManifest.xml"
_APP = re.compile(r"com\.android\.application|android\.application\b|^\s*applicationId\b", re.MULTILINE)
_SDK = r"^\s*{}(?:Version)?\s*(?:=\s*|\(\s*|\s)(\d+)"
_DEBUGGABLE = re.compile(r"\brelease\b[^{}]*\{[^{}]*\b(?:isDebuggable|debuggable)\s*(?:=\s*)?true", re.DOTALL)
_FEATURE = re.compile(r"<uses-feature\b[^>]*>")
_NAME = re.compile(r'android:name\s*=\s*"([^"]+)"')
_OPTIONAL = re.compile(r'android:required\s*=\s*"false"')


def is_gradle(folder: Path) -> bool:
    """Whether a folder is a Gradle project."""
    return any((folder / f"settings.gradle{end}").is_file() for end in (".kts", ""))


def check_gradle(folder: Path, today: date) -> Iterator[Finding]:
    """The apps of a project, each by its own build file and manifest.

    Raises:
        EdgeError: a file of it cannot be read.
    """
    rules = google_play()
    for module in sorted(path for path in folder.iterdir() if path.is_dir()):
        for name in _NAMES:
            text = _text(folder, f"{module.name}/{name}")
            if text is not None and _APP.search(text):
                manifest = _text(folder, f"{module.name}/{_MANIFEST}") or ""
                yield from play_findings(_described(text, manifest), f"{module.name}/{name}", rules, today)
    yield table_age(rules.store, rules.checked, today)


def _described(build: str, manifest: str) -> AppManifest:
    target, low = (re.search(_SDK.format(name), build, re.MULTILINE) for name in ("targetSdk", "minSdk"))
    found = target or low
    features = [tag for tag in _FEATURE.findall(manifest) if not _OPTIONAL.search(tag)]
    return AppManifest(
        int(found[1]) if found else None,
        target is None,
        _DEBUGGABLE.search(build) is not None,
        False,
        "android:icon" in manifest,
        tuple(name[1] for tag in features if (name := _NAME.search(tag))),
        1,
    )


def _text(folder: Path, name: str) -> str | None:
    path = regular_file(folder, name)
    return None if path is None else read_limited(path).decode("utf-8", "replace")
