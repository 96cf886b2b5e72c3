"""Boards over SSH with paramiko: the user's keys, agent, configuration and known hosts; no host is trusted blindly."""

from __future__ import annotations

import logging
import shlex
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import MissingExtraError
from .address import Settings
from .base import DeviceError, DeviceGoneError, DeviceTimeoutError
from .hosts import place_of
from .kernels import kernel_marks
from .shell import ShellDevice

if TYPE_CHECKING:
    import paramiko
    from paramiko import PKey, SSHClient

_CONNECT, _STALL = 20.0, 60.0  # seconds
_BLOCK = 1 << 15  # the largest payload of a packet that every server takes (RFC 4253, section 6.1)
_POLL = 0.005
# Dropbear may close a new channel instead of starting its command, when another command ends at that moment. A server
# answers a request before it starts one: what was not answered did not begin, and is asked for again, after seconds.
_AGAIN = (0.05, 0.2, 0.8)


class SshDevice(ShellDevice):
    """One board; the connection is made when it is first needed, and again when it was lost between two verbs."""

    def __init__(self, name: str, settings: Settings) -> None:
        super().__init__(name, settings)
        _parts(settings.rest)
        self._client: paramiko.SSHClient | None = None
        self._connecting = threading.Lock()  # commands may be started from several threads

    def marks(self) -> tuple[str, ...]:
        return (self.identity, *kernel_marks(self))

    def open(self, command: str) -> SshChannel:
        with _errors(self.name, self.settings):
            for seconds in _AGAIN:
                transport = self._live()
                try:
                    return self._started(transport, command)
                except _paramiko().SSHException:
                    if not transport.is_active():
                        raise
                    time.sleep(seconds)
            return self._started(self._live(), command)

    def _started(self, transport: paramiko.Transport, command: str) -> SshChannel:
        channel = transport.open_session(timeout=_CONNECT)
        channel.settimeout(_STALL)
        channel.exec_command(command)
        return SshChannel(self.name, channel)

    def _live(self) -> paramiko.Transport:
        with self._connecting:
            transport = self._connected().get_transport()
        assert transport is not None
        return transport

    def close(self) -> None:
        if self._client is not None:
            with suppress(Exception):  # a connection that is already gone
                self._client.close()
            self._client = None

    def _connected(self) -> paramiko.SSHClient:
        transport = self._client.get_transport() if self._client else None
        if self._client is not None and transport is not None and transport.is_active():
            return self._client
        self.close()
        self._client = _connect(self.settings)
        return self._client


class SshChannel:
    """One command in a session of its own."""

    def __init__(self, name: str, channel: paramiko.Channel) -> None:
        self._name, self._channel = name, channel

    def read(self, seconds: float | None) -> tuple[Literal["out", "err"], bytes] | None:
        channel = self._channel
        give_up = None if seconds is None else time.monotonic() + seconds
        while True:
            lost = channel.closed or not self._alive()  # asked first: what came before the end is looked for after it
            if channel.recv_ready():
                return "out", channel.recv(1 << 17)
            if channel.recv_stderr_ready():
                return "err", channel.recv_stderr(1 << 17)
            if channel.exit_status_ready() and channel.eof_received:
                return None if not (channel.recv_ready() or channel.recv_stderr_ready()) else self.read(seconds)
            if lost:
                raise _gone(self._name, "the connection closed")
            left = _STALL if give_up is None else give_up - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._wait(min(left, _STALL))

    def write(self, data: bytes) -> None:
        try:
            for at in range(0, len(data), _BLOCK):
                self._channel.sendall(data[at : at + _BLOCK])
        except (OSError, EOFError, _paramiko().SSHException) as failure:
            if self._channel.exit_status_ready():
                raise BrokenPipeError from None
            raise _gone(self._name, str(failure) or "it took nothing for a minute") from None

    def end_input(self) -> None:
        with suppress(OSError, EOFError, _paramiko().SSHException):
            self._channel.shutdown_write()

    def status(self) -> int:
        status = self._channel.recv_exit_status()
        return status if status >= 0 else 255

    def close(self) -> None:
        with suppress(Exception):  # a connection that is already gone
            self._channel.close()

    def _alive(self) -> bool:
        transport = self._channel.get_transport()
        return bool(transport is not None and transport.is_active())

    def _wait(self, seconds: float) -> None:
        """Until something comes, or the time is over; paramiko tells of data, but not of errors or the end."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            channel = self._channel
            if channel.recv_ready() or channel.recv_stderr_ready() or channel.exit_status_ready() or channel.closed:
                return
            if not self._alive():
                return
            time.sleep(_POLL)


def _connect(settings: Settings) -> paramiko.SSHClient:
    paramiko = _paramiko()
    user, host, port = _parts(settings.rest)
    configured = _configured(host)
    client: SSHClient = paramiko.SSHClient()
    _load_hosts(client, settings, configured)
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    named = [] if settings.key else [Path(each).expanduser() for each in configured.get("identityfile", [])]
    files: Any = [str(path) for path in named if path.is_file()] or None
    proxy = configured.get("proxycommand")
    if proxy is None and configured.get("proxyjump", "none") != "none":
        place = f"{configured.get('hostname', host)}:{port or configured.get('port', 22)}"
        *before, last = configured["proxyjump"].split(",")
        first = f"-J {shlex.quote(','.join(before))} " if before else ""
        proxy = f"ssh {first}-W {shlex.quote(place)} -- {shlex.quote(last)}"
    client.connect(
        configured.get("hostname", host),
        port or int(configured.get("port", 22)),
        user or configured.get("user") or getuser(),
        pkey=_key(settings.key) if settings.key else None,
        key_filename=files,
        look_for_keys=not settings.key,
        timeout=_CONNECT,
        banner_timeout=_CONNECT,
        auth_timeout=_CONNECT,
        sock=paramiko.ProxyCommand(proxy) if proxy else None,
        transport_factory=_transport,
    )
    transport = client.get_transport()
    assert transport is not None
    transport.set_keepalive(15)
    if isinstance(transport.sock, socket.socket):
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # a board whose power is cut says nothing more
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * _STALL))
    return client


def _transport(sock: Any, **options: Any) -> paramiko.Transport:
    """A transport that prefers ciphers which authenticate too: one pass over the bytes instead of two."""
    made: paramiko.Transport = _paramiko().Transport(sock, **options)
    security = made.get_security_options()
    security.ciphers = sorted(security.ciphers, key=lambda name: "-gcm" not in name)
    return made


def _key(path: str) -> PKey:
    """A private key that the settings name.

    Raises:
        DeviceError: it is none, or it is locked.
    """
    paramiko = _paramiko()
    try:
        found: PKey = paramiko.PKey.from_path(path)
    except (OSError, TypeError, ValueError, paramiko.SSHException, paramiko.UnknownKeyType) as failure:
        hint = "a key with a passphrase goes into the agent: ssh-add, and no key = in devices.toml"
        raise DeviceError(f"{path} is no private key that can be used ({failure})", hint=hint) from None
    return found


def _load_hosts(client: paramiko.SSHClient, settings: Settings, configured: dict[str, Any]) -> None:
    if settings.known_hosts:
        try:
            client.load_host_keys(settings.known_hosts)
        except OSError as failure:
            raise DeviceError(f"{settings.known_hosts}: cannot be read ({failure.strerror})") from None
        return
    named = configured.get("userknownhostsfile", "").split()
    for path in [Path(each).expanduser() for each in named] or [Path("~/.ssh/known_hosts").expanduser()]:
        if path.is_file():
            client.load_system_host_keys(str(path))
    system = Path("/etc/ssh/ssh_known_hosts")
    if system.is_file():
        client.load_system_host_keys(str(system))


def _configured(host: str) -> dict[str, Any]:
    """What the user's SSH configuration says about a host."""
    paramiko = _paramiko()
    path = Path("~/.ssh/config").expanduser()
    if not path.is_file():
        return {}
    try:
        return dict(paramiko.SSHConfig.from_path(str(path)).lookup(host))
    except paramiko.ConfigParseError as failure:
        raise DeviceError(f"{path}: {failure}") from None


