"""Keys that a device's bundles must be signed with, kept in this user's configuration.

A pin is for one device or for all of them; one for the device comes before the one for all. It may name several keys,
so that a new key can be pinned before the old one goes. It remembers the newest version that was sent under it: with
whichever of its keys a bundle is signed, an older one is refused. A revoked key counts nowhere any more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..bundle import FILE, SIGNATURE, Bundle, Manifest
from ..cache import alone_in
from ..documents import read_json
from ..files import replacing
from ..lines import Line, check_line
from ..partials import scratch_folder
from ..schema import dump, load
from . import SignatureError, keys
from .signature import Signature, check, read_signature
from .statement import KEY, is_version

if TYPE_CHECKING:
    from ..devices import Device

_FILE = "keys.json"


@dataclass(frozen=True)
class Pin:
    """What bundles of a device, or of all devices, must be signed with.

    Attributes:
        device: its name, as the user called it; None: every device that has no pin of its own.
        address: of that device, for when it is called by that; None where it is for all.
        keys: public keys, in hexadecimal; any of them will do.
        newest: the newest version that was sent; older ones are refused.
    """

    device: Line | None
    address: Line | None
    keys: tuple[str, ...]
    newest: int = 1

    @property
    def words(self) -> str:
        """Which devices it is for."""
        return "every device" if self.device is None else f"device {self.device}"


@dataclass(frozen=True)
class Pins:
    """Everything that this user pinned and revoked."""

    pins: tuple[Pin, ...] = ()
    revoked: tuple[str, ...] = ()

    def of(self, device: str | None) -> Pin | None:
        """The pin with exactly this name."""
        return next((each for each in self.pins if each.device == device), None)

    def for_device(self, *names: str) -> Pin | None:
        """The pin that counts for a device, by its name and its addresses."""
        own = (each for each in self.pins if each.device in names or each.address in names)
        return next(own, None) or self.of(None)

    def with_pin(self, pin: Pin) -> Pins:
        """These, and a pin in the place of the one with its name."""
        return replace(self, pins=(*(each for each in self.pins if each.device != pin.device), pin))


def read_pins() -> Pins:
    """What is pinned; nothing where nothing was ever.

    Raises:
        SignatureError: the record cannot be read. It is not taken for an empty one.
    """
    path = _record()
    if not path.exists():
        return Pins()
    data = read_json(path, SignatureError, hint=_MEND)
    pins = load(Pins, data, str(path), SignatureError)
    known = [*pins.revoked, *(key for each in pins.pins for key in each.keys)]
    if not all(KEY.fullmatch(key) for key in known) or not all(is_version(each.newest) for each in pins.pins):
        raise SignatureError(f"{path}: the record of pinned keys holds what is no key or no version", hint=_MEND)
    return pins


_MEND = "mend it, or remove it and pin the keys again"


def pin(key: str, device: str | None = None, address: str | None = None, *, oldest: int = 1) -> Pin:
    """Ask for a key from now on, beside those that a pin has already.

    Args:
        key: the public key, in hexadecimal.
        device: name; None for every device.
        address: of the device.
        oldest: the version that bundles must have at least.

    Raises:
        SignatureError: it was revoked, or the record cannot be read or written.
    """
    if device is not None:
        check_line(device, "the device", SignatureError)

    def change(pins: Pins) -> Pins:
        _refuse_revoked(key, pins)
        old = pins.of(device) or Pin(device, address, ())
        names = old.keys if key in old.keys else (*old.keys, key)
        return pins.with_pin(Pin(device, address, names, max(old.newest, oldest)))

    made = _changed(change).of(device)
    assert made is not None
    return made


def unpin(key: str, device: str | None = None) -> None:
    """Ask for a key no more; with the last key of a pin, the pin goes.

    Raises:
        SignatureError: it is not pinned there.
    """

    def change(pins: Pins) -> Pins:
        old = pins.of(device)
        if old is None or key not in old.keys:
            where = "every device" if device is None else f"device {device}"
            raise SignatureError(f"key {keys.short(key)} is not pinned for {where}", hint="edgesdk keys list")
        left = tuple(each for each in old.keys if each != key)
        others = tuple(each for each in pins.pins if each.device != device)
        return replace(pins, pins=(*others, replace(old, keys=left)) if left else others)

    _changed(change)


def revoke(key: str) -> None:
    """Trust a key nowhere any more. A pin that had only this key stays, and refuses every bundle.

    Raises:
        SignatureError: the record cannot be read or written.
    """

    def change(pins: Pins) -> Pins:
        return pins if key in pins.revoked else replace(pins, revoked=(*pins.revoked, key))

    _changed(change)


def check_with(bundle: Bundle, named: str, oldest: int = 1) -> Signature:
    """Check a bundle with the key that a user names.

    Raises:
        SignatureError: the key was revoked or is none, or see :func:`edgesdk.signing.signature.check`.
    """
    key = keys.public_key(named)
    _refuse_revoked(key, read_pins())
    return check(bundle, (key,), oldest=oldest)


def _pin_of(device: Device, pins: Pins) -> Pin | None:
    """The pin that counts for a device; it is asked for its other addresses only where there are pins."""
    return pins.for_device(device.name, *device.addresses) if pins.pins else None


def check_pinned(device: Device, bundle: Bundle) -> Signature | None:
    """Refuse a bundle that must not go to a device; None where nothing is pinned for it.

    Raises:
        SignatureError: unsigned, another key, a revoked one, changed since it was signed, or older than one before.
    """
    pins = read_pins()
    found = _pin_of(device, pins)
    if found is None:
        return None
    try:
        return check(bundle, _still_allowed(found, pins, read_signature(bundle.folder)), oldest=found.newest)
    except SignatureError as failure:
        where = f"{device.name}, for which a key is pinned"
        raise SignatureError(f"{where}: {failure.message}", hint=failure.hint) from None


def _still_allowed(found: Pin, pins: Pins, signature: Signature | None) -> tuple[str, ...]:
    if signature is not None:
        _refuse_revoked(signature.key, pins)
    allowed = tuple(key for key in found.keys if key not in pins.revoked)
    if not allowed:
        raise SignatureError("every key of it was revoked", hint="edgesdk keys pin PUBLIC pins a new one")
    return allowed


def check_going_back(device: Device, manifest: str, signature: bytes | None) -> None:
    """Refuse to go back to a bundle that no pinned key signed; its version may be an older one, that is what is meant.

    Args:
        device: where it lies.
        manifest: its manifest there, whose files were hashed there.
        signature: its signature there; None: there is none.

    Raises:
        SignatureError: as :func:`check_pinned`, but for the version.
        BundleError: the manifest cannot be read.
    """
    pins = read_pins()
    found = _pin_of(device, pins)
    if found is None:
        return
    with scratch_folder() as folder:
        (folder / FILE).write_text(manifest, encoding="utf-8", newline="")
        if signature is not None:
            (folder / SIGNATURE).write_bytes(signature)
        bundle = Bundle(folder, Manifest.parse(manifest, FILE))
        check(bundle, _still_allowed(found, pins, read_signature(folder)))


def note_sent(device: Device, signature: Signature | None) -> None:
    """Remember the version that a device got: older ones are refused from now on."""
    if signature is None:
        return
    version = signature.version

    def change(pins: Pins) -> Pins:
        found = _pin_of(device, pins)
        if found is None or found.newest >= version:
            return pins
        return pins.with_pin(replace(found, newest=version))

    _changed(change)


def _refuse_revoked(key: str, pins: Pins) -> None:
    if key in pins.revoked:
        raise SignatureError(f"key {keys.short(key)} was revoked", hint="edgesdk keys make FILE makes another")


def _record() -> Path:
    import platformdirs

    return platformdirs.user_config_path("edgesdk") / _FILE


def _changed(change: Callable[[Pins], Pins]) -> Pins:
    """Change the record while nobody else does."""
    path = _record()
    try:
        with alone_in(path.parent):
            before = read_pins()
            after = change(before)
            if after != before:
                with replacing(path) as partial:
                    partial.write_text(json.dumps(dump(after), indent=1) + "\n", encoding="utf-8")
    except OSError as failure:
        raise SignatureError(f"{path}: cannot be written ({failure.strerror or failure})") from None
    return after
