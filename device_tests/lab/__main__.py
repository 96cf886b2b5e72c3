"""Command line: ``python -m device_tests.lab up [phone] [board] [mps2-an386] ... | down | status | packages``."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from edgesdk.errors import EdgeError

from . import HOST_PACKAGES, LIMIT, background


def main() -> int:
    """Do what the command line says; the status."""
    parser = argparse.ArgumentParser(prog="python -m device_tests.lab", description="Emulated devices to test with.")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="start devices in the background")
    start.add_argument("devices", nargs="*", help=f"of {', '.join(background.DEVICES)}; phone and board unless told")
    start.add_argument(
        "--limit", type=float, default=LIMIT, help="seconds after which they stop (default: %(default)g)"
    )
    commands.add_parser("down", help="stop them")
    commands.add_parser("status", help="say what runs")
    commands.add_parser("packages", help="Debian packages that the lab needs on this machine")
    holder = commands.add_parser("serve")
    holder.add_argument("limit", type=float)
    holder.add_argument("devices", nargs="+")
    given = parser.parse_args()
    try:
        match given.command:
            case "up":
                _say(background.start(given.devices or ["phone", "board"], given.limit))
            case "down":
                sys.stdout.write("stopped\n" if background.stop() else "nothing runs\n")
            case "status":
                _say(background.state())
            case "packages":
                sys.stdout.write(" ".join(HOST_PACKAGES) + "\n")
            case _:
                background.serve(given.devices, given.limit)
    except EdgeError as error:
        hint = f"Hint: {error.hint}\n" if error.hint else ""
        sys.stderr.write(f"Error: {error.message}\n{hint}")
        return 1
    return 0


def _say(state: dict[str, Any] | None) -> None:
    if state is None:
        sys.stdout.write("nothing runs\n")
        return
    for name, facts in state["devices"].items():
        sys.stdout.write(f"{name}: {facts['address']}\n")
        for key, value in facts.items():
            if key != "address":
                sys.stdout.write(f"  {key}={value}\n")
    sys.stdout.write(f"until {time.strftime('%H:%M', time.localtime(state['until']))}\n")


if __name__ == "__main__":
    sys.exit(main())
