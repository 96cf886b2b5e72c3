"""What is attached, and what the fleet's file names, each with what it says about itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import EdgeError, MissingExtraError
from . import open_device
from .address import read_fleet, untrusted
from .base import DeviceError
from .facts import Facts, matching
from .locks import alone
from .phones import identities, preferred, transports, with_state


@dataclass(frozen=True)
class Found:
    """A device that was found.

    Attributes:
        name: in the fleet's file, or its address.
        address: how to reach it.
        facts: what it says; None where it was not asked, or did not answer.
        targets: targets whose programs it can run.
        problem: why it cannot be used, with the way out.
    """

    name: str
    address: str
    facts: Facts | None
    targets: tuple[str, ...]
    problem: str | None


@dataclass(frozen=True)
class Phones:
    """What the adb server knows, by transport.

    Attributes:
        identities: the phone that each leads to.
        states: in adb's words.
    """

    identities: Mapping[str, str]
    states: Mapping[str, str]


def discover(fleet: Path | None = None, *, ask: bool = True) -> list[Found]:
    """All devices, those of the fleet first; those that answer slowly do not hold up the others.

    Args:
        fleet: file of named devices; None takes the usual places.
        ask: connect to each for its facts. Serial ports that no fleet names are never opened: that resets some boards.

    Raises:
        DeviceError: the fleet's file is wrong.
    """
    named = {name: settings.address for name, settings in read_fleet(fleet).items()}
    listed = [*named.items()]
    phones = _phones(ask)
    known = {_identity(address, phones) for address in named.values()}
    listed += [(address, address) for address in attached(phones) if _identity(address, phones) not in known]
    with ThreadPoolExecutor(max_workers=8) as pool:
        asked = [
            pool.submit(_found, name, address, fleet, ask and _may_be_asked(name, named)) for name, address in listed
        ]
        return [each.result() for each in asked]


def attached(phones: Phones | None = None) -> list[str]:
    """Addresses of what is plugged in or connected, each thing once; what cannot be looked for is left out.

    Args:
        phones: what the adb server knows; None asks.
    """
    return ["local", *_adb(_phones() if phones is None else phones), *_ios(), *_serial()]


def only_device(fleet: Path | None = None) -> str:
    """The one device that can be meant when none is named; this machine is never meant.

    Raises:
        DeviceError: none, or several, with their names.
    """
    named = {name: settings.address for name, settings in read_fleet(fleet).items()}
    phones = _phones()
    known = {"local", *(_identity(address, phones) for address in named.values())}
    names = [name for name in named if not _has_better(name, named, phones)]
    names += [each for each in attached(phones) if _identity(each, phones) not in known]
    if len(names) == 1:
        return names[0]
    if not names:
        raise DeviceError(
            "no device is attached", hint=untrusted(fleet) or "plug one in, or name one: --device ssh:user@host"
        )
    states = {name: phones.states.get(named.get(name, name).removeprefix("adb:"), "device") for name in names}
    usable = next((name for name in names if states[name] == "device"), names[0])
    listed = ", ".join(with_state(name, states[name]) for name in names)
    raise DeviceError(f"{len(names)} devices and none is named: {listed}", hint=f"--device {usable}")


def _has_better(name: str, named: Mapping[str, str], phones: Phones) -> bool:
    """Whether the fleet names another transport of the same phone that comes before this one."""
    address = named[name]
    if not address.startswith("adb:"):
        return False
    same = {each for each in named.values() if _identity(each, phones) == _identity(address, phones)}
    best = f"adb:{preferred([each.removeprefix('adb:') for each in same])}"
    return address != best


def _found(name: str, address: str, fleet: Path | None, ask: bool) -> Found:
    if not ask:
        return Found(name, address, None, (), None)
    try:
        with open_device(name, fleet) as device, alone(device, "edgesdk devices"):
            facts = device.facts()
    except EdgeError as failure:
        return Found(name, address, None, (), f"{failure.message}; {failure.hint}" if failure.hint else failure.message)
    return Found(name, address, facts, tuple(matching(facts)), None)


def _identity(address: str, phones: Phones) -> str:
    from .serial import identity_of

    kind, _, rest = address.partition(":")
    if kind == "adb":
        return f"adb:{phones.identities.get(rest, rest)}"
    return identity_of(address) if kind == "serial" else address


def _may_be_asked(name: str, named: dict[str, str]) -> bool:
    return name in named or not name.startswith("serial:")


def _phones(ask: bool = True) -> Phones:
    """What the adb server knows; without being asked each transport is a phone of its own."""
    with suppress(MissingExtraError, DeviceError):
        from .adb import client, states

        found = client()
        there = states(found)
        return Phones(identities(found, there) if ask else {serial: serial for serial in there}, there)
    return Phones({}, {})


def _adb(phones: Phones) -> Iterator[str]:
    for _, serials in sorted(transports(phones.identities).items()):
        yield f"adb:{preferred(serials)}"


def _ios() -> Iterator[str]:
    from .ios import attached_udids

    with suppress(DeviceError):
        yield from (f"ios:{udid}" for udid in attached_udids())


def _serial() -> Iterator[str]:
    with suppress(ModuleNotFoundError):
        from serial.tools import list_ports

        yield from (f"serial:{port.device}" for port in sorted(list_ports.comports()) if port.vid is not None)
