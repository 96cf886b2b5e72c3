"""What is half-written: locked by its writer, gone with it, and swept by the next; never a file of somebody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgesdk import outputs, partials
from edgesdk.errors import EdgeError
from edgesdk.files import replacing, replacing_folder

WRITER = """
import sys, time
from pathlib import Path
from edgesdk.files import replacing, replacing_folder
way = replacing_folder if sys.argv[2] == "folder" else replacing
with way(Path(sys.argv[1])) as partial:
    (partial / "half" if sys.argv[2] == "folder" else partial).write_text("half")
    print(partial, flush=True)
    time.sleep(60)
"""


def writer(out: Path, kind: str) -> tuple[subprocess.Popen[str], Path]:
    """A process in the middle of writing, and its partial."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(out), kind], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_a_killed_writer_left_goes_with_the_next_and_what_lives_stays(tmp_path, kind) -> None:
    out, way = tmp_path / "out", replacing_folder if kind == "folder" else replacing
    alive, kept = writer(out, kind)
    killed, left = writer(out, kind)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert kept.exists() and left.exists() and not out.exists()
        with way(out) as partial:
            assert kept.exists() and not left.exists()
            (partial / "a" if kind == "folder" else partial).write_text("whole")
        assert out.exists() and kept.exists()
    finally:
        alive.kill()
        alive.communicate()
    partials.sweep(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_that_only_look_alike_are_left_alone(tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("x")
    names = [
        ".out.notes.partial",
        ".out.0a1b2c3d",
        "out.0a1b2c3d.partial",
        ".other.0a1b2c3d.partial",
        ".out.0A1B2C3D.partial",
    ]
    for name in names:
        (tmp_path / name).write_text("x")
    (tmp_path / ".out.00000000.partial").symlink_to(tmp_path / "mine")
    partials.sweep(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, ".out.00000000.partial", "mine"])
    assert (tmp_path / "mine" / "thesis").exists()


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced_whole(tmp_path, exchange, monkeypatch) -> None:
    if not exchange:
        monkeypatch.setattr(partials, "_exchanged", lambda partial, path: False)
    out = tmp_path / "out"
    for text in ("old", "new"):
        with replacing_folder(out) as folder:
            (folder / text).write_text(text)
    assert [path.name for path in out.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_was_moved_away_when_the_power_failed_comes_back(tmp_path) -> None:
    aside = tmp_path / ".out.0a1b2c3d.replaced"
    aside.mkdir()
    (aside / "old").write_text("old")
    partials.sweep(tmp_path / "out")
    assert (tmp_path / "out" / "old").read_text() == "old"
    assert not aside.exists()


def test_scratch_goes_with_its_process_and_with_the_next(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = "import os, signal\nfrom edgesdk.partials import scratch_folder\n"
    script += "with scratch_folder() as folder: os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"TMPDIR": str(tmp_path)}, check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with partials.scratch_folder() as folder:
        assert list(tmp_path.iterdir()) == [folder]
        assert folder.stat().st_mode & 0o077 == 0
    assert not list(tmp_path.iterdir())


def test_two_runs_do_not_share_a_folder(tmp_path) -> None:
    with partials.holding(tmp_path) as first, partials.holding(tmp_path) as second:
        assert (first, second) == (True, False)


PRODUCTS = [outputs.BUNDLE, outputs.CHECKPOINT, outputs.DELIVERABLE]


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_folder_without_its_record_is_never_replaced(tmp_path, product) -> None:
    out = tmp_path / "out"
    outputs.refuse_foreign(out, product)
    out.mkdir()
    outputs.refuse_foreign(out, product)
    for text in (
        "",
        "{}",
        '{"schema": 1, "program": 1, "files": 1, "digest": 1}',
        '{"schema": 1, "files": []}',
        "[" * 9000,
    ):
        (out / product.record).write_text(text)
        with pytest.raises(EdgeError, match="so it is not replaced"):
            outputs.refuse_foreign(out, product)
    (tmp_path / "file").write_text("x")
    with pytest.raises(EdgeError, match="so it is not replaced"):
        outputs.refuse_foreign(tmp_path / "file", product)


def test_a_bundle_with_notes_of_ones_own_is_not_replaced(bundle, tmp_path) -> None:
    import shutil

    out = tmp_path / "b"
    shutil.copytree(bundle, out)
    outputs.refuse_foreign(out, outputs.BUNDLE)
    (out / "licences").mkdir(exist_ok=True)
    for name in ("notes.txt", "licences/mine", ".hidden"):
        (out / name).write_text("mine")
        with pytest.raises(EdgeError, match=f"holds '{name}', which the bundle there does not list"):
            outputs.refuse_foreign(out, outputs.BUNDLE)
        (out / name).unlink()
    (out / "link").symlink_to(tmp_path)
    with pytest.raises(EdgeError, match="link"):
        outputs.refuse_foreign(out, outputs.BUNDLE)
    (out / "link").unlink()
    (tmp_path / "linked").symlink_to(out)
    with pytest.raises(EdgeError, match="symbolic link"):
        outputs.refuse_foreign(tmp_path / "linked", outputs.BUNDLE)
    manifest = out / "manifest.json"
    (out / "thesis.txt").write_text("years")
    manifest.write_text(manifest.read_text().replace('"path": "LICENSE"', '"path": "thesis.txt"'))
    with pytest.raises(EdgeError, match="so it is not replaced"):
        outputs.refuse_foreign(out, outputs.BUNDLE)


def test_what_came_into_the_folder_meanwhile_is_not_lost(bundle, tmp_path) -> None:
    import shutil
    from functools import partial

    out = tmp_path / "b"
    shutil.copytree(bundle, out)
    with (
        pytest.raises(EdgeError, match=r"notes\.txt"),
        replacing_folder(out, partial(outputs.refuse_foreign, out, outputs.BUNDLE)) as folder,
    ):
        (folder / "new").write_text("new")
        (out / "notes.txt").write_text("mine")
    assert (out / "notes.txt").read_text() == "mine" and (out / "manifest.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_an_output_behind_a_link_is_refused_before_any_work(checkpoint, bundle, tmp_path) -> None:
    import shutil

    import edgesdk
    from edgesdk.compressing import compress_model
    from edgesdk.package import package

    shutil.copytree(bundle, tmp_path / "b")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "link.zip").symlink_to(tmp_path / "b.zip")
    for write in (
        lambda out: edgesdk.export(checkpoint, "linux-x86_64", out),
        lambda out: edgesdk.export(checkpoint, "linux-x86_64", out.with_suffix(".zip")),
        lambda out: compress_model(checkpoint, out),
        lambda out: package(bundle, "linux-service", out),
    ):
        with pytest.raises(EdgeError):
            write(tmp_path / "link")
    assert outputs.output_path(tmp_path / "b" / "..") == tmp_path
    with edgesdk.open_bundle(tmp_path / "b"):
        pass
