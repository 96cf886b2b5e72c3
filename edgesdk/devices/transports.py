"""The transports, built in and of other packages."""

from __future__ import annotations

from ..registry import Registry
from .base import Device

TRANSPORTS: Registry[type[Device]] = Registry(
    "transport",
    "edgesdk.transports",
    {
        "adb": "edgesdk.devices.adb:AdbDevice",
        "ios": "edgesdk.devices.ios:IosDevice",
        "local": "edgesdk.devices.local:LocalDevice",
        "serial": "edgesdk.devices.serial:SerialDevice",
        "ssh": "edgesdk.devices.ssh:SshDevice",
    },
)
