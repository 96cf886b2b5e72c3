"""What is signed: a few lines of text, so that a phone, a board and a shell can write them without a JSON library.

This module runs on boards beside the service's manager, so it imports nothing but the standard library.
"""

from __future__ import annotations

import re

ALGORITHM = "ed25519"
LARGEST_VERSION = 0xFFFFFFFE  # the loader of firmware keeps it in a word of flash, and an erased word is all ones
LARGEST_FILE = 1024  # bytes of a signature.json
KEY = re.compile(r"[0-9a-f]{64}")
SIGNATURE = re.compile(r"[0-9a-f]{128}")


def statement(manifest_sha256: str, version: int) -> bytes:
    """The bytes that a signature is over.

    Args:
        manifest_sha256: of the bytes of ``manifest.json``, in hexadecimal; the manifest has the hashes of all else.
        version: a number that grows with every bundle that a key signs.
    """
    return f"edgesdk bundle signature 1\nmanifest {manifest_sha256}\nversion {version}\n".encode("ascii")


def is_version(value: object) -> bool:
    """Whether a value is the version of a signature."""
    return type(value) is int and 1 <= value <= LARGEST_VERSION
