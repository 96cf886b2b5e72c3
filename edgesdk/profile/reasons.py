"""Codes of reasons: why a value is null, or a section not wholly to be believed."""

from __future__ import annotations

from typing import Final

from .schema import Reason

#: Code to what it says to people.
REASONS: Final[dict[str, str]] = {
    "busy-start": "other programs used the device before the run",
    "charging": "the device was charging: what its battery gave is not what it spent",
    "clock-jump": "a clock jumped in the middle of a repeat",
    "clocks-apart": "the sampler's clock could not be put on the runner's",
    "contended": "other programs used the device during the repeats",
    "cut-short": "the run ended before it was complete",
    "device-gone": "the connection to the device broke",
    "emulated": "an emulator: its time is not a device's",
    "few-repeats": "fewer than three repeats: no interval",
    "no-sampler": "this device cannot run the sampler",
    "no-sensor": "the device has no such sensor, or does not let this user read it",
    "no-total": "no sensor measures all that the device spends",
    "not-asked": "the plan leaves it out",
    "not-cooled": "the device did not cool down in time",
    "not-permitted": "the device has such a sensor, and this user may not read it",
    "not-reported": "the runner does not report it",
    "regime-changed": "governor or clock limits changed during the run",
    "runner-failed": "the runner failed",
    "sensor-lost": "a sensor stopped answering",
    "sensor-stuck": "the sensor of power said nothing above 0",
    "short-window": "the window has too few samples for an energy",
    "stolen": "a hypervisor gave processor time to others",
    "wide-interval": "repeats differ too much for a figure to go by",
    "sign-unknown": "the sign of the battery's current could not be told",
    "unit-unsure": "the unit of the battery's current could not be confirmed",
    "throttled": "the device held back",
}


def reason(code: str, detail: str = "") -> Reason:
    """A reason by its code, with what is particular about it."""
    return Reason(code, f"{REASONS[code]}: {detail}" if detail else REASONS[code])
