"""A target with known faults, by which the fuzzer is tested itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from random import Random

from edgesdk.errors import EdgeError

from ..case import Case, Files

_WORDS = (b"refuse",) * 200 + (b"raise", b"die", b"turn")


def opened(folder: Path) -> Case:
    """Most inputs are refused as they should be; a few raise what nobody expects, kill the process, or take forever."""

    def run(files: Files) -> None:
        match files["word"]:
            case b"raise":
                raise KeyError("x")
            case b"die":
                os.kill(os.getpid(), signal.SIGSEGV)
            case b"turn":
                while True:
                    pass
        raise EdgeError("refused")

    def make(random: Random) -> Files:
        return {"word": random.choice(_WORDS)}

    return Case(make, run)
