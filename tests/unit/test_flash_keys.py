"""A loader that has a key: compiled for this computer, it starts only what the host vouches for, and nothing older."""

from __future__ import annotations

import ctypes
import hashlib
import random
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.boards import microcontroller_dir
from edgesdk.cli import run
from edgesdk.devices import Settings
from edgesdk.devices.address import find
from edgesdk.devices.flash import FlashError
from edgesdk.devices.flash.frames import Request
from edgesdk.devices.flash.loader import Loader
from edgesdk.devices.flash.proofs import Proof, loader_key
from edgesdk.devices.flash.uart import load_over_uart
from edgesdk.devices.serial import SerialDevice
from edgesdk.signing import SignatureError

from .c_loader import LOADER, CLoader, Wire, firmware
from .c_runtime import c_compiler

KEY = bytes(range(32))
PAGE = 1024
VERSIONS = (LOADER - 3 * PAGE, LOADER - 2 * PAGE)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> CLoader:
    return CLoader(tmp_path_factory.mktemp("keyed"), page=PAGE, key=KEY)


@pytest.fixture
def fresh(board: CLoader) -> CLoader:
    board.clear()
    return board


def load(board: CLoader, image: bytes, version: int, key: bytes = KEY) -> None:
    board.reset()
    load_over_uart(Wire(board), image, proof=Proof(key, version))


def committed(board: CLoader, image: bytes, proof: bytes) -> None:
    """As an attacker does it who speaks the protocol alone: writes, and commits with any proof."""
    board.reset()
    loader = Loader(Wire(board), "test")
    hello = loader.connect(1)
    loader.erase(0, -(-len(image) // hello.page) * hello.page, hello.page)
    for at in range(0, len(image), hello.block):
        loader.write(at, image[at : at + hello.block])
    loader.commit(len(image), zlib.crc32(image), proof)


def test_the_hash_is_blake2s(tmp_path: Path) -> None:
    source = microcontroller_dir() / "loader"
    (tmp_path / "port.c").write_text("void port_put(unsigned char byte) { (void)byte; }\n")
    files = [source / "blake2s.c", source / "frame.c", tmp_path / "port.c"]
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover"]
    flags += ["-DBLOCK_BYTES=2048u", f"-I{source}"]
    subprocess.run([c_compiler(), *flags, "-shared", "-fPIC", *files, "-o", tmp_path / "b.so"], check=True)
    library, rng = ctypes.CDLL(str(tmp_path / "b.so")), random.Random(7693)
    for count in (1, 4, 63, 64, 65, 127, 128, 129, 5000, 65_536):
        key, first, data, tag = rng.randbytes(32), rng.randbytes(64), rng.randbytes(count), (ctypes.c_uint8 * 32)()
        library.blake2s(tag, key, first, data, count)
        assert bytes(tag) == hashlib.blake2s(first + data, key=key).digest()


def test_a_vouched_firmware_starts_and_an_older_one_does_not(fresh) -> None:
    old, new = firmware(20_000, 1), firmware(20_000, 2)
    load(fresh, old, 5)
    assert fresh.whole
    load(fresh, new, 6)
    with pytest.raises(FlashError, match="has version 5, and the board had 6 already"):
        load(fresh, old, 5)
    assert fresh.whole and fresh.app[:20_000] == new  # nothing was written
    load(fresh, new, 6)
    load(fresh, old, 7)
    with pytest.raises(FlashError, match="had 7 already"):
        load(fresh, old, 6)
    assert fresh.whole and fresh.app[:20_000] == old


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unsigned", "does not know this request"),
        ("another key", "the loader has another key"),
        ("one byte changed", "the loader has another key"),
        ("another version", "the loader has another key"),
        ("one byte of the tag changed", "the loader has another key"),
        ("older", "does not start an older one"),
    ],
)
def test_the_loader_itself_refuses(fresh, name, words) -> None:
    image = firmware(20_000, 1)
    load(fresh, image, 5)
    good, changed = Proof(KEY, 9).of(image), bytearray(image)
    changed[9000] ^= 1
    flipped = bytearray(good)
    flipped[20] ^= 1
    data, proof = {
        "unsigned": (image, b""),
        "another key": (image, Proof(bytes(32), 9).of(image)),
        "one byte changed": (bytes(changed), good),
        "another version": (image, struct.pack("<I", 10) + good[4:]),
        "one byte of the tag changed": (image, bytes(flipped)),
        "older": (image, Proof(KEY, 4).of(image)),
    }[name]
    with pytest.raises(FlashError, match=words):
        committed(fresh, data, proof)
    assert not fresh.whole
    fresh.reset()
    with pytest.raises(FlashError, match="no whole firmware"):
        Loader(Wire(fresh), "test").boot()
    load(fresh, image, 5)
    assert fresh.whole


