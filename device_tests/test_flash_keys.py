"""A UART loader with a key in QEMU: on RAM that acts as flash, and on the micro:bit's real flash controller."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import pytest

from edgesdk.boards import microcontroller_dir, open_board
from edgesdk.cli import run
from edgesdk.devices.flash import FlashError
from edgesdk.devices.flash.flashing import flash_with
from edgesdk.devices.flash.images import read_image
from edgesdk.devices.flash.loader import Loader
from edgesdk.devices.flash.proofs import Proof, loader_key
from edgesdk.devices.flash.uart import load_over_uart
from edgesdk.signing.keys import make_loader_key
from edgesdk.signing.signature import sign

from .lab.microcontrollers import microcontroller
from .models import tiny_firmware
from .signatures import Owners, copied
from .test_flash import MICROBIT, TOOLS, application, compiled, events, port_of, reset, talks

missing = [tool for tool in (*TOOLS, "gdb-multiarch") if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")

NAME = "mps2-an386"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "loader.key"
    make_loader_key(path)
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_firmware(tmp_path_factory.mktemp("flash") / "bundle")


@pytest.fixture(scope="module")
def built(bundle: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = (f"-DBOARD={NAME}", "-DLOADER=ON", f"-DLOADER_KEY={key}")
    return compiled(bundle / "firmware", tmp_path_factory.mktemp("built"), *options)


def test_edgesdk_flash_puts_signed_bundles_on_a_board_and_no_others(
    bundle: Path, built: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    owners = Owners(tmp_path / "owners")
    firmware = ["--firmware", str(built / "firmware.elf")]
    with microcontroller(NAME) as board:
        flash_with(built / "loader.elf", open_board(NAME), "gdb", probe=board.gdb)
        fleet = tmp_path / "devices.toml"
        fleet.write_text(f'[board]\naddress = "serial:{board.uart}"\nboard = "{NAME}"\nloader_key = "{key}"\n')
        flash = ["flash", "--device", "board", "--devices", str(fleet)]
        assert run([*flash, str(bundle), *firmware]) == 1
        assert "no bundle's signature was checked" in capsys.readouterr().err
        assert run(["keys", "pin", owners.public_a, "--device", "board", "--devices", str(fleet)]) == 0
        signed = copied(bundle, tmp_path / "signed")
        sign(signed, owners.a, 5)
        assert run([*flash, str(signed), *firmware]) == 0
        assert "says hello" in capsys.readouterr().out
        attacks = {"unsigned": "is not signed", "signed with key B": "is signed with key", "older": "older than 5"}
        for name, words in attacks.items():
            attacked = copied(signed, tmp_path / name)
            owners.attacks("model.lm")[name](attacked)
            assert run([*flash, str(attacked), *firmware]) == 1
            assert words in capsys.readouterr().err
        with port_of(board) as port:
            talks(bundle, port)


def refused(port, image: bytes, proof: bytes, words: str) -> None:
    """What an attacker at the line gets, who writes a firmware and commits it in any way."""
    loader = Loader(port, "board")
    hello = loader.connect(10)
    size = -(-len(image) // hello.page) * hello.page
    for at in range(0, size, 64 * hello.page):
        loader.erase(at, min(64 * hello.page, size - at), hello.page)
    for at in range(0, len(image), hello.block):
        loader.write(at, image[at : at + hello.block])
    with pytest.raises(FlashError, match=words):
        loader.commit(len(image), zlib.crc32(image), proof)
    with pytest.raises(FlashError, match="no whole firmware"):
        loader.boot()


def test_the_emulated_loader_refuses_by_itself(bundle: Path, built: Path, key: Path) -> None:
    image = read_image(built / "firmware.elf")
    data = image.data + b"\xff" * (-len(image.data) % 4)
    proof = Proof(loader_key(key), 5)
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    with microcontroller(NAME) as board, port_of(board) as port:
        flash_with(built / "loader.elf", open_board(NAME), "gdb", probe=board.gdb)
        assert events(port, "loader")[-1]["why"] == "empty"
        load_over_uart(port, image, board=NAME, proof=proof)
        talks(bundle, port)
        refused(port, data, b"", "does not know this request")
        refused(port, data, Proof(bytes(32), 9).of(data), "the loader has another key")
        refused(port, bytes(changed), proof.of(data), "the loader has another key")
        refused(port, data, struct.pack("<I", 6) + proof.of(data)[4:], "the loader has another key")
        refused(port, data, Proof(proof.key, 4).of(data), "does not start an older one")
        reset(board)
        assert events(port, "loader")[-1]["why"] == "empty"  # nothing of it is started by a reset either
        load_over_uart(port, image, board=NAME, proof=Proof(proof.key, 6))
        talks(bundle, port)
        with pytest.raises(FlashError, match="has version 5, and the board had 6 already"):
            load_over_uart(port, image, board=NAME, proof=proof)


def test_versions_stay_on_real_flash(key: Path, tmp_path: Path) -> None:
    source = microcontroller_dir() / "loader"
    loader = compiled(source, tmp_path / "loader", "-DBOARD=microbit", f"-DLOADER_KEY={key}") / "loader.elf"
    secret, image = loader_key(key), read_image(application(tmp_path, bytes(range(256)) * 40))
    with microcontroller("microbit") as board, port_of(board) as port:
        flash_with(loader, MICROBIT, "gdb", probe=board.gdb)
        assert events(port, "loader")[-1]["why"] == "empty"
        for version in (3, 4, 9):
            load_over_uart(port, image, board="microbit", proof=Proof(secret, version))
            assert b"X\n" in port.read_until(b"X\n")
            port.write(b"L")
            assert events(port, "loader")[-1]["why"] == "asked"
        assert Loader(port, "board").connect(10).newest == 9
        refused(port, image.data, Proof(secret, 8).of(image.data), "does not start an older one")
        refused(port, image.data, Proof(bytes(32), 10).of(image.data), "the loader has another key")
        assert Loader(port, "board").connect(10).newest == 9


def test_a_key_that_is_none_does_not_build(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("00" * 31)
    with pytest.raises(AssertionError, match="no 64 hexadecimal digits"):
        compiled(microcontroller_dir() / "loader", tmp_path / "out", "-DBOARD=microbit", f"-DLOADER_KEY={tmp_path}/key")
