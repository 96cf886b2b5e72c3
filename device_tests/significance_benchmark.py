"""How often a comparison of two profiles is right on this machine: slow-downs that are there, and none where none is.

    python -m device_tests.significance_benchmark [--trials 50] [--slower 0.05] [--minutes 30] [--apart]

Each trial profiles one bundle twice on this machine, in turns (or, with ``--apart``, one after the other); the second
runner waits, after every token, for a share of the time that the token took. What ``edgesdk compare`` says of the
decode rate, the median token and the undisturbed tokens is counted; trials with the wait and without take turns.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import edgesdk
from edgesdk.bundle import Bundle, open_bundle
from edgesdk.devices import Settings
from edgesdk.devices.local import LocalDevice
from edgesdk.model.random_weights import RandomWeights
from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope
from edgesdk.profile import profiling
from edgesdk.profile.compare import Change, Rule, compared
from edgesdk.profile.metrics import DIRECTIONS
from edgesdk.profile.schema import Profile

SPEC = DecoderSpec(
    "llama", 4096, 256, 256, (Layer(Attention(4, 2, 64, 0.125, Rope(10000.0)), Mlp(768, "silu")),) * 8, 1e-5
)
PLAN = replace(
    profiling.IN_TURNS, prompt_tokens=(8,), new_tokens=80, threads=(1,), idle=0.0, interval=0.02, memory=False
)
METRICS = ("decode_rate", "token_p50", "token_floor")
PLANTED = (0.05, 0.08, 0.1)
_POWER = 0.84  # quantile of the normal distribution for 80 %
Trial = tuple[dict[str, Change], tuple[Profile, Profile]]
# A python whose sessions wait after each token; the runner's own archive is what it runs.
SLOW = """#!{python}
import runpy, sys, time
archive = sys.argv[2]
sys.path.insert(0, archive)
from edgesdk_converters.onnx.session import OnnxSession
decode = OnnxSession.decode
def slower(self, token):
    start = time.perf_counter()
    logits = decode(self, token)
    until = time.perf_counter() + {share} * (time.perf_counter() - start)
    while time.perf_counter() < until:
        pass
    return logits
OnnxSession.decode = slower
sys.argv = sys.argv[2:]
runpy.run_path(archive, run_name="__main__")
"""


def main() -> None:
    """Print what every trial found, and how often which verdict was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--slower", type=float, default=0.05, help="share by which tokens take longer")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no trial after so long")
    parser.add_argument("--apart", action="store_true", help="one profile after the other, not in turns")
    options = parser.parse_args()
    trials: dict[float, list[Trial]] = {options.slower: [], 0.0: []}
    started, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = edgesdk.Model(SPEC, RandomWeights(SPEC, 1))
        checks = edgesdk.Checks(skip=True)
        edgesdk.export(model, "linux-x86_64", folder / "bundle", recipe="w4g32", context=256, checks=checks)
        with open_bundle(folder / "bundle") as bundle:
            for number in range(options.trials * len(trials)):
                if time.monotonic() - started > 60 * options.minutes:
                    break
                share = list(trials)[number % len(trials)]
                trials[share].append(_trial(folder, bundle, share, options.apart))
                _show(number, share, trials[share][-1][0])
    took = time.monotonic() - started
    how = "one after the other" if options.apart else "in turns"
    print(
        f"{how}, {PLAN.starts} starts, {PLAN.repeats} repeats, {took:.0f} s; load {load:.1f}, {os.getloadavg()[0]:.1f}"
    )
    for share, found in trials.items():
        _summary(share, found)
    _components([pair for _, pair in trials[0.0]])


def _trial(folder: Path, bundle: Bundle, share: float, apart: bool) -> Trial:
    store, outs = str(folder / "store"), (folder / f"{time.time_ns()}-a.json", folder / f"{time.time_ns()}-b.json")
    plain, slow = (
        LocalDevice("local", Settings("local", store=store, python=_python(folder, waits))) for waits in (0.0, share)
    )
    if apart:
        a, b = (profiling.profile(device, bundle, out, PLAN) for device, out in zip((plain, slow), outs, strict=True))
    else:
        a, b = profiling.profile_in_turns((plain, slow), (bundle, bundle), outs, PLAN)
    return {change.metric: change for change in compared(a, b)}, (a, b)


