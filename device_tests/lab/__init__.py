"""Emulated devices to test with: a phone behind adb, a board behind SSH, microcontrollers behind a UART.

    lab = up()
    with lab.phone() as phone, lab.board() as board:
        ...

Nothing here says how fast a device is. What is started ends with the block, with this process, and at a time limit.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from .board import Board, board
from .host import HOST_PACKAGES, LabUnavailableError
from .microcontrollers import MACHINES, Microcontroller, microcontroller
from .phone import Phone, phone
from .processes import LIMIT
from .relay import Relay

__all__ = [
    "Board",
    "HOST_PACKAGES",
    "LIMIT",
    "Lab",
    "LabUnavailableError",
    "MACHINES",
    "Microcontroller",
    "Phone",
    "Relay",
    "up",
]


@dataclass(frozen=True)
class Lab:
    """Devices on demand; each call starts a new one, and images are built at the first.

    Attributes:
        limit: seconds after which a device ends by itself.
    """

    limit: float = LIMIT

    def phone(self) -> AbstractContextManager[Phone]:
        """As :func:`.phone.phone`."""
        return phone(limit=self.limit)

    def board(self) -> AbstractContextManager[Board]:
        """As :func:`.board.board`."""
        return board(limit=self.limit)

    def microcontroller(self, machine: str, *options: str) -> AbstractContextManager[Microcontroller]:
        """As :func:`.microcontrollers.microcontroller`."""
        return microcontroller(machine, *options, limit=self.limit)


def up(*, limit: float = LIMIT) -> Lab:
    """The lab. Devices raise LabUnavailableError when this machine cannot have them."""
    return Lab(limit)
