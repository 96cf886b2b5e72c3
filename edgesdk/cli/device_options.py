"""Options that commands for devices share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..devices import Device
    from ..devices.shell import ShellDevice

device_option = click.option(
    "--device", "-d", metavar="DEVICE", help="Address, or a name of devices.toml.  [default: the only one attached]"
)
fleet_option = click.option(
    "--devices",
    "fleet",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File that names devices (devices.toml).",
)


@contextmanager
def chosen_device(name: str | None, fleet: Path | None, what: str) -> Iterator[Device]:
    """The device that is meant, for this process alone."""
    from ..devices import open_device
    from ..devices.discovery import only_device
    from ..devices.locks import alone

    with open_device(name or only_device(fleet), fleet) as device, alone(device, what):
        yield device


def shell_of(device: Device) -> ShellDevice:
    """A device that holds files and runs commands; any other is refused as :meth:`Device.need` does."""
    from ..devices import DeviceError
    from ..devices.shell import ShellDevice

    device.need("run")
    if not isinstance(device, ShellDevice):
        raise DeviceError(f"{device.name} has no POSIX shell")
    return device
