"""Sweeps on a tiny model: what is refused before any work, what is done again, what the table says."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgesdk import Checks
from edgesdk.cli.sweep_command import command
from edgesdk.compress.calibration import Calibration
from edgesdk.errors import EdgeError
from edgesdk.profile.profiling import record_path, rederived
from edgesdk.profile.schema import write_profile
from edgesdk.sweep import executors, running, sweep
from edgesdk.sweep.front import Point, front
from edgesdk.sweep.jobs import ExportJob, Outcome, perform, whole_bundle
from edgesdk.sweep.page import render
from edgesdk.sweep.plan import Exclusion, read_sweep
from edgesdk.sweep.table import FIGURES, Row, Table, to_csv

from ..conftest import make_checkpoint

TEXT = "The quick brown fox jumps over the lazy dog. "
QUICK = """
[profile]
prompt_tokens = [4]
new_tokens = 4
repeats = 1
warmup = 0
idle = 0.1
memory = false
cost = 0
operators = false
"""
SKIP = "[checks]\nskip = true\n"


@pytest.fixture(autouse=True)
def own_locks(monkeypatch, tmp_path) -> None:
    """Whoever else uses this machine as a device is not in the way."""
    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where sweeps lie: beside their model and texts."""
    made = tmp_path_factory.mktemp("sweep")
    make_checkpoint(made / "tiny")
    (made / "eval.txt").write_text(TEXT * 20)
    (made / "calibration.txt").write_text(TEXT * 40)
    return made


def written(folder: Path, name: str = "sweep.toml", *, top: str = "", rest: str = SKIP, **lists: Sequence[str]) -> Path:
    """A sweep's file; lists are models, recipes and targets."""
    chosen = {"models": ["tiny"], "recipes": ["w8"], "targets": ["linux-x86_64"], **lists}
    lines = [f"{key} = {json.dumps(list(value))}" for key, value in chosen.items()]
    path = folder / name
    path.write_text("\n".join([*lines, "context = 64" if "context" not in top else "", top, rest]))
    return path


