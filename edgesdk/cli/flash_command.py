"""``edgesdk flash``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..partials import scratch_folder
from .device_options import chosen_device, device_option, fleet_option
from .terminal import TerminalProgress, echo

if TYPE_CHECKING:
    from ..boards import Board
    from ..bundle import Bundle
    from ..devices import Device
    from ..devices.base import Flashing
    from ..devices.shell import ShellDevice


@click.command("flash")
@click.argument("bundle", type=click.Path(path_type=Path))
@device_option
@fleet_option
@click.option(
    "--firmware", type=click.Path(path_type=Path, exists=True), help="ELF, HEX, BIN or UF2 of your own build."
)
@click.option("--board", help="Microcontroller board.  [default: as devices.toml or the firmware says]")
@click.option(
    "--with",
    "tool",
    metavar="TOOL",
    help="uart (the loader), gdb, pyocd, openocd, jlink, esptool, dfu or uf2.  [default: of devices.toml, or uart]",
)
@click.option("--probe", help="Serial number of the debug probe; HOST:PORT of a gdb server; folder of a UF2 drive.")
@click.option("--read-back", is_flag=True, help="Over the loader: compare every byte, not only the checksum.")
def command(
    bundle: Path,
    device: str | None,
    fleet: Path | None,
    firmware: Path | None,
    board: str | None,
    tool: str | None,
    probe: str | None,
    read_back: bool,
) -> None:
    """Make BUNDLE what a device runs from now on.

    A microcontroller gets its firmware, built here or given, over the UART loader or by a flash tool; the firmware must
    then say hello with this bundle's model. A board with a shell gets the bundle, has to answer a token with it, and is
    switched to it; where its service does not start, the bundle before is in use again.
    """
    from ..bundle import open_bundle
    from ..devices.base import Flashing
    from ..devices.shell import ShellDevice

    with (
        open_bundle(bundle, progress=TerminalProgress()) as opened,
        chosen_device(device, fleet, "edgesdk flash") as found,
    ):
        if isinstance(found, ShellDevice):
            _install(found, opened)
        else:
            settings = found.settings
            how = Flashing(tool or settings.tool or "uart", probe or settings.probe, read_back)
            _flash(found, opened, firmware, board, how)


def _install(device: ShellDevice, bundle: Bundle) -> None:
    from ..devices.service import UNIT, install

    done = install(device, bundle, progress=TerminalProgress())
    service = f"service {UNIT} restarted" if done.restarted else f"no service '{UNIT}' there to restart"
    echo(f"In use on {device.name}: {done.name} (answered a token with {done.runner}; {service})")


def _flash(device: Device, bundle: Bundle, firmware: Path | None, board: str | None, how: Flashing) -> None:
    from ..devices.flash.build import build_firmware
    from ..devices.runner.start import running
    from ..signing.pins import check_pinned, note_sent

    device.need("flash")
    signature = check_pinned(device, bundle)
    how = replace(how, version=signature.version if signature else None)
    described, progress = _board(device, board), TerminalProgress()
    loader = how.tool == "uart"
    with scratch_folder() as scratch:
        built = firmware or build_firmware(bundle, described, scratch, loader=loader, progress=progress)
        done = device.flash(built, described, how, progress=progress)
    echo(f"{device.name}: {done}")
    with running(device, bundle) as link:
        said = {name: link.hello.get(name, "?") for name in ("runner", "board", "model_crc")}
        note_sent(device, signature)
        echo(f"{device.name}: {said['runner']} on {said['board']} says hello with model {said['model_crc']}")


def _board(device: Device, named: str | None) -> Board:
    """The board that is meant: named, in devices.toml, or what the firmware there says."""
    from ..boards import open_board
    from ..devices import DeviceError

    name = named or device.settings.board
    if name is None:
        try:
            name = device.facts().board
        except DeviceError:
            name = None
    if name is None:
        raise DeviceError(f"which board {device.name} is, is not known", hint="--board NAME (edgesdk fit lists them)")
    return open_board(name)
