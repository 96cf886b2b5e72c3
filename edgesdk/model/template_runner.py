"""Runs chat templates apart: one process beside this one, ended when a template takes too long or too much."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError

SECONDS = 2.0  # of processor time for one conversation; published templates take less than 0.01
MOST_CHARACTERS = 4_000_000  # of one conversation as it is written
_WAIT_SECONDS = 20.0  # of anything: a busy machine may be slow to give the process its time
_SCRIPT = Path(__file__).with_name("template_process.py")
_LAUNCH = """
import json, runpy, sys
sys.path[:] = json.loads(sys.argv.pop(1))
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""  # with the path of this process, which -I and -S leave it without
_MEMORY = 512 << 20  # address space of the process
_MOST_TEMPLATES = 64  # that one process keeps
_BEYOND = ("TooLongError", "ChanceError")  # what is not of the conversation, but of the template
_KEPT = ("TZ", "LANG", "LC_ALL", "LC_TIME")  # of the environment: what a date follows from, and no secret


class TemplateStuckError(ModelError):
    """A template was ended: it took too long or too much memory, wrote too much, or draws by chance."""


@dataclass(frozen=True)
class Mark:
    """A token that the template alone may write.

    Attributes:
        text: the token, as it is written.
        mark: what stands for it in the rendered conversation.
        special: whether it is special; others, such as ``<think>``, are taken from assistants and system texts too.
        word: whether it counts only where no letter is beside it.
    """

    text: str
    mark: str
    special: bool
    word: bool


class TemplateRunner:
    """The process that renders, started when it is first needed and again after it was ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._sent: dict[tuple[str, tuple[Mark, ...]], str] = {}
        self._count, self._owner = 0, os.getpid()

    def start(self) -> None:
        """Start the process now, so that the first conversation need not wait for it."""
        with self._lock:
            self._running()

    def render(
        self, source: str, values: Mapping[str, Any], names: Mapping[str, str], marks: Sequence[Mark] = ()
    ) -> str:
        """A conversation as a template writes it.

        Args:
            source: the template.
            values: its variables, as JSON has them.
            names: named special tokens, more of its variables.
            marks: the tokens whose marks it writes; none: it writes plain text.

        Raises:
            TemplateStuckError: the template was ended.
            ModelError: the template is not valid Jinja, refuses the conversation, or writes too much.
        """
        request: dict[str, Any] = {"values": values, "names": dict(names), "seconds": SECONDS, "most": MOST_CHARACTERS}
        with self._lock:
            process = self._running()
            known = (source, tuple(marks))
            if known not in self._sent:
                self._count += 1
                self._sent[known] = str(self._count)
                request |= {"source": source, "tokens": [vars(mark) for mark in marks]}
            reply = self._asked(process, request | {"key": self._sent[known]})
            if not reply["kept"]:
                del self._sent[known]
            if reply.get("kind") == "MemoryError" or len(self._sent) > _MOST_TEMPLATES:
                self._end()
        if reply.get("kind") == "MemoryError":
            raise TemplateStuckError(f"the chat template took more than {_MEMORY >> 20} MB of memory")
        if "failed" in reply:
            error = TemplateStuckError if reply["kind"] in _BEYOND else ModelError
            raise error(f"the chat template failed: {reply['failed'][:1000]}")
        return str(reply["text"])

    def kill(self) -> None:
        """End the process, at once; whoever waits for it gets an error."""
        process = self._process
        if process is not None and os.getpid() == self._owner:
            process.kill()

    def close(self) -> None:
        """End the process, and free what belongs to it."""
        if os.getpid() == self._owner:
            self.kill()
            with self._lock:
                self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if os.getpid() != self._owner:  # a fork: the process belongs to the parent
            self._process, self._owner = None, os.getpid()
        if self._process is None or self._process.poll() is not None:
            self._end()
            path = [entry for entry in sys.path if entry]
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", _LAUNCH, json.dumps(path), str(_SCRIPT), str(_MEMORY)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: value for name in _KEPT if (value := os.environ.get(name)) is not None},
                start_new_session=True,  # Ctrl-C is for this process
            )
        return self._process

    def _asked(self, process: subprocess.Popen[bytes], request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            line = json.dumps(request).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as failure:
            raise ModelError(f"the messages are not what JSON can hold: {failure}") from None
        assert process.stdin is not None and process.stdout is not None
        watch = threading.Timer(_WAIT_SECONDS, process.kill)
        watch.daemon = True
        watch.start()
        try:
            process.stdin.write(line)
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = b""
        finally:
            watch.cancel()
        if not answer.endswith(b"\n"):
            status = process.wait()
            self._end()
            slow = status in (-signal.SIGPROF, -signal.SIGKILL)
            what = f"did not end within {SECONDS:g} seconds" if slow else f"ended its process (status {status})"
            raise TemplateStuckError(f"the chat template {what}")
        reply: dict[str, Any] = json.loads(answer)
        return reply

    def _end(self) -> None:
        process, self._process = self._process, None
        self._sent.clear()
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with suppress(OSError):
                    assert stream is not None
                    stream.close()


RUNNER = TemplateRunner()
atexit.register(RUNNER.close)
