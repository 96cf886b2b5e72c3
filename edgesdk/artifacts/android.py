"""Apps and libraries for Android: APK, AAB, AAR."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import IO

from ..bounds.amounts import TEXT
from ..bounds.regular import read_limited
from ..stores import Form, GooglePlay, google_play, when
from .compiled import DamagedError
from .entries import Entries, text_of
from .findings import Finding, level_of
from .libraries import WIDE, abis, check_library, check_place
from .manifests import read_manifest
from .models import bundles, check_bundle, check_runtime_version
from .play import play_findings, table_age

_SIGNED_V1 = re.compile(r"META-INF/[^/]+\.(RSA|DSA|EC)")
_BLOCK_MAGIC = b"APK Sig Block 42"
_SCHEMES = {0x7109871A: "v2", 0xF05368C0: "v3", 0x1B93AD61: "v3.1"}  # IDs in the APK Signing Block (source.android.com)
_SMALL_PAGE = 4096  # of 32-bit Android
_MANIFEST = "AndroidManifest.xml"
_MODULE, _PACK = "a base or feature module of Google Play", "an asset pack or AI pack of Google Play"
_LATER = (b"fast-follow", b"on-demand")
_POM = re.compile(
    r"<groupId>org\.pytorch</groupId>\s*<artifactId>executorch-android[^<]*</artifactId>\s*<version>([^<]+)</version>"
)


def check_apk(path: Path, file: IO[bytes], entries: Entries, today: date) -> Iterator[Finding]:
    """An app as phones install it."""
    rules = google_play()
    judged = _manifest(entries, _MANIFEST, "resources.arsc", rules, today)
    yield from judged.findings
    yield from _libraries(entries, "lib", judged, today, placed=True)
    yield from _models(entries, None)
    schemes = [*_schemes(file), *(["v1"] if any(map(_SIGNED_V1.fullmatch, entries)) else [])]
    if schemes:
        yield Finding("good", path.name, f"signatures are there: {', '.join(schemes)} (apksigner verify checks them)")
    else:
        yield Finding("warning", path.name, "not signed: no phone installs it", "apksigner sign")
    if _MANIFEST not in entries:
        yield Finding("error", path.name, f"no {_MANIFEST}, so no app")
    yield table_age(rules.store, rules.checked, today)


def check_aab(path: Path, file: IO[bytes], entries: Entries, today: date) -> Iterator[Finding]:
    """An app as Google Play takes it."""
    rules = google_play()
    if "BundleConfig.pb" not in entries:
        yield Finding("error", path.name, "no BundleConfig.pb, so no app bundle", "bundletool build-bundle")
    modules = sorted(
        {name.partition("/")[0] for name in entries if name.partition("/")[2] == "manifest/AndroidManifest.xml"}
    )
    if "base" not in modules:
        yield Finding("error", path.name, f"no base module; there are: {', '.join(modules) or 'none'}")
    judged = _manifest(entries, f"base/manifest/{_MANIFEST}", "base/resources.pb", rules, today)
    yield from judged.findings
    for module in modules:
        yield from _libraries(entries, f"{module}/lib", judged, today, placed=False)
    yield from _modules(entries, modules, rules)
    yield from _models(entries, None, mapped=False)  # bundletool compresses the bundle, and unpacks by its own rules
    if any(map(_SIGNED_V1.fullmatch, entries)):
        yield Finding("good", path.name, "an upload signature is there (jarsigner -verify checks it)")
    else:
        yield Finding(
            "warning", path.name, "not signed: Google Play refuses it", "jarsigner, or Gradle's signingConfig"
        )
    yield table_age(rules.store, rules.checked, today)


def check_aar(path: Path, file: IO[bytes], entries: Entries, today: date) -> Iterator[Finding]:
    """A library, with the POM beside it where there is one."""
    rules = google_play()
    for needed in ("AndroidManifest.xml", "classes.jar"):
        if needed not in entries:
            yield Finding("error", path.name, f"no {needed}, so no Android library")
    yield from _libraries(entries, "jni", _Judged(rules, rules.form[0], None), today, placed=False)
    yield from _assets(path.name, entries, rules)
    pom = path.with_suffix(".pom")
    found = _POM.search(read_limited(pom).decode("utf-8", "replace")) if pom.is_file() else None
    yield from _models(entries, found[1] if found else None)
    yield table_age(rules.store, rules.checked, today)


@dataclass(frozen=True)
class _Judged:
    """What a manifest says of an app.

    Attributes:
        rules: that it was judged by.
        form: the devices that it is for.
        target: the SDK that it is for; None where that is not known.
        findings: what the store says of it.
    """

    rules: GooglePlay
    form: Form
    target: int | None
    findings: tuple[Finding, ...] = ()


def _manifest(entries: Entries, name: str, resources: str, rules: GooglePlay, today: date) -> _Judged:
    unknown = _Judged(rules, rules.form[0], None)
    if name not in entries:
        return unknown
    table = text_of(entries[resources]) if resources in entries else None
    try:
        manifest = read_manifest(text_of(entries[name]), table)
    except DamagedError as failure:
        said = Finding("error", name, f"no compiled manifest: {failure.message}", "aapt2 link, which Gradle calls")
        return replace(unknown, findings=(said,))
    found = manifest.target_sdk
    target = found if isinstance(found, int) and not manifest.split else None
    return _Judged(rules, rules.form_of(manifest.required), target, tuple(play_findings(manifest, name, rules, today)))


def _libraries(entries: Entries, folder: str, app: _Judged, today: date, *, placed: bool) -> Iterator[Finding]:
    libraries = {
        name: entry for name, entry in entries.items() if name.startswith(f"{folder}/") and name.endswith(".so")
    }
    pages, wide = app.rules.pages_of(app.form), app.rules.wide_of(app.form)
    asked = app.target is None or app.target >= pages.target_sdk
    for name, entry in libraries.items():
        abi = name[len(folder) + 1 :].partition("/")[0]
        yield from check_library(entry, pages, today, folder=abi, asked=asked)
        if placed:
            large = asked and pages.since <= today and abi in WIDE
            yield from check_place(entry, pages.bytes if large else _SMALL_PAGE)
    if libraries and "arm64-v8a" not in abis(libraries):
        only = f"no libraries for arm64-v8a, only {', '.join(sorted(abis(libraries)))}"
        yield Finding(level_of(wide, today), folder, f"{only}; Google Play asks for them {when(wide, today)}")


def _models(entries: Entries, runtime: str | None, *, mapped: bool = True) -> Iterator[Finding]:
    for folder, manifest in bundles(entries):
        yield from check_bundle(entries, folder, manifest, mapped=mapped)
        yield check_runtime_version(manifest, runtime, folder)


def _assets(name: str, entries: Entries, rules: GooglePlay) -> Iterator[Finding]:
    """What an AAR adds to the base module of an app that takes it."""
    limit = _limits(rules)[_MODULE]
    size = sum(entry.packed for path, entry in entries.items() if path.startswith("assets/")) / 1e6
    if size > limit:
        yield Finding(
            "error",
            name,
            f"{size:.1f} MB of assets, which become part of the app, and {_MODULE} takes {limit} MB",
            "an asset pack or AI pack in place of the AAR (edgesdk package --as android writes one)",
        )


def _modules(entries: Entries, modules: list[str], rules: GooglePlay) -> Iterator[Finding]:
    limits = _limits(rules)
    totals = {total.of: 0.0 for total in rules.total}
    first, later = totals
    for module in modules:
        size = sum(entry.packed for name, entry in entries.items() if name.startswith(f"{module}/")) / 1e6
        manifest = _module_manifest(entries, module)
        pack = _is_pack(manifest)
        way = _PACK if pack else _MODULE
        totals[later if pack and any(word in manifest for word in _LATER) else first] += size
        said = f"{size:.1f} MB in the bundle, and {way} takes {limits[way]} MB"
        if size > limits[way]:
            yield Finding("error", module, said, "a smaller recipe, several packs, or a download of your own")
        else:
            yield Finding("good", module, said)
    for total in rules.total:
        size = totals[total.of]
        if size > total.max_mb:
            yield Finding(
                "error",
                total.of,
                f"{size:.1f} MB together, and Google Play takes {total.max_mb} MB of them",
                f"bring some as {later if total.of == first else first}, smaller models, or a download of your own",
            )


def _limits(rules: GooglePlay) -> dict[str, int]:
    return {delivery.way: delivery.max_mb for delivery in rules.delivery}


def _module_manifest(entries: Entries, module: str) -> bytes:
    return text_of(entries[f"{module}/manifest/AndroidManifest.xml"])


def _is_pack(manifest: bytes) -> bool:
    """Whether a module has assets and nothing that runs; its manifest then says ``asset-pack`` or ``ai-pack``."""
    return b"asset-pack" in manifest or b"ai-pack" in manifest


def _schemes(file: IO[bytes]) -> list[str]:
    """Signature schemes in the APK Signing Block, which lies before the zip's directory."""
    file.seek(0, 2)
    size = file.tell()
    file.seek(max(0, size - 65557))
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 20:
        return []
    (directory,) = struct.unpack_from("<I", tail, end + 16)
    if directory < 32:
        return []
    file.seek(directory - 24)
    length, magic = struct.unpack("<Q16s", file.read(24))
    if magic != _BLOCK_MAGIC or not 24 <= length <= min(directory - 8, TEXT):
        return []
    file.seek(directory - length)
    block = file.read(length - 24)
    found, at = [], 0
    while at + 12 <= len(block):
        pair, identity = struct.unpack_from("<QI", block, at)
        found.append(identity)
        at += 8 + pair
    return sorted(_SCHEMES[identity] for identity in found if identity in _SCHEMES)