def _parts(rest: str) -> tuple[str | None, str, int | None]:
    """User, host and port of ``user@host:port``; an IPv6 address stands in brackets."""
    found = place_of(rest)
    if found is None:
        raise DeviceError(f"'ssh:{rest}' is no address", hint="ssh:user@host:port, with [..] around an IPv6 address")
    return found.user, found.host, found.port


def _paramiko() -> Any:
    try:
        import paramiko
    except ModuleNotFoundError as failure:
        raise MissingExtraError(failure.name or "paramiko", "devices") from None
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # its threads log what its exceptions say too
    return paramiko


def _gone(name: str, failure: object) -> DeviceGoneError:
    return DeviceGoneError(
        f"{name} is gone in the middle of it ({failure})",
        hint="look at network and power, then run the same command again: it goes on where it stopped",
    )


@contextmanager
def _errors(name: str, settings: Settings) -> Iterator[None]:
    """Give the errors of paramiko and of sockets as ours."""
    paramiko = _paramiko()
    hosts = settings.known_hosts or "~/.ssh/known_hosts"
    try:
        yield
    except paramiko.BadHostKeyException as failure:
        raise DeviceError(
            f"{name} shows another host key ({failure.key.get_name()} {failure.key.fingerprint}) than {hosts} has:"
            " this may be another machine, or someone in between",
            hint=f"only if you know why: ssh-keygen -f {hosts} -R '{_known_as(settings.rest)}', then ssh there once",
        ) from None
    except paramiko.SSHException as failure:
        no_key = ("key, expected", "No authentication methods")
        if isinstance(failure, paramiko.AuthenticationException) or any(words in str(failure) for words in no_key):
            raise DeviceError(
                f"{name} does not let this user in ({failure})",
                hint="name a key: key = '...' in devices.toml, or ssh-add it",
            ) from None
        if "not found in known_hosts" in str(failure):
            raise DeviceError(
                f"{name} is not in {hosts}: whether it is the right machine is not known",
                hint="connect once with ssh, compare the fingerprint with the board's own, and accept it",
            ) from None
        raise DeviceGoneError(f"{name}: SSH failed: {failure}") from None
    except TimeoutError:
        raise DeviceTimeoutError(f"{name} does not answer", hint="is it on, and is this its address?") from None
    except socket.gaierror:
        raise DeviceGoneError(f"{name}: no such host") from None
    except (OSError, EOFError) as failure:
        raise DeviceGoneError(
            f"{name} cannot be reached ({failure})", hint="is it on, and is this its address?"
        ) from None


def _known_as(rest: str) -> str:
    _, host, port = _parts(rest)
    return f"[{host}]:{port}" if port and port != 22 else host
