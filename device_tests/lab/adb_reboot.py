"""``adb reboot`` for an adbd that was built without it: the request for the service becomes one for a command."""

from __future__ import annotations

import struct

_HEADER = struct.Struct("<6I")  # command, two arguments, length of what follows, checksum (unused), magic
_OPEN = int.from_bytes(b"OPEN", "little")
_ASKED, _DONE = b"reboot:", b"exec:reboot\0"


class RebootAsCommand:
    """Reads one connection's bytes towards adbd, and gives them on."""

    def __init__(self) -> None:
        self._head = b""
        self._payload = 0  # bytes of a message that still pass as they are

    def __call__(self, data: bytes) -> bytes:
        """What to send instead of ``data``; part of it may be held back until more comes."""
        if self._payload >= len(data) and not self._head:  # the common case: inside a large message
            self._payload -= len(data)
            return data
        out, data = [data[: self._payload]], self._head + data[self._payload :]
        self._payload = 0
        while len(data) >= _HEADER.size:
            command, first, second, length, check, magic = _HEADER.unpack_from(data)
            end = _HEADER.size + length
            if command == _OPEN:
                if len(data) < end:
                    break
                if data[_HEADER.size :].startswith(_ASKED):
                    out.append(_HEADER.pack(command, first, second, len(_DONE), check, magic) + _DONE)
                else:
                    out.append(data[:end])
            else:
                out.append(data[:end])
                self._payload = max(0, end - len(data))
            data = data[end:]
        self._head = data
        return b"".join(out)
