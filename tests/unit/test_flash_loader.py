"""The loader, compiled for this computer, on a bad line."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.devices.flash import FlashError
from edgesdk.devices.flash.frames import Frame, Receiver, Request, encoded, stuffed, unstuffed
from edgesdk.devices.flash.images import Image
from edgesdk.devices.flash.loader import Loader
from edgesdk.devices.flash.uart import load_over_uart
from edgesdk.runner_lines import opened, sealed

from .c_loader import LOADER, RAM, RAM_ORIGIN, ROOM, CLoader, Wire, firmware


@pytest.fixture(scope="module", params=[(1024, 2048), (4096, 4096), (4096, 1024)], ids=str)
def board(request, tmp_path_factory) -> CLoader:
    """Blocks larger than pages, of a page, and smaller."""
    return CLoader(tmp_path_factory.mktemp("loader"), *request.param)


@pytest.fixture
def fresh(board) -> CLoader:
    board.clear()
    return board


@given(st.binary(max_size=1500), st.data())
def test_frames_hold_no_zero_and_come_back(data, draw) -> None:
    assert b"\0" not in stuffed(data)
    assert unstuffed(stuffed(data)) == data
    assert len(stuffed(data)) <= len(data) + len(data) // 254 + 1
    frame = Frame(draw.draw(st.integers(0, 255)), draw.draw(st.integers(0, 255)), data)
    wire, receiver, found = b"noise" + encoded(frame) + encoded(frame), Receiver(), []
    cut = draw.draw(st.integers(0, len(wire)))
    for part in (wire[:cut], wire[cut:]):
        found += receiver.take(part)
    assert found == [frame, frame]


@settings(max_examples=40, deadline=None)
@given(length=st.integers(0, 1024), zeros=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_c_frames_are_pythons(board, length, zeros, seed) -> None:
    rng = random.Random(seed)
    body = bytes(0 if rng.random() < zeros else rng.randrange(1, 256) for _ in range(length))
    board.clear()
    board.put(LOADER, body)
    loader = Loader(Wire(board), "test")
    loader.connect(1)
    assert loader.read(0, len(body)) == body
    assert loader.ask(Request.SUM, struct.pack("<II", 0, length)) == struct.pack("<I", zlib.crc32(body))


def test_a_load_is_verified_committed_and_started_with_little_overhead(fresh) -> None:
    image, port = firmware(60_001, 1), Wire(fresh)
    done = load_over_uart(port, image, board="simulated")
    assert fresh.app[: len(image)] == image
    assert (done.size, done.started, fresh.started, fresh.whole) == (60_004, True, True, True)
    assert done.line_bytes == port.sent + port.received
    assert done.line_bytes < done.written * 1.04
    fresh.reset()
    again = load_over_uart(Wire(fresh), image, read_back=True)
    assert (again.written, fresh.started) == (0, True)
    fresh.reset()
    other = bytearray(image)
    other[30_000] ^= 0xFF
    changed = load_over_uart(Wire(fresh), bytes(other))
    assert 0 < changed.written <= 4096
    assert fresh.app[: len(other)] == bytes(other)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), lost=st.sampled_from([0.0, 1e-4, 1e-3, 4e-3]), data=st.data())
def test_on_a_bad_line_with_failing_power_nothing_half_is_ever_started(board, seed, lost, data) -> None:
    """Whatever is lost, changed, cut or powered off: what the loader would start is a whole image, and done is done."""
    board.clear()
    rng = random.Random(seed)
    images = [firmware(rng.randrange(9000, 30_000), seed + number) for number in range(2)]
    padded = [image + b"\xff" * (-len(image) % 4) for image in images]
    for attempt in range(4):
        image = images[min(attempt // 2, 1)]
        if data.draw(st.booleans()):
            board.fail_after(data.draw(st.integers(0, 30_000)), seed)
        left = data.draw(st.none() | st.integers(0, 60_000))
        try:
            load_over_uart(Wire(board, lost=lost, seed=seed + attempt, left=left), image, wait=0.01)
            assert board.app[: len(image)] == image
            assert board.whole
        except FlashError:
            pass
        board.reset()
        assert not board.whole or any(board.app[: len(each)] == each for each in padded)
    load_over_uart(Wire(board), images[1])
    assert board.app[: len(images[1])] == images[1]
    assert board.whole


def test_a_cut_load_resumes_where_it_was(fresh) -> None:
    image = firmware(60_000, 5)
    with pytest.raises(FlashError, match="the line broke"):
        load_over_uart(Wire(fresh, left=40_000), image)
    assert not fresh.whole
    done = load_over_uart(Wire(fresh), image)
    assert done.written < 60_000 - 30_000
    assert fresh.whole


def test_a_changed_application_is_not_started(fresh) -> None:
    load_over_uart(Wire(fresh), firmware(20_000, 1))
    for at in (LOADER + 10_000, LOADER - 1024 + 5):
        if fresh.memory[at] != 0xFF:
            before = fresh.memory[at : at + 1]
            fresh.put(at, bytes((before[0] ^ 4,)))
            assert not fresh.whole
            fresh.put(at, before)
    assert fresh.whole


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (firmware(9000, 1), {"board": "mps2-an386"}, "the board is a simulated, and the firmware is for mps2-an386"),
        (firmware(ROOM + 4, 1), {}, "takes 81,924 bytes, and the board has 81,920"),
        (firmware(9000, 1, origin=0), {}, "linked for another address: it starts at 0x00000009"),
        (Image(0, firmware(9000, 1)), {}, "linked for 0x00000000, and the loader takes one for 0x00004000"),
        (struct.pack("<II", RAM_ORIGIN + RAM + 4, LOADER + 9) + bytes(100), {}, "its stack at 0x20004004 is not"),
        (b"1234", {}, "too short"),
    ],
)
def test_firmware_that_does_not_belong_there(fresh, image, options, message) -> None:
    with pytest.raises(FlashError, match=message) as failure:
        load_over_uart(Wire(fresh), image, **options)
    assert failure.value.hint
    assert fresh.app == b"\xff" * ROOM


class Deaf(Wire):
    """Something else is at the other end."""

    words = b""

    def write(self, data: bytes) -> int:
        self._waiting += self.words
        return len(data)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (b"", "nobody answers"),
        (b"login: \r\n", "something answers, but no loader"),
        (sealed('{"event":"error","code":"command","message":"there are: hello"}'), "a firmware answers that has no"),
    ],
)
def test_others_at_the_port(fresh, words, message) -> None:
    port = Deaf(fresh)
    port.words = words
    with pytest.raises(FlashError, match=message):
        load_over_uart(port, firmware(9000, 1), wait=0.05)


def test_a_line_that_never_works_is_not_asked_for_ever(fresh) -> None:
    with pytest.raises(FlashError, match=r"never right|nobody|no loader"):
        load_over_uart(Wire(fresh, lost=0.05, seed=3), firmware(9000, 1), wait=0.5)
    assert not fresh.whole


def test_flash_that_does_not_erase(fresh) -> None:
    fresh.put(LOADER, bytes(ROOM))
    fresh.stick()
    with pytest.raises(FlashError, match="flash does not take what is written to it") as failure:
        load_over_uart(Wire(fresh), firmware(9000, 1))
    assert failure.value.hint == "it is protected or worn out"


def test_flash_that_takes_only_some_bits(fresh) -> None:
    fresh.stick()
    with pytest.raises(FlashError, match="flash does not take what is written to it"):
        Loader(Wire(fresh), "test").write(0, bytes(8))


@pytest.mark.parametrize("spoil", [0, 5, 9, 13])
def test_a_half_written_record_starts_nothing(fresh, spoil) -> None:
    """Each of its four words; the application itself is whole. A size beyond flash is not even summed up."""
    load_over_uart(Wire(fresh), firmware(20_000, 1))
    record = fresh.memory.index(struct.pack("<II", 0x44454B4F, 20_000))
    fresh.put(record + spoil, b"\xee")
    assert not fresh.whole
    fresh.put(record + 4, b"\xff" * 12)
    assert not fresh.whole


def test_the_loader_refuses_what_is_no_request(fresh) -> None:
    loader = Loader(Wire(fresh), "test")
    hello = loader.connect(1)
    size = ROOM // hello.block
    for request, body, words in (
        (Request.BOOT, b"", "no whole firmware"),
        (Request.BOOT, b"x", "does not know"),
        (Request.SUM, struct.pack("<II", ROOM - 3, 4), "outside"),
        (Request.SUM, struct.pack("<II", 4, 0xFFFFFFFF), "outside"),
        (Request.READ, struct.pack("<II", 0, hello.block + 1), "does not know"),
        (Request.SUMS, struct.pack("<IH", size, 1), "outside"),
        (Request.SUMS, struct.pack("<IH", 0xFFFFFFFF, 2), "outside"),
        (Request.SUMS, struct.pack("<IH", 0, 129), "does not know"),
        (Request.ERASE, struct.pack("<II", 1, hello.page), "outside"),
        (Request.ERASE, struct.pack("<II", 0, 2**32 - hello.page), "outside"),
        (Request.WRITE, struct.pack("<I", ROOM) + b"1234", "outside"),
        (Request.WRITE, struct.pack("<I", 2) + b"1234", "outside"),
        (Request.WRITE, struct.pack("<I", 0) + b"123", "outside"),
        (Request.COMMIT, struct.pack("<II", 100, 1), "does not hold"),
        (Request.COMMIT, struct.pack("<II", 100, zlib.crc32(b"\xff" * 100)), "vectors"),
        (Request.COMMIT, struct.pack("<II", 2**31, 1), "outside"),
    ):
        with pytest.raises(FlashError, match=words):
            loader.ask(request, body)
    loader.write(0, b"\x0f" * 8)
    loader.write(0, b"\x0f" * 8)  # again is the same
    with pytest.raises(FlashError, match="not blank"):
        loader.write(0, b"\xf0" * 8)
    assert not fresh.whole


def test_the_first_change_takes_the_record_away(fresh) -> None:
    load_over_uart(Wire(fresh), firmware(20_000, 1), start=False)
    loader = Loader(Wire(fresh), "test")
    hello = loader.connect(1)
    assert (hello.whole, hello.size) == (True, 20_000)
    loader.write(0, fresh.app[:64])  # what is there already changes nothing
    assert fresh.whole
    loader.erase(8 * hello.page, hello.page, hello.page)  # blank already or not: from here on nothing is whole
    assert not fresh.whole
    load_over_uart(Wire(fresh), firmware(20_000, 1))
    assert fresh.whole


def test_the_loader_says_who_it_is_as_the_runner_does(fresh) -> None:
    line = fresh.announced(b"empty")
    assert line.startswith(b"\n")
    event = opened(line.strip())
    assert event == {"event": "loader", "protocol": 1, "board": "simulated", "why": "empty"}


def test_another_version_is_named(fresh, monkeypatch) -> None:
    monkeypatch.setattr("edgesdk.devices.flash.loader.VERSION", 2)
    with pytest.raises(FlashError, match="speaks version 1, and this edgesdk 2"):
        load_over_uart(Wire(fresh), firmware(9000, 1))