class Counting:
    """Exports here, and remembers which."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def run(self, jobs: Sequence[ExportJob], bundles: Path) -> Iterator[tuple[ExportJob, Outcome]]:
        for job in jobs:
            self.done.append(job.recipe.name)
            yield job, perform(job, bundles / job.key)


@pytest.fixture
def counting(monkeypatch) -> Counting:
    made = Counting()
    monkeypatch.setattr(running, "executor_of", lambda file, workers: made)
    return made


@pytest.fixture
def no_work(monkeypatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr(running, "executor_of", never)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": []}, "'models' is empty"),
        ({"recipes": ["w8", "w8"]}, "'recipes' has 'w8' twice"),
        ({"recipes": ["w9"]}, r"no recipe 'w9'"),
        ({"recipes": ["gone.toml"]}, "gone.toml: no such recipe file"),
        ({"targets": ["linux-x86"]}, r"no target 'linux-x86' \(did you mean 'linux-x86_64'\?\)"),
        ({"models": ["tinny"]}, "no catalogue model 'tinny'"),
        ({"top": "colour = 1"}, "unknown key 'colour'"),
        ({"top": "workers = 0"}, "'workers' must be 1 or more"),
        ({"top": 'executor = "slurm"'}, "key 'executor'"),
        ({"top": 'address = "auto"'}, "'address' is of a Ray cluster"),
        ({"top": "context = 100000"}, None),
        ({"rest": '[devices]\nlinux-x86_64 = "lokal"'}, "no device 'lokal'"),
        ({"rest": '[devices]\nrpi = "local"'}, "no target 'rpi'"),
        ({"rest": '[[devices]]\ndevice = "local"\ntargets = []'}, "targets of device 'local' is empty"),
        (
            {"rest": '[[devices]]\ndevice = "local"\ntargets = ["linux-x86_64"]\nspeed = 1'},
            "unknown key 'devices.speed'",
        ),
        ({"rest": "[profile]\nrepeat = 1"}, "unknown key 'profile.repeat'"),
        ({"rest": '[checks]\neval_text = "none.txt"'}, "none.txt: no such text file"),
        ({"rest": '[[exclude]]\nrecipe = "w4"'}, "no recipe 'w4'"),
        ({"rest": "[[exclude]]"}, "names nothing"),
        ({"rest": '[[exclude]]\nrecipe = "w8"'}, "excludes everything"),
        (
            {"rest": '[devices]\nlinux-x86_64 = "local"\n[profile]\nprompt_tokens = [64]'},
            r"need a context of 129; tiny",
        ),
    ],
)
def test_what_is_wrong_is_said_before_any_work(folder, tmp_path, no_work, change, said) -> None:
    path = written(folder, "wrong.toml", **change)
    if said is None:  # a model's limit is a combination's refusal
        assert running.preview(path, tmp_path)[0].state == "refused"
        return
    with pytest.raises(EdgeError, match=said):
        sweep(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_device_named_twice_is_refused(folder, tmp_path, no_work) -> None:
    fleet = tmp_path / "devices.toml"
    fleet.write_text('[here]\naddress = "local"\n')
    path = written(folder, rest='[devices]\nlinux-x86_64 = ["local", "here"]')
    with pytest.raises(EdgeError, match="'local' and 'here' are one device"):
        sweep(path, tmp_path / "out", fleet=fleet)


def test_a_sweep_and_what_it_does_the_second_time(folder, tmp_path, counting) -> None:
    """Exports, profiles, a refused pair and a preset that is another's recipe; then nothing, then only what changed."""
    rest = '[devices]\nlinux-x86_64 = "local"\n[checks]\neval_text = "eval.txt"\neval_windows = 1\n' + QUICK
    recipes = ["w8", "fast", "w4g64", "w8-a16"]
    path = written(folder, rest=rest, recipes=recipes)
    out = tmp_path / "out"
    table = sweep(path, out)
    assert counting.done == ["w8", "w4g64"]  # fast is w4g64 here, and int16 activations are refused
    by = {row.recipe: row for row in table.rows}
    assert [by[name].status for name in recipes] == ["measured", "measured", "measured", "refused"], by["w8"].reason
    assert not table.failed
    assert "no int16 activations" in str(by["w8-a16"].reason)
    assert all(figure.value is None and figure.reason == "refused" for figure in by["w8-a16"].figures.values())
    assert by["fast"].bundle == by["w4g64"].bundle
    assert by["fast"].decoded == "w4g64"
    row = by["w8"]
    assert row.case == "4 + 4 tokens"
    figures = row.figures
    assert set(figures) == set(FIGURES)
    for name in ("bytes", "compression", "perplexity", "perplexity_before", "kl", "decode_rate", "prefill_rate"):
        assert figures[name].value > 0, name
    assert (figures["peak_rss"].value, figures["peak_rss"].reason) == (None, "not-asked")
    if figures["decode_energy"].value is None:
        assert figures["decode_energy"].reason
    manifest = whole_bundle(out / str(row.bundle))
    assert figures["perplexity"].value == manifest.quality.perplexity["after"]
    assert figures["bytes"].value == sum(entry.size for entry in manifest.files)
    assert len(list((out / "profiles").glob("*[0-9a-f].json"))) == 2
    written_rows = json.loads((out / "sweep.json").read_text())["rows"]
    assert [each["recipe"] for each in written_rows] == recipes
    assert written_rows[0]["figures"]["decode_rate"]["value"] == figures["decode_rate"].value

    before = {each: each.stat().st_mtime_ns for part in ("bundles", "profiles") for each in (out / part).rglob("*")}
    again = sweep(path, out)
    assert again == table
    assert counting.done == ["w8", "w4g64"]
    assert before == {
        each: each.stat().st_mtime_ns for part in ("bundles", "profiles") for each in (out / part).rglob("*")
    }
    states = {(each.recipe, each.device): each.state for each in running.preview(path, out)}
    assert states == {
        ("w8", None): "cached", ("w8", "local"): "cached", ("fast", None): "cached", ("fast", "local"): "cached",
        ("w4g64", None): "cached", ("w4g64", "local"): "cached", ("w8-a16", None): "refused",
    }  # fmt: skip

    profile = out / str(row.profile)  # as a run leaves it that was cut off before its end
    record = record_path(profile)
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(line for line in lines if '"key":"end"' not in line))
    write_profile(rederived(profile), profile)
    assert running.whole_profile(profile) is None
    sweep(path, out)
    assert running.whole_profile(profile) is not None
    assert record.read_text().count('"key":"repeat/') == 1  # what was measured is not measured again

    damaged = out / str(row.bundle) / manifest.program.main
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (out / str(by["fast"].bundle) / "manifest.json").write_text("{}")
    (out / "bundles" / f".{'0' * 64}.cut").mkdir()
    sweep(path, out)
    assert counting.done == ["w8", "w4g64", "w8", "w4g64"]
    assert not list((out / "bundles").glob(".*"))


