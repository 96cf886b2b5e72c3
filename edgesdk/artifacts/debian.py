"""A Debian package: its archive, its sums, the bundle and the runtime inside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..bounds.regular import read_limited
from ..bounds.tars import Slice, unpack_tar
from ..digests import file_digest
from ..partials import scratch_folder
from .entries import ArtifactError, Entries, folder_entries
from .findings import Finding
from .libraries import is_library, read_library
from .models import bundles, check_bundle, check_runtime_version
from .telemetry import telemetry_findings

_MAGIC = b"!<arch>\n"
_MACHINES = {"arm64": "EM_AARCH64", "armhf": "EM_ARM", "amd64": "EM_X86_64", "i386": "EM_386"}
_NEEDED = ("Package", "Version", "Architecture", "Maintainer", "Description")


def check_deb(path: Path) -> Iterator[Finding]:
    """A ``.deb``, unpacked into a temporary folder.

    Raises:
        ArtifactError: it is none, or cut short.
    """
    with scratch_folder() as scratch:
        control, root = scratch / "control", scratch / "root"
        _unpack(path, control, root)
        fields = _fields(control / "control", path)
        yield Finding("good", path.name, f"{fields['Package']} {fields['Version']} for {fields['Architecture']}")
        entries = folder_entries(root)
        yield from _sums(control / "md5sums", entries)
        yield from _machines(entries, fields["Architecture"])
        for folder, manifest in bundles(entries):
            yield from check_bundle(entries, folder, manifest)
            yield check_runtime_version(manifest, _version(entries, manifest.program.runtime), folder)
        yield from telemetry_findings(entries.values())


def _members(path: Path) -> Iterator[tuple[str, Slice]]:
    with path.open("rb") as file:
        if file.read(8) != _MAGIC:
            raise ArtifactError(f"{path}: not a Debian package")
        while header := file.read(60):
            found = re.fullmatch(rb"(.{16}).{32}([0-9]{1,10}) *`\n", header, re.DOTALL)
            if found is None:
                raise ArtifactError(f"{path}: its archive is damaged", hint="build or copy it again")
            size, start = int(found[2]), file.tell()
            name = found[1].decode("ascii", "replace").strip().rstrip("/")
            if start + size > path.stat().st_size:
                raise ArtifactError(f"{path}: cut short in {name}", hint="build or copy it again")
            yield name, Slice(file, size)
            file.seek(start + size + size % 2)


def _unpack(path: Path, control: Path, root: Path) -> None:
    found: set[str] = set()
    for name, content in _members(path):
        stem, _, packing = name.partition(".tar")
        place = {"control": control, "data": root}.get(stem)
        if place is None:
            continue
        if packing == ".zst":
            raise ArtifactError(f"{path}: {name} is compressed with zstd", hint="dpkg-deb -Zxz, or -Znone")
        if stem in found:
            raise ArtifactError(f"{path}: {stem} is there twice", hint="do not trust this package")
        found.add(stem)
        place.mkdir()
        unpack_tar(content, packing, place, f"{path}: {name}")
    if found != {"control", "data"}:
        raise ArtifactError(
            f"{path}: a Debian package holds control and data, and here is {sorted(found) or 'neither'}"
        )


def _fields(file: Path, path: Path) -> dict[str, str]:
    text = read_limited(file).decode("utf-8", "replace") if file.is_file() else ""
    fields = dict(re.findall(r"^([\w-]+): *(.*)$", text, re.MULTILINE))
    missing = [name for name in _NEEDED if name not in fields]
    if missing:
        raise ArtifactError(f"{path}: its control file has no {', '.join(missing)}")
    return fields


def _sums(file: Path, entries: Entries) -> Iterator[Finding]:
    if not file.is_file():
        yield Finding("warning", "md5sums", "missing, so dpkg --verify has nothing to go by")
        return
    text = read_limited(file).decode("utf-8", "replace")
    listed = {
        name.removeprefix("./"): each for each, name in re.findall(r"^([0-9a-f]{32}) [ *](.+)$", text, re.MULTILINE)
    }
    wrong = [name for name, sum_ in listed.items() if name not in entries or _md5(entries, name) != sum_]
    for name in wrong:
        yield Finding("error", name, "not what md5sums says", "build or copy it again")
    if not wrong:
        yield Finding("good", "md5sums", f"{len(listed)} files are what it says")


def _md5(entries: Entries, name: str) -> str:
    with entries[name].open() as file:
        return file_digest(file, "md5")


def _machines(entries: Entries, architecture: str) -> Iterator[Finding]:
    expected = _MACHINES.get(architecture)
    libraries = [entry for name, entry in entries.items() if ".so" in name and is_library(entry)]
    for entry in libraries:
        machine = read_library(entry).machine
        if machine != expected:
            yield Finding("error", entry.name, f"for {machine}, and the package is for {architecture}")
    if libraries:
        yield Finding("note", "libraries", f"{len(libraries)} native libraries, each looked at")


def _version(entries: Entries, runtime: str) -> str | None:
    """The runtime's version by its wheel's folder."""
    name = runtime.replace("-", "_").lower()
    found = [re.search(rf"(?:^|/){name}-([^/-]+)\.dist-info/metadata$", path.lower()) for path in entries]
    return next((match[1] for match in found if match), None)
