"""Devices: find them, reach them, put bundles on them, run those there.

from edgesdk.devices import open_device

with open_device("ssh:root@jetson") as device:
    print(device.facts())
    print(device.run("uname -a").text)
"""

from __future__ import annotations

from pathlib import Path

from .address import Settings, find
from .base import (
    Ability,
    Completed,
    Device,
    DeviceBusyError,
    DeviceError,
    DeviceGoneError,
    DeviceTimeoutError,
    Line,
)
from .facts import Facts
from .transports import TRANSPORTS


def open_device(name: str, fleet: Path | None = None) -> Device:
    """A device by its address, or by its name in a file of devices.

    Args:
        name: an address (``local``, ``adb:SERIAL``, ``ssh:user@host:port``, ``serial:/dev/ttyACM0@115200``,
            ``ios:UDID``), or a name.
        fleet: the file; None takes EDGESDK_DEVICES, ``devices.toml`` here, or the user's own.

    Raises:
        DeviceError: no such device, or it does not let us in.
        MissingExtraError: the transport's library is not installed.
    """
    settings = find(name, fleet)
    return TRANSPORTS.get(settings.kind)(name, settings)


__all__ = [
    "TRANSPORTS",
    "Ability",
    "Completed",
    "Device",
    "DeviceBusyError",
    "DeviceError",
    "DeviceGoneError",
    "DeviceTimeoutError",
    "Facts",
    "Line",
    "Settings",
    "open_device",
]