def test_a_changed_text_or_option_redoes_what_it_concerns(folder, tmp_path, counting) -> None:
    text, mine = tmp_path / "calibration.txt", tmp_path / "mine.toml"
    shutil.copytree(folder / "tiny", tmp_path / "tiny")
    text.write_text(TEXT * 40)
    mine.write_text('name = "mine"\n[[pass]]\nuse = "rtn"\nbits = 4\ngroup = 64\n')
    rest = f'{SKIP}[calibration]\nfile = "calibration.txt"\nsequences = 2\nlength = 32\n'
    path = written(tmp_path, rest=rest, recipes=["w8", "w4g32-gptq", "mine.toml"])
    sweep(path, tmp_path / "out")
    assert counting.done == ["w8", "w4g32-gptq", "mine"]
    counting.done.clear()
    text.write_text("Another text altogether, and longer. " * 60)
    sweep(path, tmp_path / "out")
    assert counting.done == ["w4g32-gptq"]
    counting.done.clear()
    mine.write_text(mine.read_text().replace("64", "32"))
    sweep(path, tmp_path / "out")
    assert counting.done == ["mine"]
    counting.done.clear()
    (tmp_path / "tiny" / "LICENSE").write_text("Another licence\n")  # it goes into every bundle
    sweep(path, tmp_path / "out")
    assert counting.done == ["w8", "w4g32-gptq", "mine"]


def test_failures_are_recorded_and_the_sweep_goes_on(folder, tmp_path) -> None:
    path = written(folder, top='executor = "serial"', recipes=["w4g64-e4", "none"], rest="[checks]\nmax_kl = 1e-5\n")
    ran = CliRunner().invoke(command, [str(path), "-o", str(tmp_path / "out"), "--json"], standalone_mode=False)
    assert ran.return_value == 1
    rows = {row["recipe"]: row for row in json.loads(ran.stdout)["rows"]}
    assert rows["w4g64-e4"]["status"] == "failed"
    assert "over the limit" in rows["w4g64-e4"]["reason"]
    assert rows["none"]["status"] == "exported"
    assert rows["none"]["figures"]["decode_rate"] == {
        "value": None, "unit": "tokens/s", "reason": "no-device", "low": None, "high": None
    }  # fmt: skip
    assert [each.name for each in (tmp_path / "out" / "bundles").iterdir()] == [Path(rows["none"]["bundle"]).name]


def test_a_busy_device_fails_its_profiles_and_they_are_made_up_for(folder, tmp_path, counting) -> None:
    from edgesdk.devices import open_device
    from edgesdk.devices.locks import alone

    path = written(folder, rest=f'[devices]\nlinux-x86_64 = "local"\n{SKIP}{QUICK}')
    with open_device("local") as device, alone(device, "a test"):
        [row] = sweep(path, tmp_path / "out").rows
    assert (row.status, row.figures["bytes"].reason) == ("failed", None)
    assert "in use" in str(row.reason)
    [row] = sweep(path, tmp_path / "out").rows
    assert (row.status, counting.done) == ("measured", ["w8"])


