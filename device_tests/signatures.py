"""What an attacker makes of a signed bundle, and vectors for the verifiers that devices have of their own."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgesdk.bundle import FILE, SIGNATURE
from edgesdk.signing.keys import make_key
from edgesdk.signing.signature import sign

_ORDER = 2**252 + 27742317777372353535851937790883648493


class Owners:
    """Two owners of keys; A's is pinned, and version 5 came before."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.a, self.b = folder / "a", folder / "b"
        self.public_a, self.public_b = make_key(self.a), make_key(self.b)

    def attacks(self, program: str) -> dict[str, Callable[[Path], object]]:
        """What is done to a bundle that A signed as version 5."""
        return {
            "unsigned": lambda bundle: (bundle / SIGNATURE).unlink(),
            "signed with key B": lambda bundle: sign(bundle, self.b, 9),
            "older": lambda bundle: sign(bundle, self.a, 4),
            "its number changed": lambda bundle: _exchange(bundle / SIGNATURE, '"version": 5', '"version": 9'),
            "one byte of the signature changed": lambda bundle: _flip(bundle / SIGNATURE, -20),
            "one byte of the manifest changed": lambda bundle: _flip(bundle / FILE, 30),
            "one byte of the program changed": lambda bundle: _flip(bundle / program, 100),
            "no signature": lambda bundle: (bundle / SIGNATURE).write_text("{}"),
            "too long a signature": lambda bundle: (bundle / SIGNATURE).write_text("[" * 5000),
        }


def copied(tree: Path, target: Path) -> Path:
    """A copy of a model's tree, to be changed."""
    shutil.copytree(tree, target)
    return target


def vectors(count: int = 40) -> list[tuple[bytes, bytes, bytes, bool]]:
    """Keys, signatures and messages, and whether they belong together, as the ``cryptography`` library says."""
    rng, found = random.Random(25519), []
    for _ in range(count):
        private = Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))
        key, message = private.public_key().public_bytes_raw(), rng.randbytes(rng.randrange(1, 150))
        signature = private.sign(message)
        found.append((key, signature, message, True))
        changed = bytearray(key + signature + message)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        found.append((bytes(changed[:32]), bytes(changed[32:96]), bytes(changed[96:]), False))
    again = int.from_bytes(signature[32:], "little") + _ORDER  # the same residue, written in another way
    found.append((key, signature[:32] + again.to_bytes(32, "little"), message, False))
    return found


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _exchange(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
