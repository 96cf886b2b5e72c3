"""Which bundles may be opened in this process: those that this machine exported, or that a child has opened before.

A runtime follows what a program says, natively: a program that crashes it, never ends or takes all memory does so in
the child, and becomes one error here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..children import module_command
from ..errors import BundleError, MissingExtraError
from . import Bundle, Manifest, check_runtime

_SECONDS, _BYTES_PER_SECOND = 180, 20_000_000  # for a runtime to start, and to read a program, on a slow board
_MOST = 4096  # bundles that are remembered
_HARM = "it is damaged, or made to do harm: take the bundle from who made it, or export again"
_admitted: set[str] = set()


class CrashError(BundleError):
    """A program takes the process with it that opens it."""


@runtime_checkable
class BuildsForElsewhere(Protocol):
    """A converter that builds programs which no computer like this one runs."""

    def elsewhere(self, facts: Mapping[str, Any]) -> str | None:
        """Why a program with these facts does not run here; None where it does."""


def admit(bundle: Bundle, threads: int | None = None) -> None:
    """Make sure that a bundle's programs can be opened here, in a child process where that is not known.

    Raises:
        BundleError: the installed runtime is of another version; it refuses a program; or it crashes, does not end or
            takes all memory with it.
    """
    installed = check_runtime(bundle.manifest)
    key = _key(bundle.manifest, installed)
    if installed is None or key in _admitted:
        return
    if not (_home() / key).exists():
        _try(bundle, threads)
        _keep(key)
    _admitted.add(key)


def opened_here(bundle: Bundle) -> str | None:
    """Open a bundle's programs as :func:`admit` does, where that can be done here.

    Returns: why they were not opened, or None.

    Raises:
        CrashError: opening one crashes, does not end or takes all memory.
        EdgeError: the runtime refuses a program.
    """
    from ..converter import CONVERTERS

    program = bundle.manifest.program
    if check_runtime(bundle.manifest) is None:
        return f"{program.runtime} is not installed here"
    if program.converter not in CONVERTERS.names():
        return f"no converter '{program.converter}' is installed here"
    try:
        converter = CONVERTERS.get(program.converter)
        if isinstance(converter, BuildsForElsewhere) and (why := converter.elsewhere(program.facts)) is not None:
            return why
        admit(bundle)
    except MissingExtraError as missing:
        return missing.message
    return None


def remember(manifest: Manifest) -> None:
    """Admit a bundle that this machine wrote."""
    key = _key(manifest, check_runtime(manifest))
    _admitted.add(key)
    _keep(key)


def admit_here(manifest: Manifest) -> None:
    """Admit a bundle for this process alone, which is there to try it."""
    _admitted.add(_key(manifest, check_runtime(manifest)))


def is_known(manifest: Manifest) -> bool:
    """Whether a bundle of exactly these files was opened before, or written here."""
    try:
        key = _key(manifest, check_runtime(manifest))
    except BundleError:
        return False
    return key in _admitted or (_home() / key).exists()


def _key(manifest: Manifest, runtime: str | None) -> str:
    """What was opened, and by which runtime."""
    from .. import __version__

    text = f"{manifest.digest} {manifest.program.runtime} {runtime} {__version__} {sys.version}"
    return hashlib.sha256(text.encode()).hexdigest()


def _home() -> Path:
    from ..model.catalogue import cache_dir

    return cache_dir() / "opened"


def _keep(key: str) -> None:
    """Remember it; a cache that cannot be written costs the next run a child, and nothing else."""
    home = _home()
    with contextlib.suppress(OSError):
        home.mkdir(parents=True, exist_ok=True)
        (home / key).touch()
        kept = sorted(home.iterdir(), key=lambda path: path.stat().st_mtime)
        for old in kept[:-_MOST]:
            old.unlink(missing_ok=True)


def _try(bundle: Bundle, threads: int | None) -> None:
    """Open every program of a bundle, and run a step of it, in a child."""
    size = sum(entry.size for entry in bundle.manifest.files)
    seconds = _SECONDS + size // _BYTES_PER_SECOND
    request = json.dumps({"folder": str(bundle.folder.resolve()), "threads": threads, "seconds": seconds})
    command = module_command(sys.executable, "edgesdk.bundle.trial")
    where = f"{bundle.main}: {bundle.manifest.program.runtime}"
    try:
        done = subprocess.run(
            command,
            input=request,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CrashError(f"{where} does not end opening it within {seconds} s", hint=_HARM) from None
    except OSError as failure:
        raise BundleError(f"{where}: no process to open it in ({failure.strerror})") from None
    if done.returncode < 0:
        raise CrashError(f"{where} crashes while it opens it ({_signal(-done.returncode)})", hint=_HARM)
    answer = _answer(done.stdout)
    if answer is None:
        raise CrashError(f"{where} ends the process that opens it (status {done.returncode})", hint=_HARM)
    if answer.get("memory"):
        raise CrashError(f"{where} takes more memory than this machine has left", hint=_HARM)
    if answer.get("module"):
        raise MissingExtraError(answer["module"], answer["extra"])
    if answer.get("message") is not None:
        raise BundleError(answer["message"], hint=answer.get("hint"))


def _answer(text: str) -> dict[str, Any] | None:
    try:
        data = json.loads(text.splitlines()[-1])
    except (ValueError, IndexError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
