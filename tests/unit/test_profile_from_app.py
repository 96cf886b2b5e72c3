"""What an app's benchmark wrote becomes a profile, or is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgesdk.bundle import open_bundle
from edgesdk.cli import run
from edgesdk.profile.schema import read_profile
from edgesdk.runner_lines import event_line

SECOND = 1_000_000_000
TOKENS, TICK = 11, 20_000_000


def result(digest: str, *, repeats: int = 3, sampling: bool = True, whole: bool = True, **hello: object) -> bytes:
    """A phone that reads 10 tokens in 0.5 s and answers one each 20 ms, a degree warmer after each run."""
    said = {"protocol": 1, "runner": "android app", "runtime": "executorch", "ticks_per_second": SECOND, "sdk": 36}
    said |= {"digest": digest, "manufacturer": "Acme", "model": "One", "fingerprint": "acme/one", **hello}
    lines = [event_line("hello", **said), event_line("load", ticks=SECOND // 4, ticks_per_second=SECOND)]
    lines.append(event_line("memory", moment="after_load", at=1, pss_kb=1000))
    for number in range(-1, repeats):
        at = (10 + number) * SECOND
        lines.append(event_line("sensors", at=at, battery_celsius=30.0 + number))
        lines.append(event_line("run", kind="repeat" if number >= 0 else "warmup", index=max(number, 0), at=at))
        at += SECOND // 2
        lines.append(event_line("prefill", tokens=10, ticks=SECOND // 2, at=at))
        for token in range(TOKENS if whole else 0):
            at += TICK
            last = token == TOKENS - 1
            chosen = {"sample_ticks": 1000} if sampling else {}
            lines.append(event_line("token", ticks=None if last else TICK, at=at, **chosen))
        if not whole:
            lines.append(event_line("pieces", count=5, why="several tokens a character"))
        lines.append(event_line("done", prompt_tokens=10, new_tokens=TOKENS, stop="length", peak_rss_kb=2000))
        lines.append(event_line("sensors", at=at + 1, battery_celsius=31.0 + number))
    lines.append(event_line("memory", moment="after_run", at=at + 2, pss_kb=1500))
    lines.append(event_line("end", at=at + 3))
    return b"".join(lines)


@pytest.fixture
def digest(bundle: Path) -> str:
    with open_bundle(bundle) as opened:
        return opened.manifest.digest


@pytest.mark.parametrize("sampling", [True, False])
def test_its_figures(bundle, digest, tmp_path, capsys, sampling) -> None:
    file, out, page = tmp_path / "result.jsonl", tmp_path / "profile.json", tmp_path / "page.html"
    file.write_bytes(result(digest, sampling=sampling))
    arguments = ["profile", str(bundle), "--from", str(file), "-o", str(out), "--report", str(page), "--no-history"]
    assert run(arguments) == 0, capsys.readouterr().err
    made = read_profile(out)
    (case,) = made.cases
    values = case.latency.values
    assert (case.prompt_tokens, case.new_tokens, made.plan.repeats, made.plan.warmup) == (10, TOKENS - 1, 3, 1)
    assert values["decode_rate"].value == pytest.approx(50)
    assert values["time_to_first_token"].value == pytest.approx(0.5, abs=1e-5)
    assert values["token_p99"].value == pytest.approx(0.02)
    assert (values["sampling"].value is None) is not sampling
    assert made.load.values["seconds"].value == pytest.approx(0.25)
    assert made.memory.values["peak_rss"].value == 2000 * 1024 and made.memory.values["pss"].value == 1500 * 1024
    assert (made.device.name, made.device.os, made.runner) == ("Acme One", "android", "android app")
    assert case.temperature.values["peak"].value is None  # a battery is no zone; its temperature is drawn
    (battery,) = (series for series in made.series if series.sensor == "battery")
    assert max(battery.values) == pytest.approx(33)
    assert "Acme One" in page.read_text(encoding="utf-8")
    assert json.loads(out.read_text())["energy_scope"] is None


def test_two_of_them_compare(bundle, digest, tmp_path, capsys) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_bytes(result(digest))
        file = str(tmp_path / f"{name}.jsonl")
        assert run(["profile", str(bundle), "--from", file, "-o", str(tmp_path / f"{name}.json"), "--no-history"]) == 0
    assert run(["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data, digest: data.replace(b'"tokens":10', b'"tokens":11', 1), "line 6 was changed"),
        (lambda data, digest: result("0" * 64), "it measured bundle 0000000000000000"),
        (lambda data, digest: result(digest, protocol=2), "protocol 2"),
        (lambda data, digest: result(digest, whole=False), "pieces were not tokens"),
        (lambda data, digest: data[:300], "nothing to profile"),
        (lambda data, digest: b"", "did not begin"),
        (lambda data, digest: event_line("error", code="bundle", message="too hot"), "too hot"),
    ],
)
def test_what_cannot_be_profiled(bundle, digest, tmp_path, capsys, change, said) -> None:
    file, out = tmp_path / "result.jsonl", tmp_path / "profile.json"
    file.write_bytes(change(result(digest), digest))
    assert run(["profile", str(bundle), "--from", str(file), "-o", str(out), "--no-history"]) == 1
    error = capsys.readouterr().err
    assert said in error and "Hint:" in error and "Traceback" not in error
    assert not out.exists()
