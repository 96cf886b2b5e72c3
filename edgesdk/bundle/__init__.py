"""Bundles: pack, open, verify. A bundle is a folder, or the same folder in one zip; its manifest is written last."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..bounds.amounts import TEXT
from ..bounds.regular import read_limited, refuse_irregular, regular_file
from ..bounds.zips import ArchiveError, open_entry, opened_zip, refuse_name, unpack
from ..documents import parse_json
from ..errors import BundleError, EdgeError
from ..files import file_entry, replacing
from ..kinds import DECODER, described
from ..partials import scratch_folder
from ..progress import SILENT, Progress, track
from .manifest import FILE, SCHEMA, SIGNATURE, Manifest

_EPOCH = (1980, 1, 1, 0, 0, 0)
_DAMAGED = "the bundle is damaged: copy or export it again"


@dataclass(frozen=True)
class Bundle:
    """An unpacked bundle.

    Attributes:
        folder: where its files lie.
        manifest: what it says about itself.
    """

    folder: Path
    manifest: Manifest

    @property
    def main(self) -> Path:
        """The program file."""
        return self.folder / self.manifest.program.main


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Record every file of ``folder`` in the manifest and write it: the last step of making a bundle."""
    from dataclasses import replace

    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = tuple(file_entry(path, path.relative_to(folder).as_posix()) for path in paths)
    sealed = replace(manifest, files=entries)
    (folder / FILE).write_text(sealed.text(), encoding="utf-8", newline="\n")
    return Manifest.parse(sealed.text(), FILE)


def pack(folder: Path, path: Path) -> None:
    """Put a sealed folder into one zip: names sorted, no times, nothing compressed (weights do not shrink)."""
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            info = zipfile.ZipInfo(file.relative_to(folder).as_posix(), _EPOCH)
            info.external_attr = 0o644 << 16
            info.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(info, "w") as out:
                shutil.copyfileobj(source, out, 1 << 20)


@contextmanager
def open_bundle(path: str | Path, *, check: bool = True, progress: Progress = SILENT) -> Iterator[Bundle]:
    """Open a bundle folder or zip (unpacked into a temporary folder while it is open).

    Args:
        path: the bundle.
        check: verify every size and hash before anything is used.
        progress: told of every file checked.

    Raises:
        BundleError: no bundle, damaged, a newer schema, or a zip that asks for more than it may.
    """
    path = Path(path)
    if path.is_dir():
        yield _open_folder(path, check, progress)
    elif path.is_file():
        with scratch_folder() as scratch:
            _unpack(path, scratch)
            yield _open_folder(scratch, check, progress)
    else:
        raise BundleError(f"{path}: no such bundle")


def _open_folder(folder: Path, check: bool, progress: Progress) -> Bundle:
    file = regular_file(folder, FILE, BundleError)
    if file is None:
        raise BundleError(f"{folder}: no {FILE}, so not a (whole) bundle", hint="edgesdk export makes bundles")
    try:
        text = read_limited(file, error=BundleError).decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{file}: not UTF-8 text", hint=_DAMAGED) from None
    bundle = Bundle(folder, Manifest.parse(text, str(file)))
    if check:
        _check_files(bundle, progress)
        _check_programs(bundle)
    return bundle


def _check_files(bundle: Bundle, progress: Progress) -> None:
    folder, entries = bundle.folder, bundle.manifest.files
    for entry in entries:
        refuse_name(entry.path, FILE, BundleError)
    listed = {entry.path for entry in entries}
    _refuse_unlisted(folder, listed)
    tokenizer = bundle.manifest.tokenizer
    draft = bundle.manifest.draft
    more = (*(record.file for record in bundle.manifest.adapters), draft.main if draft is not None else None)
    for needed in (bundle.manifest.program.main, tokenizer.file, tokenizer.chat_template, *more):
        if needed and needed not in listed:
            raise BundleError(f"{folder}: the manifest does not list {needed}", hint=_DAMAGED)
    for entry in track(progress, "Verifying", entries):
        path = folder / entry.path
        if not path.is_file():
            raise BundleError(f"{path}: missing", hint=_DAMAGED)
        if path.stat().st_size != entry.size:
            raise BundleError(f"{path}: {path.stat().st_size} bytes, the manifest says {entry.size}", hint=_DAMAGED)
        if file_entry(path).sha256 != entry.sha256:
            raise BundleError(f"{path}: its SHA-256 is not the one in the manifest", hint=_DAMAGED)


