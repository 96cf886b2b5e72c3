"""iPhones and iPads through go-ios or pymobiledevice3, called as programs; bundles go into an app's container.

iOS runs no commands from outside: the app module of a bundle holds its runner.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..documents import parse_json
from ..files import replacing
from .address import Settings
from .base import Ability, Advance, Device, DeviceError, DeviceGoneError, DeviceTimeoutError, unheard
from .facts import Facts
from .hosts import check_word

_TIMEOUT = 600.0


@dataclass(frozen=True)
class Program:
    """A program that talks to iOS devices, by the command lines that it takes.

    ``{udid}``, ``{app}``, ``{source}`` and ``{target}`` stand for what their names say.
    """

    name: str
    listing: tuple[str, ...]
    info: tuple[str, ...]
    push: tuple[str, ...]
    pull: tuple[str, ...]
    reboot: tuple[str, ...]


PROGRAMS = (
    Program(
        "ios",  # go-ios
        ("list",),
        ("info", "--udid={udid}"),
        ("fsync", "--udid={udid}", "--app={app}", "push", "--srcPath={source}", "--dstPath={target}"),
        ("fsync", "--udid={udid}", "--app={app}", "pull", "--srcPath={source}", "--dstPath={target}"),
        ("reboot", "--udid={udid}"),
    ),
    Program(
        "pymobiledevice3",
        ("usbmux", "list"),
        ("lockdown", "info", "--udid", "{udid}"),
        ("apps", "push", "--udid", "{udid}", "{app}", "{source}", "{target}"),
        ("apps", "pull", "--udid", "{udid}", "{app}", "{source}", "{target}"),
        ("diagnostics", "restart", "--udid", "{udid}"),
    ),
)


class IosDevice(Device):
    """One iOS device that trusts this computer."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({"files", "reboot"})

    def __init__(self, name: str, settings: Settings) -> None:
        """Raises DeviceError: neither program is installed, no such device, or several and none named."""
        super().__init__(name, settings)
        if settings.app is not None:
            check_word(settings.app, "bundle identifier of an app")
        self._program = _program()
        there = attached_udids()
        if not settings.rest and len(there) == 1:
            self.udid = there[0]
        elif settings.rest in there:
            self.udid = settings.rest
        else:
            named = ", ".join(f"ios:{udid}" for udid in there) or "none"
            raise DeviceGoneError(
                f"no iOS device '{name}'; attached: {named}", hint="plug it in, unlock it, and trust this computer"
            )
        self.identity = f"ios:{self.udid}"

    def facts(self) -> Facts:
        said = _json(self._run(self._program.info))
        return Facts(
            model=said.get("ProductType"),
            os="ios",
            release=said.get("ProductVersion"),
            architecture="aarch64" if str(said.get("CPUArchitecture", "")).startswith("arm64") else None,
        )

    def push(self, source: Path, target: str, *, offset: int = 0, advance: Advance = unheard) -> None:
        """As :meth:`Device.push`, into the container of the app that the settings name; always the whole file."""
        self._run(self._program.push, source=str(source), target=target)
        advance(source.stat().st_size - offset)

    def pull(self, source: str, target: Path) -> None:
        with replacing(target) as partial:
            self._run(self._program.pull, source=source, target=str(partial))
            if not partial.is_file():
                raise DeviceError(f"{self.name}: {source} did not come")

    def reboot(self, *, timeout: float = 180) -> None:
        self._run(self._program.reboot)
        give_up = time.monotonic() + timeout
        for there in (False, True):  # it goes, and comes back
            while (self.udid in attached_udids()) != there:
                if time.monotonic() > give_up:
                    raise DeviceTimeoutError(f"{self.name} did not come back in {timeout:g} s after its restart")
                time.sleep(0.5)

    def close(self) -> None:
        pass

    def _run(self, command: Sequence[str], source: str = "", target: str = "") -> str:
        needs_app = any("{app}" in word for word in command)
        if needs_app and not self.settings.app:
            raise DeviceError(
                f"{self.name}: files go into an app's container, and no app is named",
                hint="app = '...' in devices.toml",
            )
        words = [
            word.format(udid=self.udid, app=self.settings.app or "", source=source, target=target) for word in command
        ]
        return _called([self._program.name, *words], self.name)


def attached_udids() -> list[str]:
    """UDIDs of attached devices; none where neither program is installed.

    Raises:
        DeviceError: the program fails.
    """
    if all(shutil.which(program.name) is None for program in PROGRAMS):
        return []
    program = _program()
    said = _called([program.name, *program.listing], "ios")
    return udids_in(parse_json(said or "[]", f"the list of {program.name}", DeviceError))


def udids_in(found: object) -> list[str]:
    """The devices that a program lists; each once, by cable and by Wi-Fi; what is no device is passed over."""
    if isinstance(found, dict):  # go-ios
        listed = found.get("deviceList")
        return sorted({udid for udid in listed if isinstance(udid, str)}) if isinstance(listed, list) else []
    entries = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
    named = (entry.get("Identifier") or entry.get("UniqueDeviceID") for entry in entries)
    return sorted({udid for udid in named if isinstance(udid, str)})


def _program() -> Program:
    for program in PROGRAMS:
        if shutil.which(program.name):
            return program
    raise DeviceError(
        "iOS devices need go-ios or pymobiledevice3, and neither is installed",
        hint="npm install -g go-ios, or pipx install pymobiledevice3",
    )


def _called(command: Sequence[str], name: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise DeviceTimeoutError(f"{name}: {command[0]} did not end in {_TIMEOUT:g} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise DeviceError(f"{name}: {command[0]} failed: {said[-1] if said else f'status {done.returncode}'}")
    return done.stdout


def _json(text: str) -> dict[str, Any]:
    try:
        found = parse_json(text, "what it says of itself", DeviceError)
    except DeviceError:
        found = None
    return found if isinstance(found, dict) else {}
