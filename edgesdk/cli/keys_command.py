"""``edgesdk keys``."""

from __future__ import annotations

from pathlib import Path

import click

from .device_options import fleet_option
from .terminal import echo, json_option, print_json, print_table

_public = click.argument("public", metavar="PUBLIC")
_device = click.option("--device", "-d", metavar="DEVICE", help="For this device.  [default: for every device]")


@click.group("keys")
def command() -> None:
    """Make keys, and say which ones a device's bundles must be signed with.

    PUBLIC is the file of a public key, or its 64 hexadecimal digits.
    """


@command.command("make")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--for",
    "use",
    type=click.Choice(["bundles", "loader", "openssf"]),
    default="bundles",
    show_default=True,
    help="What it is for: to sign bundles, to be built into a UART loader, or for OpenSSF's format of signatures.",
)
def make(file: Path, use: str) -> None:
    """Write a new private key to FILE, and its public key to FILE.pub (a loader has none)."""
    from ..signing import keys
    from ..signing.openssf import make_openssf_key

    if use == "loader":
        keys.make_loader_key(file)
        echo(f"{file}: build the loader with -DLOADER_KEY={file}, and name it in devices.toml: loader_key")
        return
    if use == "openssf":
        make_openssf_key(file)
    else:
        echo(keys.make_key(file))
    echo(f"private key: {file} (keep it secret, and keep a copy)\npublic key: {file}.pub")


@command.command("show")
@_public
def show(public: str) -> None:
    """Print the 64 hexadecimal digits of a public key: compare them with what its owner says."""
    from ..signing.keys import public_key

    echo(public_key(public))


@command.command("pin")
@_public
@_device
@fleet_option
@click.option("--oldest", type=click.IntRange(1), default=1, metavar="N", help="Refuse versions before N.")
def pin(public: str, device: str | None, fleet: Path | None, oldest: int) -> None:
    """Send only bundles that are signed with this key; with another key pinned already, either will do."""
    from ..devices.address import find
    from ..signing import pins
    from ..signing.keys import public_key

    key = public_key(public)
    address = None if device is None else find(device, fleet).address
    made = pins.pin(key, device, address, oldest=oldest)
    echo(f"bundles for {made.words} must be signed with {' or '.join(made.keys)}, version {made.newest} or newer")


@command.command("unpin")
@_public
@_device
def unpin(public: str, device: str | None) -> None:
    """Ask for this key no more; with the last one, unsigned bundles are sent again."""
    from ..signing import pins
    from ..signing.keys import public_key

    pins.unpin(public_key(public), device)
    left = pins.read_pins().of(device)
    where = "every device" if device is None else f"device {device}"
    echo(f"left for {where}: {' or '.join(left.keys) if left else 'no key'}")


@command.command("revoke")
@_public
def revoke(public: str) -> None:
    """Trust this key nowhere any more; a device with no other key pinned gets no bundle at all."""
    from ..signing import pins
    from ..signing.keys import public_key

    key = public_key(public)
    pins.revoke(key)
    echo(f"{key} is revoked on this computer; boards have to be told too: /etc/edgesdk/keys.toml")


@command.command("list")
@json_option
def list_pins(as_json: bool) -> None:
    """List what is pinned and revoked."""
    from ..signing.pins import read_pins

    found = read_pins()
    if as_json:
        print_json(found)
        return
    rows = [
        [each.words, key, "revoked" if key in found.revoked else "", str(each.newest)]
        for each in found.pins
        for key in each.keys
    ]
    pinned = {key for each in found.pins for key in each.keys}
    rows += [["", key, "revoked", ""] for key in found.revoked if key not in pinned]
    print_table(("for", "key", "", "version from"), rows)
