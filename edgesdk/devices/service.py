"""A bundle as what a board runs from now on: tried there before the switch, and taken back where its service fails."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from ..bundle import Bundle
from ..progress import SILENT, Progress
from .base import DeviceError
from .runner.start import running
from .shell import ShellDevice
from .store import Parcel, Store

UNIT = "edgesdk"  # of systemd, where there is one
_SETTLES = 5  # seconds that a service must stay as it is


@dataclass(frozen=True)
class Installed:
    """What :func:`install` did.

    Attributes:
        name: the bundle's folder there.
        runner: what ran it, as it said.
        restarted: whether there was a service to restart.
    """

    name: str
    runner: str
    restarted: bool


def install(device: ShellDevice, bundle: Bundle, *, progress: Progress = SILENT) -> Installed:
    """Push a bundle, have it answer one token there, switch to it, and restart the service that serves it.

    Raises:
        DeviceError: it does not run there (the bundle in use stays), or its service does not start (the bundle that was
            in use is in use again).
    """
    with running(device, bundle, activate=False, progress=progress) as link:
        said = [event["event"] for event in link.events([0], max_tokens=1)]
        if said[-1] != "done":
            raise DeviceError(f"{device.name}: the bundle does not answer")
    store = Store(device)
    had_one = store.survey().active is not None
    pushed = store.push(Parcel.of_bundle(bundle))
    restarted = _has_service(device)
    if restarted:
        try:
            _restart(device)
        except DeviceError as failure:
            if had_one and not pushed.was_active:
                store.rollback()
                with suppress(DeviceError):
                    _restart(device)
                raise DeviceError(
                    f"{failure.message}; the bundle that was in use is in use again", hint=failure.hint
                ) from None
            raise
    return Installed(pushed.name, str(link.hello.get("runner")), restarted)


def _has_service(device: ShellDevice) -> bool:
    return device.run(f"systemctl cat {UNIT}.service > /dev/null 2>&1").status == 0


def _restart(device: ShellDevice) -> None:
    state = f"systemctl show -p ActiveState -p NRestarts -p MainPID {UNIT}.service"
    done = device.run(
        f"systemctl restart {UNIT}.service && systemctl is-active {UNIT}.service && a=$({state}) && sleep {_SETTLES}"
        f' && [ "$a" = "$({state})" ]',  # one that dies while it loads has started too
        timeout=120,
    )
    if done.status:
        raise DeviceError(
            f"{device.name}: its service {UNIT} does not start: {done.reason}",
            hint=f"there: journalctl -u {UNIT} says why",
        )
