"""What every device with a shell promises, whatever its transport."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgesdk.devices import DeviceError, DeviceGoneError, DeviceTimeoutError
from edgesdk.devices.store import Parcel, Store
from edgesdk.files import file_entry

from .conftest import Place

EVERY_BYTE = bytes(range(256)) * 512
ODD_NAME = 'o d\'d "näme" $HOME;.bin'


def parcel(folder: Path, name: str) -> Parcel:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return Parcel(name, folder, tuple(file_entry(path, path.relative_to(folder).as_posix()) for path in paths))


def test_facts(place: Place) -> None:
    facts = place.device.facts()
    assert facts.os in ("linux", "android") and facts.architecture in ("x86_64", "aarch64")
    assert facts.ram is not None and facts.ram > 10**8
    assert facts.home is not None and facts.free is not None and facts.free > 0
    assert facts.libc == "glibc" or facts.libc in ("musl", "bionic")


def test_streams_status_and_bytes(place: Place) -> None:
    done = place.device.run("cat; echo wrong >&2; exit 7", stdin=EVERY_BYTE)
    assert (done.status, done.stdout, done.stderr) == (7, EVERY_BYTE, b"wrong\n")
    assert place.device.run("true") == place.device.run("true", stdin=[]) != done
    assert place.device.run("kill -9 $$").status in (137, 255)  # not every server tells of signals
    with pytest.raises(DeviceError, match="so it is"):
        place.device.run("echo so it is >&2; exit 3", check=True)


def test_a_command_that_takes_too_long_is_ended(place: Place) -> None:
    begun = time.monotonic()
    with pytest.raises(DeviceTimeoutError, match="no sign of life"):
        place.device.run(f"echo $$ > '{place.folder}/pid'; sleep 1000", timeout=2)
    assert time.monotonic() - begun < 30
    wait_until_gone(place)


def wait_until_gone(place: Place) -> None:
    alive = f"kill -0 $(cat '{place.folder}/pid')"
    give_up = time.monotonic() + 20
    while place.device.run(alive).status == 0:
        assert time.monotonic() < give_up, "the command still runs"


def test_lines_come_as_they_are_written_and_closing_ends_the_command(place: Place) -> None:
    line = place.device.stream(f"echo $$ > '{place.folder}/pid'; echo ready; exec cat")
    assert line.line(20) == b"ready"
    line.send(b"one\ntwo")
    assert line.line(20) == b"one"
    with pytest.raises(DeviceTimeoutError):
        line.line(0.2)
    line.send(b"!\n")
    assert line.line(20) == b"two!"
    line.close()
    wait_until_gone(place)


def test_a_program_that_ends_says_why(place: Place) -> None:
    line = place.device.stream("echo going; echo 'no such thing' >&2; exit 3")
    assert line.line(20) == b"going"
    with pytest.raises(DeviceGoneError, match="no such thing"):
        line.line(20)
    line.close()


def test_files_go_and_come_whole(place: Place, tmp_path: Path) -> None:
    source, back, there = tmp_path / "a.bin", tmp_path / "b.bin", f"{place.folder}/{ODD_NAME}"
    source.write_bytes(os.urandom(3_000_001))
    heard: list[int] = []
    place.device.push(source, there, advance=heard.append)
    assert sum(heard) == 3_000_001
    place.device.pull(there, back)
    assert back.read_bytes() == source.read_bytes()
    source.write_bytes(source.read_bytes() + EVERY_BYTE)
    place.device.push(source, there, offset=3_000_001)
    place.device.pull(there, back)
    assert back.read_bytes() == source.read_bytes()


def test_what_cannot_be_read_or_written_is_said(place: Place, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(DeviceError, match=r"[Nn]o such file|nonexistent"):
        place.device.push(tmp_path / "x", f"{place.folder}/no/folder/x")
    with pytest.raises(DeviceError, match="No such file"):
        place.device.pull(f"{place.folder}/nothing", tmp_path / "y")
    assert not (tmp_path / "y").exists()


def test_several_at_once(place: Place) -> None:
    def wrong(number: int) -> str | None:
        """What came of one command, in few words where it is not what went in."""
        done = place.device.run("cat", stdin=bytes([number]) * 200_000)
        if done.status == 0 and done.stdout == bytes([number]) * 200_000:
            return None
        return f"status {done.status}, {len(done.stdout)} bytes of {set(done.stdout)}, {done.stderr!r}"

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(wrong, range(4))) == [None] * 4


def test_a_store_takes_what_is_missing_and_goes_back(place: Place, tmp_path: Path) -> None:
    folder, store = tmp_path / "bundle", Store(place.device)
    (folder / "deep in").mkdir(parents=True)
    (folder / "large").write_bytes(os.urandom(2_000_000))
    (folder / "deep in" / "s'mall").write_bytes(b"small")
    (folder / "empty").write_bytes(b"")
    (folder / "twin").write_bytes(b"small")
    first = store.push(parcel(folder, "first"))
    assert len(first.sent) == 3 and first.sent_bytes == 2_000_005
    assert (store.survey().active, store.verify()) == ("first", [])
    again = store.push(parcel(folder, "first"))
    assert (again.sent, again.sent_bytes, again.was_active) == ([], 0, True)
    (folder / "deep in" / "s'mall").write_bytes(b"other")
    second = store.push(parcel(folder, "second"))
    assert second.sent == ["deep in/s'mall"] and second.sent_bytes == 5
    assert (store.survey().active, store.survey().previous, store.verify()) == ("second", "first", [])
    assert store.rollback() == "first" and store.survey().active == "first" and store.verify() == []
    place.device.run(f"printf x > '{first.path}/large'", check=True)
    assert store.verify() == ["large"]
    with pytest.raises(DeviceError, match="damaged"):
        store.rollback()  # one copy of a file serves every bundle that has it
    healed = store.push(parcel(folder, "second"))
    assert (healed.name, healed.sent, store.verify()) == ("second-2", ["large"], [])
    assert set(store.survey().bundles) == {"first", "second", "second-2"}
    store.clean()
    assert set(store.survey().bundles) == {"first", "second-2"}
    store.clean(everything=True)
    survey = store.survey()
    assert (survey.bundles, survey.active, survey.incoming) == ({}, None, {})
