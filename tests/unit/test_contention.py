"""What other programs do beside a measurement: told from the kernel's figures, and by a real busy loop."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgesdk.devices.address import Settings
from edgesdk.devices.local import LocalDevice
from edgesdk.errors import EdgeError
from edgesdk.profile import contention
from edgesdk.profile.contention import Look, Used, allowed, at_rest, between, judged, look, read
from edgesdk.profile.sampler import Sampler
from edgesdk.profile.schema import Value
from edgesdk.progress import SILENT

STAT = "100.50 10.0\ncpu  1000 100 200 5000 50 0 10 40 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\n"
RUNNER = "42 (a (odd) name) S 1 1 1 0 -1 4194304 100 0 0 0 300 50 7 8 20 0 4 0 100 1 2 3\n"


@pytest.fixture
def here(tmp_path: Path) -> LocalDevice:
    return LocalDevice("here", Settings("local", store=str(tmp_path)))


@contextmanager
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """One processor that another program uses."""
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield loop
    finally:
        loop.kill()
        loop.wait()


def test_the_kernels_figures_are_read() -> None:
    assert read(STAT + RUNNER) == Look(100.5, 13.1, 3.65, 0.4, 2)  # with what its children used
    assert read(STAT + RUNNER + RUNNER) == Look(100.5, 13.1, 7.3, 0.4, 2)  # the sampler beside it
    assert read(STAT, mine=1.5) == Look(100.5, 13.1, 1.5, 0.4, 2)
    for cut in ("", "100.5 1\n", STAT.replace("cpu  1000 100", "cpu  x 100"), "cpu  1 1\n", STAT.partition("\n")[2]):
        assert read(cut) is None


def test_what_belongs_to_the_measurement_is_not_foreign() -> None:
    before, after = Look(10.0, 100.0, 50.0, 1.0, 4), Look(14.0, 108.0, 56.5, 1.5, 4)
    assert between(before, after) == Used(4.0, 1.5, 8.5, 0.5, 4)
    assert between(before, dataclasses.replace(after, own=60.0)) == Used(4.0, 0.0, 8.5, 0.5, 4)  # ticks are coarse
    assert between(before, before) is None and between(None, after) is None


def quiet(count: int = 4) -> Used:
    return Used(2.0, 0.05, 3.0, 0.0, count)


def codes(start: Used | None, repeats: list[Used | None]) -> list[str]:
    return [reason.code for reason in judged(start, repeats)[1]]


def test_doubts_have_codes() -> None:
    loud = Used(2.0, 2.0, 5.0, 0.0, 4)
    assert codes(quiet(), [quiet()] * 6) == []
    assert codes(loud, [quiet()] * 6) == ["busy-start"]
    assert codes(quiet(), [loud] * 6) == ["contended"]
    assert codes(quiet(), [Used(2.0, 0.0, 5.0, 0.6, 4)] * 6) == ["stolen"]
    assert codes(quiet(), [Used(2.0, 0.0, 5.0, 0.36, 4)] * 6) == []  # as much as a quiet virtual machine lost
    assert codes(None, [None] * 3) == []
    section, _ = judged(None, [None])
    assert section.validity == "invalid" and section.values["foreign"].value is None
    assert section.values["foreign"].reason == "not-reported"
    assert judged(quiet(), [quiet()])[0].values["foreign"].value == pytest.approx(0.025)
    short, found = judged(quiet(), [Used(0.02, 0.02, 0.04, 0.0, 4)] * 6)  # a tick or two, and what the looks cost
    assert short.values["foreign"].reason == "short-window" and found == []
    assert [allowed(count) for count in (1, 4, 8, 64)] == [0.2, 0.2, 0.4, 0.5]


def test_a_wide_interval_is_a_doubt() -> None:
    assert contention.wide(Value(100.0, "tokens/s", None, 90.0, 110.0)) is None
    found = contention.wide(Value(86.8, "tokens/s", None, 70.0, 124.0))
    assert found is not None and found.code == "wide-interval" and "86.8 (70 to 124)" in found.text
    assert contention.wide(Value(None, "tokens/s", "cut-short")) is None


def test_a_busy_loop_is_seen_here(here: LocalDevice) -> None:
    with busy() as loop:
        used = at_rest(here, 0.5)
        assert used is not None and used.foreign / used.seconds > 0.6
        own = between(look(here, loop.pid), None)
        assert own is None
        before = look(here, loop.pid)
        after = None
        while after is None or after.time - before.time < 0.5:  # type: ignore[union-attr]
            after = look(here, loop.pid)
        assert after.own - before.own > 0.3  # type: ignore[union-attr]


def test_the_sampler_shows_the_processors_without_a_program(here: LocalDevice) -> None:
    sampler = Sampler(here, [], 0.1)
    try:
        with busy() as loop:
            before = after = read(sampler.processors(loop.pid))
            assert before is not None and after is not None and before.count == os.cpu_count()
            while after.time - before.time < 0.5:
                after = read(sampler.processors(loop.pid))
                assert after is not None
        assert after.own - before.own > 0.3
        assert read(sampler.processors(loop.pid)) is not None  # it has ended: the sampler's own time is left
    finally:
        sampler.close()


def test_waiting_for_quiet_gives_up_in_words(here: LocalDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    with busy(), pytest.raises(EdgeError, match=r"other programs still use \d\.\d\d of \d+ processors"):
        contention.wait_for_quiet(here, 0.5, SILENT)
    monkeypatch.setattr(contention, "at_rest", lambda device: quiet())
    contention.wait_for_quiet(here, 5, SILENT)
    monkeypatch.setattr(contention, "at_rest", lambda device: None)
    with pytest.raises(EdgeError, match="does not show what other programs use"):
        contention.wait_for_quiet(here, 5, SILENT)
