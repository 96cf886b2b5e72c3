"""Kills commands at random moments, and looks at what they leave.

    python -m tests.kills [--count 30] [--seed 1] [export compress package push]

For each command: SIGKILL at COUNT moments of its run, SIGTERM and two SIGINTs at a fifth of that. After each, what has
the output's name is whole or absent (or what was there before), and the same command once more makes the same files and
leaves nothing else behind, neither beside the output nor in TMPDIR.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgesdk.partials import is_partial

from .conftest import make_checkpoint

COMMANDS = ("export", "compress", "package", "push")
_LIMIT = 180.0  # seconds for one command


@dataclass
class Outcome:
    """What the kills of one command came to.

    Attributes:
        kills: that hit a running process.
        faults: what was wrong after a kill, in words; there should be none.
        left: partials that lay there after a SIGKILL, until the next run.
    """

    kills: int = 0
    faults: list[str] = field(default_factory=list)
    left: int = 0


class Ground:
    """A folder with a model, bundles and an empty TMPDIR.

    Attributes:
        usual: what libraries leave in TMPDIR of a run that nothing disturbs, as torch's cache of kernels.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.scratch, self.data = folder, folder / "tmp", folder / "data"
        self.usual: set[str] = set()
        self.scratch.mkdir(parents=True)
        make_checkpoint(folder / "tiny")

    def command(self, name: str, out: Path) -> list[str]:
        tiny = str(self.folder / "tiny")
        if name == "export":
            return ["export", tiny, "--target", "linux-x86_64", "--context", "64", "--out", str(out)]
        if name == "compress":
            return ["compress", tiny, "-r", "w4g32-gptq", "-t", "linux-x86_64", "-o", str(out)]
        if name == "package":
            return ["package", str(self._bundle("cortex-m4f")), "--as", "firmware", "-o", str(out)]
        return ["push", str(self._bundle("linux-x86_64")), "--device", "local"]

    def run(
        self, arguments: Sequence[str], after: float | None = None, numbers: Sequence[signal.Signals] = ()
    ) -> tuple[int, str]:
        """Status and output of a command, which gets signals after so many seconds."""
        here = os.environ | {"TMPDIR": str(self.scratch), "XDG_DATA_HOME": str(self.data), "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "edgesdk", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=here,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )
        if after is not None:
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                for number in numbers:
                    process.send_signal(number)
                    time.sleep(0.05)
        output, _ = process.communicate(timeout=_LIMIT)
        return process.returncode, output

    def scraps(self) -> list[Path]:
        """What lies in TMPDIR beside that."""
        return [path for path in self.scratch.iterdir() if path.name not in self.usual]

    def _bundle(self, target: str) -> Path:
        folder = self.folder / f"bundle-{target}"
        if not folder.exists():
            arguments = [
                "export",
                str(self.folder / "tiny"),
                "--target",
                target,
                "--context",
                "64",
                "--out",
                str(folder),
            ]
            status, output = self.run(arguments)
            assert status == 0, output
        return folder


def tree(folder: Path) -> dict[str, str]:
    """Hashes of all files."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(paths)}


def killed(ground: Ground, name: str, count: int, seed: int) -> Outcome:
    """Kill one command at random moments."""
    check = _Store(ground) if name == "push" else _Folder(ground, name)
    began = time.monotonic()
    check.first()
    ground.usual |= {path.name for path in ground.scratch.iterdir() if not is_partial(path)}
    seconds, outcome, chance = time.monotonic() - began, Outcome(), random.Random(seed)
    plan: list[tuple[int, tuple[signal.Signals, ...]]] = [(count, (signal.SIGKILL,))]
    plan += [(max(1, count // 5), (signal.SIGTERM,)), (max(1, count // 5), (signal.SIGINT, signal.SIGINT))]
    for times, numbers in plan:
        for index in range(times):
            check.before(index)
            status, output = ground.run(check.arguments, chance.uniform(0.05, seconds), numbers)
            outcome.kills += status != 0
            words = [f"{numbers[0].name} {index}: {what}" for what in check.after(numbers[0], output)]
            outcome.left += len(check.partials())
            words += [f"{numbers[0].name} {index}, then: {what}" for what in check.again()]
            outcome.faults += words
    return outcome


class _Folder:
    """A command that writes a folder."""

    def __init__(self, ground: Ground, name: str) -> None:
        self._ground, self._base = ground, ground.folder / name
        self._base.mkdir()
        self._out, self._reference = self._base / "out", ground.folder / f"{name}-reference"
        self.arguments = ground.command(name, self._out)
        self._had = False

    def first(self) -> None:
        status, output = self._ground.run(self.arguments)
        assert status == 0, output
        self._out.rename(self._reference)
        self._wanted = tree(self._reference)

    def before(self, index: int) -> None:
        """Every third time, replace a whole one."""
        shutil.rmtree(self._out, ignore_errors=True)
        self._had = index % 3 == 0
        if self._had:
            shutil.copytree(self._reference, self._out)

    def after(self, number: signal.Signals, output: str) -> list[str]:
        found = _noise(output)
        if self._out.exists() and tree(self._out) != self._wanted:
            found.append("half-written")
        if self._had and not self._out.exists():
            found.append("what was there is lost")
        hidden = [path.name for path in self.partials() if path.name.startswith(".")]
        if number != signal.SIGKILL and hidden:
            found.append(f"left {hidden}")
        return found

    def partials(self) -> list[Path]:
        beside = [path for path in self._base.iterdir() if path != self._out]
        return [*beside, *self._ground.scraps()]

    def again(self) -> list[str]:
        resumed = ["--resume"] if (self._base / "out.partial" / "interrupted").exists() else []
        status, output = self._ground.run([*self.arguments, *resumed])
        found = [f"status {status}: {output[-300:]}"] if status else []
        if not status and tree(self._out) != self._wanted:
            found.append("other files")
        return found + [f"left {path.name}" for path in self.partials()]


class _Store:
    """A command that writes into a device's store."""

    def __init__(self, ground: Ground) -> None:
        self._ground, self._store = ground, ground.data / "edgesdk"
        self.arguments = ground.command("push", ground.folder)

    def first(self) -> None:
        status, output = self._ground.run(self.arguments)
        assert status == 0, output

    def before(self, index: int) -> None:
        shutil.rmtree(self._store, ignore_errors=True)

    def after(self, number: signal.Signals, output: str) -> list[str]:
        found = _noise(output)
        bundles = self._store / "bundles"
        for bundle in [path for path in bundles.iterdir() if path.is_dir()] if bundles.is_dir() else []:
            if self._ground.run(["verify", str(bundle)])[0]:
                found.append(f"{bundle.name} is half-written")
        active = self._store / "active"
        name = active.read_text().split("\n")[0] if active.exists() else ""
        if name and not (bundles / name).is_dir():
            found.append("what is in use is not there")
        return found

    def partials(self) -> list[Path]:
        incoming = self._store / "incoming"
        return [*(incoming.iterdir() if incoming.is_dir() else ()), *self._ground.scraps()]

    def again(self) -> list[str]:
        found = []
        for arguments in (self.arguments, ["device", "verify", "--device", "local"]):
            status, output = self._ground.run(arguments)
            found += [f"status {status}: {output[-300:]}"] if status else []
        return found + [f"left {path.name}" for path in self.partials()]


def _noise(output: str) -> list[str]:
    words = (word for word in ("Traceback", "Exception ignored") if word in output)
    return [f"{word}: {output[output.index(word) :][:600]}" for word in words]


def main() -> int:
    """Kill the commands that are named; 1 where anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills")
    parser.add_argument("names", nargs="*", default=COMMANDS, metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    wrong = False
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        ground = Ground(Path(scratch))
        for name in chosen.names:
            outcome = killed(ground, name, chosen.count, chosen.seed)
            print(
                f"{name}: {outcome.kills} kills, {outcome.left} partials swept, {len(outcome.faults)} faults",
                flush=True,
            )
            for fault in outcome.faults:
                wrong = True
                print(f"  {fault}", flush=True)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
