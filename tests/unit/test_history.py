"""The history: the same answers from SQLite and from PostgreSQL, writers at once, and every refusal."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgesdk.errors import EdgeError, MissingExtraError
from edgesdk.profile.schema import read_profile, write_profile

from .profile_samples import HOSTILE, cool, degraded, hostile, microcontroller, no_sensors, profile

pytest.importorskip("sqlalchemy", reason="SQLAlchemy (extra 'profile') is not installed")

from edgesdk.cli.history_command import command
from edgesdk.profile.history import Filter, History, HistoryError, default_path, since
from edgesdk.profile.report.trend import figures, trends

CASE = "128 + 64 tokens, 4 threads"


def samples() -> list:
    later = dataclasses.replace(cool(seed=2, speed=1.2), started="2026-11-22T08:00:00+00:00", commit="99aa00bb11cc")
    return [profile(), degraded(), no_sensors(), microcontroller(), hostile(), later]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A cluster of its own, on a socket, run by a user without rights."""
    pytest.importorskip("psycopg", reason="psycopg (extra 'profile') is not installed")
    places = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    search = os.pathsep.join([*places, os.environ.get("PATH", "")])
    initdb, server = shutil.which("initdb", path=search), shutil.which("postgres", path=search)
    if initdb is None or server is None:
        pytest.skip("no PostgreSQL server (Debian: postgresql)")
    user = {}
    folder = Path(tempfile.mkdtemp(prefix="edgesdk-pg-"))
    if os.geteuid() == 0:
        try:
            found = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres'")
        os.chown(folder, found.pw_uid, found.pw_gid)
        user = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    run = None
    try:
        subprocess.run([initdb, "-D", folder / "data", "-U", "edge", "-A", "trust", "-E", "UTF8", "--no-sync"],
                       check=True, capture_output=True, cwd=folder, **user)  # fmt: skip
        options = ["-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB"]
        with (folder / "log").open("w") as log:
            run = subprocess.Popen([server, "-D", folder / "data", *options], cwd=folder, stderr=log, **user)
        for _ in range(300):
            if "ready to accept connections" in (folder / "log").read_text() or run.poll() is not None:
                break
            time.sleep(0.1)
        yield f"postgresql://edge@/postgres?host={folder}"
    finally:
        if run is not None:
            run.send_signal(signal.SIGINT)  # fast: a shutdown waits for no client
            run.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path) -> Iterator[str]:
    """An empty history of either kind."""
    if request.param == "sqlite":
        yield str(tmp_path / "new" / "history.sqlite")
        return
    url = request.getfixturevalue("postgres")
    yield url
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE IF EXISTS edgesdk_value, edgesdk_profile, edgesdk_history")


def filled(where: str) -> History:
    history = History(where)
    for each in samples():
        assert history.add(each)
    return history


def test_both_databases_answer_the_same(tmp_path, postgres) -> None:
    with filled(str(tmp_path / "h.sqlite")) as a, filled(postgres) as b:
        try:
            for only in (
                None, Filter(model="QWEN"), Filter(model="100%"), Filter(device="ORIN"), Filter(device="developer kit"),
                Filter(bundle="019f"), Filter(bundle="sha256:019f"), Filter(commit="99aa"), Filter(commit="9_aa"),
                Filter(since=since("2026-11-21T16:00")), Filter(model="<script>"),
            ):  # fmt: skip
                assert a.entries(only) == b.entries(only)
                assert a.trend("decode_rate", CASE, only) == b.trend("decode_rate", CASE, only)
            assert a.trend("peak_rss") == b.trend("peak_rss") and a.metrics() == b.metrics()
            assert list(a.profiles()) == list(b.profiles())
        finally:
            import psycopg

            with psycopg.connect(postgres) as connection:
                connection.execute("DROP TABLE edgesdk_value, edgesdk_profile, edgesdk_history")


def test_filters(where) -> None:
    with filled(where) as history:
        assert len(history.entries()) == 6
        assert [it.started for it in history.entries()][-1] == "2026-11-22T08:00:00+00:00"
        assert len(history.entries(Filter(model="qwen"))) == 4
        assert len(history.entries(Filter(device="mps2"))) == 1
        assert [it.commit for it in history.entries(Filter(commit="99aa"))] == ["99aa00bb11cc"]
        assert not history.entries(Filter(model="%")) and not history.entries(Filter(commit="_"))
        # 17:03:55+01:00 is 16:03:55 UTC
        moment = datetime(2026, 11, 21, 16, 3, 55, tzinfo=UTC)
        assert [it.validity for it in history.entries(Filter(since=moment))] == ["degraded", "valid"]


