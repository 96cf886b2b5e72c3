"""App bundles and APKs with the model's pack: what bundletool, aapt2 and apksigner make of them, and let through."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import pytest

from edgesdk.artifacts import examine_artifact
from edgesdk.artifacts.manifests import read_manifest
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
    linked_app,
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
    said = [each.text for each in examine_artifact(aab) if each.level == "warning"]
    assert len(said) == 1 and "not signed" in said[0]  # what is written here, and nothing of the manifest
    assert any("targetSdk 36" in each.text for each in examine_artifact(aab) if each.level == "good")
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


_FLAG, _NUMBER, _WATCH = "@bool/flag", "@integer/sdk", '<uses-feature android:name="android.hardware.type.watch"{}/>'


@pytest.mark.parametrize(
    ("sdk", "more", "application"),
    [
        ('<uses-sdk android:minSdkVersion="24" android:targetSdkVersion="36"/>', "", ""),
        ('<uses-sdk android:minSdkVersion="24"/>', "", 'android:debuggable="true"'),
        ("", "", 'android:debuggable="false" android:testOnly="true"'),
        ('<uses-sdk android:targetSdkVersion="VanillaIceCream"/>', "", 'android:icon="@drawable/icon"'),
        (f'<uses-sdk android:minSdkVersion="24" android:targetSdkVersion="{_NUMBER}"/>', "", ""),
        ('<uses-sdk android:minSdkVersion="24" android:targetSdkVersion="35"/>', _WATCH.format(""), ""),
        ('<uses-sdk android:minSdkVersion="24"/>', _WATCH.format(' android:required="false"'), ""),
        ('<uses-sdk android:minSdkVersion="24"/>', "", f'android:debuggable="{_FLAG}" android:testOnly="@bool/other"'),
    ],
)
def test_manifests_are_read_as_aapt2_reads_them(found: Tools, tmp_path: Path, sdk, more, application) -> None:
    values = (
        "<resources><bool name='flag'>{}</bool><bool name='other'>false</bool>"
        "<integer name='sdk'>{}</integer></resources>"
    )
    for folder, text in (("values", values.format("true", 34)), ("values-de", values.format("false", 30))):
        (tmp_path / "res" / folder).mkdir(parents=True)
        (tmp_path / "res" / folder / "values.xml").write_text(text)
    (tmp_path / "res/drawable").mkdir()
    (tmp_path / "res/drawable/icon.xml").write_text(
        '<shape xmlns:android="http://schemas.android.com/apk/res/android" android:shape="oval"/>'
    )
    manifest = (
        '<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="com.acme.app" '
        f'android:versionCode="1">{sdk}{more}<application {application}/></manifest>'
    )
    apk = linked_app(found, tmp_path / "apk", manifest, tmp_path / "res")
    proto = linked_app(found, tmp_path / "proto", manifest, tmp_path / "res", proto=True)
    with zipfile.ZipFile(apk) as plain, zipfile.ZipFile(proto) as packed:
        read = read_manifest(plain.read("AndroidManifest.xml"), plain.read("resources.arsc"))
        assert read == read_manifest(packed.read("AndroidManifest.xml"), packed.read("resources.pb"))
    dumped = run([str(found.aapt2), "dump", "badging", str(apk)])
    said = dict(re.findall(r"^(\w*[sS]dkVersion):'([^']*)'", dumped, re.MULTILINE))
    level = said.get("targetSdkVersion", said.get("sdkVersion", said.get("minSdkVersion", "1")))
    assert str(read.target_sdk) == level
    assert read.debuggable is ("application-debuggable" in dumped)
    assert read.test_only is ("testOnly='-1'" in dumped)
    assert read.icon is ("android:icon" in application)
    required = re.findall(r"^\s*uses-feature: name='(android\.hardware\.type[^']*)'", dumped, re.MULTILINE)
    assert list(read.required) == required


def test_an_app_that_google_play_refuses_three_times(found: Tools, key: Path, tmp_path: Path) -> None:
    """An APK of aapt2 and apksigner: an old SDK, open to a debugger, a library of 4 KB pages."""
    manifest = (
        '<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="com.acme.app" '
        'android:versionCode="1"><uses-sdk android:minSdkVersion="24" android:targetSdkVersion="35"/>'
        '<application android:debuggable="true" android:icon="@android:drawable/sym_def_app_icon"/></manifest>'
    )
    (tmp_path / "res").mkdir()
    apk, bad, signed = linked_app(found, tmp_path / "apk", manifest, tmp_path / "res"), _or_skip(4), tmp_path / "a.apk"
    with zipfile.ZipFile(apk, "a", zipfile.ZIP_STORED) as archive:
        archive.write(bad, f"lib/arm64-v8a/{bad.name}")
    align_zip(apk, signed)
    sign(signed, key)
    sdk, debuggable, pages = _wrong(signed)
    assert "targetSdk 35" in sdk and "debuggable" in debuggable and "aligned to 4096 bytes" in pages
    assert not [each for each in examine_artifact(signed) if each.level == "warning"]


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
