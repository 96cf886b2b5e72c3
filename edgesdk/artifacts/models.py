"""Bundles inside of artifacts: every hash, how the program is stored, and the runtime beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from ..bundle import FILE, Manifest
from ..digests import file_digest
from .entries import Entries, below, folders_with, text_of
from .findings import Finding


def bundles(entries: Entries) -> Iterator[tuple[str, Manifest]]:
    """Folders that hold a bundle, with its manifest.

    Raises:
        BundleError: a manifest is damaged.
        ArtifactError: a manifest is larger than any.
    """
    for folder in folders_with(entries, FILE):
        name = f"{folder}/{FILE}" if folder else FILE
        try:
            text = text_of(entries[name]).decode("utf-8")
            said = json.loads(text)
        except (ValueError, RecursionError):
            continue  # of another program: a bundle's is JSON in UTF-8, and one that is cut has no digest
        if isinstance(said, dict) and {"schema", "program", "digest"} <= said.keys():
            yield folder, Manifest.parse(text, name)


def check_bundle(entries: Entries, folder: str, manifest: Manifest, *, mapped: bool = True) -> Iterator[Finding]:
    """A bundle's files against its manifest.

    Args:
        entries: of the artifact.
        folder: the bundle's.
        manifest: what it should hold.
        mapped: whether the program is used where it lies, and must not be compressed.
    """
    files = below(entries, folder)
    wrong = 0
    for expected in manifest.files:
        place = f"{folder}/{expected.path}" if folder else expected.path
        entry = files.get(expected.path)
        if entry is None:
            yield Finding("error", place, "missing", "package the bundle again")
        elif entry.size != expected.size:
            yield Finding("error", place, f"{entry.size} bytes, and the manifest says {expected.size}", _AGAIN)
        elif _sha256(entries, entry.name) != expected.sha256:
            yield Finding("error", place, "its SHA-256 is not the one in the manifest", _AGAIN)
        else:
            continue
        wrong += 1
    if not wrong:
        name = manifest.model.name
        yield Finding("good", folder or FILE, f"bundle of {name}: {len(manifest.files)} files, every SHA-256 is right")
    program = files.get(manifest.program.main)
    if mapped and program is not None and program.compressed:
        yield Finding(
            "error",
            program.name,
            "compressed: it has to be unpacked before it can be used, and cannot be mapped",
            "add its extension to noCompress (Android Gradle plugin: androidResources), or to uncompressedGlob",
        )


_AGAIN = "package the bundle again"


def _sha256(entries: Entries, name: str) -> str:
    with entries[name].open() as file:
        return file_digest(file)


def check_runtime_version(manifest: Manifest, found: str | None, place: str) -> Finding:
    """A runtime that comes along, or is named, against the program's range."""
    program = manifest.program
    needed = f"{program.runtime} {program.runtime_versions}"
    if found is None:
        return Finding("note", place, f"the program needs {needed}; which version comes with it is not said here")
    try:
        fits = SpecifierSet(program.runtime_versions).contains(Version(found), prereleases=True)
    except InvalidVersion:
        return Finding("note", place, f"the program needs {needed}; '{found}' is no version")
    if fits:
        return Finding("good", place, f"{program.runtime} {found}, and the program needs {needed}")
    return Finding(
        "error", place, f"{program.runtime} {found}, but the program needs {needed}", "change it, or export again"
    )
