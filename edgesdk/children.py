"""Python processes that this one starts import nothing from the current folder (``python -c`` and ``-m`` would)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "PYTHONSAFEPATH"


@contextmanager
def importing_safely() -> Iterator[None]:
    """Every Python process born in the block keeps away from the current folder."""
    if _VARIABLE in os.environ:
        yield
        return
    os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE, None)


def module_command(python: str, module: str, *options: str) -> list[str]:
    """The beginning of a command line, as ``python -P -m module``, which Python 3.10 of boards does not know."""
    start = "import sys; sys.path[:] = filter(None, sys.path); import runpy; "
    return [python, *options, "-c", f"{start}runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"]


def for_programs_of_the_user() -> dict[str, str]:
    """The environment for a program that the user named, which may be a script beside its own modules."""
    return {name: value for name, value in os.environ.items() if name != _VARIABLE}
