"""The ``cryptography`` library behind the double of ``Curve25519``: KEY SIGNATURE MESSAGE; the status says whether."""

from __future__ import annotations

import sys

from edgesdk.signing.keys import is_signed_by

if __name__ == "__main__":
    key, signature, message = sys.argv[1:]
    sys.exit(0 if is_signed_by(key, bytes.fromhex(signature), bytes.fromhex(message)) else 1)
