"""``edgesdk doctor ARTIFACT``: what is right passes, and each thing that is wrong is found by name."""

from __future__ import annotations

import json
import os
import plistlib
import shutil
import struct
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

import edgesdk
from edgesdk.artifacts import Finding, examine_artifact
from edgesdk.artifacts.android import _modules
from edgesdk.artifacts.entries import Entry
from edgesdk.cli import run
from edgesdk.errors import EdgeError
from edgesdk.package import package
from edgesdk.package.android.archives import align_zip
from edgesdk.package.linux_service.deb import write_deb
from edgesdk.stores import google_play

from .android_manifests import app, chunked, protobuf

ARM64, ARM, X86_64 = 183, 40, 62
MANIFEST = chunked(app())


def elf(machine: int = ARM64, alignment: int = 16384) -> bytes:
    """A shared library of one loaded segment, by the ELF specification."""
    wide = machine != ARM
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    if wide:
        header = struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
        segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 120, 120, alignment)
    else:
        header = struct.pack("<HHIIIIIHHHHHH", 3, machine, 1, 0, 52, 0, 0, 52, 32, 1, 40, 0, 0)
        segment = struct.pack("<IIIIIIII", 1, 0, 0, 0, 84, 84, 5, alignment)
    return ident + header + segment


def errors(path: Path) -> list[str]:
    return [f"{found.place}: {found.text}" for found in examine_artifact(path) if found.level == "error"]


def zipped(path: Path, entries: Mapping[str, bytes | Path], squeezed: tuple[str, ...] = ()) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            data = content.read_bytes() if isinstance(content, Path) else content
            kind = zipfile.ZIP_DEFLATED if name.endswith(squeezed) and squeezed else zipfile.ZIP_STORED
            archive.writestr(name, data, kind)
    return path


@pytest.fixture(scope="module")
def phone_bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phone") / "bundle"
    edgesdk.export(checkpoint, "android-arm64", out, recipe="w8", context=256, checks=edgesdk.Checks(skip=True))
    return out


def inside(bundle: Path, folder: str) -> dict[str, Path]:
    files = (path for path in bundle.rglob("*") if path.is_file())
    return {f"{folder}/{path.relative_to(bundle).as_posix()}": path for path in files}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (elf(), None),
        (elf(X86_64, 65536), None),
        (elf(ARM, 4096), None),
        (elf(alignment=4096), "aligned to 4096 bytes"),
        (elf(X86_64, 4096), "aligned to 4096 bytes"),
        (elf(machine=243), "EM_RISCV"),
        (elf()[:100], "ELF"),
        (b"#!/bin/sh\n", "not a whole ELF file"),
    ],
)
def test_a_library(tmp_path, data, said) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(data)
    found = errors(path)
    assert found == [] if said is None else len(found) == 1 and said in found[0]


def test_an_apk(tmp_path, phone_bundle) -> None:
    entries = {
        "AndroidManifest.xml": MANIFEST,
        "lib/arm64-v8a/liba.so": elf(),
        **inside(phone_bundle, "assets/model"),
        "META-INF/CERT.RSA": b"x",
    }
    loose = zipped(tmp_path / "loose.apk", entries)
    assert [text for text in errors(loose) if "no multiple of 16384" not in text] == []
    aligned = tmp_path / "aligned.apk"
    align_zip(loose, aligned)
    assert errors(aligned) == []
    levels = {found.place: found.level for found in examine_artifact(aligned)}
    assert levels["assets/model"] == "note"  # which runtime comes along is not said in an APK
    squeezed = zipped(tmp_path / "squeezed.apk", entries, (".pte", ".so"))
    (found,) = errors(squeezed)
    assert found.startswith("assets/model/model.pte: compressed")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("lib/arm64-v8a/libb.so", elf(alignment=4096), "aligned to 4096"),
        ("lib/arm64-v8a/libb.so", elf(X86_64), "built for x86_64"),
        ("assets/model/tokenizer.json", b"{}", "2 bytes, and the manifest says"),
        ("assets/model/tokenizer.json", None, "missing"),
    ],
)
def test_what_is_wrong_in_an_apk(tmp_path, phone_bundle, name, content, said) -> None:
    entries: dict[str, bytes | Path] = {"AndroidManifest.xml": MANIFEST, "lib/arm64-v8a/liba.so": elf()}
    entries |= inside(phone_bundle, "assets/model")
    if content is None:
        del entries[name]
    else:
        entries[name] = content
    found = [text for text in errors(zipped(tmp_path / "a.apk", entries, (".so",))) if "compressed" not in text]
    assert len(found) == 1 and found[0].startswith(name) and said in found[0]