def test_the_dry_run_does_nothing(folder, tmp_path) -> None:
    path = written(folder, recipes=["w8", "w8-a16"], rest=f'[devices]\nlinux-x86_64 = "local"\n{QUICK}')
    out = tmp_path / "out"
    ran = CliRunner().invoke(command, [str(path), "-o", str(out), "--dry-run"], standalone_mode=False)
    assert ran.return_value == 0
    assert re.search(r"tiny +w8 +linux-x86_64 +export +about \d+ kB +to do", ran.stdout)
    assert re.search(r"tiny +w8 +linux-x86_64 +profile on local +about \d+ kB +to do", ran.stdout)
    assert "tiny w8-a16 for linux-x86_64 is refused: " in ran.stdout
    assert "2 of 3 jobs to do" in ran.stdout
    assert not out.exists()


def job(folder: Path, model: str = "tiny", recipe: str = "w8") -> ExportJob:
    """As a sweep plans it."""
    from edgesdk.progress import SILENT
    from edgesdk.sweep.matrix import resolve

    path = written(folder, f"{recipe}.toml", recipes=[recipe], models=[model])
    [cell] = resolve(read_sweep(path), folder, None, SILENT)
    assert cell.job is not None
    return cell.job


def test_the_pool_makes_the_same_bundles_and_ends(folder, tmp_path) -> None:
    good, other = job(folder), job(folder, recipe="w4g64")
    found = {done.key: end for done, end in executors.ProcessPool(2).run([good, other], tmp_path / "pool")}
    assert {key: end.error for key, end in found.items()} == {good.key: None, other.key: None}
    assert perform(good, tmp_path / "here").error is None
    assert whole_bundle(tmp_path / "pool" / good.key).digest == whole_bundle(tmp_path / "here").digest
    assert not multiprocessing.active_children()


def test_a_job_that_kills_its_worker_takes_no_other_down(folder, tmp_path) -> None:
    good = job(folder)
    bad = replace(good, key="bad", target=Bomb())
    found = {done.key: end for done, end in executors.ProcessPool(1).run([bad, good], tmp_path)}
    assert "the worker process died" in str(found["bad"].error)
    assert found[good.key].error is None


class Bomb:
    """Ends the process that unpickles it, as the kernel does when memory is short."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


CLI = "import sys\nfrom edgesdk.cli import COMMANDS, main\nCOMMANDS.setdefault('sweep', '')\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupt_leaves_nothing_half_written_and_no_process(folder, tmp_path, number) -> None:
    make_checkpoint(tmp_path / "slow", hidden_size=512, intermediate_size=2048, num_hidden_layers=12)
    path = written(tmp_path, models=["slow"], recipes=["w8", "w4g64-gptq"], rest="", top="workers = 2")
    script, out = tmp_path / "cli.py", tmp_path / "out"
    script.write_text(f"{CLI}if __name__ == '__main__':\n    main()\n")
    line = [sys.executable, str(script), "sweep", str(path), "-o", str(out)]
    process = subprocess.Popen(
        line,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell passes it on as ignored
    )
    deadline = time.monotonic() + 60
    while not list((out / "bundles").glob(".*")) and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)  # the terminal tells the whole group
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    assert "Traceback" not in said
    deadline = time.monotonic() + 30
    while _group(process.pid) and time.monotonic() < deadline:  # workers of a killed parent end by themselves
        time.sleep(0.1)
    assert not _group(process.pid)
    left = list((out / "bundles").iterdir())
    assert all(whole_bundle(each) for each in left), left
    assert not (out / "sweep.json").exists()


def test_a_worker_whose_end_is_swallowed_ends_all_the_same() -> None:
    script = (
        "import os, signal, time\n"
        "from edgesdk.sweep import executors\n"
        "executors._TIDY = 0.5\n"
        "executors._busy.set()\n"
        "signal.signal(signal.SIGTERM, executors._end)\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
        "except SystemExit:\n"
        "    print('swallowed', flush=True)\n"
        "time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (1, "swallowed\n")


def _group(leader: int) -> list[str]:
    """Living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


