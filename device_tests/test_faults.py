"""200 pushes that are broken on purpose (or EDGESDK_FAULTS); what holds after each is in ``faults/campaign.py``."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Timer

import pytest

from edgesdk.devices import Settings, adb, shell, ssh
from edgesdk.devices.adb import AdbDevice
from edgesdk.devices.ssh import SshDevice

from .conftest import board_settings, sshd_settings
from .faults.adbd import Adbd, Faults
from .faults.campaign import SIZE, Campaign, Fault
from .faults.sshd import Sshd
from .lab.board import Board
from .lab.phone import Phone
from .lab.relay import Relay

#: How many, of which each kind of device has its share.
ALL = int(os.environ.get("EDGESDK_FAULTS", "200"))


def share(percent: int) -> int:
    return max(2, round(ALL * percent / 100))


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Campaign]:
    """All injections of this module; the table is printed at the end."""
    made = Campaign(tmp_path_factory.mktemp("bundles"))
    yield made
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n" + "\n".join(made.table()))
        print(", ".join(f"{count} x {name}" for name, count in made.words.items()))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stalled line is given up after seconds, not after a minute."""
    for module in (adb, shell, ssh):
        monkeypatch.setattr(module, "_STALL", 3.0)


def test_an_adbd_that_fails(campaign: Campaign, adbd: Adbd, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", disk], check=False).returncode:
        pytest.skip("only root can mount a small disk")
    filler = disk / "filler"

    def fill() -> None:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        filler.write_bytes(bytes(max(0, free - 4096)))

    def heal() -> None:
        adbd.reset()
        filler.unlink(missing_ok=True)

    faults = [
        Fault("cut", lambda at: adbd.reset(Faults(cut_at=at)), heal),
        Fault("a byte changed", lambda at: adbd.reset(Faults(corrupt_at=at)), heal),
        Fault("shell killed", lambda at: adbd.reset(Faults(drop_shell_at=at)), heal),
        Fault("disk full", lambda at: adbd.reset(Faults(call_at=at, call=fill)), heal),
        Fault("line stalls", lambda at: adbd.reset(Faults(stall_at=at)), heal),
    ]
    settings = Settings(f"adb:{adbd.serial}", store=f"{disk}/store")
    try:
        campaign.inject("own adbd", partial(AdbDevice, "fault", settings), faults, share(73), seed=1)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_an_ssh_server_behind_a_bad_network(campaign: Campaign, sshd: Sshd, tmp_path: Path) -> None:
    with Relay(("127.0.0.1", sshd.port)) as relay:
        good = sshd_settings(sshd, tmp_path)
        Path(good.known_hosts or "").write_text(
            f"[127.0.0.1]:{relay.port} {sshd.host_key.get_name()} {sshd.host_key.get_base64()}\n"
        )
        settings = Settings(
            good.address.replace(str(sshd.port), str(relay.port)),
            store=str(sshd.home / "faults"),
            key=good.key,
            known_hosts=good.known_hosts,
        )
        faults = [
            Fault("cut", relay.cut_after, relay.normal),
            Fault("a byte changed", relay.corrupt_at, relay.normal),
            Fault("refused", lambda at: relay.refuse(), relay.normal),
        ]
        campaign.inject("ssh server", partial(SshDevice, "sshd", settings), faults, share(15), seed=2)


def test_a_phone_with_a_bad_cable(campaign: Campaign, lab_phone: Phone) -> None:
    relay = lab_phone.relay
    faults = [
        Fault("cut", relay.cut_after, relay.normal),
        Fault("a byte changed", relay.corrupt_at, relay.normal),
        Fault("unplugged", lambda at: relay.refuse(), relay.normal),
    ]
    settings = Settings(f"adb:{lab_phone.serial}", store="/data/local/tmp/faults")
    campaign.inject("phone", partial(AdbDevice, "phone", settings), faults, share(10), seed=3)


def test_a_board_that_is_reset(campaign: Campaign, lab_board: Board) -> None:
    with Relay((lab_board.host, lab_board.port)) as relay:
        good = board_settings(lab_board)
        hosts = Path(lab_board.known_hosts).read_text().replace(str(lab_board.port), str(relay.port))
        known = campaign.folder / "known_hosts"
        known.write_text(hosts)
        settings = Settings(f"ssh:{lab_board.user}@{lab_board.host}:{relay.port}", "/root/faults", good.key, str(known))
        resets: list[Timer] = []

        def reset(at: int) -> None:
            """The power goes while bytes are on their way; what the disk did not have is lost."""
            relay.stall(at, "up")
            resets.append(Timer(1.0, lab_board.qmp.reset))
            resets[-1].start()

        def boot() -> None:
            resets[-1].join()
            relay.normal()
            lab_board.wait()

        faults = [Fault("cut", relay.cut_after, relay.normal), Fault("reset", reset, boot)]
        campaign.inject("board", partial(SshDevice, "board", settings), faults, share(2), seed=4)


def test_enough_was_broken(campaign: Campaign) -> None:
    kinds = {name.partition(":")[0] for name in campaign.tallies}
    if kinds == {"own adbd", "ssh server", "phone", "board"}:
        assert campaign.count >= ALL
    tallies = campaign.tallies.values()
    assert all(tally.failed + tally.done for tally in tallies)
    assert sum(tally.failed for tally in tallies) > campaign.count / 2, "most faults must bite"
    assert SIZE > 0
