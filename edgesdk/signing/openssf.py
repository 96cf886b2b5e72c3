"""Signatures in the format of OpenSSF Model Signing, for who verifies models with sigstore's tools.

Its keys are elliptic-curve keys (P-256, P-384, P-521): of Ed25519 it knows nothing. Its signature is a file of its own
outside of the bundle, and covers every file in it, the one of :mod:`edgesdk.signing.signature` among them.
"""

from __future__ import annotations

from pathlib import Path

from ..bundle import open_bundle
from ..errors import MissingExtraError
from ..files import replacing
from ..progress import SILENT, Progress
from . import SignatureError
from .keys import read_secret, write_pair


def make_openssf_key(path: Path) -> None:
    """Write a new P-256 key, and its public key to ``path.pub``.

    Raises:
        SignatureError: one of the files is there already, or cannot be written.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
    except ModuleNotFoundError:
        raise MissingExtraError("cryptography", "signing") from None
    write_pair(path, ec.generate_private_key(ec.SECP256R1()))


def signature_path(bundle: Path) -> Path:
    """Where the signature of a bundle lies: beside it."""
    return bundle.resolve().with_name(f"{bundle.resolve().name}.sig")


def sign_openssf(bundle: Path, key: Path, *, progress: Progress = SILENT) -> Path:
    """Sign a bundle, folder or zip, as it lies there; returns the signature's file.

    Raises:
        SignatureError: the key cannot be used, or the signature cannot be written.
        BundleError: the bundle is damaged.
        MissingExtraError: OpenSSF's library is not installed.
    """
    try:
        from model_signing import hashing, signing
    except ModuleNotFoundError as failure:
        raise MissingExtraError(failure.name or "model_signing", "signing") from None
    read_secret(key)
    with open_bundle(bundle, progress=progress):
        pass
    target = signature_path(bundle)
    everything = hashing.Config().set_ignored_paths(paths=(), ignore_git_paths=False)
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(everything)
        with replacing(target) as partial, progress.stage("Signing for OpenSSF"):
            config.sign(bundle, partial)
    except OSError as failure:
        raise SignatureError(f"{target}: cannot be written ({failure.strerror or failure})") from None
    except (ValueError, TypeError, AttributeError) as failure:
        raise SignatureError(
            f"{key}: OpenSSF's format cannot be signed with it: {failure}",
            hint="edgesdk keys make --for openssf FILE makes an elliptic-curve key",
        ) from None
    return target
