"""Which transports of the adb server lead to one phone: by cable, by address, by wireless debugging's own name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adbutils import AdbClient, AdbConnection

_SECONDS = 5.0  # for a property
_MOST = 4096  # bytes of one
# Numbers that makers give to every device: no identity. Emulators have one of their image's (EMULATOR36X1X10X0).
_NOBODY = re.compile(
    r"unknown|null|none|default|0*1?2345678(90?)?(abcdef?)?|abcdef0123456789|(?P<one>.)(?P=one)*|emulator\w*|20080411",
    re.IGNORECASE,
)
_EMULATED = ("ro.boot.qemu", "ro.kernel.qemu")
_BOOT = "cat /proc/sys/kernel/random/boot_id"
_STATE_WORDS = re.compile(r"(.*?)\s+(\S+)\s*")


def listed(text: str) -> dict[str, str]:
    """Serial numbers and states, from what the adb server answers to ``host:devices``.

    A tab stands between them: names have blanks (``adb-R5CT1 (2)._adb-tls-connect._tcp``), and states several words.
    """
    found = {}
    for line in text.splitlines():
        serial, tab, state = line.partition("\t")
        if not tab and (match := _STATE_WORDS.fullmatch(line)):
            serial, state = match[1], match[2]
        if serial.strip() and state.strip():
            found[serial.strip()] = state.strip()
    return found


def identities(found: AdbClient, states: Mapping[str, str]) -> dict[str, str]:
    """For each transport the phone that it leads to: its own serial number (``ro.serialno``), never its model.

    A transport that cannot be asked, an emulator, and a phone with a number that many have are known by the
    transport's name. So are phones with one number that are not the same: they did not boot at once.
    """
    said = {serial: _number(found, serial) if state == "device" else None for serial, state in states.items()}
    names: dict[str, str] = {}
    for serial, number in said.items():
        same = [other for other, theirs in said.items() if number is not None and theirs == number]
        names[serial] = serial if number is None or (len(same) > 1 and not _one(found, same)) else number
    return names


def preferred(serials: list[str]) -> str:
    """Of several transports to one phone the one to use: the cable first, then an address."""
    return min(serials, key=lambda serial: ("._adb-tls-" in serial, ":" in serial, serial))


def _number(found: AdbClient, serial: str) -> str | None:
    if serial.startswith("emulator-"):
        return None
    for name in ("ro.serialno", "ro.boot.serialno"):
        number = _asked(found, serial, f"getprop {name}")
        if number and not _NOBODY.fullmatch(number):
            emulated = ":" in serial and any(_asked(found, serial, f"getprop {key}") == "1" for key in _EMULATED)
            return None if emulated else number
    return None


def _one(found: AdbClient, serials: list[str]) -> bool:
    """Whether transports lead to one running kernel, as far as they say."""
    return len({boot for serial in serials if (boot := _asked(found, serial, _BOOT))}) <= 1


def _asked(found: AdbClient, serial: str, command: str) -> str:
    """What a device answers to a short command; "" where it does not."""
    for service, read in (("shell:", _plain), ("shell,v2,raw:", _framed)):
        with suppress(Exception):  # of the library, the server, the device: then its identity is not known
            connection = found.make_connection(timeout=_SECONDS)
            try:
                for request in (f"host:transport:{serial}", service + command):
                    connection.send_command(request)
                    connection.check_okay()
                text = read(connection)
            finally:
                connection.close()
            if text.strip():
                return text.strip().splitlines()[0].strip()
    return ""


def _plain(connection: AdbConnection) -> str:
    connection.conn.settimeout(_SECONDS)
    data = b""
    while len(data) < _MOST and (piece := connection.conn.recv(_MOST)):
        data += piece
    return data.decode("utf-8", "replace")


def _framed(connection: AdbConnection) -> str:
    from .adb import AdbChannel

    channel, data = AdbChannel("adb", connection), b""
    while len(data) < _MOST and (piece := channel.read(_SECONDS)) is not None:
        data += piece[1] if piece[0] == "out" else b""
    return data.decode("utf-8", "replace")
