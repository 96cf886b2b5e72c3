"""The UART loader compiled for this computer: flash is an array, the UART a function call, and power can fail."""

from __future__ import annotations

import ctypes
import random
import struct
import subprocess
from pathlib import Path

from edgesdk.boards import microcontroller_dir

from .c_runtime import c_compiler

FLASH, RAM_ORIGIN, RAM, LOADER = 96 * 1024, 0x20000000, 16384, 16384
ROOM = FLASH - LOADER
PORT = """
#include <string.h>
#include "port.h"
static uint8_t memory[FLASH_BYTES], out[1 << 20];
static uint32_t used, power = 0xFFFFFFFF, noise;
static int stuck;
uint8_t *sim_memory(void) { return memory; }
void sim_power(uint32_t operations, uint32_t seed) { power = operations; noise = seed; }
void sim_stuck(int bits) { stuck = bits; }
uint32_t sim_take(uint8_t *to) { uint32_t count = used; memcpy(to, out, count); used = 0; return count; }
static int on(void) { if (power == 0) return 0; power -= power != 0xFFFFFFFF; return 1; }
static uint8_t half(void) { noise = noise * 1103515245u + 12345u; return (uint8_t)(noise >> 16); }
void port_init(void) {}
void port_put(uint8_t byte) { if (power && used < sizeof out) out[used++] = byte; }
int port_get(void) { return -1; }
int port_window_over(void) { return 0; }
const uint8_t *port_flash(void) { return memory; }
void port_erase(uint32_t at) {
    if (stuck || !on()) return;
    if (power) memset(memory + at, 0xFF, PAGE_BYTES);
    else for (uint32_t i = 0; i < PAGE_BYTES; i++) memory[at + i] |= half();
}
void port_write(uint32_t at, const uint8_t *data, uint32_t count) {
    for (uint32_t i = 0; i < count && on(); i++)
        memory[at + i] &= stuck ? 0xFE | data[i] : power ? data[i] : (uint8_t)(data[i] | half());
}
"""


class CLoader:
    """One board with the loader.

    Attributes:
        memory: all of its flash.
    """

    def __init__(
        self, folder: Path, page: int = 1024, block: int = 2048, board: str = "simulated", key: bytes | None = None
    ) -> None:
        source, port = microcontroller_dir() / "loader", folder / "port.c"
        port.write_text(PORT)
        library = folder / f"loader-{page}-{block}.so"
        sizes = {"FLASH_ORIGIN": 0, "FLASH_BYTES": FLASH, "RAM_ORIGIN": RAM_ORIGIN, "RAM_BYTES": RAM}
        sizes |= {"PAGE_BYTES": page, "BLOCK_BYTES": block}
        flags = [
            "-std=c99",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            f'-DBOARD_NAME="{board}"',
            f"-I{source}",
        ]
        flags += [f"-D{name}={value}u" for name, value in sizes.items()]
        files = [str(source / "loader.c"), str(source / "frame.c"), str(port)]
        if key is not None:
            (folder / "loader_key.h").write_text(f"#define LOADER_KEY {{{','.join(map(str, key))}}}\n")
            flags += ["-DLOADER_KEYED", f"-I{folder}"]
            files.append(str(source / "blake2s.c"))
        subprocess.run([c_compiler(), *flags, "-shared", "-fPIC", *files, "-o", str(library)], check=True)
        self._library = ctypes.CDLL(str(library))
        self._library.sim_memory.restype = ctypes.POINTER(ctypes.c_uint8)
        self._out = (ctypes.c_uint8 * (1 << 20))()
        self._bytes = self._library.sim_memory()
        self.started = False
        self.clear()

    def clear(self) -> None:
        """A new board: blank flash, working."""
        ctypes.memset(self._bytes, 0xFF, FLASH)
        self._library.sim_stuck(0)
        self.reset()

    def reset(self) -> None:
        """Power on again."""
        self._library.sim_power(0xFFFFFFFF, 0)
        self.feed(b"\0")
        self.started = False

    def fail_after(self, operations: int, seed: int = 1) -> None:
        """Power fails in the middle of this many erases and written bytes from now on."""
        self._library.sim_power(operations, seed)

    def stick(self) -> None:
        """Flash that nothing erases, and of whose bytes only one bit can be cleared."""
        self._library.sim_stuck(1)

    @property
    def memory(self) -> bytes:
        return ctypes.string_at(self._bytes, FLASH)

    @property
    def app(self) -> bytes:
        """What lies behind the loader."""
        return self.memory[LOADER:]

    def put(self, at: int, data: bytes) -> None:
        """Change flash behind the loader's back."""
        ctypes.memmove(ctypes.addressof(self._bytes.contents) + at, data, len(data))

    @property
    def whole(self) -> bool:
        """Whether it would start what is there."""
        return bool(self._library.loader_whole())

    def feed(self, data: bytes) -> bytes:
        """Bytes to its UART; returns what it sends."""
        for byte in data:
            if not self.started:
                self.started = bool(self._library.loader_byte(byte))
        return ctypes.string_at(self._out, self._library.sim_take(self._out))

    def announced(self, why: bytes) -> bytes:
        """What it prints at reset."""
        self._library.loader_announce(why)
        return self.feed(b"")


class Wire:
    """A port of pyserial's kind to a simulated board. It loses, changes and invents bytes, and can be cut.

    Attributes:
        lost: of every byte's chance to be lost, changed or doubled, each way.
        left: bytes until the line is cut.
    """

    def __init__(self, board: CLoader, *, lost: float = 0.0, seed: int = 0, left: int | None = None) -> None:
        self.board, self.lost, self.left = board, lost, left
        self.timeout: float | None = 0
        self.sent = self.received = 0
        self._random, self._waiting = random.Random(seed), b""

    @property
    def in_waiting(self) -> int:
        return len(self._waiting)

    def write(self, data: bytes) -> int:
        self.sent += len(data)
        self._spend(len(data))
        self._waiting += self._spoiled(self.board.feed(self._spoiled(data)))
        return len(data)

    def read(self, size: int = 1) -> bytes:
        found, self._waiting = self._waiting[:size], self._waiting[size:]
        self.received += len(found)
        self._spend(len(found))
        return found

    def _spend(self, count: int) -> None:
        if self.left is not None:
            self.left -= count
            if self.left < 0:
                raise OSError(5, "the cable was pulled")

    def _spoiled(self, data: bytes) -> bytes:
        if not self.lost:
            return data
        out = bytearray()
        for byte in data:
            chance = self._random.random() / self.lost
            if chance > 1:
                out.append(byte)
            elif chance > 0.6:
                out.append(byte ^ 1 << self._random.randrange(8))
            elif chance > 0.4:
                out += bytes((byte, self._random.randrange(256)))
        return bytes(out)


def firmware(size: int, seed: int, origin: int = LOADER) -> bytes:
    """Something that the loader starts, with a blank stretch in it."""
    data = bytearray(random.Random(seed).randbytes(size))
    data[:8] = struct.pack("<II", RAM_ORIGIN + RAM, origin + 9)
    if size > 8192:
        data[4096:7168] = b"\xff" * 3072
    return bytes(data)
