"""The command line of the fuzzer; see the package."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

from . import native
from .supervisor import Outcome, fuzz, note
from .targets import TARGETS

_OUT = Path("build/fuzz")


def main() -> int:
    """Run targets, or show what all runs came to; 1 where anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz what edgesdk reads.")
    names = (*TARGETS, *(f"c-{name}" for name in native.HARNESSES))
    parser.add_argument("target", choices=[*names, "all", "table"], metavar="TARGET", help=", ".join(names))
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=_OUT, help="folder of findings and counts")
    chosen = parser.parse_args()
    if chosen.target == "table":
        return _table(chosen.out)
    found = False
    for name in names if chosen.target == "all" else (chosen.target,):
        outcome = _run(name, chosen.seconds, chosen.seed, chosen.out)
        note(outcome, chosen.out)
        print(f"{name}: {outcome.inputs} inputs in {outcome.seconds:.0f} s, +{outcome.growth >> 10} MB", flush=True)
        for kind, places in outcome.findings.items():
            found = True
            for place in places:
                print(f"  {kind}: {place}", flush=True)
    return int(found)


def _run(name: str, seconds: float, seed: int, out: Path) -> Outcome:
    if name in TARGETS:
        return fuzz(name, seconds, seed, out)
    return native.fuzz(name.removeprefix("c-"), seconds, seed, out)


def _table(out: Path) -> int:
    """Inputs and findings of every target over all runs."""
    inputs: dict[str, int] = defaultdict(int)
    places: dict[str, set[str]] = defaultdict(set)
    growth: dict[str, int] = defaultdict(int)
    for line in (out / "results.jsonl").read_text().splitlines():
        run = json.loads(line)
        inputs[run["target"]] += run["inputs"]
        growth[run["target"]] = max(growth[run["target"]], run["growth"])
        for kind, found in run["findings"].items():
            places[run["target"]] |= {f"{kind} {place}" for place in found}
    for name, count in sorted(inputs.items()):
        print(f"{name:<24}{count:>12,}{len(places[name]):>6} findings  +{growth[name] >> 10} MB")
    print(f"{'all':<24}{sum(inputs.values()):>12,}{sum(map(len, places.values())):>6} findings")
    return 0


if __name__ == "__main__":
    sys.exit(main())
