"""``python -m edgesdk.serve BUNDLE SETTINGS``: the server as a board's service starts it, with nothing but a log."""

from __future__ import annotations

import sys
from pathlib import Path

from ..bundle import open_bundle
from ..errors import EdgeError
from ..lines import shown
from . import open_settings, serve


def main(arguments: list[str]) -> int:
    """Serve until a signal; the exit status."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m edgesdk.serve BUNDLE SETTINGS\n")
        return 2
    folder, settings = map(Path, arguments)
    try:
        with open_bundle(folder) as bundle:
            serve(bundle, open_settings(settings), lambda address: _say(f"Serving {folder} on {address}"))
    except EdgeError as failure:
        _say(f"Error: {failure.message}")
        if failure.hint:
            _say(f"Hint: {failure.hint}")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{shown(line)}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
