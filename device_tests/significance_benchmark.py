"""How often a comparison of two profiles is right on this machine: slow-downs that are there, and none where none is.

    python -m device_tests.significance_benchmark [--trials 50] [--slower 0.05] [--apart]

Each trial profiles one bundle twice on this machine, in turns (or, with ``--apart``, one after the other); the second
runner waits, after every token, for a share of the time that the token took. What ``edgesdk compare`` says of the
decode rate and of the median token is counted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import edgesdk
from edgesdk.bundle import Bundle, open_bundle
from edgesdk.devices import Settings
from edgesdk.devices.local import LocalDevice
from edgesdk.model.random_weights import RandomWeights
from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope
from edgesdk.profile import profiling
from edgesdk.profile.compare import Change, compared
from edgesdk.profile.schema import Plan

SPEC = DecoderSpec(
    "llama", 4096, 256, 256, (Layer(Attention(4, 2, 64, 0.125, Rope(10000.0)), Mlp(768, "silu")),) * 8, 1e-5
)
PLAN = Plan(
    (8,), 80, (1,), repeats=8, starts=8, warmup=1, idle=0.0, interval=0.02, memory=False, cost=0, operators=False
)
METRICS = ("decode_rate", "token_p50")
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
    """Print how many trials gave which verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--slower", type=float, default=0.05, help="share by which tokens take longer")
    parser.add_argument("--apart", action="store_true", help="one profile after the other, not in turns")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = edgesdk.Model(SPEC, RandomWeights(SPEC, 1))
        checks = edgesdk.Checks(skip=True)
        edgesdk.export(model, "linux-x86_64", folder / "bundle", recipe="w4g32", context=256, checks=checks)
        with open_bundle(folder / "bundle") as bundle:
            for share in (options.slower, 0.0):
                _trials(folder, bundle, share, options.trials, options.apart)


def _trials(folder: Path, bundle: Bundle, share: float, trials: int, apart: bool) -> None:
    python = folder / f"python-{share}"
    python.write_text(SLOW.format(python=sys.executable, share=share), encoding="utf-8")
    python.chmod(0o755)
    store = str(folder / "store")
    plain = LocalDevice("local", Settings("local", store=store, python=sys.executable))
    slow = LocalDevice("local", Settings("local", store=store, python=str(python)))
    verdicts, ratios, started = {name: Counter[str]() for name in METRICS}, list[float](), time.monotonic()
    for trial in range(trials):
        outs = folder / f"{share}-{trial}-a.json", folder / f"{share}-{trial}-b.json"
        measure = _one_after_the_other if apart else _in_turns
        changes = {change.metric: change for change in measure(plain, slow, bundle, outs)}
        for name in METRICS:
            verdicts[name][changes[name].verdict] += 1
        ratios.append(changes["decode_rate"].ratio or 0.0)
    spread = sorted(ratios)
    how = "one after the other" if apart else "in turns"
    print(f"slower by {share:.0%}, {how}: {trials} trials in {time.monotonic() - started:.0f} s")
    for name in METRICS:
        print(f"  {name}: {dict(verdicts[name])}")
    print(
        f"  decode rate, B / A: median {spread[trials // 2]:.4f}, from {spread[0]:.4f} to {spread[-1]:.4f}", flush=True
    )


def _in_turns(plain: LocalDevice, slow: LocalDevice, bundle: Bundle, outs: tuple[Path, Path]) -> list[Change]:
    made = profiling.profile_in_turns((plain, slow), (bundle, bundle), outs, PLAN)
    return compared(*made)


def _one_after_the_other(
    plain: LocalDevice, slow: LocalDevice, bundle: Bundle, outs: tuple[Path, Path]
) -> list[Change]:
    a, b = (profiling.profile(device, bundle, out, PLAN) for device, out in zip((plain, slow), outs, strict=True))
    return compared(a, b)


if __name__ == "__main__":
    main()
