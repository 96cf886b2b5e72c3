"""Keys as files: a private one that only its owner can read, and a public one beside it."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError
from ..lines import shown_line
from . import SignatureError
from .statement import KEY

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_LARGEST = 16384  # bytes of a key's file
_OTHERS = 0o077
_HINT = "edgesdk keys make FILE makes a pair of keys"


def make_key(path: Path) -> str:
    """Write a new private key, and its public key to ``path.pub``; returns the public key in hexadecimal.

    Raises:
        SignatureError: one of the files is there already, or cannot be written.
    """
    ed25519, _ = _library()
    private = ed25519.Ed25519PrivateKey.generate()
    write_pair(path, private)
    return _hexadecimal(private.public_key())


def make_loader_key(path: Path) -> None:
    """Write a new key for the loader of microcontrollers: 64 hexadecimal digits, for whoever builds and flashes it.

    Raises:
        SignatureError: the file is there already, or cannot be written.
    """
    write_new(path, f"{secrets.token_hex(32)}\n".encode(), 0o600)


def write_pair(path: Path, private: Any) -> None:
    """Write the two files of a pair as PEM; what is there is never replaced.

    Args:
        path: of the private key, which is made readable for its owner alone.
        private: a private key of the ``cryptography`` library.

    Raises:
        SignatureError: one of the files is there already, or cannot be written.
    """
    _, serialization = _library()
    public_path = path.with_name(f"{path.name}.pub")
    for each in (path, public_path):
        if os.path.lexists(each):
            raise SignatureError(f"{each}: is there already, and keys are never overwritten", hint="name another file")
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    write_new(path, secret, 0o600)
    try:
        write_new(public_path, public, 0o644)
    except SignatureError:
        path.unlink()
        raise


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is not there yet, with these permissions from the first moment.

    Raises:
        SignatureError: it is there, or cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise SignatureError(
            f"{path}: is there already, and keys are never overwritten", hint="name another file"
        ) from None
    except OSError as failure:
        raise SignatureError(f"{path}: cannot be written ({failure.strerror})") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as failure:
        path.unlink()
        raise SignatureError(f"{path}: cannot be written ({failure.strerror})") from None


def read_secret(path: Path) -> bytes:
    """The bytes of a file that nobody but its owner can read.

    Raises:
        SignatureError: it cannot be read, is no regular file, too large, or others can read it.
    """
    data, mode = _read(path)
    if mode & _OTHERS:
        raise SignatureError(
            f"{path}: its permissions {mode:o} let others at the private key",
            hint=f"chmod 600 {path}; if others could read it, make a new key and revoke this one",
        )
    return data


def private_key(path: Path) -> Ed25519PrivateKey:
    """The private key of a PEM file.

    Raises:
        SignatureError: it cannot be read, others can read it, or it is no Ed25519 key without a passphrase.
    """
    ed25519, serialization = _library()
    data = read_secret(path)
    key = _loaded(path, lambda: serialization.load_pem_private_key(data, None))
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise SignatureError(f"{path}: no Ed25519 key", hint=_HINT)
    found: Ed25519PrivateKey = key
    return found


def public_key(named: str) -> str:
    """The public key that a PEM file holds, or that 64 hexadecimal digits are, in hexadecimal.

    Raises:
        SignatureError: it is neither.
    """
    if KEY.fullmatch(named.lower()):
        return named.lower()
    ed25519, serialization = _library()
    path = Path(named)
    data, _ = _read(path)
    if b"PRIVATE KEY" in data:
        raise SignatureError(f"{path}: a private key, where a public one is asked for", hint=f"{path}.pub")
    key = _loaded(path, lambda: serialization.load_pem_public_key(data))
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise SignatureError(f"{path}: no Ed25519 key", hint=_HINT)
    return _hexadecimal(key)


def is_signed_by(key: str, signature: bytes, message: bytes) -> bool:
    """Whether the owner of a public key, in hexadecimal, signed a message."""
    from cryptography.exceptions import InvalidSignature

    ed25519, _ = _library()
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def short(key: str) -> str:
    """A key as messages name it; two keys that look alike in it are still different keys."""
    return f"{key[:8]}...{key[-8:]}"


def _read(path: Path) -> tuple[bytes, int]:
    """The bytes of a key's file, and its permissions.

    Raises:
        SignatureError: it cannot be read, is no regular file, or is too large.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that nobody writes to would wait
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            data = file.read(_LARGEST + 1) if stat.S_ISREG(status.st_mode) else b""
    except (OSError, ValueError) as failure:
        why = getattr(failure, "strerror", None) or failure
        raise SignatureError(f"{shown_line(str(path))}: no key can be read ({why})", hint=_HINT) from None
    if not data or len(data) > _LARGEST:
        raise SignatureError(f"{path}: no file of a key, by its kind or size", hint=_HINT)
    return data, status.st_mode & 0o777


def _hexadecimal(key: Any) -> str:
    return str(key.public_bytes_raw().hex())


def _loaded(path: Path, load: Callable[[], Any]) -> Any:
    """What the library makes of a key's text, or the error for the user."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return load()
    except (ValueError, TypeError, UnsupportedAlgorithm) as failure:
        encrypted = isinstance(failure, TypeError)
        why = "it has a passphrase, which edgesdk does not ask for" if encrypted else "it is no key in PEM"
        raise SignatureError(f"{shown_line(str(path))}: cannot be used: {why}", hint=_HINT) from None


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError:
        raise MissingExtraError("cryptography", "signing") from None
    return ed25519, serialization


__all__ = [
    "is_signed_by",
    "make_key",
    "make_loader_key",
    "private_key",
    "public_key",
    "read_secret",
    "short",
    "write_new",
    "write_pair",
]
