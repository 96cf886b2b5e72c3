"""An Xcode project, or a Swift package, read as far as the App Store judges what it will build."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from ..bounds.regular import read_limited, regular_file
from ..stores import AppStore, app_store
from .findings import Finding, level_of
from .play import table_age
from .privacy import FILE, no_manifest, read_privacy, undeclared

_DEPTH = 5  # folders below the project
_LEFT_OUT = {"Pods", "Carthage", "build", "DerivedData", "node_modules", "Model"}
_SPOKEN = (".swift", ".yml", ".yaml", ".plist", ".pbxproj", ".xcconfig", "Podfile")
_FILES = 20_000  # that are looked at
_LAUNCH = re.compile(r"UILaunchScreen|UILaunchStoryboardName|UILaunchStoryboard")
_PNG = struct.Struct(">8s4x4sIIBB")  # signature, IHDR, width, height, depth, kind of colours
_ALPHA = (4, 6)


def is_xcode(folder: Path) -> bool:
    """Whether a folder is an Xcode project, one for XcodeGen, or a Swift package."""
    return _is_app(folder) or (folder / "Package.swift").is_file()


def _is_app(folder: Path) -> bool:
    return (folder / "project.yml").is_file() or any(path.is_dir() for path in folder.glob("*.xcodeproj"))


def check_xcode(folder: Path, today: date) -> Iterator[Finding]:
    """A project, by its sources and settings.

    Raises:
        EdgeError: a file of it cannot be read.
    """
    folder = folder.resolve()
    rules, files = app_store(), list(_files(folder))
    spoken = [read_limited(path).decode("utf-8", "replace") for path in _within(folder, files, _SPOKEN)]
    text = "\n".join(spoken)
    yield from _privacy(folder, files, text, rules, today)
    if _is_app(folder):
        yield from _settings(folder, text, rules, today)
        yield from _icon(folder, files, rules, today)
    yield table_age(rules.store, rules.checked, today)


def _files(folder: Path) -> Iterator[str]:
    """Paths of a project's own files, with slashes, sorted; links are left out."""
    left = _FILES
    for place, folders, names in os.walk(folder):
        inside = Path(place).relative_to(folder)
        deep = len(inside.parts) >= _DEPTH
        folders[:] = [] if deep else sorted(name for name in folders if name not in _LEFT_OUT and name[0] != ".")
        for name in sorted(names):
            left -= 1
            if left >= 0 and not (Path(place) / name).is_symlink():
                yield (inside / name).as_posix()


def _within(folder: Path, files: list[str], ends: tuple[str, ...]) -> Iterator[Path]:
    for name in files:
        path = regular_file(folder, name) if name.endswith(ends) else None
        if path is not None:
            yield path


def _privacy(folder: Path, files: list[str], text: str, rules: AppStore, today: date) -> Iterator[Finding]:
    declared: dict[str, tuple[str, ...]] = {}
    manifests = [name for name in files if name.rpartition("/")[2] == FILE]
    for name in manifests:
        found = read_privacy(read_limited(folder / name), name, rules)
        yield from found.findings
        declared |= found.reasons
    products = {call.product for call in rules.call if re.search(rf"\b{call.product}\b", text, re.IGNORECASE)}
    needed = dict.fromkeys(rules.reasons(products), f"ExecuTorch ({', '.join(sorted(products))})")
    if not manifests:
        yield no_manifest(folder.name, rules, today, needed=bool(needed))
    yield from undeclared(needed, declared, folder.name, rules, today)
    for name in manifests if declared else []:
        yield Finding("good", name, "a privacy manifest that the store can read")


def _settings(folder: Path, text: str, rules: AppStore, today: date) -> Iterator[Finding]:
    if not _LAUNCH.search(text):
        level = level_of(rules.launch_screen, today)
        yield Finding(level, folder.name, "no launch screen", f"UILaunchScreen ({rules.launch_screen.source})")
    if rules.encryption.key not in text:
        said = f"no {rules.encryption.key}: App Store Connect asks about encryption at every upload"
        yield Finding(
            "warning", folder.name, said, f"false where it only uses the system's ({rules.encryption.source})"
        )


def _icon(folder: Path, files: list[str], rules: AppStore, today: date) -> Iterator[Finding]:
    points = rules.icon.points
    images = [name for name in files if ".appiconset/" in name and name.endswith(".png")]
    sizes = {name: _png(folder / name) for name in images}
    if not any(found and found[:2] == (points, points) for found in sizes.values()):
        level = level_of(rules.icon, today)
        out = f"a PNG of {points} x {points} in an .appiconset ({rules.icon.source})"
        yield Finding(level, folder.name, f"no icon of {points} points", out)
    for name, found in sizes.items():
        if found and found[2] in _ALPHA:
            yield Finding("error", name, "the icon has an alpha channel (ITMS-90717)", "save it without transparency")


def _png(path: Path) -> tuple[int, int, int] | None:
    """Width, height and kind of colours of a PNG; None where it is none."""
    with path.open("rb") as file:
        head = file.read(_PNG.size)
    if len(head) < _PNG.size:
        return None
    signature, kind, width, height, _, colours = _PNG.unpack(head)
    return (width, height, colours) if signature == b"\x89PNG\r\n\x1a\n" and kind == b"IHDR" else None