def test_the_front() -> None:
    points = [
        Point(x, y, name, "c0", "") for name, x, y in [("a", 1, 9), ("b", 2, 5), ("c", 3, 6), ("d", 4, 1), ("e", 2, 5)]
    ]
    assert [it.name for it in front(points, "lower")] == ["a", "b", "e", "d"]
    assert [it.name for it in front(points, "higher")] == ["d"]
    unsure = [replace(point, sure=point.name not in "db") for point in points]
    assert [it.name for it in front(unsure, "lower")] == ["a", "e"]  # and what is unsure beats nothing


def test_what_is_not_to_be_believed_is_grey_and_not_on_the_front() -> None:
    table = hostile()
    first, second, failed = table.rows
    doubted = replace(table, rows=(replace(first, validity="degraded", reasons=("contended",)), second, failed))
    text = render(doubted)
    assert "dot unsure" in text and "dot unsure" not in render(table)
    assert "1 in grey is not to be believed (see the table)." in text
    emulated = replace(table, rows=(replace(first, validity="degraded", reasons=("emulated",)), second, failed))
    assert "dot unsure" not in render(emulated)  # the panel's title says so
    none = replace(table, rows=(replace(first, validity="degraded"), replace(second, validity="invalid"), failed))
    assert "On the front: none. 2 in grey are not to be believed" in render(none)


def test_exclusions() -> None:
    assert Exclusion(recipe="w8", target="host").covers("m", "w8", "host", None)
    assert not Exclusion(recipe="w8", target="host").covers("m", "w8", "posix", None)
    assert not Exclusion(device="local").covers("m", "w8", "host", None)  # the export stays
    assert Exclusion(device="local").covers("m", "w8", "host", "local")


def hostile() -> Table:
    """Names that would be HTML or formulas."""
    from edgesdk.profile.schema import Plan
    from edgesdk.sweep.table import Figure

    bad = "=<script>alert(1)</script>\u202e"
    rows = []
    for index, status in enumerate(("measured", "measured", "failed")):
        number = None if status == "failed" else index + 1.5
        figures = {name: Figure(number, unit, None if number else "failed") for name, unit in FIGURES.items()}
        why, bundle = (bad, None) if status == "failed" else (None, f"b{index}")
        row = Row(bad, f"r{index}{bad}", bad, bad, bad, status, why, 4, 4, 2, bundle, "p", "valid", ("few-repeats",))
        rows.append(replace(row, energy_scope="board", figures=figures))
    return Table(1, "0", Plan(), tuple(rows))


def test_the_page_holds_everything_and_runs_nothing() -> None:
    text = render(hostile())
    assert "<script" not in text.lower()
    assert "\u202e" not in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert text.count("<svg role=") == 6  # three panels, wide and narrow
    assert not re.search(r"\s(src|href|style)=", re.sub(r"<style>.*</style>", "", text, flags=re.DOTALL))
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_the_csv_has_nulls_with_reasons_and_no_formulas() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(hostile()))))
    assert [row["bytes"] for row in rows] == ["1.5", "2.5", ""]
    assert rows[2]["bytes_reason"] == "failed"
    assert all(row["model"].startswith("'=") for row in rows)


def test_ray_that_is_missing_is_one_error(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    path = written(folder, top='executor = "ray"')
    with pytest.raises(EdgeError, match="'ray', which is not installed"):
        sweep(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_texts_are_found_beside_the_file(folder) -> None:
    path = written(folder, rest='[calibration]\nfile = "calibration.txt"\n[checks]\neval_text = "eval.txt"\n')
    found = read_sweep(path)
    assert found.calibration == Calibration(folder / "calibration.txt")
    assert found.checks == Checks(folder / "eval.txt")