def _check_programs(bundle: Bundle) -> None:
    """Check that the programs hold together, where that is not known of this very bundle."""
    from .admission import is_known
    from .verifying import verify_programs

    if not is_known(bundle.manifest):
        verify_programs(bundle.folder, bundle.manifest)


def _refuse_unlisted(folder: Path, listed: Set[str]) -> None:
    if SIGNATURE in listed:
        raise BundleError(f"{folder}: the manifest lists {SIGNATURE}, which no bundle does", hint=_DAMAGED)
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        refuse_irregular(path, folder, BundleError)
        name = path.relative_to(folder).as_posix()
        if name not in (FILE, SIGNATURE) and name not in listed:
            raise BundleError(f"{path}: not listed in the manifest", hint="remove it, or export again")


def _unpack(path: Path, folder: Path) -> None:
    try:
        with opened_zip(path) as archive:
            if FILE not in archive.namelist():  # before anything is unpacked
                raise BundleError(f"{path}: no {FILE}, so not a (whole) bundle", hint="edgesdk export makes bundles")
            unpack(archive, folder)
    except ArchiveError as failure:
        raise BundleError(failure.message, hint=failure.hint) from None


def is_bundle(path: Path) -> bool:
    """Whether a folder or file is a bundle of any schema, whole or damaged: what an export may replace."""
    try:
        if path.is_dir():
            text = read_limited(path / FILE)
        else:
            with opened_zip(path) as archive, open_entry(archive, archive.getinfo(FILE)) as file:
                text = file.read(TEXT)
        data = parse_json(text, str(path))
    except (OSError, ValueError, KeyError, EdgeError):
        return False
    return isinstance(data, dict) and {"schema", "program", "files", "digest"} <= data.keys()


def kind_of(manifest: Manifest) -> str:
    """What a bundle's program does, by the names of :mod:`edgesdk.kinds`; one that does not say is a decoder."""
    return str(manifest.program.facts.get("kind", DECODER))


def refuse_kind(manifest: Manifest, what: str) -> None:
    """Stop where something is built for decoders alone.

    Args:
        manifest: of the bundle.
        what: cannot be done, as the beginning of a sentence.

    Raises:
        BundleError: the bundle holds a model of another kind.
    """
    if (kind := kind_of(manifest)) != DECODER:
        raise BundleError(
            f"{what} is built for decoders, and {manifest.model.name} is {described(kind)}",
            hint="edgesdk run BUNDLE TEXT runs it on this machine, edgesdk push copies it to a device",
        )


def check_runtime(manifest: Manifest) -> str | None:
    """The installed version of the bundle's runtime, or None when it is not installed here.

    Raises:
        BundleError: the installed version is outside the bundle's range.
    """
    from importlib import metadata

    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    program = manifest.program
    try:
        versions = SpecifierSet(program.runtime_versions)
        found = metadata.version(program.runtime)
    except metadata.PackageNotFoundError:
        return None
    except (InvalidSpecifier, ValueError):
        raise BundleError(
            f"the bundle needs the runtime {program.runtime!r} {program.runtime_versions!r}, which is none",
            hint=_DAMAGED,
        ) from None
    if not versions.contains(found, prereleases=True):
        raise BundleError(
            f"the bundle needs {program.runtime} {program.runtime_versions}, but {found} is installed",
            hint=f"pip install '{program.runtime}{program.runtime_versions}'",
        )
    return found


__all__ = [
    "FILE",
    "SCHEMA",
    "SIGNATURE",
    "Bundle",
    "Manifest",
    "check_runtime",
    "is_bundle",
    "kind_of",
    "open_bundle",
    "pack",
    "refuse_kind",
    "seal",
]
