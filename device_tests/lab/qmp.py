"""QEMU's control socket."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgesdk.errors import EdgeError

from .processes import Kept

_ANSWER = 30.0  # seconds
_PAUSE = 0.01  # seconds between two looks


class Qmp:
    """A connection to a running emulator.

    Args:
        path: of its socket.
        link: the network interface that :meth:`set_link` means.
    """

    def __init__(self, path: Path, link: str = "n0") -> None:
        self._link = link
        self._alone = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_ANSWER)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("r", encoding="utf-8")
        self._lines.readline()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """What a command returns.

        Raises:
            EdgeError: the emulator refused it, or is gone.
        """
        with self._alone:
            try:
                self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
                while line := self._lines.readline():
                    answer = json.loads(line)
                    if "error" in answer:
                        raise EdgeError(f"{command}: {answer['error']['desc']}")
                    if "return" in answer:
                        return answer["return"]
            except (OSError, ValueError) as error:
                raise EdgeError(f"{command}: the emulator does not answer ({error})") from error
        raise EdgeError(f"{command}: the emulator has ended")

    def set_link(self, up: bool) -> None:
        """Plug the network cable in, or pull it out."""
        self.execute("set_link", name=self._link, up=up)

    def reset(self) -> None:
        """Pull the power and give it back: what was not written to the disk is lost."""
        self.execute("system_reset")

    def pause(self) -> None:
        """Stop the processors: the device hangs, and its connections stay open."""
        self.execute("stop")

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        self.execute("cont")

    def close(self) -> None:
        """Let go; the emulator runs on."""
        self._lines.close()
        self._socket.close()


def connected(kept: Kept, path: Path) -> Qmp:
    """The control socket of an emulator that was just started; its other sockets listen by then."""
    give_up = time.monotonic() + _ANSWER
    while time.monotonic() < give_up:
        kept.check()
        with suppress(OSError):
            return Qmp(path)
        time.sleep(_PAUSE)
    raise EdgeError(f"{kept.name}: its control socket does not answer")
