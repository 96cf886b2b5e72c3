"""The command line: one file for each command, imported when it is called."""

from __future__ import annotations

import io
import sys
from importlib import import_module
from typing import Any

import click

from ..children import importing_safely
from ..errors import EdgeError
from . import interrupts, streams
from .terminal import echo

#: Command name to the first line of its help, so that ``edgesdk --help`` imports no command.
COMMANDS = {
    "bom": "Write the bill of materials of BUNDLE, in CycloneDX: models, files and hashes, licences, runtime, energy.",
    "check": "Check PROFILE against a budget; exit 1 where a limit is not met.",
    "compare": "Compare two profiles; exit 1 where something became worse.",
    "compress": "Compress MODEL into a checkpoint that every export takes.",
    "device": "Look after one device: facts, its bundles, rollback, cleaning, restart, pairing.",
    "devices": "List devices that are attached or named in devices.toml, and what each can run.",
    "doctor": "Check an app, a library, a project or a bundle; or every converter installed.",
    "export": "Compress MODEL, convert it for a target, verify it, and write a bundle.",
    "fit": "Say which microcontroller boards hold MODEL, and with how much context.",
    "flash": "Make BUNDLE what a device runs from now on: firmware over UART or tools, a board with rollback.",
    "history": "List, plot and export the profiles that were kept.",
    "inspect": "Show what a bundle says about itself.",
    "keys": "Make keys, and say which ones a device's bundles must be signed with.",
    "lint": "Check MODEL against a target before any work.",
    "models": "List the catalogue, or fetch a model from it.",
    "package": "Make an app module, a Swift package, a board service or a firmware project out of BUNDLE.",
    "profile": "Measure BUNDLE on a device: latency, memory, temperature, power.",
    "push": "Put BUNDLE on a device: what is missing there goes over, is verified, and is switched to.",
    "quality": "Say what compression cost: B against A, as models or bundles.",
    "recipes": "List recipes, or show the passes of one.",
    "report": "Write profiles as one HTML page, CSV or Markdown.",
    "run": "Run a bundle: answer PROMPT, or chat.",
    "sensors": "List the sensors of a device, and what they say now.",
    "serve": "Serve BUNDLE over HTTP, with OpenAI's chat API.",
    "sign": "Sign BUNDLE, so that devices with your key pinned take it, and take no older one after it.",
    "sweep": "Export and profile models x recipes x targets x devices, and draw the trade-off.",
    "targets": "List targets, or show one.",
    "trust": "Trust a file that names programs and hosts, or list what is trusted.",
    "verify": "Check a bundle: every hash, its schema, its runtime; with --key, who signed it.",
}
_NO_MEMORY = ("bad_alloc", "bad allocation", "allocate memory", "out of memory", "can't start new thread")


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = import_module(f".{cmd_name}_command", __name__).command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from .. import __version__

        echo(f"edgesdk {__version__}")
        ctx.exit()


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
def edgesdk() -> None:
    """Ship small language models on edge devices."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors become one message and a non-zero exit."""
    streams.open_all()
    interrupts.listen()
    try:
        with importing_safely():
            status = run(arguments)
    except KeyboardInterrupt:  # it came when the work was done
        status = interrupts.STATUS
    interrupts.leave(status)
    if not streams.flushed():
        status = status or 1
    sys.exit(status)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    interrupts.begin()
    try:
        status: Any = edgesdk.main(arguments, prog_name="edgesdk", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        return _say_interrupted()
    except Exception as failure:
        if interrupts.heard():  # a native library may make another exception of the interrupt
            return _say_interrupted()
        return _say(failure)
    return status if isinstance(status, int) else 0


def _say_interrupted() -> int:
    echo("Interrupted.", err=True)
    return interrupts.STATUS


def _say(failure: Exception) -> int:
    """One message for a failure, and the exit status; raises what was not expected."""
    match failure:
        case click.ClickException():
            said = io.StringIO()
            failure.show(said)
            echo(said.getvalue(), err=True, nl=False)
            return failure.exit_code
        case EdgeError():
            _say_error(failure.message, failure.hint)
        case BrokenPipeError():
            streams.drop(1)
        case OSError():
            _say_error(f"{failure.filename or 'input/output'}: {failure.strerror or failure}")
        case ImportError():
            _say_error(f"a library cannot be loaded: {failure}", "give it more memory and handles, or install it again")
        case _ if _wants_memory(failure):
            _say_error("this machine has not enough memory for that", "close other programs, or use a larger machine")
        case _:
            raise failure
    return 1


def _wants_memory(failure: Exception) -> bool:
    """Whether memory ran out; of native libraries that is told by their words alone."""
    said = str(failure).lower()
    return isinstance(failure, MemoryError) or any(word in said for word in _NO_MEMORY)


def _say_error(message: str, hint: str | None = None) -> None:
    echo(f"Error: {message}", err=True)
    if hint:
        echo(f"Hint: {hint}", err=True)
