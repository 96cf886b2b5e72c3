"""The Python side of the double of ``LlmModule``: ExecuTorch's real TextLLMRunner, driven over a pipe.

    python runner.py PROGRAM TOKENIZER

Requests come a line each (``load``, ``generate SEQ_LEN TEMPERATURE BOS ECHO BASE64``, ``next``, ``stop``, ``reset``)
and replies go out likewise (``piece BASE64``, ``stats BASE64``, ``done``, ``failed BASE64``).

The Python binding fails at a piece that is half a character, so pieces are taken where the C++ runner prints them: each
is one packet of a pipe in packet mode that holds one packet, so that the model is at most two tokens ahead of whoever
listens. (What it does not print is a token of a single byte that is no letter; the tests' tokenizer gives none.)
"""

from __future__ import annotations

import base64
import ctypes
import fcntl
import os
import queue
import re
import sys
import threading
from importlib import import_module
from typing import Any

from edgesdk_converters.executorch.wheel import load_runtime

_END = b"\0end of the answer"
_REPORT = re.compile(rb"\n*PyTorchObserver \{")


class Served:
    """One runner, its requests and replies."""

    def __init__(self, program: str, tokenizer: str) -> None:
        self._replies = os.dup(1)
        self._printed, write = os.pipe2(os.O_DIRECT)
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
        os.dup2(write, 1)
        self._paths = program, tokenizer
        self._runner: Any = None
        self._module: Any = None
        self._listened: queue.Queue[None] = queue.Queue()
        self._libc = ctypes.CDLL(None)
        self._pieces = self._lines = 0

    def serve(self) -> None:
        """Answer until nobody asks any more."""
        for line in sys.stdin:
            verb, _, rest = line.strip().partition(" ")
            if verb == "next":
                self._listened.put(None)
            elif verb == "stop":
                self._runner.stop()
            elif verb == "reset":
                self._runner.reset()
                self._say("done")
            elif verb == "load":
                threading.Thread(target=self._guarded, args=(self._load,)).start()
            else:
                threading.Thread(target=self._guarded, args=(self._generate, *rest.split(" "))).start()

    def _guarded(self, work: Any, *arguments: str) -> None:
        try:
            work(*arguments)
        except RuntimeError as failure:
            self._say("failed", str(failure).encode())
        else:
            self._say("done")

    def _load(self) -> None:
        load_runtime()
        self._module = import_module("executorch.extension.llm.runner._llm_runner")
        self._runner = self._module.TextLLMRunner(*self._paths)
        self._runner.prefill("a", self._config(-1, 0.0, 0, False))  # the binding has no load of its own
        self._runner.reset()

    def _generate(self, seq_len: str, temperature: str, bos: str, echo: str, text: str) -> None:
        config = self._config(int(seq_len), float(temperature), int(bos), echo == "1")
        said: list[Any] = []
        reader = threading.Thread(target=self._read)
        reader.start()
        try:
            self._runner.generate(base64.b64decode(text).decode(), config, None, said.append)
        finally:
            self._libc.fflush(None)
            os.write(1, _END)
            reader.join()
        for stats in said:
            for _ in range(min(self._lines, stats.num_generated_tokens + 1 - self._pieces)):
                self._piece(b"\n")
            self._say("stats", stats.to_json_string().encode())

    def _config(self, seq_len: int, temperature: float, bos: int, echo: bool) -> Any:
        return self._module.GenerationConfig(
            echo=echo, seq_len=seq_len, temperature=temperature, num_bos=bos, warming=False
        )

    def _read(self) -> None:
        """Pass pieces on; the line ends that the runner itself prints at the end look like pieces, so they wait."""
        self._pieces = self._lines = 0
        while (packet := os.read(self._printed, 1 << 16)) != _END:
            if packet == b"\n":
                self._lines += 1
            elif not _REPORT.match(packet):
                while self._lines:
                    self._lines -= 1
                    self._piece(b"\n")
                self._piece(packet)

    def _piece(self, text: bytes) -> None:
        self._pieces += 1
        self._say("piece", text)
        self._listened.get()

    def _say(self, what: str, data: bytes = b"") -> None:
        os.write(self._replies, f"{what} {base64.b64encode(data).decode()}\n".encode())


if __name__ == "__main__":
    Served(sys.argv[1], sys.argv[2]).serve()