def _python(folder: Path, share: float) -> str:
    """Both runners come this way, so that they differ in the wait alone."""
    python = folder / f"python-{share}"
    if not python.exists():
        python.write_text(SLOW.format(python=sys.executable, share=share), encoding="utf-8")
        python.chmod(0o755)
    return str(python)


def _show(number: int, share: float, changes: dict[str, Change]) -> None:
    said = [f"{name} {(c := changes[name]).ratio:.3f} ({c.low:.3f} to {c.high:.3f}) {c.verdict}" for name in METRICS]
    print(f"{number + 1}: slower by {share:.0%}: {'; '.join(said)}", flush=True)


def _summary(share: float, trials: Sequence[Trial]) -> None:
    print(f"slower by {share:.0%}, {len(trials)} trials:")
    for name in METRICS if trials else ():
        changes = [changes[name] for changes, _ in trials]
        ratios = np.array([change.ratio for change in changes], dtype=float)
        low, middle, high = np.quantile(ratios, [0, 0.5, 1])
        spread = np.log(ratios).std(ddof=min(1, len(trials) - 1))
        print(f"  {name}: B / A {middle:.4f} ({low:.4f} to {high:.4f}), standard deviation of logarithms {spread:.4f}")
        for verdict in ("worse", "better", "same", "unsure"):
            print(f"    {verdict}: {_rate(sum(change.verdict == verdict for change in changes), len(trials))}")
        without = sum(not (change.low or 0.0) <= 1 <= (change.high or math.inf) for change in changes)
        print(f"    interval without 1: {_rate(without, len(trials))}")
        for planted in PLANTED if not share else ():
            found = sum(_found(change, 1 + planted) for change in changes)
            print(f"    worse, were tokens {planted:.0%} slower in these trials: {_rate(found, len(trials))}")


def _found(change: Change, slower: float) -> bool:
    """Whether a comparison would say worse, had every token of B taken so many times as long."""
    if DIRECTIONS[change.metric] == "higher":
        return (change.high or math.inf) / slower < 1 and 1 - (change.ratio or 1.0) / slower > Rule().allowance
    return (change.low or 0.0) * slower > 1 and (change.ratio or 1.0) * slower - 1 > Rule().allowance


def _rate(count: int, trials: int) -> str:
    low, high = clopper_pearson(count, trials)
    return f"{count} of {trials} ({low:.1%} to {high:.1%})"


def clopper_pearson(count: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson, Biometrika 26, 1934)."""
    tail = (1 - level) / 2
    low = 0.0 if count == 0 else _solved(lambda share: 1 - _at_most(count - 1, trials, share) - tail)
    high = 1.0 if count == trials else _solved(lambda share: tail - _at_most(count, trials, share))
    return low, high


def _at_most(count: int, trials: int, share: float) -> float:
    return sum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(count + 1))


def _solved(rising: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return low


def _components(pairs: Sequence[tuple[Profile, Profile]]) -> None:
    """Where figures of one program differ: within its starts and between them, and what pairs of starts leave of it."""
    for name in METRICS if pairs else ():
        logs = np.log([[_by_start(profile, name) for profile in pair] for pair in pairs])  # trial, side, start, repeat
        several = logs.shape[-1] > 1  # some figures are one of a start
        within = logs.var(axis=-1, ddof=1).mean() if several else 0.0
        means = logs.mean(axis=-1).var(axis=-1, ddof=1).mean()
        pair = np.median(logs[:, 1] - logs[:, 0], axis=-1).var(axis=-1, ddof=1).mean() ** 0.5
        between = max(0.0, means - within / logs.shape[-1]) ** 0.5
        print(
            f"{name}, nothing changed: standard deviation {f'within a start {within**0.5:.1%}, ' if several else ''}"
            f"between starts {between:.1%}, of a pair of starts {pair:.1%}"
        )
        for change in PLANTED:
            print(f"  starts that find {change:.0%} in 80 % of comparisons: {_needed(pair, change)}")


def _by_start(profile: Profile, name: str) -> np.ndarray:
    return np.reshape(profile.cases[0].latency.values[name].each, (PLAN.starts, -1))


def _needed(deviation: float, change: float) -> int:
    """Pairs of starts whose t interval leaves out 1 in 80 % of comparisons; Student's quantile approximated."""
    starts = 4
    while (1.96 * (1 + 1.3 / (starts - 2)) + _POWER) * deviation / starts**0.5 > math.log1p(change):
        starts += 1
    return starts


if __name__ == "__main__":
    main()
