"""ExecuTorch's real runtime behind the double of ``Module``: PROGRAM; tokens in as text, logits out as float32."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

from edgesdk.converter import CONVERTERS


def main(program: str) -> None:
    """Each line is the position and the tokens; answers are a count and so many floats."""
    out = os.dup(1)
    os.dup2(2, 1)
    session = CONVERTERS.get("executorch").open(Path(program), 1 << 20)
    for line in sys.stdin:
        position, *ids = map(int, line.split())
        session.rewind(session.position - position)
        logits = session.prefill(ids)
        with os.fdopen(os.dup(out), "wb") as stream:
            stream.write(struct.pack("<I", len(logits)) + logits.astype("<f4").tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
