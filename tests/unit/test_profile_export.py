"""CSV and Markdown of a small profile, letter by letter."""

from __future__ import annotations

import csv
import dataclasses
import io

from edgesdk.profile.export import COLUMNS, to_csv, to_markdown
from edgesdk.profile.schema import Case, Profile, Section, Throttling, Value

from .profile_samples import degraded, hostile, microcontroller, no_sensors, profile, reason


def small() -> Profile:
    rate = Value(31.5, "tokens/s", None, 30.25, 32.0, (31.5, 30.25, 32.0, 12.5), (3,))
    case = Case(
        128, 64, 4,
        Section("degraded", (reason("throttled"),), {"decode_rate": rate}),
        Section("invalid", (reason("no-total"),), {"decode_energy": Value(None, "J/token", "no-total")}),
        Section(values={"peak": Value(71.5, "°C")}),
        Throttling("throttled", ("policy0 at 972 MHz of 1728 MHz",)),
    )  # fmt: skip
    empty = Section()
    base = profile()
    return dataclasses.replace(base, cases=(case,), load=empty, idle=empty, sampler=empty, energy_scope=None,
                               memory=Section(values={"peak_rss": Value(851_443_712.0, "B")}))  # fmt: skip


CSV = """\
2026-11-20T09:41:07+00:00,{digest},Qwen/Qwen2.5-0.5B-Instruct,w4g32,orin,onnxruntime 1.31.0,4be3d0c4f2a1,0,\
memory,,,,peak_rss,,851443712.0,B,,valid,
{head}latency,128,64,4,decode_rate,1,31.5,tokens/s,0,degraded,
{head}latency,128,64,4,decode_rate,2,30.25,tokens/s,0,degraded,
{head}latency,128,64,4,decode_rate,3,32.0,tokens/s,0,degraded,
{head}latency,128,64,4,decode_rate,4,12.5,tokens/s,1,degraded,
{head}energy,128,64,4,decode_energy,,,J/token,,invalid,no-total
{head}temperature,128,64,4,peak,,71.5,°C,,valid,
"""
MARKDOWN = """\
# Qwen/Qwen2.5-0.5B-Instruct on NVIDIA Jetson Orin Nano Developer Kit

|  |  |
|---|---|
| Validity | degraded |
| Throttling | throttled |
| Bundle | sha256:019f4c21ab77 (w4g32, jetson-orin-nano) |
| Runtime | onnxruntime 1.31.0 |
| Regime | governor: schedutil; nvpmodel: 15W; policy0 max: 1728000 kHz |
| Energy scope | none |
| Measured | 2026-11-20T09:41:07+00:00 |
| Commit | 4be3d0c4f2a1 |

## 128 + 64 tokens, 4 threads

| Section | Value | Median | 95 % interval | Unit |
|---|---|---|---|---|
| latency (degraded) | Decode rate | 31.50 | 30.25 \u2013 32.00 | tokens/s |
| energy (invalid) | Decode energy | — `no-total` |  | J/token |
| temperature | Peak, hottest zone | 71.50 |  | °C |

## Run

| Section | Value | Median | 95 % interval | Unit |
|---|---|---|---|---|
| memory | Peak RSS | 812.0 |  | MiB |

## Validity

- profile: `throttled` the device held back
- 128 + 64 tokens, 4 threads, latency: `throttled` the device held back
- 128 + 64 tokens, 4 threads, energy: `no-total` no sensor measures all that the device spends
- 128 + 64 tokens, 4 threads: throttling throttled: policy0 at 972 MHz of 1728 MHz
"""


def test_csv() -> None:
    it = small()
    head = f"{it.started},{it.bundle.digest},{it.bundle.model},w4g32,orin,{it.runtime},{it.commit},0,"
    assert to_csv(it) == ",".join(COLUMNS) + "\n" + CSV.format(digest=it.bundle.digest, head=head)


def test_markdown() -> None:
    assert to_markdown(small()) == MARKDOWN


def test_every_value_of_every_repeat_once() -> None:
    profiles = [profile(), degraded(), no_sensors(), microcontroller()]
    rows = list(csv.DictReader(io.StringIO(to_csv(*profiles))))
    sections = [
        part for it in profiles for part in (it.load, it.memory, it.idle, it.sampler,
        *(each for case in it.cases for each in (case.latency, case.energy, case.temperature)))]  # fmt: skip
    values = [value for part in sections for value in part.values.values()]
    assert len(rows) == sum(max(1, len(value.each)) for value in values)
    given = [each for value in values for each in (value.each or (value.value,)) if each is not None]
    assert sorted(float(row["value"]) for row in rows if row["value"]) == sorted(given)
    assert all(row["reason"] for row in rows if not row["value"]) and "0" not in {row["value"] for row in rows}
    assert {row["emulated"] for row in rows if row["unit"] == "ticks"} == {"1"}


def test_hostile_names_act_nowhere() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(hostile()))))
    assert {row["device"] for row in rows} == {'\'=HYPERLINK("http://evil.example")'}
    assert all(None not in row and len(row) == len(COLUMNS) for row in rows)
    text = to_markdown(hostile())
    assert "<script" not in text.replace("\\<", "") and "\u202e" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {3, 6}


def test_emulated_time_is_said_first() -> None:
    assert to_markdown(microcontroller()).splitlines()[2].startswith("**EMULATED TIME: QEMU 8.2")