def test_what_comes_out_is_what_went_in(where, tmp_path) -> None:
    with History(where) as history:
        assert history.entries() == [] and history.trend("decode_rate") == []
        for each in samples():
            assert history.add(each) and not history.add(each)
            write_profile(each, tmp_path / "p.json") if each.bundle.model != HOSTILE else None
        write_profile(profile(), tmp_path / "p.json")
        assert not history.add(read_profile(tmp_path / "p.json"))  # a file's profile is the same profile
        assert not history.add(dataclasses.replace(profile(), plan=dataclasses.replace(profile().plan, idle=3)))
        assert profile() in list(history.profiles())
        assert hostile() in list(history.profiles())  # NUL too


def test_half_a_character_is_no_text(where) -> None:
    half = dataclasses.replace(profile(), regime={"power mode": "\ud800"})
    with History(where) as history, pytest.raises(EdgeError, match="half of a surrogate pair"):
        history.add(half)


def test_a_trend_keeps_apart_what_is_not_compared(where) -> None:
    with filled(where) as history:
        found = trends(history.trend("token_p50"))
        assert {(it.device, it.unit) for it in found if it.emulated} == {("mps2", "ticks")}
        assert "EMULATED TIME" in next(it.title for it in found if it.emulated)
        board = next(it for it in found if it.case == CASE and it.device == "orin" and "15W" in it.regime)
        assert [point.entry.commit for point in board.points] == ["4be3d0c4f2a1", "99aa00bb11cc"]
        assert all(point.low <= point.value <= point.high for point in board.points)
        lost = trends(history.trend("decode_energy", CASE, Filter(device="plain")))
        assert figures(lost[0])[0][3:] == ("—", "no-sensor")


def add_many(where: str, seeds: range, gate) -> None:
    gate.wait()
    with History(where) as history:
        for seed in seeds:
            history.add(cool(seed=seed))


