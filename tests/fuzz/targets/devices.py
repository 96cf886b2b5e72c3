"""What devices say: runners, facts, stores, sensors, meters, phones' tools, loaders, firmware files."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from ..case import Case, Files, Opener
from ..odd import changed_bytes, changed_text
from ..trees import changed_json

_EVENTS = (
    {"event": "load", "ticks": 100, "ticks_per_second": 1000},
    {
        "event": "hello",
        "protocol": 1,
        "runner": "edgesdk",
        "board": "mps2-an386",
        "model_crc": "00000005",
        "ticks_per_second": 10**6,
        "prompt_tokens": 64,
        "context": 64,
        "emulated": 0,
        "vocab": 100,
        "pid": 7,
    },
    {"event": "prefill", "tokens": 3, "ticks": 500, "at": 600},
    {"event": "token", "id": 5, "text": "a", "ticks": 10, "sample_ticks": 2, "at": 700},
    {"event": "token", "id": 6, "text": "b", "ticks": 10},
    {"event": "done", "prompt_tokens": 3, "new_tokens": 2, "stop": "length", "ticks": 600},
)
_APP = (
    {"event": "hello", "protocol": 1, "digest": "d" * 64, "ticks_per_second": 10**9, "model": "x", "sdk": 34},
    {"event": "load", "ticks": 10**9, "ticks_per_second": 10**9},
    {"event": "memory", "moment": "after_load", "at": 1, "pss_kb": 1000},
    {"event": "sensors", "at": 2, "battery_celsius": 30.0},
    {"event": "run", "kind": "repeat", "index": 0, "at": 3},
    {"event": "prefill", "tokens": 8, "ticks": 100, "at": 103},
    {"event": "token", "ticks": 10, "at": 113},
    {"event": "token", "ticks": None, "at": 113},
    {"event": "done", "prompt_tokens": 8, "new_tokens": 2, "stop": "length", "decode_ticks": 10},
    {"event": "sensors", "at": 200, "battery_celsius": 31.0},
    {"event": "end", "at": 300},
)
_FACTS = (
    "@uname Linux 6.1.0 aarch64\n@libraries /lib/ld-linux-aarch64.so.1 /lib/ld-musl*.so.*\n@home /home/x\n"
    "@df\nFilesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda 1000 400 600 40% /\n"
    "@property [ro.product.model]: [Pixel]\n@files\n==> /proc/meminfo <==\nMemTotal: 8000000 kB\n"
    '==> /proc/cpuinfo <==\nprocessor : 0\n==> /etc/os-release <==\nPRETTY_NAME="Debian"\n@facts\n'
)
_SURVEY = (
    f"@root /home/x/edgesdk\n@active aa\n@active bb\n@incoming\n12 incoming/{'a' * 64}.part\n@records\n"
    f"==> bundles/aa.files <==\n{'a' * 64}\t12\t5\tmodel.onnx\n==> /dev/null <==\n@present\n"
    f"12 5 bundles/aa/model.onnx\n{_FACTS}@end\n"
)


class Replay:
    """A line that says what an input holds, and then breaks."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = list(lines)

    def send(self, data: bytes) -> None:
        """Nobody listens."""

    def line(self, seconds: float) -> bytes:
        from edgesdk.devices.base import DeviceGoneError

        if not self._lines:
            raise DeviceGoneError("it is gone")
        return self._lines.pop(0)

    def close(self) -> None:
        """It is closed."""


def _said(events: tuple[dict[str, object], ...], random: Random) -> bytes:
    """Events as lines with their checksums, some of them changed."""
    lines = []
    for event in events:
        text = changed_json(random, event) if random.random() < 0.3 else json.dumps(event).encode()
        text = text.replace(b"\n", b" ")
        lines.append(text + b"*%08x" % zlib.crc32(text) if random.random() < 0.98 else text)
    if random.random() < 0.1:
        random.shuffle(lines)
    if random.random() < 0.1:
        del lines[random.randrange(len(lines))]
    return b"\n".join(lines) + b"\n"


def _runner(folder: Path) -> Case:
    from edgesdk.devices.address import Settings
    from edgesdk.devices.runner.link import RunnerLink, answered
    from edgesdk.devices.serial import SerialDevice
    from edgesdk.errors import EdgeError

    class Board(SerialDevice):
        said: list[bytes]

        def stream(self, command: str = "") -> Replay:
            return Replay(self.said)

    board = Board("x", Settings("serial:/dev/null"))

    def run(files: Files) -> None:
        lines = files["lines"].split(b"\n")
        board.said = lines
        with suppress(EdgeError):
            board.facts()
        link = RunnerLink(Replay(lines), "x", seconds=2)
        answered(list(link.events([1, 2, 3], max_tokens=2)), link.hello)
        link.clock()

    return Case(lambda random: {"lines": _said(_EVENTS, random)}, run)


