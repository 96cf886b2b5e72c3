"""Records of profiles as a run writes them, of a device whose power and heat are functions of its clock."""

from __future__ import annotations

import json

import numpy as np

from edgesdk.profile.schema import Plan, SensorFacts

BOARD = SensorFacts("VDD_IN", "power", "W", "board", "hwmon", "mV and mA", total=True)
ZONE = SensorFacts("cpu-thermal", "temperature", "°C", "zone", "thermal_zones", "m°C", limit=90.0, critical=100.0)
TOKENS, TICK = 20, 50_000_000  # decoded tokens of a repeat, and nanoseconds of each


def record(
    *,
    repeats: int = 3,
    sensors: tuple[SensorFacts, ...] = (BOARD, ZONE),
    power=lambda at: 5.0 + at,
    celsius=lambda at: 50.0,
    boot: float = 1000.0,
    **changes,
) -> list[dict]:
    """Of a device whose power and heat are functions of its clock; a repeat is 1 s of prompt and 1 s of answer."""
    plan = {**_plain(Plan(prompt_tokens=(10,), new_tokens=TOKENS, repeats=repeats)), **changes.pop("plan", {})}
    header = {
        "key": "header",
        "version": 1,
        "bundle": _plain_bundle(),
        "device": {"name": "board", "identity": "ssh:board"} | changes.pop("device", {}),
        "plan": plan,
        "started": "2026-11-22T12:00:00+00:00",
        "sensors": [vars(each) for each in sensors],
        "raw": [{"name": each.name, "wraps_at": None, "parts": []} for each in sensors],
        "regime": {"policy0": "performance 1000-2000 kHz"},
        "commit": None,
    }
    hello = {
        "runner": "python 3.11",
        "runtime": "onnxruntime 1.31.1",
        "ticks_per_second": 10**9,
        "clock": "CLOCK_MONOTONIC",
    }
    lines = [header, {"key": "session/1"}, {"key": "load/0", "seconds": 0.5, "hello": hello | changes.pop("hello", {})}]
    values = {"VDD_IN": power, "cpu-thermal": celsius}
    for index in range(repeats):
        start = 10.0 + 3 * index  # of the runner's clock; the sampler's is ``boot`` ahead
        at = [int((start + 1) * 1e9) + number * TICK for number in range(1, TOKENS + 1)]
        tokens = [{"event": "token", "ticks": TICK, "sample_ticks": 1000, "at": moment, "host": 0.0} for moment in at]
        moments = list(np.arange(start - 0.15, start + 2.3, 0.1))
        lines.append(
            {
                "key": f"repeat/10/0/{index}",
                "length": 10,
                "threads": None,
                "index": index,
                "cooled": None,
                "events": [
                    {"event": "prefill", "ticks": 10**9, "at": int((start + 1) * 1e9), "host": 1.0},
                    *tokens,
                    {**tokens[-1], "ticks": 0},
                    {"event": "done", "host": 2.0},
                ],
                "started": 5.0 + start,
                "clock": {
                    "at": int(start * 1e9),
                    "boottime": int((start + boot) * 1e9),
                    "host": [5.0 + start, 5.0 + start],
                },
                "samples": {
                    "device": {
                        "moments": {each.name: [m + boot for m in moments] for each in sensors},
                        "values": {each.name: [values[each.name](m) for m in moments] for each in sensors},
                    }
                },
                "jump": 0.0,
                "uncertainty": 0.005,
                "lost": None,
                **changes,
            }
        )
    return [*lines, {"key": "end"}]


def _plain(plan: Plan) -> dict:
    return json.loads(json.dumps(vars(plan)))


def _plain_bundle() -> dict:
    return {"digest": "d" * 64, "model": "m", "target": "t", "converter": "onnx", "recipe": "w4g32", "bytes": 1}
