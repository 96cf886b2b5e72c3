"""A profile of what an app's benchmark wrote: the record that ``edgesdk profile`` would have made, by its formulas.

An app has its own process and clock, so much of what a runner beside a sampler gives is not there: no idle window, no
power, one start. What is missing is null with its code.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..bundle import Bundle
from ..schema import dump
from .app_result import Event, Result, Run, read_result
from .profiling import bundle_facts, record_path, rederived
from .record import Line, Record
from .schema import DeviceFacts, Plan, Profile, ProfileError, SensorFacts

_BATTERY = SensorFacts(
    "battery",
    "temperature",
    "°C",
    "battery",
    "app",
    "EXTRA_TEMPERATURE of Android's BatteryManager, tenths of a degree",
)


def profile_from_app(bundle: Bundle, result: Path, out: Path) -> Profile:
    """Write the record of an app's benchmark beside ``out``, and derive its profile.

    Args:
        bundle: what the app holds.
        result: the file that its benchmark wrote.
        out: where the profile goes; written by the caller.

    Raises:
        EdgeError: the file is none, damaged, of another bundle, or holds no repeat.
    """
    found = read_result(result)
    digest = found.hello.get("digest")
    if digest != bundle.manifest.digest:
        raise ProfileError(
            f"{result}: it measured bundle {str(digest)[:16]}, and this one is {bundle.manifest.digest[:16]}",
            hint="name the bundle that the app was packaged from",
        )
    repeats = [run for run in found.runs if run.kind == "repeat" and _tokens(run)]
    if not repeats:
        why = found.failure or "no repeat came to its end, or pieces were not tokens"
        raise ProfileError(f"{result}: nothing to profile: {why}", hint="run the benchmark again")
    path = record_path(out)
    path.unlink(missing_ok=True)
    record = Record(path, _header(bundle, found, repeats))
    try:
        for line in _lines(found):
            record.add(line)
    finally:
        record.close()
    return rederived(out)


def _header(bundle: Bundle, found: Result, repeats: list[Run]) -> Line:
    hello = found.hello
    lengths = sorted({run.prompt_tokens for run in repeats})
    counts = [sum(run.prompt_tokens == length for run in repeats) for length in lengths]
    plan = Plan(
        tuple(lengths),
        max(len(_tokens(run)) for run in repeats) - 1,
        repeats=max(counts),
        starts=1,
        warmup=sum(run.kind == "warmup" for run in found.runs) // len(lengths),
        sustained=_sustained(found),
        memory=bool(found.memory),
        cost=0,
        operators=False,
    )
    name = " ".join(str(hello[key]) for key in ("manufacturer", "model") if hello.get(key)) or "phone"
    android = "sdk" in hello
    device = DeviceFacts(
        name,
        f"app:{hello.get('fingerprint') or name}",
        hello.get("model"),
        "android" if android else hello.get("os"),
        hello.get("release"),
        bundle.manifest.target.architecture,
    )
    sensors = [_BATTERY] if any(_celsius(run) for run in found.runs) else []
    return {
        "bundle": dump(bundle_facts(bundle)),
        "device": dump(device),
        "plan": dump(plan),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "sensors": [dump(sensor) for sensor in sensors],
        "raw": [{"name": sensor.name, "wraps_at": None, "parts": []} for sensor in sensors],
        "regime": {},
        "commit": None,
        "paired": None,
    }


def _lines(found: Result) -> Iterator[Line]:
    yield {"key": "session/0"}
    yield {"key": "load/0/0", "seconds": found.load_seconds, "hello": found.hello}
    taken = dict[tuple[str, int], int]()
    for run in found.runs:
        if run.kind == "warmup" or not _tokens(run):
            continue
        kind, length = run.kind, run.prompt_tokens
        index = taken[kind, length] = taken.get((kind, length), -1) + 1
        moment = run.events[0]["at"]
        yield {
            "key": f"{kind}/{length}/0/{index}",
            "length": length,
            "threads": None,
            "index": index,
            "cooled": None,
            "events": list(run.events),
            "started": None,
            "samples": _samples(run),
            "clock": {"at": moment, "boottime": moment, "host": [moment / 1e9, moment / 1e9]},
            "jump": False,
            "uncertainty": None,
            "lost": None,
        }
    if found.memory:
        yield {"key": "memory", "looks": _looks(found), "done": found.runs[-1].events[-1], "hello": found.hello}
    if found.complete:
        yield {"key": "end"}


def _tokens(run: Run) -> list[Event]:
    return [event for event in run.events if event["event"] == "token"]


def _sustained(found: Result) -> float | None:
    """Seconds between the first and the last moment of the sustained part."""
    events = [event for run in found.runs if run.kind == "sustained" for event in run.events if "at" in event]
    if not events:
        return None
    return float((events[-1]["at"] - events[0]["at"]) / found.hello["ticks_per_second"])


def _celsius(run: Run) -> list[tuple[float, float]]:
    """Moments in seconds, and the battery's temperature."""
    said = [(event["at"] / 1e9, event.get("battery_celsius")) for event in run.sensors]
    return [(at, float(value)) for at, value in said if isinstance(value, (int, float))]


def _samples(run: Run) -> Line | None:
    said = _celsius(run)
    if not said:
        return None
    return {"device": {"moments": {"battery": [at for at, _ in said]}, "values": {"battery": [v for _, v in said]}}}


def _looks(found: Result) -> dict[str, str | None]:
    """Memory as Linux would write it, of what the app says."""
    looks: dict[str, Any] = {"after_load": None, "after_run": None}
    for event in found.memory:
        pss = event.get("pss_kb")
        looks[str(event["moment"])] = None if pss is None else f"Pss:\t{int(pss)} kB\n"
    return looks
