"""Which transports of the adb server lead to one phone: by cable, by address, by wireless debugging's own name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from ..lines import shown_line
from .kernels import BOOT_ID

if TYPE_CHECKING:
    from adbutils import AdbClient, AdbConnection

_SECONDS = 5.0  # for a property
_MOST = 4096  # bytes of one
# Numbers that makers give to every device: no identity. Emulators have one of their image's (EMULATOR36X1X10X0).
_NOBODY = re.compile(r"unknown|null|none|default|(.)\1*|emulator\w*|20080411", re.IGNORECASE)
# So are those that only count, from any digit on (github.com/koush/vysor.io/issues/220: 1234567890ABCDEF).
_COUNTED = ("0123456789abcdef" * 2, "1234567890abcdef" * 2, "1234567890" * 4, "fedcba9876543210" * 2, "0987654321" * 4)
_NAMELESS = re.compile(r"\(no serial number\)|\?+")  # what adb lists where there is no number, or it may not read it
LISTED_TWICE = "listed more than once"
_EMULATED = ("ro.boot.qemu", "ro.kernel.qemu")
_BOOT = f"cat {BOOT_ID}"
_STATE_WORDS = re.compile(r"(.*?)\s+(\S+)\s*")


def listed(text: str, detailed: str = "") -> dict[str, str]:
    """Names and states, from what the adb server answers to ``host:devices`` and, where that leaves doubts, ``-l``.

    A tab stands between them: names have blanks (``adb-R5CT1 (2)._adb-tls-connect._tcp``), and states several words.
    A device without a number, or with one that another has too, is known by its port (``usb:1-2``), which adb takes as
    well; without a port its state says that it cannot be named.
    """
    found, left = dict[str, str](), detailed.splitlines()
    pairs = _pairs(text)
    for serial, state in pairs:
        if not _is_doubtful(serial, pairs):
            found[serial] = state
            continue
        start = f"{serial:<22} {state} "
        line = next((line for line in left if line.startswith(start)), None)
        if line is not None:
            left.remove(line)
        port = re.match(r"usb:\S+", line[len(start) :]) if line else None
        if port:
            found[port[0]] = state
        else:
            found[serial] = LISTED_TWICE if serial in found else state
    return found


def has_doubts(text: str) -> bool:
    """Whether some device has no number of its own in the short list."""
    pairs = _pairs(text)
    return any(_is_doubtful(serial, pairs) for serial, _ in pairs)


def _is_doubtful(serial: str, pairs: list[tuple[str, str]]) -> bool:
    return _NAMELESS.fullmatch(serial) is not None or sum(serial == other for other, _ in pairs) > 1


def _pairs(text: str) -> list[tuple[str, str]]:
    found = []
    for line in text.splitlines():
        serial, tab, state = line.partition("\t")
        if not tab and (match := _STATE_WORDS.fullmatch(line)):
            serial, state = match[1], match[2]
        if serial.strip() and state.strip():
            found.append((serial.strip(), state.strip()))
    return found


def identities(found: AdbClient, states: Mapping[str, str]) -> dict[str, str]:
    """For each transport the phone that it leads to: its own serial number (``ro.serialno``), never its model.

    A transport that cannot be asked, an emulator, and a phone with a number that many have are known by the
    transport's name. So are phones with one number that are not the same: they did not boot at once.
    """
    said = {serial: number_of(found, serial) if state == "device" else None for serial, state in states.items()}
    names: dict[str, str] = {}
    for serial, number in said.items():
        same = [other for other, theirs in said.items() if number is not None and theirs == number]
        names[serial] = serial if number is None or (len(same) > 1 and not _one(found, same)) else number
    return names


def preferred(serials: list[str]) -> str:
    """Of several transports to one phone the one to use: the cable first, then an address."""
    return min(serials, key=lambda serial: ("._adb-tls-" in serial, by_network(serial), serial))


def by_network(serial: str) -> bool:
    """Whether a transport's name is an address that adb connects to; a USB port has a colon too."""
    return ":" in serial and not serial.startswith("usb:")


def transports(identities: Mapping[str, str]) -> dict[str, list[str]]:
    """The transports of each phone."""
    found: dict[str, list[str]] = {}
    for serial, phone in identities.items():
        found.setdefault(phone, []).append(serial)
    return found


def with_state(name: str, state: str) -> str:
    """A name for a list, with why it cannot be used."""
    return name if state == "device" else f"{name} ({shown_line(state)})"


def number_of(found: AdbClient, serial: str) -> str | None:
    """The serial number that a phone says it has; None: none, or one that many have, or an emulator's."""
    if serial.startswith("emulator-"):
        return None
    for name in ("ro.serialno", "ro.boot.serialno"):
        number = _asked(found, serial, f"getprop {name}")
        if number and not _is_nobodys(number):
            emulated = by_network(serial) and any(_asked(found, serial, f"getprop {key}") == "1" for key in _EMULATED)
            return None if emulated else number
    return None


def boot_of(found: AdbClient, serial: str) -> str:
    """The id of a phone's start; "" where it does not say."""
    return _asked(found, serial, _BOOT)


def _is_nobodys(number: str) -> bool:
    plain = number.lower()
    return _NOBODY.fullmatch(plain) is not None or any(plain in counted for counted in _COUNTED)


def _one(found: AdbClient, serials: list[str]) -> bool:
    """Whether transports lead to one running kernel, as far as they say."""
    return len({boot for serial in serials if (boot := boot_of(found, serial))}) <= 1


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
