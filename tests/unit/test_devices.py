"""Names of devices, what they say about themselves, the store's promises, and the runner that goes to a board."""

from __future__ import annotations

import ctypes
import random
import subprocess
import sys
import threading
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.converter import CONVERTERS
from edgesdk.devices import DeviceError, DeviceGoneError, Settings
from edgesdk.devices.address import find, read_fleet
from edgesdk.devices.base import Completed
from edgesdk.devices.facts import matching, parsed
from edgesdk.devices.local import LocalDevice
from edgesdk.devices.runner.archive import runner_archive
from edgesdk.devices.runner.remote import Choice
from edgesdk.devices.serial import SerialDevice
from edgesdk.devices.ssh import SshChannel, _parts
from edgesdk.devices.store import Parcel, Store
from edgesdk.errors import EdgeError
from edgesdk.files import file_entry
from edgesdk.runner_lines import command_of, event_line, opened, sealed

from .c_runtime import Sampler, build

PHONE = """banner of a login
@uname Linux 5.10.149-android13 aarch64
@property [ro.product.manufacturer]: [Google]
@property [ro.product.model]: [Pixel 8]
@property [ro.build.version.release]: [15]
@property [ro.soc.model]: [Tensor G3]
@libraries /system/bin/linker /system/bin/linker64 /lib*/ld-linux*.so.* /lib/ld-musl*.so.*
@home /data/local/tmp
@df
Filesystem     1024-blocks     Used Available Capacity Mounted on
/dev/block/dm-60 112345678 60000000  52345678      54% /data
@files
==> /proc/meminfo <==
MemTotal:        7786552 kB
MemFree:          200000 kB

==> /proc/cpuinfo <==
processor\t: 0
BogoMIPS\t: 49.15
processor\t: 1

@facts
"""
BOARD = """@uname Linux 5.15.148-tegra aarch64
@libraries /system/bin/linker* /lib/ld-linux-aarch64.so.1 /lib/ld-musl*.so.*
@home /home/user
@df
Filesystem 1024-blocks Used Available Capacity Mounted on
/dev/nvme0n1p1 1000 900 100 90% /
@files
==> /proc/meminfo <==
MemTotal:        7620496 kB
==> /etc/os-release <==
PRETTY_NAME="Ubuntu 22.04.5 LTS"
NAME="Ubuntu"
==> /proc/device-tree/model <==
NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0
==> /proc/device-tree/compatible <==
nvidia,p3768-0000+p3767-0005-super\0nvidia,tegra234\0
@facts
"""


def test_facts_of_a_phone() -> None:
    facts = parsed(PHONE)
    assert (facts.os, facts.model, facts.release, facts.architecture) == ("android", "Google Pixel 8", "15", "aarch64")
    assert (facts.ram, facts.free, facts.cores, facts.libc) == (7786552 * 1024, 52345678 * 1024, 2, "bionic")
    assert (facts.home, facts.emulated, facts.more["soc"]) == ("/data/local/tmp", None, "Tensor G3")
    assert "android-arm64" in matching(facts) and "linux-arm64" not in matching(facts)


def test_facts_of_a_board() -> None:
    facts = parsed(BOARD)
    assert (facts.os, facts.release, facts.libc, facts.free) == ("linux", "Ubuntu 22.04.5 LTS", "glibc", 100 * 1024)
    assert facts.model == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert {"jetson-orin", "linux-arm64"} <= set(matching(facts)) and facts.emulated is None


def test_what_is_not_said_is_not_known() -> None:
    facts = parsed("")
    assert vars(facts) | {"more": {}} == dict.fromkeys(vars(facts)) | {"more": {}}
    virtual = BOARD.replace("nvidia,tegra234", "linux,dummy-virt")
    assert parsed(virtual).emulated is not None


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("host", (None, "host", None)),
        ("me@host:2222", ("me", "host", 2222)),
        ("me@[fe80::1%eth0]:22", ("me", "fe80::1%eth0", 22)),
        ("[::1]", (None, "::1", None)),
    ],
)
def test_ssh_addresses(address: str, parts: tuple[object, ...]) -> None:
    assert _parts(address) == parts


