"""The signature of a bundle: a small file beside the manifest that the manifest does not know of."""

from __future__ import annotations

import hashlib
import json
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..bundle import SIGNATURE, Bundle, open_bundle, pack
from ..documents import read_json
from ..files import replacing
from ..progress import SILENT, Progress
from ..schema import dump, load
from . import SignatureError, keys
from .statement import ALGORITHM, KEY, LARGEST_FILE, LARGEST_VERSION, is_version, statement
from .statement import SIGNATURE as SIGNATURE_DIGITS

SCHEMA = 1
_RESIGN = "edgesdk sign BUNDLE --key FILE signs it again"


@dataclass(frozen=True)
class Signature:
    """What ``signature.json`` says; nothing of it is known to be true before :func:`check`.

    Attributes:
        schema: of this file.
        algorithm: ed25519.
        key: the public key, in hexadecimal.
        version: the number that grows.
        manifest: the SHA-256 of ``manifest.json``.
        signature: of the statement about these two, in hexadecimal.
    """

    schema: int
    algorithm: str
    key: str
    version: int
    manifest: str
    signature: str

    def text(self) -> str:
        """The file's text."""
        return json.dumps(dump(self), indent=1) + "\n"


def sign(path: Path, key: Path, version: int | None = None, *, progress: Progress = SILENT) -> Signature:
    """Sign a bundle, folder or zip; nothing in it changes but its signature.

    Args:
        path: the bundle, which is verified first.
        key: file of the private key.
        version: greater than any that this key signed; None takes the next one, which is noted beside the key.
        progress: told of every file checked.

    Raises:
        SignatureError: the key cannot be used, or the version is none.
        BundleError: the bundle is damaged.
    """
    private = keys.private_key(key)
    if version is not None and not is_version(version):
        raise SignatureError(f"version {version}: versions are 1 to {LARGEST_VERSION}")
    with open_bundle(path, progress=progress) as bundle:
        number = version if version is not None else _next(key)
        digest = manifest_sha256(bundle)
        made = private.sign(statement(digest, number)).hex()
        public = private.public_key().public_bytes_raw().hex()
        signature = Signature(SCHEMA, ALGORITHM, public, number, digest, made)
        _note(key, number, asked=version is not None)
        _write(bundle.folder, signature)
        if not path.is_dir():
            pack(bundle.folder, path)
    return signature


def read_signature(folder: Path) -> Signature | None:
    """What a bundle's folder has for a signature; None where it has none.

    Raises:
        SignatureError: a file is there that is none.
    """
    path = folder / SIGNATURE
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
        raise SignatureError(f"{path}: no signature, but another kind of file, or too large", hint=_RESIGN)
    data = read_json(path, SignatureError, hint=_RESIGN)
    schema = data.get("schema") if isinstance(data, dict) else None
    if type(schema) is int and schema > SCHEMA:
        raise SignatureError(f"{path}: signature schema {schema}, and this edgesdk reads up to {SCHEMA}")
    signature = load(Signature, data, str(path), SignatureError)
    fine = {
        "schema": signature.schema == SCHEMA,
        "algorithm": signature.algorithm == ALGORITHM,
        "key": KEY.fullmatch(signature.key),
        "version": is_version(signature.version),
        "manifest": KEY.fullmatch(signature.manifest),
        "signature": SIGNATURE_DIGITS.fullmatch(signature.signature),
    }
    if wrong := [name for name, good in fine.items() if not good]:
        raise SignatureError(f"{path}: key '{wrong[0]}' is not what a signature has there", hint=_RESIGN)
    return signature


def check(bundle: Bundle, allowed: tuple[str, ...], *, oldest: int = 1) -> Signature:
    """Check that a verified bundle was signed with one of these keys, and is not older than a version.

    Args:
        bundle: whose files were compared with its manifest.
        allowed: public keys, in hexadecimal.
        oldest: the version that it has to have at least.

    Raises:
        SignatureError: it is not signed, with another key, the signature is wrong, or it is older.
    """
    wanted = " or ".join(map(keys.short, allowed))
    signature = read_signature(bundle.folder)
    if signature is None:
        raise SignatureError(
            f"the bundle {bundle.manifest.model.name} is not signed, and key {wanted} is asked for", hint=_RESIGN
        )
    if signature.key not in allowed:
        raise SignatureError(
            f"the bundle is signed with key {keys.short(signature.key)}, and key {wanted} is asked for",
            hint="do not trust this bundle; edgesdk keys show FILE shows whose key it is",
        )
    digest = manifest_sha256(bundle)
    if signature.manifest != digest or not keys.is_signed_by(
        signature.key, bytes.fromhex(signature.signature), statement(digest, signature.version)
    ):
        raise SignatureError(
            f"the signature with key {keys.short(signature.key)} is not of this bundle: one of them was changed",
            hint="do not trust this bundle, or sign it again",
        )
    if signature.version < oldest:
        raise SignatureError(
            f"the bundle has version {signature.version}, which is older than {oldest}",
            hint=f"take a newer bundle; to go back on purpose, sign it again with --version {oldest} or more",
        )
    return signature


def manifest_sha256(bundle: Bundle) -> str:
    """The SHA-256 of the bundle's manifest as it was read, whatever lies on the disk by now."""
    return hashlib.sha256(bundle.manifest.text().encode()).hexdigest()


def _write(folder: Path, signature: Signature) -> None:
    try:
        with replacing(folder / SIGNATURE) as partial:
            partial.write_text(signature.text(), encoding="ascii", newline="\n")
    except OSError as failure:
        raise SignatureError(f"{folder / SIGNATURE}: cannot be written ({failure.strerror})") from None


def _counter(key: Path) -> Path:
    return key.with_name(f"{key.name}.version")


def _next(key: Path) -> int:
    """One more than the newest version that was signed with a key."""
    path = _counter(key)
    if not path.is_file():
        return 1
    number = _noted(path)
    if number is None or number >= LARGEST_VERSION:
        raise SignatureError(f"{path}: no version that another one follows", hint="--version N names one")
    return number + 1


def _noted(path: Path) -> int | None:
    with suppress(OSError, ValueError):
        number = int(path.read_text(encoding="ascii")[:16])
        return number if is_version(number) else None
    return None


def _note(key: Path, version: int, *, asked: bool) -> None:
    """Keep the newest version beside the key, before anything is signed with it that another could follow."""
    path = _counter(key)
    if (_noted(path) or 0) >= version:
        return
    try:
        with replacing(path) as partial:
            partial.write_text(f"{version}\n", encoding="ascii")
    except OSError as failure:
        if not asked:  # a key in a read-only place, where versions are counted elsewhere
            raise SignatureError(
                f"{path}: cannot be written ({failure.strerror}), so versions cannot be counted",
                hint="--version N names one",
            ) from None


__all__ = ["Signature", "check", "manifest_sha256", "read_signature", "sign"]