def _app(folder: Path) -> Case:
    from edgesdk.profile.app_result import read_result

    def run(files: Files) -> None:
        (folder / "result").write_bytes(files["result"])
        read_result(folder / "result").summary()

    return Case(lambda random: {"result": _said(_APP, random)}, run)


def _text(name: str, sample: str, read: Callable[[str], object]) -> Case:
    return Case(
        lambda random: {name: changed_text(random, sample)}, lambda files: read(files[name].decode("utf-8", "replace"))
    )


def _facts(folder: Path) -> Case:
    from edgesdk.devices.facts import matching, parsed

    return _text("facts", _FACTS, lambda text: matching(parsed(text)))


def _survey(folder: Path) -> Case:
    from edgesdk.devices import Settings
    from edgesdk.devices.base import Completed
    from edgesdk.devices.store import Store

    class Device:
        name, settings = "x", Settings("local")
        said = b""

        def need(self, ability: str) -> None:
            """It has all."""

        def run(self, command: str, **options: object) -> Completed:
            return Completed(0, self.said, b"")

    device = Device()
    store = Store(device)  # type: ignore[arg-type]

    def run(files: Files) -> None:
        device.said = files["survey"]
        store.survey()
        store.verify()
        store.clean()

    return Case(lambda random: {"survey": changed_text(random, _SURVEY)}, run)


def _sensors(folder: Path) -> Case:
    from edgesdk.profile.sensors import SOURCES, discovered
    from edgesdk.profile.sensors.ios import battery_values
    from edgesdk.profile.sensors.meters.base import parsed_line

    recordings = Path(__file__).parents[2] / "unit" / "sensor_recordings"
    samples = {path.name: path.read_text(encoding="utf-8", errors="replace") for path in sorted(recordings.iterdir())}

    def make(random: Random) -> Files:
        name = random.choice(tuple(samples))
        text = changed_text(random, samples[name][: random.choice((2000, len(samples[name])))])
        return {name: text, "line": changed_text(random, "1.5,5.0,0.25")}

    def run(files: Files) -> None:
        for name, content in files.items():
            text = content.decode("utf-8", "replace")
            if name.endswith(".json"):
                battery_values(text)
            elif name == "line":
                parsed_line(text)
            else:
                discovered(text)
                for source in SOURCES.names():
                    SOURCES.get(source).found(text)
                    SOURCES.get(source).values(text)

    return Case(make, run)


def _phones(folder: Path) -> Case:
    """The lists of go-ios and pymobiledevice3."""
    from edgesdk.devices.base import DeviceError
    from edgesdk.devices.ios import udids_in
    from edgesdk.documents import parse_json

    trees = ({"deviceList": ["00008030-001"]}, [{"Identifier": "0000", "UniqueDeviceID": "1", "ProductType": "iPhone"}])
    return Case(
        lambda random: {"list": changed_json(random, random.choice(trees))},
        lambda files: udids_in(parse_json(files["list"], "the list", DeviceError)),
    )


def _firmware(folder: Path) -> Case:
    """Firmware files that are flashed."""
    from edgesdk.devices.flash.images import Image, kind_of, read_image, to_uf2

    from ...unit.firmware_files import elf

    body = bytes(range(256)) * 4
    text = b":020000040800F2\n:1000000000010203040506070809"
    text += b"0A0B0C0D0E0F78\n:00000001FF\n"
    samples = {"x.elf": elf((0x8000000, body)), "x.hex": text, "x.uf2": to_uf2(Image(0x10000000, body), 0xE48BFF56)}

    def make(random: Random) -> Files:
        name = random.choice(tuple(samples))
        return {name: changed_bytes(random, samples[name])}

    def run(files: Files) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)
            kind_of(folder / name)
            read_image(folder / name)

    return Case(make, run)


def _loader(folder: Path) -> Case:
    """Frames of a microcontroller's loader, as the host takes them."""
    from edgesdk.devices.flash.frames import Receiver

    def run(files: Files) -> None:
        receiver = Receiver()
        for at in range(0, len(files["bytes"]), 7):
            receiver.take(files["bytes"][at : at + 7])
        receiver.noise()

    sample = b"\0\x03\x01\x02\x03\0" * 20
    return Case(lambda random: {"bytes": changed_bytes(random, sample)}, run)


TARGETS: dict[str, Opener] = {
    "runner": _runner,
    "app-result": _app,
    "facts": _facts,
    "survey": _survey,
    "sensors": _sensors,
    "phones": _phones,
    "firmware-file": _firmware,
    "loader-frames": _loader,
}
