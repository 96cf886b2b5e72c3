"""Bundles: the same bytes twice, and every kind of damage found."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edgesdk
from edgesdk.bundle import FILE, pack
from edgesdk.errors import BundleError

from ..conftest import make_checkpoint


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def check(path: Path) -> None:
    with edgesdk.open_bundle(path):
        pass


def test_a_bundle_is_the_same_from_another_folder_and_another_hash_seed(bundle, tmp_path) -> None:
    elsewhere = make_checkpoint(tmp_path / "deep" / "er" / "tiny")
    code = (
        "import sys, edgesdk; edgesdk.export(sys.argv[1], 'linux-x86_64', sys.argv[2], context=256);"
        "edgesdk.export(sys.argv[1], 'linux-x86_64', sys.argv[2] + '.zip', context=256)"
    )
    subprocess.run(
        [sys.executable, "-c", code, elsewhere, tmp_path / "again"],
        env=os.environ | {"PYTHONHASHSEED": "4711"},
        cwd=tmp_path,
        check=True,
    )
    assert tree(tmp_path / "again") == tree(bundle)
    pack(bundle, tmp_path / "first.zip")
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "first.zip").read_bytes()


def test_a_zip_opens_like_its_folder(bundle, tmp_path) -> None:
    pack(bundle, tmp_path / "b.zip")
    with edgesdk.open_bundle(bundle) as folder, edgesdk.open_bundle(tmp_path / "b.zip") as zipped:
        assert folder.manifest == zipped.manifest
        assert tree(folder.folder) == tree(zipped.folder)


def test_the_manifest_holds_no_path_of_this_machine(bundle) -> None:
    text = (bundle / FILE).read_text()
    for word in ("/tmp", "/root", "/home", str(Path.cwd())):
        assert word not in text


def test_manifest_golden(bundle) -> None:
    """The shape of schema 1: a change here is a change of the format."""

    def shape(value: object) -> object:
        if isinstance(value, dict):
            return {key: shape(item) for key, item in value.items()}
        if isinstance(value, list):
            return [shape(value[0])] if value else []
        return type(value).__name__

    golden = Path(__file__).with_name("manifest_shape.json")
    found = shape(json.loads((bundle / FILE).read_text()))
    if os.environ.get("EDGESDK_WRITE_GOLDEN"):
        golden.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(golden.read_text())


def test_every_file_is_guarded_against_one_flipped_bit(bundle, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    check(copy)
    for path in sorted(path for path in copy.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for at in (0, len(whole) // 2, len(whole) - 1):
            damaged = bytearray(whole)
            damaged[at] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(BundleError):
                check(copy)
        path.write_bytes(whole)
    check(copy)


def test_cut_missing_and_added_files_are_found(bundle, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    data = copy / "model.onnx.data"
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    with pytest.raises(BundleError, match="bytes, the manifest says"):
        check(copy)
    data.unlink()
    with pytest.raises(BundleError, match="missing"):
        check(copy)
    data.write_bytes(whole)
    (copy / "extra.txt").write_text("x")
    with pytest.raises(BundleError, match="not listed"):
        check(copy)


def test_a_newer_schema_is_refused_with_both_versions(bundle, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    data = json.loads((copy / FILE).read_text())
    data["schema"] = 2
    (copy / FILE).write_text(json.dumps(data))
    with pytest.raises(BundleError, match=r"schema 2, .* up to 1"):
        check(copy)


def test_an_unknown_key_is_named(bundle, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    data = json.loads((copy / FILE).read_text())
    data["program"]["surprise"] = 1
    (copy / FILE).write_text(json.dumps(data))
    with pytest.raises(BundleError, match=r"program\.surprise"):
        check(copy)


@pytest.mark.parametrize("name", ["../evil", "/abs", "a/../../evil", "c:\\evil", "..\\evil"])
def test_unsafe_names_in_a_zip_are_refused(bundle, tmp_path, name) -> None:
    path = tmp_path / "b.zip"
    pack(bundle, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "boo")
    with pytest.raises(BundleError, match="unsafe"):
        check(path)
    assert not (tmp_path / "evil").exists()


def test_a_damaged_zip_is_one_clear_error(bundle, tmp_path) -> None:
    path = tmp_path / "b.zip"
    pack(bundle, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError):
        check(path)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(BundleError):
        check(path)


def test_a_runtime_out_of_range_is_refused(bundle, tmp_path) -> None:
    from dataclasses import replace

    from edgesdk.bundle import check_runtime

    with edgesdk.open_bundle(bundle) as opened:
        manifest = opened.manifest
    assert check_runtime(manifest)
    old = replace(manifest, program=replace(manifest.program, runtime_versions="<1.0"))
    with pytest.raises(BundleError, match=r"needs onnxruntime <1\.0"):
        check_runtime(old)
    absent = replace(manifest, program=replace(manifest.program, runtime="no-such-runtime"))
    assert check_runtime(absent) is None
