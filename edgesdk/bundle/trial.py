"""The child that opens a bundle's programs first: ``python -m edgesdk.bundle.trial``, told on standard input what.

It answers with one line of JSON: ``{}`` where all went well, else ``message`` and ``hint``, ``memory``, or the
``module`` that is not installed and the ``extra`` that brings it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from ..errors import EdgeError, MissingExtraError
from ..kinds import DECODER, ENCODER, SEQ2SEQ, VISION
from . import Bundle, kind_of, open_bundle
from .admission import admit_here

_IDS = (0, 1, 2)


def main() -> None:
    """Read the request, open the bundle in this process, and answer."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what native code prints
        request = json.loads(sys.stdin.read())
        signal.alarm(request["seconds"])  # where the parent is gone
        _limit()
        out.write(json.dumps(_tried(Path(request["folder"]), request["threads"])) + "\n")
        out.flush()
        os._exit(0)  # a runtime that crashes when it ends has opened the program


def _tried(folder: Path, threads: int | None) -> dict[str, Any]:
    try:
        with open_bundle(folder, check=False) as bundle:
            admit_here(bundle.manifest)
            _open(bundle, threads)
    except MissingExtraError as missing:
        return {"module": missing.module, "extra": missing.extra}
    except EdgeError as failure:
        return {"message": failure.message, "hint": failure.hint}
    except MemoryError:
        return {"memory": True}
    except Exception as failure:  # whatever a runtime raises for a program that it does not take
        reason = (str(failure).strip() or type(failure).__name__).splitlines()[0]
        return {"message": f"{folder / 'manifest.json'}: its program cannot be used ({reason})", "hint": None}
    return {}


def _limit() -> None:
    """No more memory than is free, and no picture of it where it crashes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/meminfo").read_text(encoding="ascii").partition("MemAvailable:")[2].split()[0])
        resource.setrlimit(resource.RLIMIT_DATA, (pages * 1024, pages * 1024))


def _open(bundle: Bundle, threads: int | None) -> None:
    """Open every program and run one step of each."""
    _STEPS.get(kind_of(bundle.manifest), _decoder)(bundle, threads)


def _decoder(bundle: Bundle, threads: int | None) -> None:
    from ..chat import open_session
    from ..drafting import with_drafting

    for adapter in (None, *(record.name for record in bundle.manifest.adapters if record.file is not None)):
        session = open_session(bundle, threads, adapter=adapter)
        ids = _IDS[: min(len(_IDS), session.context - 1, session.vocab)]
        session.prefill(ids)
        session.decode(ids[0])
        if adapter is None:
            session.reset()
            with contextlib.suppress(EdgeError):  # some programs have no method for it
                session.score(ids)
            with_drafting(bundle, session, "auto", threads)


def _encoder(bundle: Bundle, threads: int | None) -> None:
    from ..encoders import open_encoder_session

    open_encoder_session(bundle, threads).encode([list(_IDS[:2])])


def _seq2seq(bundle: Bundle, threads: int | None) -> None:
    from ..answering import open_seq2seq_session

    session = open_seq2seq_session(bundle, threads)
    session.encode(_IDS[:2])
    session.decode([session.start])


def _vision(bundle: Bundle, threads: int | None) -> None:
    import numpy as np

    from ..seeing import open_vision_session

    session = open_vision_session(bundle, threads)
    session.show(np.zeros((3, session.image_size, session.image_size), np.float32))
    session.prefill(_IDS[:2])


_STEPS = {DECODER: _decoder, ENCODER: _encoder, SEQ2SEQ: _seq2seq, VISION: _vision}

if __name__ == "__main__":
    main()