@pytest.mark.parametrize("address", ["@host", "me@", "host:ssh", "host:22:33", ""])
def test_wrong_ssh_addresses(address: str) -> None:
    with pytest.raises(DeviceError, match="no address"):
        _parts(address)


def test_serial_addresses() -> None:
    for address, found in {
        "serial:/dev/ttyACM0": ("/dev/ttyACM0", 115200),
        "serial:/dev/ttyACM0@921600": ("/dev/ttyACM0", 921600),
        "serial:socket://127.0.0.1:5555": ("socket://127.0.0.1:5555", 115200),
    }.items():
        device = SerialDevice("x", Settings(address))
        assert (device.path, device.baud) == found
    with pytest.raises(DeviceError, match="no baud rate"):
        SerialDevice("x", Settings("serial:/dev/ttyACM0@fast"))


def test_a_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGESDK_DEVICES", raising=False)
    assert find("local") == Settings("local")
    Path("devices.toml").write_text('[nano]\naddress = "ssh:a@nano"\nkey = "keys/nano"\nstore = "/opt/models"\n')
    monkeypatch.setenv("EDGESDK_DEVICES", "devices.toml")
    assert find("nano") == Settings("ssh:a@nano", store="/opt/models", key="keys/nano")
    for text, words in (
        ('[a]\naddress = "usb:1"\n', "no transport 'usb'"),
        ('[a]\nadress = "adb:1"\n', "unknown key 'adress'"),
        ("[a\n", "not valid TOML"),
        ("a = 1\n", "devices.toml"),
    ):
        Path("devices.toml").write_text(text)
        with pytest.raises(DeviceError, match=words):
            read_fleet()
    with pytest.raises(DeviceError, match="no such file"):
        find("x", tmp_path / "nothing.toml")
    monkeypatch.delenv("EDGESDK_DEVICES")
    for name in ("nano", "localhost", "local:x", "usb:1"):
        with pytest.raises(DeviceError, match=f"no device '{name}'"):
            find(name)


def test_the_reason_is_the_last_word() -> None:
    assert Completed(1, b"out\n", b"first\n\nlast\n\n").reason == "last"
    assert Completed(1, b"out\n", b"").reason == "out"
    assert Completed(9, b"", b"").reason == "status 9"


class Cut(LocalDevice):
    """This machine, until so many bytes of input went over."""

    left = 1 << 40

    def open(self, command: str):  # type: ignore[no-untyped-def]
        channel = super().open(command)
        write = channel.write

        def cut(data: bytes) -> None:
            passed = data[: self.left]
            self.left -= len(passed)
            write(passed)
            if len(passed) < len(data):
                channel.close()
                raise DeviceGoneError("cut")

        channel.write = cut  # type: ignore[method-assign]
        return channel


class EndsWhileLookedAt:
    """An SSH channel whose output, status and end all come in the middle of somebody's look at it."""

    def __init__(self) -> None:
        self.closed = self.eof_received = False
        self._ready: list[bytes] = []

    def recv_ready(self) -> bool:
        return bool(self._ready)

    def recv(self, size: int) -> bytes:
        return self._ready.pop()

    def recv_stderr_ready(self) -> bool:
        return False

    def exit_status_ready(self) -> bool:
        before = self.closed
        if not before:
            self.closed = self.eof_received = True
            self._ready = [b"all of it"]
        return before

    def get_transport(self) -> EndsWhileLookedAt:
        return self

    def is_active(self) -> bool:
        return True


def test_what_an_ssh_command_said_before_it_ended_is_heard() -> None:
    channel = SshChannel("board", EndsWhileLookedAt())  # type: ignore[arg-type]
    assert channel.read(5) == ("out", b"all of it")
    assert channel.read(5) is None


