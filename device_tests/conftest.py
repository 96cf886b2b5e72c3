"""Devices of the tests: this machine, our own failing adbd, the lab's, and real ones that the command line names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgesdk.devices import Settings, open_device
from edgesdk.devices.adb import AdbDevice
from edgesdk.devices.local import LocalDevice
from edgesdk.devices.shell import ShellDevice
from edgesdk.devices.ssh import SshDevice

from .faults.adbd import Adbd
from .faults.sshd import USER, Sshd
from .lab import Lab, LabUnavailableError, up
from .lab.board import Board
from .lab.phone import Phone, adb_server
from .lab.processes import LIMIT

if TYPE_CHECKING:
    from .android.kotlin import App

# Files that share what takes long to start or to build: with `-n 2` a group has one process, as other files do.
GROUPS = {
    "lab": ("contract", "faults", "profile_board", "refusals", "relay", "running", "service_board"),
    "android": ("android_benchmark", "android_bundle", "android_kotlin"),
}
KINDS = ("local", "adbd", "sshd", "phone", "board", "dropbear")


@pytest.fixture(scope="session")
def lab() -> Lab:
    """Emulated devices on demand."""
    return up()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """An adb server of our own, on a free port, for every adb device of the tests."""
    with adb_server(tmp_path_factory.mktemp("adb"), LIMIT) as (_, port), pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        yield port


@pytest.fixture(scope="session")
def lab_phone(lab: Lab, server: int) -> Iterator[Phone]:
    """The emulated phone, or a skip that says what is missing."""
    with _or_skip(lab.phone) as found:
        yield found


@pytest.fixture(scope="session")
def lab_board(lab: Lab) -> Iterator[Board]:
    """The emulated board, or a skip that says what is missing."""
    with _or_skip(lab.board) as found:
        yield found


@dataclass(frozen=True)
class Place:
    """A device and where a test may write on it."""

    device: ShellDevice
    folder: str


@pytest.fixture(scope="session")
def adbd(server: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adbd]:
    """An adbd that fails when it is told to."""
    daemon = Adbd(tmp_path_factory.mktemp("adbd"))
    yield daemon
    daemon.close()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An SSH server in this process."""
    daemon = Sshd(tmp_path_factory.mktemp("sshd"))
    yield daemon
    daemon.close()


def sshd_settings(daemon: Sshd, folder: Path, store: str | None = None) -> Settings:
    """How the server is reached by a user whom it knows and who knows it; files go into ``folder``."""
    key, hosts = daemon.write_key(folder / "key"), daemon.write_known_hosts(folder / "known_hosts")
    return Settings(f"ssh:{USER}@127.0.0.1:{daemon.port}", store=store, key=str(key), known_hosts=str(hosts))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """With ``-n``: whole groups of files, the one with most tests first."""
    from xdist.scheduler import LoadFileScheduling

    groups = {f"test_{name}": group for group, names in GROUPS.items() for name in names}

    class ByGroup(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            name = Path(super()._split_scope(nodeid)).stem
            return groups.get(name, name)

    return ByGroup(config, log)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Contract tests run on every kind of device, and on those that the command line names."""
    if "place" in metafunc.fixturenames:
        named = metafunc.config.getoption("--edge-device")
        metafunc.parametrize("place", [*KINDS, *named], indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A device with an empty folder and an empty store in it."""
    kind: str = request.param
    if kind == "local":
        home = str(request.getfixturevalue("tmp_path") / "home of it")
        device: ShellDevice = LocalDevice("local", Settings("local", store=f"{home}/store"))
    elif kind == "adbd":
        daemon: Adbd = request.getfixturevalue("adbd")
        daemon.reset()
        home = str(daemon.home / "contract")
        device = AdbDevice("fault", Settings(f"adb:{daemon.serial}", store=f"{home}/store"))
    elif kind == "sshd":
        server: Sshd = request.getfixturevalue("sshd")
        home = str(server.home / "contract")
        device = SshDevice("sshd", sshd_settings(server, request.getfixturevalue("tmp_path"), f"{home}/store"))
    elif kind == "phone":
        phone: Phone = request.getfixturevalue("lab_phone")
        home = "/data/local/tmp/contract"
        device = AdbDevice("phone", Settings(f"adb:{phone.serial}", store=f"{home}/store"))
    elif kind in ("board", "dropbear"):
        board: Board = request.getfixturevalue("lab_board")
        home = "/root/contract"
        port = board.port if kind == "board" else board.dropbear_port
        device = SshDevice(kind, board_settings(board, f"{home}/store", port))
    else:
        opened = open_device(kind, request.config.getoption("--edge-devices-file"))
        if not isinstance(opened, ShellDevice):
            pytest.skip(f"{kind} runs no commands")
        device, home = opened, f"{opened.facts().home}/edgesdk-contract"
    device.run(f"rm -rf '{home}'; mkdir -p '{home}'", check=True)
    yield Place(device, home)
    device.run(f"rm -rf '{home}'")
    device.close()


def board_settings(board: Board, store: str | None = None, port: int | None = None) -> Settings:
    """How the board is reached."""
    address = f"ssh:{board.user}@{board.host}:{port or board.port}"
    return Settings(address, store=store, key=str(board.key), known_hosts=str(board.known_hosts))


class _or_skip(ExitStack):  # noqa: N801 (reads as a verb)
    def __init__(self, start: object) -> None:
        super().__init__()
        self._start = start

    def __enter__(self):  # type: ignore[no-untyped-def]
        try:
            return self.enter_context(self._start())  # type: ignore[operator]
        except LabUnavailableError as failure:
            pytest.skip(f"{failure.message} ({failure.hint})")


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phone's bundle of a model that says what it is told to; tests must not change it."""
    from .android.chain import chain_bundle

    return chain_bundle(tmp_path_factory.mktemp("chain") / "bundle")


@pytest.fixture(scope="session")
def classpath() -> list[Path]:
    """What Kotlin for Android is compiled against, or a skip that says what is missing."""
    from .android.kotlin import libraries, stubs

    try:
        return [*libraries(), stubs()]
    except LabUnavailableError as failure:
        pytest.skip(f"{failure.message} ({failure.hint})")


@pytest.fixture(scope="session")
def android_app(chain: Path, classpath: list[Path], tmp_path_factory: pytest.TempPathFactory) -> App:
    """The Android project with its model in the app's assets, compiled; tests must not change it."""
    from .android.kotlin import App

    return App(chain, tmp_path_factory.mktemp("app"), classpath)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own example model, barely trained."""
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("tiny") / "model"
    script = Path(__file__).parents[1] / "examples" / "tiny_model" / "train.py"
    subprocess.run([sys.executable, script, "--quick", "--out", folder], check=True, capture_output=True)
    return folder