def test_writers_at_once(where) -> None:
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(4)
    # every profile comes from two writers, and the tables from all four
    work = [
        context.Process(target=add_many, args=(where, range(6 * (i // 2), 6 * (i // 2) + 6), gate)) for i in range(4)
    ]
    for each in work:
        each.start()
    for each in work:
        each.join(120)
    assert [each.exitcode for each in work] == [0] * 4
    with History(where) as history:
        assert len(history.entries()) == 12
        assert len(history.trend("decode_rate", CASE)) == 12


def test_a_newer_schema_is_refused(where) -> None:
    from sqlalchemy import text

    with History(where) as history:
        history.add(profile())
        with history._engine.begin() as connection:
            connection.execute(text("UPDATE edgesdk_history SET version = 2"))
    for use in (lambda it: it.entries(), lambda it: it.add(cool())):
        with History(where) as history, pytest.raises(HistoryError, match="schema 2 of the history") as caught:
            use(history)
        assert "newer" in caught.value.hint


@pytest.mark.parametrize("damage", ["text", "header", "other"])
def test_a_damaged_file(damage, tmp_path) -> None:
    path = tmp_path / "h.sqlite"
    if damage == "other":  # a table of the same name by someone else
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE edgesdk_history (what TEXT)")
            connection.commit()
    else:
        with History(path) as history:
            history.add(profile())
        data = path.read_bytes()
        path.write_bytes(
            b"no database at all\n" * 100 if damage == "text" else data[:100] + b"\xff" * (len(data) - 100)
        )
    for use in (lambda it: list(it.profiles()), lambda it: it.add(cool())):
        with History(path) as history, pytest.raises(HistoryError, match="damaged") as caught:
            use(history)
        assert "move it away" in caught.value.hint


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Root may write anything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_only_be_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = folder / "h.sqlite"
        with History(path) as history:
            history.add(profile())
        path.chmod(0o444)
        folder.chmod(0o555)
        with without_rights():
            with History(path) as history, pytest.raises(HistoryError, match="cannot be written") as caught:
                history.add(cool())
            assert "--db" in caught.value.hint
            with History(path) as history:
                assert len(history.entries()) == 1
            with History(folder / "other" / "h.sqlite") as history, pytest.raises(HistoryError, match="written"):
                history.add(cool())
        folder.chmod(0o755)


def test_places() -> None:
    assert default_path().name == "history.sqlite"
    for wrong in ("mysql://a@b/c", "sqlite://", "://"):
        with pytest.raises(HistoryError) as caught:
            History(wrong)
        assert "postgresql://" in caught.value.hint
    with History("postgresql://me:secret@127.0.0.1:1/none") as history, pytest.raises(HistoryError) as refused:
        history.entries()
    assert "secret" not in str(refused.value) + str(refused.value.hint) + history.name
    with pytest.raises(EdgeError, match="no date"):
        since("yesterday")


def test_without_sqlalchemy(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(MissingExtraError, match="sqlalchemy") as caught:
        History()
    assert caught.value.hint == "pip install 'edgesdk[profile]'"


def test_the_module_is_light() -> None:
    code = "import sys, edgesdk.profile.history, edgesdk.cli.history_command; print('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def edgesdk(*arguments: object) -> str:
    done = CliRunner().invoke(command, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command(tmp_path) -> None:
    db, files = tmp_path / "h.sqlite", []
    for index, each in enumerate(it for it in samples() if it.bundle.model != HOSTILE):
        files.append(tmp_path / f"{index}.json")
        write_profile(each, files[-1])
    assert "No profile in" in edgesdk("--db", db)
    assert edgesdk("add", *files, "--db", db).count("added") == 5
    assert edgesdk("add", files[0], "--db", db).endswith("was there\n")
    listed = edgesdk("--db", db, "--device", "orin")
    assert listed.count("w4g32") == 3 and "4be3d0c4f2a1" in listed
    assert [it["device"] for it in json.loads(edgesdk("--db", db, "--json", "--model", "stories"))] == ["mps2"]
    shown = edgesdk("--db", db, "--trend", "decode_rate", "--case", CASE)
    assert "tokens/s" in shown and " \u2013 " in shown
    assert edgesdk("--db", db, "--trend", "decode_energy", "--device", "plain").count("no-sensor") == 2
    assert "Wrote" in edgesdk("--db", db, "--trend", "decode_rate", "--plot", tmp_path / "t.html")
    assert "Wrote 1 profile and" in edgesdk("export", tmp_path / "out", "--db", db, "--commit", "99aa")
    for wrong in (["--plot", "x.svg"], ["--db", str(db), "add", str(files[0])]):
        assert CliRunner().invoke(command, wrong).exit_code == 2
    done = CliRunner().invoke(command, ["--db", str(db), "--trend", "speed"])
    assert isinstance(done.exception, EdgeError) and "decode_rate" in done.exception.hint


def test_exported_profiles_make_the_same_history(tmp_path) -> None:
    with History(tmp_path / "a.sqlite") as history:
        for each in (profile(), cool(), microcontroller()):
            history.add(each)
    assert "Wrote 3 profiles and values.csv" in edgesdk("export", tmp_path / "out", "--db", tmp_path / "a.sqlite")
    edgesdk("add", *(tmp_path / "out").glob("*.json"), "--db", tmp_path / "b.sqlite")
    with History(tmp_path / "a.sqlite") as a, History(tmp_path / "b.sqlite") as b:
        assert a.entries() == b.entries()
    assert (tmp_path / "out/values.csv").read_text().count("\n") > 100


def test_a_trend_as_a_page(tmp_path) -> None:
    with filled(str(tmp_path / "h.sqlite")):
        pass
    edgesdk("--db", tmp_path / "h.sqlite", "--trend", "token_p50", "--plot", tmp_path / "t.html")
    text = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in text and "<script" not in text and "default-src &#39;none&#39;" in text
    assert "EMULATED TIME" in text and 'class="line' in text and "<img" not in text


@pytest.mark.parametrize("form", ["svg", "png"])
def test_a_trend_as_a_figure(form, tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib (extra 'quality') is not installed")
    with filled(str(tmp_path / "h.sqlite")):
        pass
    edgesdk("--db", tmp_path / "h.sqlite", "--trend", "decode_rate", "--plot", tmp_path / f"t.{form}")
    assert (tmp_path / f"t.{form}").read_bytes()[:5] in (b"<?xml", b"\x89PNG\r")
