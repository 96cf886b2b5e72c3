"""What a loader with a key asks for before it starts a firmware: a version, and a keyed hash over it and the firmware.

``targets/cortex-m/loader/loader.h`` describes it. A loader has room for BLAKE2s (RFC 7693), not for Ed25519: the host
checks the bundle's signature, and vouches for the firmware to the loader with the key that both have.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from ...signing import SignatureError
from ...signing.keys import read_secret
from ...signing.statement import KEY

_FIRST = struct.Struct("<16sII40x")


@dataclass(frozen=True)
class Proof:
    """The means to vouch for a firmware.

    Attributes:
        key: the loader's.
        version: of the bundle that the firmware was made from.
    """

    key: bytes
    version: int

    def of(self, firmware: bytes) -> bytes:
        """Version and tag, as COMMIT takes them."""
        first = _FIRST.pack(b"edgesdk firmware", len(firmware), self.version)
        return struct.pack("<I", self.version) + hashlib.blake2s(first + firmware, key=self.key).digest()


def loader_key(path: Path) -> bytes:
    """The key of a file that nobody but its owner can read.

    Raises:
        SignatureError: others can read it, or it holds no key.
    """
    text = read_secret(path).decode("latin-1").strip()
    if not KEY.fullmatch(text):
        raise SignatureError(
            f"{path}: no key of a loader, which is 64 hexadecimal digits", hint="edgesdk keys make --for loader FILE"
        )
    return bytes.fromhex(text)
