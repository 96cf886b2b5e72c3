"""What of a board's versions and bundles is whole; runs there with Python's standard library and nothing else."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from ...digests import file_digest
from .pinned import PinError, Pinned, compare

SUMS = "SHA256SUMS"


class ServiceError(Exception):
    """Something is wrong on this board; the message says what, and the way out."""


def damage(folder: Path) -> str | None:
    """What is wrong with a version, or None when every file is as its list says, and the list as its name says."""
    try:
        listing = (folder / SUMS).read_bytes()
    except OSError:
        return f"has no {SUMS}"
    name = folder.name.removesuffix(".tmp")
    if not name.endswith(f"-{hashlib.sha256(listing).hexdigest()[:8]}"):
        return f"has another {SUMS} than its name says"
    wanted = listed(listing)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - {SUMS}
    if found != wanted.keys():
        return f"has too many files or too few: {sorted(found ^ wanted.keys())[0]}"
    return next((f"is damaged: {path}" for path, digest in wanted.items() if sha256(folder / path) != digest), None)


def listed(listing: bytes) -> dict[str, str]:
    """Paths and hashes of a list."""
    lines = (line.partition("  ") for line in listing.decode().splitlines())
    return {path: digest for digest, _, path in lines}


def active_bundle(store: Path, pinned: Pinned, newest: int) -> tuple[Path, int | None]:
    """The bundle in use of a store that ``edgesdk push`` fills, or the one before where that is damaged or refused.

    Returns: its folder, and its version where a key is pinned.
    """
    file = store / "active"
    try:
        names = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise ServiceError(f"{file}: there is none: edgesdk push or flash a bundle to this store") from None
    for name in filter(None, names):
        folder = store / "bundles" / name
        try:
            return folder, _version(folder, pinned, newest)
        except (PinError, OSError) as failure:
            say(f"{folder}: {failure}")
    raise ServiceError(f"{store}: holds no whole bundle of those in use; push one again")


def _version(folder: Path, pinned: Pinned, newest: int) -> int | None:
    def digest(path: str) -> str:
        return sha256(folder / path)

    if pinned.asks:
        return pinned.check(folder, digest, newest)
    compare((folder / "manifest.json").read_bytes(), digest)
    return None


def sha256(path: Path) -> str:
    """The SHA-256 of a file; "" where it cannot be read."""
    try:
        return file_digest(path)
    except OSError:
        return ""


def say(line: str) -> None:
    """Say something to who looks at the log."""
    sys.stderr.write(f"edgesdk-service: {line}\n")
    sys.stderr.flush()
