"""The C99 runtime compiled for this computer, behind ctypes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgesdk.boards import microcontroller_dir

FLAGS = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", "-ffp-contract=off", "-fno-strict-aliasing"]
BAD_IMAGE, BAD_CRC, NO_MEMORY, BAD_TOKEN, FULL = 1, 2, 3, 4, 5


class Sampler(ctypes.Structure):
    """``lm_sampler``."""

    _fields_ = (("temperature", ctypes.c_float), ("top_p", ctypes.c_float), ("state", ctypes.c_uint32))


class _Model(ctypes.Structure):
    """``lm_model``: only its last field is used here."""

    _fields_ = (
        ("pointers", ctypes.c_void_p * 8),
        ("vector", ctypes.c_void_p * 3),
        ("numbers", ctypes.c_uint32 * 3),
        ("slides", ctypes.c_int),
    )


def c_compiler() -> str:
    """This computer's C compiler; the test is skipped where there is none."""
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        pytest.skip("no C compiler (cc, gcc or clang)")
    return found


def build(folder: Path) -> ctypes.CDLL:
    """Compile the runtime."""
    source, library = microcontroller_dir() / "runtime", folder / "liblm.so"
    files = [str(source / name) for name in ("lm.c", "lm_sample.c")]
    subprocess.run([c_compiler(), *FLAGS, "-shared", "-fPIC", *files, "-lm", "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.lm_logits.restype = ctypes.POINTER(ctypes.c_float)
    loaded.lm_ram_bytes.restype = ctypes.c_size_t
    loaded.lm_crc32.restype = loaded.lm_sample.restype = ctypes.c_uint32
    return loaded


class CModel:
    """An image in the C runtime; ``status`` is what ``lm_open`` said."""

    def __init__(self, library: ctypes.CDLL, image: bytes) -> None:
        self._library = library
        self._image = (ctypes.c_uint64 * (len(image) // 8 + 1))()
        ctypes.memmove(self._image, image, len(image))
        self.ram_bytes = library.lm_ram_bytes(self._image)
        room = self.ram_bytes
        self._ram, self._model = (ctypes.c_uint64 * (room // 8 + 1))(), _Model()
        self.status = library.lm_open(
            ctypes.byref(self._model), self._image, ctypes.c_size_t(len(image)), self._ram, ctypes.c_size_t(room)
        )
        self.vocab = int.from_bytes(image[16:20], "little")

    def slide(self) -> None:
        self._model.slides = 1

    def step(self, token: int) -> np.ndarray | int:
        """Logits after a token, or the status that refused it."""
        status = self._library.lm_step(ctypes.byref(self._model), ctypes.c_uint32(token), 1)
        if status:
            return int(status)
        return np.ctypeslib.as_array(self._library.lm_logits(ctypes.byref(self._model)), (self.vocab,)).copy()
