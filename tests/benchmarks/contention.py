"""Profiles of this machine, quiet and beside a busy loop on one processor: how many say so.

    python -m tests.benchmarks.contention BUNDLE [COUNT]

The machine must be left alone meanwhile. Quiet profiles should be valid, those beside the loop degraded with the code
``contended``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from edgesdk.bundle import open_bundle
from edgesdk.devices.address import Settings
from edgesdk.devices.local import LocalDevice
from edgesdk.profile.profiling import profile
from edgesdk.profile.schema import Plan

PLAN = Plan(prompt_tokens=(32,), new_tokens=16, repeats=6, starts=3, cost=0, operators=False, memory=False)


def verdicts(bundle: Path, count: int, *, loop: bool) -> Counter[str]:
    """How profiles were judged: their validity, with the codes of the reasons."""
    found: Counter[str] = Counter()
    for _ in range(count):
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if loop else None
        try:
            with tempfile.TemporaryDirectory() as folder, open_bundle(bundle) as opened:
                device = LocalDevice("local", Settings("local", store=f"{folder}/store"))
                made = profile(device, opened, Path(folder) / "p.json", PLAN)
        finally:
            if other is not None:
                other.kill()
                other.wait()
        rate, spread = made.cases[0].latency.values["decode_rate"], made.contention.values
        print(
            "beside a loop" if loop else "quiet", made.validity, [reason.code for reason in made.reasons],
            f"{rate.value:.1f} ({rate.low:.1f} to {rate.high:.1f}) tokens/s,",
            {name: round(value.value or 0.0, 4) for name, value in spread.items()},
            flush=True,
        )  # fmt: skip
        found[" ".join([made.validity, *(reason.code for reason in made.reasons)])] += 1
    return found


if __name__ == "__main__":
    number = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    for disturbed in (False, True):
        print("beside a loop" if disturbed else "quiet", dict(verdicts(Path(sys.argv[1]), number, loop=disturbed)))
