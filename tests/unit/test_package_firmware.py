"""The firmware deliverable: the bundle's project, memory map, protocol and boards."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import edgesdk
from edgesdk.boards import microcontroller_dir, open_board
from edgesdk.package import package
from edgesdk.package.base import PackageError

from .golden import check_golden

built_here = pytest.mark.skipif(
    not (shutil.which("arm-none-eabi-gcc") and shutil.which("cmake")),
    reason="no compiler for Arm microcontrollers here",
)


@pytest.fixture(scope="module")
def firmware_bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("firmware") / "bundle"
    edgesdk.export(checkpoint, "cortex-m4f", out, recipe="w8", context=64, checks=edgesdk.Checks(skip=True))
    return out


def test_what_is_in_it(firmware_bundle, tmp_path) -> None:
    made = package(firmware_bundle, "firmware", tmp_path / "out")
    out = tmp_path / "out"
    for path in (firmware_bundle / "firmware").rglob("*"):
        copy = out / "firmware" / path.relative_to(firmware_bundle / "firmware")
        assert copy.is_dir() if path.is_dir() else copy.read_bytes() == path.read_bytes()
    boards = {path.stem for path in (out / "boards").glob("*.toml")}
    assert "nrf52840" in boards and {open_board(name).core for name in boards} == {"cortex-m4f", "cortex-m7"}
    memory = (out / "MEMORY.md").read_text()
    for name in boards:
        flash, ram = open_board(name).flash, open_board(name).ram
        row = re.search(rf"\| {name} \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| (yes|no) \|", memory)
        assert row is not None
        needed_flash, has_flash, needed_ram, has_ram = (int(text.replace(",", "")) for text in row.groups()[:4])
        assert (has_flash, has_ram) == (flash, ram)
        assert row[5] == ("yes" if needed_flash <= flash and needed_ram <= ram else "no")
        assert (row[5] == "yes") == (name in made.written.facts["boards"].split(", "))
    assert "Built for" not in memory
    record = Path(__file__).with_name("golden_files") / "firmware.txt"
    check_golden(out, record, ["firmware", "MEMORY.md", "README.md", "deliverable.json"])


@built_here
def test_it_is_built_for_a_board_with_its_memory_map(firmware_bundle, tmp_path) -> None:
    package(firmware_bundle, "firmware", tmp_path / "out", options={"board": "mps2-an386"})
    out = tmp_path / "out"
    rows = re.findall(r"\| `(\S+)` \| `0x([0-9a-f]{8})` \| ([\d,]+) \| (.+) \|", (out / "MEMORY.md").read_text())
    sections = {name: (int(at, 16), int(size.replace(",", "")), memory) for name, at, size, memory in rows}
    assert sections[".text"][0] == 0 and sections[".text"][2] == "flash"
    assert sections[".bss"][0] == 0x20000000 and sections[".bss"][2] == "RAM"
    assert (out / "built/mps2-an386/firmware.bin").stat().st_size >= sections[".text"][1]
    assert "`built/mps2-an386/`" in (out / "README.md").read_text()


def test_the_protocol_names_what_the_runner_says(tmp_path) -> None:
    source = (microcontroller_dir() / "firmware" / "main.c").read_text()
    text = (microcontroller_dir() / "app" / "PROTOCOL.md").read_text()
    events = re.split(r'event\("(\w+)"\)', source)
    for name, body in zip(events[1::2], events[2::2], strict=True):
        said = re.findall(r'field\("(\w+)"', body.partition("finish()")[0])
        if name == "error":
            said = ["code", "message"]
        (row,) = re.findall(rf"^\| `{name}` \| [^|]*\| (.*) \|$", text, re.MULTILINE)
        documented = re.findall(r"`(\w+)`", row)
        assert documented == list(dict.fromkeys(said)), name
    verbs = re.search(r'"there are: ([\w, ]+)"', source)
    assert verbs is not None
    assert all(re.search(rf"^\| `{verb}[ `]", text, re.MULTILINE) for verb in verbs[1].split(", "))


@pytest.mark.parametrize(
    ("board", "said"),
    [("nrf5340", "has a cortex-m33"), ("arduino", "no board 'arduino'")],
)
def test_a_board_that_it_is_not_for(firmware_bundle, tmp_path, board, said) -> None:
    with pytest.raises(edgesdk.EdgeError, match=re.escape(said)):
        package(firmware_bundle, "firmware", tmp_path / "out", options={"board": board})
    assert not (tmp_path / "out").exists()


@built_here
def test_a_board_without_a_port_leaves_nothing(firmware_bundle, tmp_path) -> None:
    with pytest.raises(edgesdk.EdgeError, match="no port for nrf52840"):
        package(firmware_bundle, "firmware", tmp_path / "out", options={"board": "nrf52840"})
    assert list(tmp_path.iterdir()) == []


def test_other_bundles_are_refused(bundle, tmp_path) -> None:
    with pytest.raises(PackageError, match="has no firmware"):
        package(bundle, "firmware", tmp_path / "out")


def test_a_tflm_project(checkpoint, tmp_path) -> None:
    pytest.importorskip("tflite_micro", reason="the extra tflm is not installed")
    bundle = tmp_path / "bundle"
    edgesdk.export(
        checkpoint, "cortex-m4f", bundle, recipe="w8", context=32, delegate="tflm", checks=edgesdk.Checks(skip=True)
    )
    package(bundle, "firmware", tmp_path / "out")
    memory = (tmp_path / "out" / "MEMORY.md").read_text()
    assert "| RAM | arena |" in memory and "if TFLM's code fits too" in memory
    with pytest.raises(PackageError, match="TFLM_DIR"):
        package(bundle, "firmware", tmp_path / "built", options={"board": "mps2-an386"})