def test_a_changed_byte_of_the_model_is_found_by_its_hash(tmp_path, phone_bundle) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(phone_bundle, copy)
    program = copy / "model.pte"
    data = bytearray(program.read_bytes())
    data[len(data) // 2] ^= 1
    program.write_bytes(data)
    apk = zipped(tmp_path / "a.apk", {"AndroidManifest.xml": MANIFEST, **inside(copy, "assets/model")})
    assert errors(apk) == ["assets/model/model.pte: its SHA-256 is not the one in the manifest"]


def test_signatures_are_seen(tmp_path) -> None:
    plain = zipped(tmp_path / "a.apk", {"AndroidManifest.xml": b"x"})

    def said(path: Path) -> str:
        return " ".join(found.text for found in examine_artifact(path))

    assert "not signed" in said(plain)
    data = plain.read_bytes()
    start = data.rindex(b"PK\x01\x02")
    pair = struct.pack("<QI", 8, 0x7109871A) + b"abcd"
    length = struct.pack("<Q", len(pair) + 24)
    block = length + pair + length + b"APK Sig Block 42"
    end = bytearray(data[start:])
    at = end.rindex(b"PK\x05\x06")
    struct.pack_into("<I", end, at + 16, start + len(block))
    signed = tmp_path / "signed.apk"
    signed.write_bytes(data[:start] + block + end)
    assert "signatures are there: v2 " in said(signed)
    old = zipped(tmp_path / "old.apk", {"AndroidManifest.xml": b"x", "META-INF/CERT.RSA": b""})
    assert "signatures are there: v1 " in said(old)


def test_an_aar_names_its_runtime_in_the_pom(tmp_path, phone_bundle) -> None:
    entries = {"AndroidManifest.xml": b"x", "classes.jar": b"", **inside(phone_bundle, "assets/model")}
    aar = zipped(tmp_path / "a-1.0.aar", entries)
    assert errors(aar) == []
    pom = "<groupId>org.pytorch</groupId><artifactId>executorch-android</artifactId><version>{}</version>"
    aar.with_suffix(".pom").write_text(pom.format("1.5.1"))
    assert errors(aar) == []
    aar.with_suffix(".pom").write_text(pom.format("1.4.0"))
    assert errors(aar) == ["assets/model: executorch 1.4.0, but the program needs executorch >=1.5,<1.6"]


def test_the_android_deliverable_passes(tmp_path, phone_bundle) -> None:
    package(phone_bundle, "android", tmp_path / "app")
    (aar,) = (tmp_path / "app").rglob("*.aar")
    assert errors(aar) == []
    assert any(found.level == "good" and "executorch 1.5" in found.text for found in examine_artifact(aar))
    assert not [found for found in examine_artifact(tmp_path / "app") if found.level in ("error", "warning")]
    (tmp_path / "app" / "README.md").write_text("mine")
    found = [found for found in examine_artifact(tmp_path / "app") if found.level in ("error", "warning")]
    assert [(each.level, each.place) for each in found] == [("warning", "README.md")]
    aar.unlink()
    assert len(errors(tmp_path / "app")) == 1


def test_an_aab(tmp_path) -> None:
    manifest = {"base/manifest/AndroidManifest.xml": protobuf(app()), "BundleConfig.pb": b""}
    good = zipped(tmp_path / "a.aab", {**manifest, "base/lib/arm64-v8a/liba.so": elf(), "META-INF/K.RSA": b""})
    assert errors(good) == []
    bad = {"feature/manifest/AndroidManifest.xml": b"x", "feature/lib/x86_64/liba.so": elf(X86_64, 4096)}
    found = errors(zipped(tmp_path / "b.aab", bad))
    assert [text.partition(": ")[2].partition(",")[0] for text in found][:2] == [
        "no BundleConfig.pb",
        "no base module; there are: feature",
    ]
    assert any("aligned to 4096" in text for text in found) and any(
        "no libraries for arm64-v8a" in text for text in found
    )


def sized(tmp_path: Path, **modules: tuple[bytes, float]) -> list[Finding]:
    """What is said of an app bundle of modules with such manifests and so many megabytes."""
    entries = {}
    for name, (manifest, megabytes) in modules.items():
        (tmp_path / name).write_bytes(manifest)
        file = tmp_path / name
        entries[f"{name}/manifest/AndroidManifest.xml"] = Entry(name, 0, 0, lambda file=file: file.open("rb"))
        entries[f"{name}/assets/a.pte"] = Entry(name, 0, int(megabytes * 1e6), lambda file=file: file.open("rb"))
    return list(_modules(entries, list(modules), google_play()))


@pytest.mark.parametrize(("kind", "most"), [(b"x", 200), (b"..asset-pack..", 1500), (b"..ai-pack..", 1500)])
def test_sizes_of_modules(tmp_path, kind, most) -> None:
    (fine,), (wrong,) = sized(tmp_path, m=(kind, most)), sized(tmp_path, m=(kind, most + 1))
    assert fine.level == "good"
    assert wrong.level == "error" and f"takes {most} MB" in wrong.text


@pytest.mark.parametrize(
    ("ways", "last", "said"),
    [
        (("install-time", "install-time", "install-time"), 900, "modules and install-time packs"),
        (("fast-follow", "on-demand", "fast-follow"), 1000, "fast-follow and on-demand packs"),
    ],
)
def test_sizes_of_a_whole_app_bundle(tmp_path, ways, last, said) -> None:
    """4 GB of what comes with the app, and 4 GB of what comes after it."""

    def found(megabytes: float, *others: tuple[bytes, float]) -> list[Finding]:
        packs = [(f"asset-pack {way}".encode(), size) for way, size in zip(ways, (1500, 1500, megabytes), strict=True)]
        modules = {f"pack{index}": pack for index, pack in enumerate([*packs, *others])}
        return [each for each in sized(tmp_path, base=(b"x", 100), **modules) if each.level == "error"]

    other = b"ai-pack on-demand" if ways[0] == "install-time" else b"ai-pack install-time"
    assert found(last, (other, 1500)) == []  # each of the two sums by itself
    (wrong,) = found(last + 1)
    assert wrong.place == said and "4001.0 MB together" in wrong.text and "takes 4000 MB" in wrong.text and wrong.hint


def test_an_aar_with_more_assets_than_a_base_module_takes(tmp_path) -> None:
    manifest = {"AndroidManifest.xml": b"x", "classes.jar": b""}
    block = os.urandom(100_000) + b"\0" * 4_900_000
    heavy = {"assets/a.pte": block * 24, "assets/b.pte": block * 16 + b"\0"}
    (found,) = errors(zipped(tmp_path / "a.aar", {**manifest, **heavy}))
    assert "200.0 MB of assets" in found and "takes 200 MB" in found
    assert errors(zipped(tmp_path / "b.aar", {**manifest, **heavy}, (".pte",))) == []  # mostly zeros, compressed


def test_a_deb(tmp_path, bundle) -> None:
    def made(name: str, *, architecture: str = "amd64", runtime: str = "1.32.0") -> Path:
        control, root = tmp_path / f"{name}-control", tmp_path / f"{name}-root"
        control.mkdir()
        fields = f"Package: a\nVersion: 1\nArchitecture: {architecture}\nMaintainer: m\nDescription: d\n"
        (control / "control").write_text(fields)
        shutil.copytree(bundle, root / "opt/model")
        wheel = root / f"opt/lib/onnxruntime-{runtime}.dist-info"
        wheel.mkdir(parents=True)
        (wheel / "METADATA").write_text("")
        (root / "opt/lib/x.so").write_bytes(elf(X86_64, 4096))  # a PC's pages
        write_deb(tmp_path / f"{name}.deb", control, root)
        return tmp_path / f"{name}.deb"

    good = made("good")
    assert errors(good) == []
    assert any("onnxruntime 1.32.0, and the program needs" in found.text for found in examine_artifact(good))
    assert "opt/lib/x.so: for EM_X86_64, and the package is for arm64" in errors(made("arm", architecture="arm64"))
    assert any("onnxruntime 1.20.0, but the program needs" in text for text in errors(made("old", runtime="1.20.0")))
    for size in (4, 100, good.stat().st_size // 2, good.stat().st_size - 3):
        cut = tmp_path / "cut.deb"
        cut.write_bytes(good.read_bytes()[:size])
        with pytest.raises(EdgeError, match=r"cut\.deb"):
            examine_artifact(cut)


def test_an_xcframework(tmp_path) -> None:
    folder = tmp_path / "a.xcframework"
    library = {
        "LibraryIdentifier": "ios-arm64",
        "LibraryPath": "liba.a",
        "SupportedPlatform": "ios",
        "SupportedArchitectures": ["arm64"],
    }
    (folder / "ios-arm64").mkdir(parents=True)
    (folder / "_CodeSignature").mkdir()
    (folder / "ios-arm64/liba.a").write_bytes(b"!<arch>\n")
    (folder / "Info.plist").write_bytes(plistlib.dumps({"AvailableLibraries": [library]}))
    assert [found.level for found in examine_artifact(folder)] == ["good"]
    (folder / "ios-arm64/liba.a").write_bytes(b"\x7fELF....")
    assert "ios-arm64/liba.a: not a Mach-O file or static library" in errors(folder)
    (folder / "ios-arm64/liba.a").unlink()
    assert "ios-arm64/liba.a: named in Info.plist, and not there" in errors(folder)
    library["SupportedPlatformVariant"] = "simulator"
    (folder / "Info.plist").write_bytes(plistlib.dumps({"AvailableLibraries": [library]}))
    assert "a.xcframework: nothing for iPhones (platform ios, arm64)" in errors(folder)
    (folder / "Info.plist").write_text("no plist")
    with pytest.raises(EdgeError, match=r"Info\.plist"):
        examine_artifact(folder)


def test_a_bundle(tmp_path, bundle) -> None:
    assert errors(bundle) == []
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(EdgeError, match="missing"):
        examine_artifact(copy)


@pytest.mark.parametrize("name", ["a.apk", "a.aab", "a.aar", "a.deb", "a.so", "a.txt"])
def test_rubbish_and_cut_files_are_one_clear_error(tmp_path, name, capsys) -> None:
    path = tmp_path / name
    for data in (b"", b"PK\x03\x04", b"\0" * 100):
        path.write_bytes(data)
        assert run(["doctor", str(path)]) == 1
        said = capsys.readouterr()
        assert (said.out + said.err).strip() and "Traceback" not in said.err
    assert run(["doctor", str(tmp_path / f"none-{name}")]) == 1
    assert "no such file" in capsys.readouterr().err


def test_a_damaged_entry_is_found(tmp_path) -> None:
    path = zipped(tmp_path / "a.apk", {"AndroidManifest.xml": MANIFEST})
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    assert errors(path) == ["AndroidManifest.xml: damaged: its CRC-32 is wrong"]


def test_what_it_prints(tmp_path, capsys) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(elf(alignment=4096))
    assert run(["doctor", str(path)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("ERROR   lib.so: ") and "max-page-size=16384" in out
    path.write_bytes(elf())
    assert run(["doctor", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_without_its_library_it_says_how_to_get_it(tmp_path, capsys, monkeypatch) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(elf())
    monkeypatch.setitem(sys.modules, "elftools.elf.enums", None)
    assert run(["doctor", str(path)]) == 1
    assert "edgesdk[package]" in capsys.readouterr().err
