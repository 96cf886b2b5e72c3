"""The keys that a board's bundles must be signed with; runs there with Python's standard library and nothing else.

``/etc/edgesdk/keys.toml`` has ``keys`` and ``revoked``, lists of public keys of 64 hexadecimal digits, and ``oldest``,
the version that a bundle must have at least.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...signing import ed25519
from ...signing.statement import ALGORITHM, KEY, LARGEST_FILE, SIGNATURE, is_version, statement
from ...toml import toml_tables

FILE = "keys.toml"
Digest = Callable[[str], str]  # of a file of the bundle, by its path there


class PinError(Exception):
    """A bundle is refused, or the keys cannot be read; the message says why."""


@dataclass(frozen=True)
class Pinned:
    """What a board asks of its bundles.

    Attributes:
        keys: any of them will do.
        revoked: these never.
        oldest: versions before it are refused.
    """

    keys: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()
    oldest: int = 1

    @property
    def asks(self) -> bool:
        """Whether bundles must be signed: a board whose only key was revoked takes none, until another is pinned."""
        return bool(self.keys or self.revoked or self.oldest > 1)

    def check(self, folder: Path, digest: Digest, newest: int = 1) -> int | None:
        """Check a bundle; returns its version, or None where no key is pinned.

        Args:
            folder: of the bundle.
            digest: the SHA-256 of a file that the manifest lists, as it lies there.
            newest: the newest version that was seen here.

        Raises:
            PinError: why it is refused.
        """
        if not self.asks:
            return None
        key, version, manifest_sha256, signature = _signature(folder)
        if key in self.revoked:
            raise PinError(f"is signed with key {key[:8]}..., which was revoked")
        if key not in self.keys:
            raise PinError(f"is signed with key {key[:8]}..., which is not pinned")
        manifest = (folder / "manifest.json").read_bytes()
        found = hashlib.sha256(manifest).hexdigest()
        if found != manifest_sha256 or not ed25519.verify(bytes.fromhex(key), signature, statement(found, version)):
            raise PinError("has a signature that is not its own: one of them was changed")
        if version < (oldest := max(self.oldest, newest)):
            raise PinError(f"has bundle version {version}, which is older than {oldest}")
        compare(manifest, digest)
        return version


def read_pinned(config: Path) -> Pinned:
    """What a board's configuration asks for; nothing where it has no such file.

    Raises:
        PinError: the file cannot be read; it is not taken for an empty one.
    """
    file = config / FILE
    try:
        data = toml_tables(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Pinned()
    except (OSError, ValueError, RecursionError) as failure:
        raise PinError(f"{file}: cannot be read ({failure})") from None
    if unknown := data.keys() - {"keys", "revoked", "oldest"}:
        raise PinError(f"{file}: unknown key '{sorted(unknown)[0]}'; known here: keys, oldest, revoked")
    lists = []
    for name in ("keys", "revoked"):
        listed = data.get(name, [])
        if not isinstance(listed, list) or not all(isinstance(key, str) and KEY.fullmatch(key) for key in listed):
            raise PinError(f"{file}: '{name}' is no list of keys of 64 hexadecimal digits")
        lists.append(tuple(listed))
    oldest = data.get("oldest", 1)
    if not is_version(oldest):
        raise PinError(f"{file}: 'oldest' is no version")
    return Pinned(lists[0], lists[1], oldest)


def _signature(folder: Path) -> tuple[str, int, str, bytes]:
    """Key, version, the manifest's hash and the signature itself, as the bundle's file has them."""
    try:
        with (folder / "signature.json").open("rb") as file:
            data = json.loads(file.read(LARGEST_FILE))
        key, version, manifest, signature = (data[name] for name in ("key", "version", "manifest", "signature"))
        fine = data["algorithm"] == ALGORITHM and data["schema"] == 1 and is_version(version)
        if fine and KEY.fullmatch(key) and SIGNATURE.fullmatch(signature):
            return key, version, manifest, bytes.fromhex(signature)
    except FileNotFoundError:
        raise PinError("is not signed") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise PinError("has a signature that cannot be read")


def compare(manifest: bytes, digest: Digest) -> None:
    """Compare every file with the manifest.

    Raises:
        PinError: one is another than the manifest says, or that cannot be read.
    """
    try:
        entries = [(entry["path"], entry["sha256"]) for entry in json.loads(manifest)["files"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise PinError("has a manifest that cannot be read") from None
    wrong = next((path for path, sha in entries if digest(path) != sha), None)
    if wrong is not None:
        raise PinError(f"is damaged: {wrong}")
