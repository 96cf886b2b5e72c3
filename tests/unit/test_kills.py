"""Commands that are killed in the middle: nothing half-written has the output's name, and the next run tidies up.

``EDGESDK_KILLS`` is how often each is killed; ``python -m tests.kills`` does it 30 times and says what it found.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..kills import COMMANDS, Ground, killed

COUNT = int(os.environ.get("EDGESDK_KILLS", "1"))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("kills") / "ground")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_leaves_nothing_that_looks_whole(ground: Ground, name: str) -> None:
    outcome = killed(ground, name, COUNT, 1)
    assert outcome.faults == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_signals_end_in_one_word(number: signal.Signals, times: int, tmp_path: Path) -> None:
    script = (
        "import os, sys, time\nfrom edgesdk import cli\n"
        "def work(*_, **__):\n    try:\n        print('here', flush=True); time.sleep(60)\n"
        "    finally:\n        time.sleep(0.3)\n"
        "cli.edgesdk.main = work\ncli.main([])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    for _ in range(times):
        process.send_signal(number)
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors in ("Interrupted.\n", "") and (errors or times == 5)


def test_an_interrupt_in_a_finalizer_is_not_lost() -> None:
    script = (
        "import signal, time\nfrom edgesdk import cli\n"
        "class Late:\n    def __del__(self):\n        signal.raise_signal(signal.SIGINT)\n        time.sleep(0)\n"
        "def work(*_, **__):\n    late = Late(); del late\n    time.sleep(60)\n"
        "cli.edgesdk.main = work\ncli.main([])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


@pytest.mark.parametrize(
    ("redirection", "status", "errors"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&-", 0, ""),
        ("> /dev/full", 1, "Error: input/output: No space left on device\n"),
        ("| true", 0, ""),
    ],
)
def test_streams_that_are_closed_full_or_broken(redirection: str, status: int, errors: str) -> None:
    command = f"{sys.executable} -m edgesdk targets {redirection}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (status, errors)


def test_a_file_never_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    script = f"from edgesdk.cli import streams; streams.open_all(); print(open({str(tmp_path / 'f')!r}, 'w').fileno())"
    command = f'{sys.executable} -c "{script}" 0<&- 2>&-'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert int(done.stdout) > 2


@pytest.mark.parametrize("failure", ["MemoryError()", "RuntimeError('std::bad_alloc')", "ImportError('no library')"])
def test_want_of_memory_is_one_message(failure: str) -> None:
    script = (
        f"from edgesdk import cli\ndef work(*_, **__):\n    raise {failure}\ncli.edgesdk.main = work\ncli.main([])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and "\nHint: " in done.stderr and "Traceback" not in done.stderr
