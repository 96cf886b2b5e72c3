"""Zip files, Debian packages and XCFrameworks that ask for more than they may: one error, and nothing unpacked."""

from __future__ import annotations

import io
import json
import lzma
import plistlib
import shutil
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from edgesdk.artifacts import examine_artifact
from edgesdk.bounds import amounts, zips
from edgesdk.bounds.zips import ArchiveError, opened_zip
from edgesdk.bundle import is_bundle, open_bundle, pack
from edgesdk.errors import BundleError, EdgeError

MB = 1 << 20


def zeros(path: Path, name: str, megabytes: int, **more: str) -> Path:
    """A zip with a file of zeros, a thousandth of its size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open(name, "w", force_zip64=True) as out:
            for _ in range(megabytes):
                out.write(bytes(MB))
        for other, text in more.items():
            archive.writestr(other.replace("__", "/").replace("_json", ".json").replace("_xml", ".xml"), text)
    return path


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go: what is left there, or was written there, can be counted."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_zip_that_would_fill_the_disk_is_refused_before_anything_is_unpacked(tmp_path, scratch, monkeypatch) -> None:
    path = zeros(tmp_path / "bomb.zip", "zeros", 32, manifest_json="{}")
    monkeypatch.setattr(zips, "unpack", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(BundleError, match="would become 33554432 bytes"), open_bundle(path):
        pass
    assert list(scratch.iterdir()) == []
    assert not is_bundle(path)


def test_a_whole_bundle_in_a_zip_still_opens(bundle, tmp_path, scratch) -> None:
    pack(bundle, tmp_path / "b.zip")
    with open_bundle(tmp_path / "b.zip") as opened:
        assert opened.main.is_file()
    assert list(scratch.iterdir()) == []


def test_a_zip_larger_than_the_disk_has_room_for(bundle, tmp_path, monkeypatch) -> None:
    pack(bundle, tmp_path / "b.zip")
    monkeypatch.setattr(zips, "room", lambda folder: 1000)
    with pytest.raises(BundleError, match="MB left") as caught, open_bundle(tmp_path / "b.zip"):
        pass
    assert "TMPDIR" in str(caught.value.hint)


def test_a_size_that_lies_is_where_reading_stops(tmp_path) -> None:
    path = zeros(tmp_path / "a.zip", "a", 4)
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    extra = data.find(struct.pack("<HHQ", 1, 16, 4 * MB), at)
    assert extra < 0  # the directory says it in its own four bytes
    struct.pack_into("<I", data, at + 24, 1000)
    path.write_bytes(data)
    with opened_zip(path) as archive, archive.open("a") as file, pytest.raises(zipfile.BadZipFile):
        while file.read(MB):
            pass


@pytest.mark.parametrize(
    "name",
    ["../a", "/a", "C:a", "a\\..\\b", "./manifest.json", "licences//a", "a/../../b", "x" * 300, "a/" * 2000 + "b"],
)
def test_names_that_lead_elsewhere_or_stand_for_another(bundle, tmp_path, name: str) -> None:
    pack(bundle, tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "a") as archive:
        archive.writestr(name, "x")
    with pytest.raises(BundleError, match="unsafe file name"), open_bundle(tmp_path / "b.zip"):
        pass


def test_a_folder_with_the_name_of_a_file(bundle, tmp_path) -> None:
    pack(bundle, tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "a") as archive:
        archive.writestr("manifest.json/", "")
    with pytest.raises(BundleError, match="two entries"), open_bundle(tmp_path / "b.zip"):
        pass


def test_entries_on_top_of_each_other(tmp_path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "x" * 1000)
        archive.writestr("b", "y" * 1000)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rfind(b"PK\x01\x02") + 42, 0)  # the second begins where the first does
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="on top of another"), opened_zip(path):
        pass


def test_more_entries_than_any_archive_has(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(zips, "ENTRIES", 10)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(11):
            archive.writestr(str(number), "")
    with pytest.raises(ArchiveError, match="11 entries"), opened_zip(path):
        pass


def test_a_directory_that_would_fill_the_memory_is_not_read(tmp_path, monkeypatch) -> None:
    path = zeros(tmp_path / "a.zip", "a", 1)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rfind(b"PK\x05\x06") + 12, amounts.DIRECTORY + 1)
    path.write_bytes(data)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("read"))
    with pytest.raises(ArchiveError, match="directory takes"), opened_zip(path):
        pass


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_unpacks_without_a_limit_is_refused(tmp_path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a", "x")
    with pytest.raises(ArchiveError, match="compressed by method"), opened_zip(tmp_path / "a.zip"):
        pass


@pytest.mark.parametrize("name", ["bundle.zip", "a.apk", "a.aab", "a.aar"])
def test_every_cut_and_every_flip_of_a_directory_is_one_error(bundle, tmp_path, name: str) -> None:
    whole = tmp_path / "whole.zip"
    pack(bundle, whole)
    data = whole.read_bytes()
    start = data.find(b"PK\x01\x02")
    path = tmp_path / name
    for at in range(start, len(data), 29):
        flipped = bytearray(data)
        flipped[at] ^= 1 << (at % 8)
        for content in (bytes(flipped), data[:at]):
            path.write_bytes(content)
            try:
                if name == "bundle.zip":
                    with open_bundle(path):
                        pass
                else:
                    examine_artifact(path)
            except EdgeError:
                pass


def test_manifests_that_are_bombs_in_apps(tmp_path) -> None:
    app = zeros(tmp_path / "a.aab", "base/manifest/AndroidManifest.xml", 32, BundleConfig="x")
    with pytest.raises(ArchiveError, match="would become"):
        examine_artifact(app)
    large = tmp_path / "b.apk"
    with zipfile.ZipFile(large, "w") as archive:
        archive.writestr("assets/m/manifest.json", bytes(amounts.TEXT + 1))
    with pytest.raises(EdgeError, match="at most"):
        examine_artifact(large)


def ar(members: dict[str, bytes]) -> bytes:
    out = b"!<arch>\n"
    for name, data in members.items():
        head = f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n"
        out += head.encode() + data + b"\n" * (len(data) % 2)
    return out


def tar(mode: str, *members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for info, data in members:
            info.size = info.size or len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def deb(path: Path, data: bytes, packing: str = ".tar.xz") -> Path:
    fields = b"Package: x\nVersion: 1\nArchitecture: amd64\nMaintainer: x\nDescription: x\n"
    control = tar("w:xz", (tarfile.TarInfo("./control"), fields))
    path.write_bytes(ar({"debian-binary": b"2.0\n", "control.tar.xz": control, f"data{packing}": data}))
    return path


def test_a_debian_package_that_would_fill_the_disk(tmp_path, scratch, monkeypatch) -> None:
    monkeypatch.setattr(amounts, "SLACK", MB)
    written: list[int] = []
    monkeypatch.setattr("edgesdk.bounds.tars.blocks", lambda file: _counted(file, written))
    bomb = tar("w:xz", (tarfile.TarInfo("./zeros"), bytes(20 * MB)))
    with pytest.raises(ArchiveError, match="too large for its"):
        examine_artifact(deb(tmp_path / "a.deb", bomb))
    assert sum(written) <= len(bomb) * amounts.GROWTH + 2 * MB
    assert list(scratch.iterdir()) == []


def _counted(file: io.BufferedReader, written: list[int]) -> object:
    for block in zips.blocks(file):
        written.append(len(block))
        yield block


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz", "w"])
def test_packages_of_every_packing_are_read(tmp_path, mode: str) -> None:
    packing = ".tar" + mode.removeprefix("w").replace(":", ".")
    data = tar(mode, (tarfile.TarInfo("./usr/share/a"), b"x" * 100_000))
    found = examine_artifact(deb(tmp_path / "a.deb", data, packing))
    assert found[0].level == "good"
    cut = deb(tmp_path / "b.deb", data[: len(data) // 2], packing)
    with pytest.raises(ArchiveError, match="cannot be unpacked"):
        examine_artifact(cut)


def test_headers_of_a_package_that_would_be_held_in_memory(tmp_path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, amounts.TEXT + 1
    path = deb(tmp_path / "a.deb", lzma.compress(info.tobuf() + bytes(512 * 4)))
    tracemalloc.start()
    with pytest.raises(ArchiveError, match="a header of"):
        examine_artifact(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * MB


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
def test_members_that_lead_out_of_a_package(tmp_path, name: str) -> None:
    with pytest.raises(ArchiveError, match="unsafe file name"):
        examine_artifact(deb(tmp_path / "a.deb", tar("w:xz", (tarfile.TarInfo(name), b"x"))))
    assert not (tmp_path / "evil").exists()


def plist(folder: Path, content: object) -> Path:
    folder.mkdir(exist_ok=True)
    data = content if isinstance(content, bytes) else plistlib.dumps(content)
    (folder / "Info.plist").write_bytes(data)
    return folder


@pytest.mark.parametrize(
    "content",
    [
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">]><plist><string>&a;</string></plist>',
        b'<?xml version="1.0" encoding="U9"?><plist/>',
        b"<plist><key>a</key></plist>",
        b"bplist00" + bytes(6) + struct.pack(">BBQQQ", 8, 8, 1 << 60, 0, 8),
        [],
        {"AvailableLibraries": [1]},
        {"AvailableLibraries": [{"LibraryIdentifier": 5, "LibraryPath": "a"}]},
        {"AvailableLibraries": [{"LibraryIdentifier": "a", "LibraryPath": "a", "SupportedArchitectures": [["a"]]}]},
        {"AvailableLibraries": [{"LibraryIdentifier": "../../etc", "LibraryPath": "passwd"}]},
    ],
)
def test_property_lists_that_nobody_wrote(tmp_path, content: object) -> None:
    with pytest.raises(EdgeError):
        examine_artifact(plist(tmp_path / "a.xcframework", content))


def test_a_record_that_names_files_of_the_system(tmp_path) -> None:
    files = [{"path": "../" * 20 + "etc/passwd", "size": 1, "sha256": "x"}]
    record = {"schema": 1, "kind": "ios", "edgesdk": "x", "bundle": "x", "runtime": "x", "runtime_versions": "x"}
    (tmp_path / "deliverable.json").write_text(json.dumps({**record, "options": {}, "facts": {}, "files": files}))
    with pytest.raises(EdgeError, match="unsafe file name"):
        examine_artifact(tmp_path)


def test_an_elf_file_with_more_segments_than_bytes(tmp_path) -> None:
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<HIQQ", head, 18, 183, 1, 0, 64)
    struct.pack_into("<HH", head, 54, 56, 65535)
    path = tmp_path / "a.so"
    path.write_bytes(head)
    finding, *_ = examine_artifact(path)
    assert finding.level == "error" and "segments are missing" in finding.text


def test_links_pipes_and_devices_in_a_bundle(bundle, tmp_path) -> None:
    import os

    outside = tmp_path / "outside"
    outside.write_bytes((bundle / "tokenizer.json").read_bytes())

    def changed(name: str) -> Path:
        copy = tmp_path / name
        shutil.copytree(bundle, copy)
        (copy / "tokenizer.json").unlink()
        return copy / "tokenizer.json"

    linked = changed("linked")
    linked.symlink_to(outside)
    device = changed("device")
    device.symlink_to("/dev/zero")
    pipe = changed("pipe")
    os.mkfifo(pipe)
    for path, message in ((linked, "link out of its folder"), (device, "link out of"), (pipe, "is a pipe")):
        with pytest.raises(BundleError, match=message), open_bundle(path.parent):
            pass
