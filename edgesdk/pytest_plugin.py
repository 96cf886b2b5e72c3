"""Options of pytest that name devices: ``--edge-device adb:SERIAL``, known wherever edgesdk is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("edgesdk")
    group.addoption(
        "--edge-device",
        action="append",
        default=[],
        metavar="DEVICE",
        help="run device tests on this device too: an address, or a name of devices.toml; may be repeated",
    )
    group.addoption("--edge-devices-file", type=Path, metavar="FILE", help="file that names devices (devices.toml)")