def test_who_waits_for_output_hears_that_another_thread_closed() -> None:
    for _ in range(20):
        channel = LocalDevice("local", Settings("local")).open("cat")
        closing = threading.Timer(0.01, channel.close)
        closing.start()
        assert channel.read(30) is None
        closing.join()


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 60_000), seed=st.integers(0, 1000))
def test_a_cut_at_any_byte_leaves_the_bundle_in_use_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int, seed: int
) -> None:
    """Scripts are cut too: a shell that got half a line must not do half a thing."""
    place, rng = tmp_path_factory.mktemp("cut"), random.Random(seed)

    def parcel(name: str) -> Parcel:
        (place / name).mkdir()
        for file, size in (("large", 20_000), ("small", 10)):
            (place / name / file).write_bytes(rng.randbytes(size))
        return Parcel(name, place / name, tuple(file_entry(path) for path in sorted((place / name).iterdir())))

    device = Cut("cut", Settings("local", store=str(place / "store")))
    store = Store(device)
    store.push(parcel("old"))
    new, done = parcel("new"), False
    device.left = cut
    try:
        store.push(new)
        done = True
    except DeviceError:
        pass
    device.left = 1 << 40
    survey = store.survey()
    assert survey.active == ("new" if done else survey.active) and survey.active in ("old", "new")
    assert store.verify() == []
    store.push(new)
    assert (store.survey().active, store.verify()) == ("new", [])
    assert store.rollback() == "old" and store.verify() == []


@given(st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",))))
def test_lines_carry_their_checksum(text: str) -> None:
    assert command_of(sealed(text)) == text
    assert opened(event_line("x", text=text)) == {"event": "x", "text": text}


@given(st.binary(max_size=40))
def test_other_lines_are_refused(data: bytes) -> None:
    with pytest.raises(EdgeError):
        opened(data)
    with pytest.raises(EdgeError, match="no event"):
        opened(sealed(data.hex()))


@pytest.mark.parametrize("converter", [name for name in CONVERTERS.names() if name != "cortex_m"])
def test_a_runners_archive(converter: str, tmp_path: Path) -> None:
    """The same bytes each time, and nothing in it asks for another part of edgesdk."""
    on_device = CONVERTERS.get(converter).on_device
    assert on_device is not None
    content = runner_archive(on_device)
    assert content == runner_archive(on_device)
    with zipfile.ZipFile(BytesIO(content)) as archive:
        names = archive.namelist()
        assert "__main__.py" in names and not any("cli" in name for name in names)
    path = tmp_path / "runner.pyz"
    path.write_bytes(content)
    module = on_device.opener.partition(":")[0]
    code = f"import sys; sys.path.insert(0, {str(path)!r}); import {module} as m; print(m.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(path))


def test_an_archive_says_what_is_wrong_with_a_bundle(tmp_path: Path) -> None:
    on_device = CONVERTERS.get("onnx").on_device
    assert on_device is not None
    (tmp_path / "runner.pyz").write_bytes(runner_archive(on_device))
    done = subprocess.run([sys.executable, tmp_path / "runner.pyz", tmp_path], capture_output=True, check=False)
    event = opened(done.stdout)
    assert (done.returncode, done.stderr, event["event"], event["code"]) == (1, b"", "error", "bundle")
    assert "no whole bundle" in event["message"] and event["hint"]


def test_boards_draw_the_random_numbers_of_the_firmware(tmp_path: Path) -> None:
    library = build(tmp_path)
    for seed in (1, 2, 3, 77, 2**31, 2**32 - 1):
        sampler, choice = Sampler(1.0, 1.0, seed), Choice(1.0, 1.0, seed)
        for _ in range(50):
            row = (ctypes.c_float * 64)()
            assert library.lm_sample(ctypes.byref(sampler), row, 64) == choice.token(np.zeros(64, np.float32))


def test_small_seeds_are_as_random_as_others() -> None:
    first = [Choice(1.0, 1.0, seed).token(np.zeros(64, np.float32)) for seed in range(1, 257)]
    assert len(set(first)) > 50 and 20 < np.mean(first) < 43


def test_a_nucleus() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    drawn = {Choice(1.0, 0.75, seed).token(logits) for seed in range(1, 200)}
    assert drawn == {0, 1}
    assert Choice(0.0, 0.1, 1).token(logits) == 0
