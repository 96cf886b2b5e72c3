"""The lab: the C++ runner for aarch64, and qemu's user mode to run it on this machine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from edgesdk.devices.runner.native import COMPILER, NAME, RunnerUnavailableError, native_runner
from edgesdk.errors import EdgeError
from edgesdk.runner_lines import opened, tokens_command

EMULATOR = "qemu-aarch64-static"
_TIMEOUT = 1800  # seconds: an emulator that hangs


@dataclass(frozen=True)
class Lab:
    """A runner for aarch64 and what it needs to run here."""

    emulator: str
    sysroot: Path
    runner: Path

    def greedy(self, program: Path, prompt: Sequence[int], count: int, cpu: str) -> list[int]:
        """The ``count`` best tokens after ``prompt``, on one of qemu's CPU models.

        Raises:
            EdgeError: the runner failed; the message holds what it said.
        """
        command = [self.emulator, "-cpu", cpu, "-L", self.sysroot, "-E", f"LD_LIBRARY_PATH={self.runner / 'lib'}"]
        command += [self.runner / NAME, program, "0" * 64, "-", "0"]
        pipe = subprocess.PIPE
        with subprocess.Popen([*map(str, command)], stdin=pipe, stdout=pipe, stderr=pipe) as process:
            assert process.stdin is not None and process.stdout is not None and process.stderr is not None
            late = Timer(_TIMEOUT, process.kill)
            late.start()
            try:
                process.stdin.write(tokens_command(list(prompt), new_tokens=count))
                process.stdin.flush()  # left open: its end would stop the answer
                events = [{"event": "nothing"}]
                while events[-1]["event"] not in ("done", "error") and (line := process.stdout.readline()):
                    events.append(opened(line))
            finally:
                late.cancel()
                process.terminate()
            if events[-1]["event"] != "done":
                said = events[-1].get("message") or process.stderr.read().decode("utf-8", "replace")[-2000:]
                raise EdgeError(f"{program.name} on {cpu}: {said}")
        return [event["id"] for event in events if event["event"] == "token"]


def prepare() -> Lab:
    """The lab, downloaded and built first if need be; what is ready is used again.

    Raises:
        RunnerUnavailableError: a tool is missing, or the package registry did not give a wheel.
        EdgeError: a wheel is not the pinned one, or the runner does not build.
    """
    emulator = shutil.which(EMULATOR)
    if emulator is None:
        raise RunnerUnavailableError(f"{EMULATOR} is not installed", hint="apt-get install qemu-user-static")
    runner = native_runner()
    asked = [COMPILER, "-print-file-name=ld-linux-aarch64.so.1"]
    loader = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return Lab(emulator, Path(loader).resolve().parents[1], runner)