def test_no_request_reaches_the_versions(fresh) -> None:
    load(fresh, firmware(20_000, 1), 5)
    before = fresh.memory[: LOADER - PAGE]
    fresh.reset()
    loader = Loader(Wire(fresh), "test")
    hello = loader.connect(1)
    loader.erase(0, hello.room, hello.page)
    for offset in (2**32 - PAGE, 2**32 - 2 * PAGE, 2**32 - 3 * PAGE):
        for request, body in (
            (Request.ERASE, struct.pack("<II", offset, PAGE)),
            (Request.WRITE, struct.pack("<I", offset) + bytes(8)),
            (Request.READ, struct.pack("<II", offset, 4)),
        ):
            with pytest.raises(FlashError, match="outside"):
                loader.ask(request, body)
    assert fresh.memory[: LOADER - PAGE] == before
    assert loader.connect(1).newest == 5


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), operations=st.integers(0, 26_000), versions=st.lists(st.integers(1, 50), max_size=6))
def test_power_that_fails_loses_no_version(board, seed, operations, versions) -> None:
    """Whatever was committed before the power failed: afterwards nothing older than that is taken."""
    board.clear()
    image, highest = firmware(9000, 1), 0
    for version in versions:
        board.reset()
        board.fail_after(operations, seed)
        try:
            load_over_uart(Wire(board), image, proof=Proof(KEY, version), wait=0.01)
        except FlashError:
            pass
        else:
            highest = max(highest, version)
        board.reset()
        found = Loader(Wire(board), "test").connect(1).newest
        assert found is not None and highest <= found <= max(versions)
        highest = found


@pytest.mark.parametrize("newest", [0, 1])
def test_a_half_written_page_holds_no_version(fresh, newest) -> None:
    for version in range(5, 7 + newest):
        load(fresh, firmware(9000, 1), version)
    fresh.reset()
    loader = Loader(Wire(fresh), "test")
    assert loader.connect(1).newest == 6 + newest
    (other,) = (page for page in VERSIONS if struct.unpack_from("<I", fresh.memory, page)[0] == 5 + newest)
    fresh.put(other, struct.pack("<II", 900, 0xFFFFFFFF))
    assert loader.connect(1).newest == 6 + newest
    load(fresh, firmware(9000, 1), 8)
    fresh.reset()
    assert Loader(Wire(fresh), "test").connect(1).newest == 8


def test_key_and_loader_belong_together(fresh, tmp_path) -> None:
    with pytest.raises(FlashError, match="takes only firmware of a signed bundle"):
        load_over_uart(Wire(fresh), firmware(9000, 1))
    plain = CLoader(tmp_path)
    with pytest.raises(FlashError, match="has no key, and would start any firmware"):
        load_over_uart(Wire(plain), firmware(9000, 1), proof=Proof(KEY, 1))
    assert not plain.whole and not fresh.whole


def test_a_loaders_key_is_a_file_of_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "loader.key"
    assert run(["keys", "make", "--for", "loader", str(path)]) == 0
    whole = path.read_bytes()
    assert run(["keys", "make", "--for", "loader", str(path)]) == 1 and path.read_bytes() == whole
    assert loader_key(path) == bytes.fromhex(whole.decode())
    (tmp_path / "devices.toml").write_text('[board]\naddress = "serial:/dev/null"\nloader_key = "loader.key"\n')
    assert find("board", tmp_path / "devices.toml").loader_key == str(path)
    device = SerialDevice("board", Settings("serial:/dev/null@115200", loader_key=str(path)))
    with pytest.raises(SignatureError, match="no bundle's signature was checked"):
        device._proof(None)
    assert device._proof(3) == Proof(loader_key(path), 3)
    path.chmod(0o644)
    with pytest.raises(SignatureError, match="permissions 644"):
        loader_key(path)
    path.chmod(0o600)
    path.write_text("no key")
    with pytest.raises(SignatureError, match="no key of a loader"):
        loader_key(path)
