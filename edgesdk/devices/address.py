"""How devices are named: addresses, and the names that a ``devices.toml`` gives them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..documents import read_toml
from ..lines import check_lines, shown_line, why_no_line
from ..registry import unknown
from ..schema import load
from ..trust import is_trusted
from .base import DeviceError
from .transports import TRANSPORTS

FILE = "devices.toml"
_HOME = re.compile(r"\A(?:\$HOME|\$\{HOME\})(?=/|\Z)")
_NO_FOLDER = re.compile(r"~[^/]|.*\$", re.DOTALL)
_HINT = "edgesdk devices lists what is attached; addresses are " + ", ".join(
    ("local", "adb:SERIAL", "ssh:user@host:port", "serial:/dev/ttyACM0@115200", "ios:UDID")
)


@dataclass(frozen=True)
class Settings:
    """One device of a ``devices.toml``; only the address is needed.

    Attributes:
        address: ``adb:SERIAL``, ``ssh:user@host:port``, ``serial:/dev/ttyACM0@115200``, ``local`` or ``ios:UDID``.
        store: folder on the device that bundles go under; ``~`` and ``$HOME`` are the home folder there.
        key: file of the private key, for ssh.
        known_hosts: file of host keys, for ssh; None takes the user's own.
        python: the interpreter on the device that has the runtime.
        board: microcontroller board, a name of ``edgesdk fit``.
        tool: what flashes it: a name that ``edgesdk flash --help`` lists.
        probe: serial number of the debug probe, or HOST:PORT of a gdb server.
        dtr: the modem line DTR of a serial port, ``low`` or ``high``, from its opening on and after its closing;
            ``keep``: as the operating system has it; None: high while it is open. Boards wire it to a reset or to a
            boot pin.
        rts: the same of RTS.
        loader_key: file of the key that its UART loader was built with.
        app: bundle identifier of the iOS app whose container holds bundles.
    """

    address: str
    store: str | None = None
    key: str | None = None
    known_hosts: str | None = None
    python: str | None = None
    board: str | None = None
    tool: str | None = None
    probe: str | None = None
    dtr: Literal["low", "high", "keep"] | None = None
    rts: Literal["low", "high", "keep"] | None = None
    loader_key: str | None = None
    app: str | None = None

    @property
    def kind(self) -> str:
        """The transport."""
        return self.address.partition(":")[0]

    @property
    def folder(self) -> str:
        """The store's folder with ``~`` for the device's home; "" where the device chooses.

        Raises:
            DeviceError: it begins with another user's home, or with another variable.
        """
        found = _HOME.sub("~", self.store or "", count=1)
        if _NO_FOLDER.match(found):
            raise DeviceError(
                f"store = '{shown_line(found)}': of what a shell would fill in, only ~ and $HOME are known",
                hint="write the folder's whole path, or one below ~",
            )
        return found

    @property
    def rest(self) -> str:
        """What follows the transport."""
        return self.address.partition(":")[2]


def find(name: str, fleet: Path | None = None) -> Settings:
    """What an address or a name of the fleet's file stands for.

    Raises:
        DeviceError: neither, or the file has a wrong key or value.
    """
    named = read_fleet(fleet)
    if name in named:
        return named[name]
    if why_no_line(name) is not None:
        raise DeviceError(f"'{shown_line(name)}' names no device", hint=_HINT)
    settings = Settings(name)
    kinds = TRANSPORTS.names()
    if settings.kind not in kinds or (settings.kind == "local" and name != "local"):
        known = [*named, *(f"{kind}:..." if kind != "local" else kind for kind in kinds)]
        raise DeviceError(unknown("device", name, known), hint=untrusted(fleet) or _HINT)
    if settings.kind in ("ssh", "serial") and not settings.rest:
        raise DeviceError(f"'{name}' names no device", hint=_HINT)
    return settings


def fleet_file(named: Path | None = None) -> Path | None:
    """The fleet's file: the one named, EDGESDK_DEVICES, a trusted ``devices.toml`` here, or the user's own.

    A ``devices.toml`` that merely lies here may come with somebody's data, and names interpreters and hosts: it counts
    once ``edgesdk trust`` was said of it.

    Returns: None if there is none.

    Raises:
        DeviceError: one was named that is not there.
    """
    chosen = named or (Path(os.environ["EDGESDK_DEVICES"]) if os.environ.get("EDGESDK_DEVICES") else None)
    if chosen is not None:
        if not chosen.is_file():
            raise DeviceError(f"{chosen}: no such file of devices")
        return chosen
    import platformdirs

    if is_trusted(Path(FILE)):
        return Path(FILE)
    own = platformdirs.user_config_path("edgesdk") / FILE
    return own if own.is_file() else None


def untrusted(named: Path | None) -> str | None:
    """The way out where the folder has a fleet's file that is not followed."""
    if fleet_file(named) is not None or not Path(FILE).is_file():
        return None
    return f"the {FILE} here is not trusted: look into it, then edgesdk trust {FILE}, or --devices {FILE}"


def read_fleet(named: Path | None = None) -> dict[str, Settings]:
    """Names and settings of a fleet; empty where there is no file.

    Raises:
        DeviceError: not TOML, or a wrong key or value.
    """
    path = fleet_file(named)
    if path is None:
        return {}
    data = read_toml(path, DeviceError)
    check_lines(data, str(path), DeviceError)
    found = {}
    for name, entry in data.items():
        if ":" in name or name in TRANSPORTS.names():
            raise DeviceError(
                f"{path}: '{name}' is an address of its own, and cannot stand for another device",
                hint="give the device another name",
            )
        settings = load(Settings, entry, f"{path}: [{name}]", DeviceError)
        if settings.kind not in TRANSPORTS.names():
            known = unknown("transport", settings.kind, TRANSPORTS.names())
            raise DeviceError(f"{path}: [{name}]: {known}", hint=_HINT)
        found[name] = _beside(settings, path.parent)
    return found


def _beside(settings: Settings, folder: Path) -> Settings:
    """Files that are named relative to the fleet's own folder."""

    def full(name: str | None) -> str | None:
        return None if name is None else str(folder / Path(name).expanduser())

    return replace(
        settings,
        key=full(settings.key),
        known_hosts=full(settings.known_hosts),
        loader_key=full(settings.loader_key),
    )
