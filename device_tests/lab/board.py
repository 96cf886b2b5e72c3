"""The board: a Linux of its own on an emulated 64-bit Arm machine, behind SSH, with real sensor drivers."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgesdk.errors import EdgeError

from .board_image import BoardImage, board_image, cpio
from .cache import using
from .host import BOARD, KBUILD, free_port, require, run, tool
from .kernel import MACHINE
from .processes import LIMIT, Kept
from .qmp import Qmp, connected

_START = 120.0  # seconds from power to SSH
_PAUSE = 0.05  # seconds between two looks
_COMMAND = 120.0  # seconds for one command
USER = "root"


@dataclass(frozen=True)
class Board:
    """A running board.

    Attributes:
        host: the loopback.
        port: of its SSH server, OpenSSH as on the real one.
        dropbear_port: of a second one, Dropbear as on small boards: no session of its own for a command.
        user: who may log in.
        key: the private key that opens it, made for this run.
        known_hosts: with the board's host key, made for this run.
        qmp: the hand on its power switch and its network cable.
        console: what its kernel prints.
    """

    host: str
    port: int
    dropbear_port: int
    user: str
    key: Path
    known_hosts: Path
    qmp: Qmp
    console: Path
    emulator: Kept

    @property
    def ssh_options(self) -> list[str]:
        """For ssh, scp (with ``-P`` for the port) and sftp."""
        known = ("StrictHostKeyChecking=yes", f"UserKnownHostsFile={self.known_hosts}", "IdentitiesOnly=yes")
        options = [part for each in (*known, "BatchMode=yes", "LogLevel=ERROR") for part in ("-o", each)]
        return ["-F", "none", "-i", str(self.key), *options]

    def run(self, command: str) -> str:
        """What a command prints there, by a plain ssh of its own.

        Raises:
            EdgeError: it failed.
        """
        address = ["-p", str(self.port), f"{self.user}@{self.host}"]
        line = [tool("ssh") or "ssh", *self.ssh_options, *address, command]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=_COMMAND)
        if done.returncode:
            raise EdgeError(f"{command}: status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def set_rail(self, rail: Literal[1, 2, 3], millivolt: int, milliampere: int) -> None:
        """What a power rail measures from now on, in steps of 8."""
        self.run(f"lab-sensor rail {rail} {millivolt} {milliampere}")

    def set_temperature(self, sensor: Literal["cpu", "gpu", "tj"], celsius: float) -> None:
        """What a thermal zone measures from now on, in steps of half a degree; at 104.5 the CPU shuts the board off."""
        self.run(f"lab-sensor temperature {sensor} {round(celsius * 1000)}")

    def wait(self, seconds: float = _START) -> None:
        """Until its SSH servers answer.

        Raises:
            EdgeError: the emulator ended, or time is over.
        """
        give_up = time.monotonic() + seconds
        for port, patience in ((self.dropbear_port, 3.0), (self.port, 10.0)):  # the small one first: it answers sooner
            while not self._answers(port, patience):
                self.emulator.check()
                if time.monotonic() > give_up:
                    said = self.console.read_text(encoding="utf-8", errors="replace") if self.console.exists() else ""
                    raise EdgeError(f"the board did not start in {seconds:g} s; its console: {said[-1500:]}")
                time.sleep(_PAUSE)

    def _answers(self, port: int, patience: float) -> bool:
        with suppress(OSError), socket.create_connection((self.host, port), 1) as probe:
            probe.settimeout(patience)
            return probe.recv(4) == b"SSH-"
        return False


@contextmanager
def board(*, limit: float = LIMIT) -> Iterator[Board]:
    """A board, newly started with a disk as it was built, until the block ends.

    Raises:
        LabUnavailableError: a tool or the network is missing.
        EdgeError: it does not start.
    """
    require(BOARD, [KBUILD])
    image = board_image()
    folder = Path(tempfile.mkdtemp(prefix="edgesdk-board-"))
    ports = free_port(), free_port()
    try:
        _keys(folder, ports)
        first = _with_keys(image, folder)
        command = _command(image, first, folder, ports)
        with using(image.folder), Kept(command, folder / "log", limit=limit, scratch=folder) as kept:
            qmp = connected(kept, folder / "qmp")
            key, known, console = folder / "key", folder / "known_hosts", folder / "console"
            made = Board("127.0.0.1", *ports, USER, key, known, qmp, console, kept)
            made.wait()
            try:
                yield made
            finally:
                qmp.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keys(folder: Path, ports: Iterable[int]) -> None:
    for name in ("key", "host_key"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "edgesdk-lab", "-f", folder / name])
    kind, public, _ = (folder / "host_key.pub").read_text(encoding="ascii").split()
    (folder / "known_hosts").write_text(
        "".join(f"[127.0.0.1]:{port} {kind} {public}\n" for port in ports), encoding="ascii"
    )


def _with_keys(image: BoardImage, folder: Path) -> Path:
    """The first programs with this run's keys after them."""
    entries = [
        ("keys/host_key", 0o100600, (folder / "host_key").read_bytes()),
        ("keys/authorized_keys", 0o100600, (folder / "key.pub").read_bytes()),
    ]
    path = folder / "initramfs"
    path.write_bytes(image.initramfs.read_bytes() + cpio(entries))
    return path


def _command(image: BoardImage, first: Path, folder: Path, ports: Iterable[int]) -> list[str | Path]:
    command: list[str | Path] = ["qemu-system-aarch64", *MACHINE, "-nodefaults", "-display", "none"]
    command += ["-kernel", image.kernel, "-initrd", first, "-dtb", image.tree]
    command += ["-append", "console=ttyAMA0 quiet panic=-1"]
    command += ["-drive", f"file={image.disk},format=raw,if=none,id=d0,snapshot=on"]
    command += ["-device", "virtio-blk-device,drive=d0"]
    forwarded = (f"hostfwd=tcp:127.0.0.1:{port}-:{inside}" for port, inside in zip(ports, (22, 2222), strict=True))
    network = f"user,id=n0,restrict=on,{','.join(forwarded)}"
    command += ["-netdev", network, "-device", "virtio-net-device,netdev=n0"]
    return [*command, "-serial", f"file:{folder / 'console'}", "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off"]
