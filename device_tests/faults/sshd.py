"""A small SSH server over paramiko: commands of this machine's ``sh``, a key of its own, one user's key let in."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import paramiko

from .commands import exit_code, started

USER = "tester"


@dataclass
class Sshd:
    """The server, on a free port of the loopback interface; stopped by :meth:`close`.

    Attributes:
        home: folder in which commands run, their HOME.
        host_key: what it shows; may be changed, for connections to come.
        user_key: what it lets in.
        unstarted: how many commands to come are not started; their channel closes instead, as Dropbear's does when
            another command ends at that moment.
    """

    home: Path
    host_key: paramiko.PKey = field(default_factory=lambda: paramiko.RSAKey.generate(2048))
    user_key: paramiko.RSAKey = field(default_factory=lambda: paramiko.RSAKey.generate(2048))
    unstarted: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._transports: list[paramiko.Transport] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def write_key(self, path: Path) -> Path:
        """The user's private key, for the client."""
        self.user_key.write_private_key_file(str(path))
        return path

    def write_known_hosts(self, path: Path) -> Path:
        """What a client that trusts this server has."""
        path.write_text(f"[127.0.0.1]:{self.port} {self.host_key.get_name()} {self.host_key.get_base64()}\n")
        return path

    def close(self) -> None:
        """Stop listening, and end every connection."""
        self._listener.close()
        for transport in self._transports:
            transport.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                transport = paramiko.Transport(link)
                transport.add_server_key(self.host_key)
                self._transports.append(transport)
                with suppress(paramiko.SSHException, EOFError, OSError):
                    transport.start_server(server=_Server(self), event=threading.Event())


class _Server(paramiko.ServerInterface):
    def __init__(self, daemon: Sshd) -> None:
        self._daemon = daemon

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        good = username == USER and key.get_base64() == self._daemon.user_key.get_base64()
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if self._daemon.unstarted:
            self._daemon.unstarted -= 1
            return False
        threading.Thread(target=_serve, args=(self._daemon.home, channel, command), daemon=True).start()
        return True


def _serve(home: Path, channel: paramiko.Channel, command: bytes) -> None:
    process = started(command.decode(), home)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    threading.Thread(target=_feed, args=(channel, process, process.stdin), daemon=True).start()
    readers = [
        threading.Thread(target=_drain, args=(process.stdout, channel.sendall)),
        threading.Thread(target=_drain, args=(process.stderr, channel.sendall_stderr)),
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    status = exit_code(process)
    with suppress(OSError, EOFError, paramiko.SSHException):
        channel.send_exit_status(status)
        channel.shutdown_write()
        channel.close()
    with suppress(OSError):
        process.stdin.close()


def _feed(channel: paramiko.Channel, process: subprocess.Popen[bytes], pipe: IO[bytes]) -> None:
    with suppress(OSError, ValueError):
        while data := channel.recv(1 << 16):
            view = memoryview(data)
            while view:
                view = view[pipe.write(view) :]
    with suppress(OSError):
        pipe.close()
    if channel.closed:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGHUP)


def _drain(pipe: IO[bytes], send) -> None:  # type: ignore[no-untyped-def]
    with suppress(OSError, ValueError, EOFError, paramiko.SSHException), pipe:
        while data := pipe.read(1 << 15):
            send(data)
