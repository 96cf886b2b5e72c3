"""Profiles and what is read beside them: records, budgets, policies, histories."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from ..case import Case, Files, Opener
from ..trees import changed_json, changed_toml, written_json


def _profile(folder: Path) -> Case:
    from edgesdk.profile.budget import Limit, checked
    from edgesdk.profile.compare import Policy, compared
    from edgesdk.profile.export import to_csv, to_markdown
    from edgesdk.profile.report.page import render
    from edgesdk.profile.schema import read_profile
    from edgesdk.schema import dump

    from ...unit import profile_samples as samples

    trees = [json.loads(json.dumps(dump(each()))) for each in (samples.cool, samples.degraded, samples.microcontroller)]
    for tree in trees:
        tree["series"], tree["stretches"] = tree["series"][:2], tree["stretches"][:2]
    budget = {"decode_rate": Limit(min=1, interval=True), "load_time": Limit(max=9)}

    def run(files: Files) -> None:
        path = folder / "profile.json"
        path.write_bytes(files["profile.json"])
        profile = read_profile(path)
        checked(profile, budget)
        compared(profile, profile, Policy())
        to_csv(profile)
        to_markdown(profile)
        render([profile])

    return Case(lambda random: {"profile.json": changed_json(random, random.choice(trees))}, run)


def _record(folder: Path) -> Case:
    from edgesdk.profile.derive import derived
    from edgesdk.profile.record import read_record

    from ...unit.profile_records import record

    lines = record()

    def make(random: Random) -> Files:
        texts = [json.dumps(line).encode() for line in lines]
        for _ in range(random.choice((1, 1, 2, 3))):
            at = random.randrange(len(lines)) if random.random() < 0.7 else 0
            texts[at] = written_json(random, json.loads(changed_or_same(random, lines[at])))
        return {"record": b"\n".join(texts) + b"\n"}

    def run(files: Files) -> None:
        (folder / "record").write_bytes(files["record"])
        derived(read_record(folder / "record"))

    return Case(make, run)


def changed_or_same(random: Random, line: object) -> bytes:
    """A changed line that is still JSON, or the line."""
    text = changed_json(random, line)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return json.dumps(line).encode()
    return text


def _budget(folder: Path) -> Case:
    from edgesdk.profile.budget import checked, read_budget

    from ...unit import profile_samples as samples

    tree = {"decode_rate": {"min": 10, "interval": True}, "peak_rss": {"max": 1e9, "prompt_tokens": 128, "threads": 1}}
    profile = samples.cool()

    def run(files: Files) -> None:
        (folder / "budget.toml").write_bytes(files["budget.toml"])
        checked(profile, read_budget(folder / "budget.toml"))

    return Case(lambda random: {"budget.toml": changed_toml(random, tree)}, run)


def _policy(folder: Path) -> Case:
    from edgesdk.profile.compare import compared, read_policy

    from ...unit import profile_samples as samples

    tree = {"level": 0.95, "metrics": {"decode_rate": {"allowance": 0.05, "direction": "higher"}}}
    profile = samples.cool()

    def run(files: Files) -> None:
        (folder / "policy.toml").write_bytes(files["policy.toml"])
        compared(profile, profile, read_policy(folder / "policy.toml"))

    return Case(lambda random: {"policy.toml": changed_toml(random, tree)}, run)


TARGETS: dict[str, Opener] = {"profile": _profile, "record": _record, "budget": _budget, "policy": _policy}
