"""The phone: Android's own adbd for arm64 under qemu's user mode, in its own namespaces, behind a relay."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import EdgeError

from .cache import using
from .host import PHONE, LabUnavailableError, free_port, require, tool
from .phone_image import phone_image
from .processes import LIMIT, Kept
from .relay import Relay

_START = 60.0  # seconds for adbd to answer
_PAUSE = 0.02  # seconds between two looks
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Phone:
    """A running phone.

    Attributes:
        serial: what adb calls it, once it is connected.
        adb_port: of an adb server of its own (``adb -P``), which knows no other device.
        adb: the adb program, or None if there is none on this machine.
        relay: between adb and the phone; its faults are the cable's.
        environment: for programs that are to use this server.
    """

    serial: str
    adb_port: int
    adb: str | None
    relay: Relay
    environment: dict[str, str]


@contextmanager
def phone(*, limit: float = LIMIT, architecture: str = "arm64", rate: float | None = None) -> Iterator[Phone]:
    """A phone, newly started with empty folders, until the block ends.

    Args:
        limit: seconds after which it ends by itself.
        architecture: as Debian names it; this machine's own needs no emulator.
        rate: bytes a second of its cable, each way; None is as fast as this machine.

    Raises:
        LabUnavailableError: a tool, a right or the network is missing.
    """
    require(PHONE)
    system = phone_image(architecture)
    folder = Path(tempfile.mkdtemp(prefix="edgesdk-phone-"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)])}
    command = [tool("unshare") or "unshare", "--user", "--map-root-user", "--mount", "--net", "--ipc", "--uts", "--pid"]
    command += ["--fork", "--kill-child", "--mount-proc"]
    command += [sys.executable, "-m", f"{__package__}.phone_init", str(system), str(folder)]
    try:
        with using(system), Kept(command, folder / "log", limit=limit, scratch=folder, env=environment) as kept:
            _await(kept, folder / "adbd.sock")
            with Relay(folder / "adbd.sock", rate=rate) as relay, adb_server(folder, limit) as (adb, port):
                server = {"ANDROID_ADB_SERVER_PORT": str(port)}
                yield Phone(f"127.0.0.1:{relay.port}", port, adb, relay, server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _await(kept: Kept, path: Path) -> None:
    """Wait until adbd takes a connection and keeps it; a connection to nothing is closed at once."""
    give_up = time.monotonic() + _START
    while time.monotonic() < give_up:
        try:
            kept.check()
        except EdgeError as error:
            raise LabUnavailableError(error.message, hint="the phone needs user namespaces with binfmt_misc") from error
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            probe.settimeout(0.2)
            try:
                if probe.recv(1) == b"":
                    raise ConnectionResetError
            except TimeoutError:
                return
        time.sleep(_PAUSE)
    raise LabUnavailableError(f"adbd did not answer in {_START:g} s", hint="the machine may be too busy")


@contextmanager
def adb_server(folder: Path, limit: float) -> Iterator[tuple[str | None, int]]:
    """An adb server of its own, with its own key, that looks for no other device."""
    adb, port = _adb(), free_port()
    if adb is None:
        yield None, port
        return
    environment = {**os.environ, "HOME": str(folder), "ADB_MDNS": "0", "ADB_USB": "0", "ADB_EMU": "0"}
    environment.pop("ANDROID_ADB_SERVER_PORT", None)
    with Kept([adb, "-P", str(port), "server", "nodaemon"], folder / "adb.log", limit=limit, env=environment) as kept:
        give_up = time.monotonic() + _START
        while time.monotonic() < give_up:
            kept.check()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(_PAUSE)
        try:
            yield adb, port
        finally:
            _kill_server(port)


def _kill_server(port: int) -> None:
    """End whatever server has the port now: a client of another version may have put its own there."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.sendall(b"0009host:kill")
        connection.settimeout(2)
        connection.recv(4)


def _adb() -> str | None:
    """The adb of the adbutils package, as the SDK itself takes it, or the one on the path."""
    try:
        from adbutils import adb_path
    except ImportError:
        return shutil.which("adb")
    return str(adb_path())
