"""App bundles and APKs with the model's pack: what bundletool, aapt2 and apksigner make of them, and let through."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from edgesdk.artifacts import examine_artifact
from edgesdk.bundle import open_bundle
from edgesdk.errors import EdgeError
from edgesdk.package import package
from edgesdk.package.android.archives import PAGE, align_zip, data_offset

from .android.app_bundle import (
    Tools,
    apks,
    app_bundle,
    keystore,
    library_of_4_kb,
    library_of_16_kb,
    plain_apk,
    sign,
    tools,
)
from .lab import LabUnavailableError
from .lab.host import run

_PTE = "assets/edgemodel/bundle/model.pte"


@pytest.fixture(scope="module")
def found() -> Tools:
    try:
        return tools()
    except LabUnavailableError as failure:
        pytest.skip(f"{failure.message} ({failure.hint})")


@pytest.fixture(scope="module")
def library(found: Tools) -> Path:
    return _or_skip(16)


def _or_skip(kilobytes: int) -> Path:
    try:
        return library_of_16_kb() if kilobytes == 16 else library_of_4_kb()
    except LabUnavailableError as failure:
        pytest.skip(f"{failure.message} ({failure.hint})")


@pytest.fixture(scope="module")
def key(found: Tools, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keystore(tmp_path_factory.mktemp("key"))


@pytest.mark.parametrize(
    ("kind", "delivery"),
    [
        ("asset-pack", "fast-follow"),
        ("ai-pack", "fast-follow"),
        ("ai-pack", "on-demand"),
        ("asset-pack", "install-time"),
    ],
)
def test_an_app_bundle_with_the_model_in_a_pack(
    kind: str, delivery: str, found: Tools, chain: Path, library: Path, key: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    package(chain, "android", project, options={"pack": kind, "delivery": delivery})
    aab = app_bundle(found, project, library, _folder(tmp_path / "made"), kind=kind)
    said = found.bundle("validate", f"--bundle={aab}")
    assert "modelpack" in said and "arm64-v8a" in said
    made = apks(found, aab, key, tmp_path)
    (pack,) = (path for name, path in made.items() if name.startswith("modelpack"))
    with zipfile.ZipFile(pack) as archive:
        assert archive.getinfo(_PTE).compress_type == zipfile.ZIP_STORED
        with open_bundle(chain) as opened:
            assert archive.read(_PTE) == opened.main.read_bytes()
    native = f"lib/arm64-v8a/{library.name}"
    (holding,) = (path for path in made.values() if path.parent.name == "splits" and _holds(path, native))
    with zipfile.ZipFile(holding) as archive:
        assert archive.getinfo(native).compress_type == zipfile.ZIP_STORED
    assert data_offset(holding, native) % PAGE == 0
    for path in made.values():
        run(["apksigner", "verify", "--min-sdk-version", "24", str(path)])
        assert _wrong(path) == []
    assert _wrong(aab) == []
    sizes = {each.place: each.text for each in examine_artifact(aab) if " takes " in each.text}
    assert "asset pack or AI pack of Google Play takes 1500 MB" in sizes["modelpack"]
    assert "base or feature module of Google Play takes 200 MB" in sizes["base"]


def test_bundletool_refuses_a_pack_of_a_kind_that_there_is_not(
    found: Tools, chain: Path, library: Path, tmp_path: Path
) -> None:
    package(chain, "android", tmp_path / "project")
    with pytest.raises(EdgeError, match="model-pack"):
        app_bundle(found, tmp_path / "project", library, _folder(tmp_path / "made"), kind="model-pack")


def test_our_aligner_puts_libraries_at_pages_and_apksigner_keeps_them(
    found: Tools, library: Path, key: Path, tmp_path: Path
) -> None:
    plain, aligned = plain_apk(found, library, tmp_path), tmp_path / "aligned.apk"
    name = f"lib/arm64-v8a/{library.name}"
    align_zip(plain, aligned)
    assert data_offset(aligned, name) % PAGE == 0
    with zipfile.ZipFile(plain) as before, zipfile.ZipFile(aligned) as after:
        assert {each: before.read(each) for each in before.namelist()} == {
            each: after.read(each) for each in after.namelist()
        }
        assert data_offset(aligned, "resources.arsc") % 4 == 0
    sign(aligned, key)
    assert data_offset(aligned, name) % PAGE == 0
    run(["apksigner", "verify", str(aligned)])
    assert _wrong(aligned) == []
    assert any("signatures are there: v2" in each.text for each in examine_artifact(aligned))
    if data_offset(plain, name) % PAGE:
        assert any("no multiple of 16384" in text for text in _wrong(plain))


def test_a_signed_apk_with_one_flipped_bit_is_refused(found: Tools, library: Path, key: Path, tmp_path: Path) -> None:
    plain, signed = plain_apk(found, library, tmp_path), tmp_path / "signed.apk"
    align_zip(plain, signed)
    with pytest.raises(EdgeError, match="DOES NOT VERIFY"):
        run(["apksigner", "verify", str(signed)])  # not signed yet
    sign(signed, key)
    data = bytearray(signed.read_bytes())
    data[data_offset(signed, f"lib/arm64-v8a/{library.name}") + 5000] ^= 1
    changed = tmp_path / "changed.apk"
    changed.write_bytes(data)
    run(["apksigner", "verify", str(signed)])
    with pytest.raises(EdgeError, match="DOES NOT VERIFY"):
        run(["apksigner", "verify", str(changed)])
    assert [text for text in _wrong(changed) if "its CRC-32 is wrong" in text]


def test_a_library_of_4_kb_pages_passes_apksigner_and_bundletool(
    found: Tools, chain: Path, key: Path, tmp_path: Path
) -> None:
    """Neither looks into a library: ``edgesdk doctor`` does, in each of the places."""
    bad = _or_skip(4)
    assert _alignments(bad) == {0x1000} and _alignments(_or_skip(16)) == {0x4000}
    aligned = tmp_path / "bad.apk"
    align_zip(plain_apk(found, bad, tmp_path), aligned)
    sign(aligned, key)
    run(["apksigner", "verify", str(aligned)])
    package(chain, "android", tmp_path / "project")
    aab = app_bundle(found, tmp_path / "project", bad, _folder(tmp_path / "made"))
    found.bundle("validate", f"--bundle={aab}")
    made = apks(found, aab, key, tmp_path)
    assert made
    for artifact in (bad, aligned, aab, *(path for path in made.values() if _holds(path, f"lib/arm64-v8a/{bad.name}"))):
        (said,) = _wrong(artifact)
        assert bad.name in said and "aligned to 4096 bytes" in said


def test_the_aar_links_as_a_library(found: Tools, chain: Path, tmp_path: Path) -> None:
    package(chain, "android", tmp_path / "project")
    (aar,) = (tmp_path / "project/maven").rglob("*.aar")
    shutil.unpack_archive(aar, tmp_path / "aar", "zip")
    linked = tmp_path / "linked.apk"
    command = [str(found.aapt2), "link", "--static-lib", "-I", "/usr/share/android-framework-res/framework-res.apk"]
    run([*command, "--manifest", str(tmp_path / "aar/AndroidManifest.xml"), "-o", str(linked)])
    assert zipfile.is_zipfile(linked)
    with open_bundle(tmp_path / "aar/assets/edgemodel/bundle") as opened, open_bundle(chain) as original:
        assert opened.manifest.digest == original.manifest.digest


def _wrong(path: Path) -> list[str]:
    return [f"{each.place}: {each.text}" for each in examine_artifact(path) if each.level == "error"]


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _holds(path: Path, name: str) -> bool:
    with zipfile.ZipFile(path) as archive:
        return name in archive.namelist()


def _alignments(library: Path) -> set[int]:
    lines = run(["readelf", "-lW", str(library)]).splitlines()
    return {int(line.split()[-1], 16) for line in lines if line.strip().startswith("LOAD")}
