"""The command line: one file for each command, imported when it is called."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import Any

import click

from ..errors import EdgeError

#: Command name to the first line of its help, so that ``edgesdk --help`` imports no command.
COMMANDS = {
    "check": "Check PROFILE against a budget; exit 1 where a limit is not met.",
    "compare": "Compare two profiles; exit 1 where something became worse.",
    "compress": "Compress MODEL into a checkpoint that every export takes.",
    "device": "Look after one device: facts, its bundles, rollback, cleaning, restart, pairing.",
    "devices": "List devices that are attached or named in devices.toml, and what each can run.",
    "doctor": "Run a tiny model through every converter installed, and say what is missing.",
    "export": "Compress MODEL, convert it for a target, verify it, and write a bundle.",
    "fit": "Say which microcontroller boards hold MODEL, and with how much context.",
    "flash": "Make BUNDLE what a device runs from now on: firmware over UART or tools, a board with rollback.",
    "history": "List, plot and export the profiles that were kept.",
    "inspect": "Show what a bundle says about itself.",
    "lint": "Check MODEL against a target before any work.",
    "models": "List the catalogue, or fetch a model from it.",
    "profile": "Measure BUNDLE on a device: latency, memory, temperature, power.",
    "push": "Put BUNDLE on a device: what is missing there goes over, is verified, and is switched to.",
    "quality": "Say what compression cost: B against A, as models or bundles.",
    "recipes": "List recipes, or show the passes of one.",
    "report": "Write profiles as one HTML page, CSV or Markdown.",
    "run": "Run a bundle: answer PROMPT, or chat.",
    "sensors": "List the sensors of a device, and what they say now.",
    "sweep": "Export and profile models x recipes x targets x devices, and draw the trade-off.",
    "targets": "List targets, or show one.",
    "verify": "Check a bundle: every hash, its schema, its runtime.",
}
_INTERRUPTED = 130


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

        click.echo(f"edgesdk {__version__}")
        ctx.exit()


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
def edgesdk() -> None:
    """Ship small language models on edge devices."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors become one message and a non-zero exit."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)  # end like Ctrl-C: nothing half-written stays
    sys.exit(run(arguments))


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        status: Any = edgesdk.main(arguments, prog_name="edgesdk", standalone_mode=False)
    except click.ClickException as failure:
        failure.show()
        return failure.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        return _INTERRUPTED
    except EdgeError as failure:
        click.echo(f"Error: {failure.message}", err=True)
        if failure.hint:
            click.echo(f"Hint: {failure.hint}", err=True)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as failure:
        click.echo(f"Error: {failure.filename or 'input/output'}: {failure.strerror or failure}", err=True)
        return 1
    except MemoryError:
        click.echo("Error: this machine has not enough memory for that", err=True)
        click.echo("Hint: close other programs, or use a larger machine", err=True)
        return 1
    return status if isinstance(status, int) else 0
