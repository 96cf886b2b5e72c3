"""What goes wrong before any work: one clear error each, with the way out."""

from __future__ import annotations

import os
import pty
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

import edgesdk
from edgesdk.bundle import open_bundle
from edgesdk.devices import DeviceBusyError, DeviceError, DeviceGoneError, DeviceTimeoutError, Settings, open_device
from edgesdk.devices.adb import AdbDevice
from edgesdk.devices.discovery import discover, only_device
from edgesdk.devices.local import LocalDevice
from edgesdk.devices.locks import alone
from edgesdk.devices.serial import SerialDevice
from edgesdk.devices.ssh import SshDevice
from edgesdk.devices.store import Parcel, Store, refuse_misfit
from edgesdk.errors import BundleError, EdgeError
from edgesdk.files import file_entry
from edgesdk.model.random_weights import RandomWeights
from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope

from .conftest import sshd_settings
from .faults.adbd import Adbd, Faults
from .faults.sshd import Sshd
from .lab.phone import Phone


def refused(failure: pytest.ExceptionInfo[EdgeError], *words: str) -> None:
    assert failure.value.hint, "an error without a way out"
    assert "\n" not in failure.value.message
    for word in words:
        assert word in failure.value.message + failure.value.hint


def test_unknown_serial(server: int) -> None:
    with pytest.raises(DeviceGoneError) as failure:
        open_device("adb:NOSUCH")
    refused(failure, "adb:NOSUCH", "edgesdk devices")
    with pytest.raises(DeviceGoneError) as failure:
        open_device("adb:127.0.0.1:9")
    refused(failure, "127.0.0.1:9", "wireless debugging")


def test_two_devices_and_none_named(adbd: Adbd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_device(f"adb:{adbd.serial}")
    Path("devices.toml").write_text('[one]\naddress = "ssh:a@b"\n')
    with pytest.raises(DeviceError) as failure:
        only_device(Path("devices.toml"))
    refused(failure, "devices and none is named", "one", adbd.serial, "--device")
    other = Adbd(tmp_path)
    open_device(f"adb:{other.serial}")
    with pytest.raises(DeviceError) as failure:
        open_device("adb:")
    refused(failure, "Android devices are attached", adbd.serial, other.serial)
    from edgesdk.devices.adb import client

    client().disconnect(other.serial)
    other.close()


def test_unauthorized(server: int, tmp_path: Path) -> None:
    locked = Adbd(tmp_path, Faults(unauthorized=True))
    with pytest.raises(DeviceError) as failure:
        open_device(f"adb:{locked.serial}")
    refused(failure, "unauthorized", "allow USB debugging")
    from edgesdk.devices.adb import client

    client().disconnect(locked.serial)
    locked.close()


def test_changed_and_unknown_host_key(sshd: Sshd, tmp_path: Path) -> None:
    good = sshd_settings(sshd, tmp_path)
    assert SshDevice("board", good).run("echo in").stdout == b"in\n"
    other = paramiko.RSAKey.generate(2048)
    hosts = tmp_path / "changed"
    hosts.write_text(f"[127.0.0.1]:{sshd.port} {other.get_name()} {other.get_base64()}\n")
    with pytest.raises(DeviceError) as failure:
        SshDevice("board", replace(good, known_hosts=str(hosts))).run("true")
    refused(failure, "another host key", "ssh-keygen", str(hosts))
    hosts.write_text("")
    with pytest.raises(DeviceError) as failure:
        SshDevice("board", replace(good, known_hosts=str(hosts))).run("true")
    refused(failure, "not in", "fingerprint")
    assert hosts.read_text() == "", "a host was trusted in silence"


def test_a_key_that_is_not_let_in(sshd: Sshd, tmp_path: Path) -> None:
    good = sshd_settings(sshd, tmp_path)
    paramiko.RSAKey.generate(2048).write_private_key_file(str(tmp_path / "wrong"))
    with pytest.raises(DeviceError) as failure:
        SshDevice("board", replace(good, key=str(tmp_path / "wrong"))).run("true")
    refused(failure, "does not let this user in", "key = ")


def test_a_channel_that_closes_instead_of_starting_its_command(sshd: Sshd, tmp_path: Path) -> None:
    with SshDevice("sshd", sshd_settings(sshd, tmp_path)) as device:
        sshd.unstarted = 3
        assert device.run(f"echo once >> '{tmp_path}/told'; cat '{tmp_path}/told'").stdout == b"once\n"
        sshd.unstarted = 4
        with pytest.raises(DeviceError, match="Channel closed"):
            device.run("true")
        assert sshd.unstarted == 0 and device.run("echo well").stdout == b"well\n"


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(DeviceGoneError) as failure:
        open_device(f"ssh:nobody@127.0.0.1:{port}").run("true")
    refused(failure, "cannot be reached", "address")


def test_wrong_architecture(tmp_path: Path) -> None:
    attention = Attention(2, 1, 16, 0.25, Rope(10000.0))
    spec = DecoderSpec("llama", 97, 32, 64, (Layer(attention, Mlp(64, "silu")),), 1e-5, tied=True)
    model = edgesdk.Model(spec, RandomWeights(spec))
    checks = edgesdk.Checks(skip=True)
    edgesdk.export(model, "linux-arm64", tmp_path / "bundle", recipe="none", context=64, checks=checks)
    with open_bundle(tmp_path / "bundle") as bundle:
        facts = LocalDevice("local", Settings("local")).facts()
        with pytest.raises(BundleError) as failure:
            refuse_misfit(bundle, replace(facts, architecture="x86_64"), "local")
        refused(failure, "aarch64", "x86_64", "edgesdk targets")
        with pytest.raises(BundleError) as failure:
            refuse_misfit(bundle, replace(facts, architecture="aarch64", os="ios"), "phone")
        refused(failure, "ios", "linux")
        assert refuse_misfit(bundle, replace(facts, architecture="aarch64", os="android"), "phone") is not None


def test_a_read_only_partition_and_a_full_one(adbd: Adbd, tmp_path: Path) -> None:
    adbd.reset()
    for options, words in (("ro", ("Read-only", "store =")), ("size=1m", ("MB must go", "device clean"))):
        folder = tmp_path / options
        folder.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=False).returncode:
            pytest.skip("only root can mount")
        try:
            (tmp_path / "file").write_bytes(os.urandom(3_000_000))
            parcel = Parcel("a", tmp_path, (file_entry(tmp_path / "file"),))
            device = AdbDevice("phone", Settings(f"adb:{adbd.serial}", store=f"{folder}/store"))
            with pytest.raises(DeviceError) as failure:
                Store(device).push(parcel)
            refused(failure, *words)
        finally:
            subprocess.run(["umount", folder], check=True)


def test_a_serial_port_that_is_busy_or_gone() -> None:
    ours, theirs = pty.openpty()
    name = os.ttyname(theirs)
    first = SerialDevice("board", Settings(f"serial:{name}")).port()
    with pytest.raises(DeviceBusyError) as failure:
        SerialDevice("board", Settings(f"serial:{name}")).port()
    refused(failure, "in use")
    first.close()
    with pytest.raises(DeviceTimeoutError) as timeout:
        SerialDevice("board", Settings(f"serial:{name}")).facts()
    refused(timeout, "says hello", "edgesdk flash")
    os.close(ours)
    os.close(theirs)
    with pytest.raises(DeviceGoneError) as gone:
        SerialDevice("board", Settings("serial:/dev/ttyNOSUCH")).port()
    refused(gone, "ttyNOSUCH", "plugged in")


def test_verbs_that_a_transport_lacks() -> None:
    device = SerialDevice("board", Settings("serial:/dev/ttyNOSUCH"))
    for verb in (lambda: device.run("true"), lambda: device.push(Path("x"), "y"), device.reboot):
        with pytest.raises(DeviceError, match=r"board cannot .*; it can be flashed, talk over a line"):
            verb()


def test_two_processes_and_one_device(tmp_path: Path) -> None:
    device = LocalDevice("mine", Settings("local"))
    code = (
        "from edgesdk.devices import open_device\nfrom edgesdk.devices.locks import alone\n"
        "with alone(open_device('local'), 'a long push'):\n    print('has it', flush=True)\n    input()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == b"has it\n"
        with pytest.raises(DeviceBusyError) as failure, alone(device, "test"):
            pass
        refused(failure, "mine is in use", f"process {other.pid}", "a long push")
        other.stdin.close()
    with alone(device, "test"):
        pass


def test_two_names_of_one_board(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path / "cache"))
    good = sshd_settings(sshd, tmp_path)
    hosts = Path(str(good.known_hosts))
    hosts.write_text(hosts.read_text() + hosts.read_text().replace("127.0.0.1", "localhost"))
    named = replace(good, address=good.address.replace("127.0.0.1", "localhost"))
    with SshDevice("by address", good) as first, SshDevice("by name", named) as second:
        with alone(first, "a long push"), pytest.raises(DeviceBusyError) as failure, alone(second, "test"):
            pass
        refused(failure, "by name is in use")
        with alone(second, "test"):
            pass
    fleet = tmp_path / "devices.toml"
    keys = f'key = "{good.key}"\nknown_hosts = "{hosts}"\n'
    fleet.write_text(f'[one]\naddress = "{good.address}"\n{keys}[two]\naddress = "{named.address}"\n{keys}')
    found = {each.name: each for each in discover(fleet)}  # at once, and neither is in the other's way
    assert found["one"].problem is None and found["two"].problem is None


def test_one_phone_by_two_addresses(lab_phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's adb server and Android's own adbd; the phone says for once that it is no emulator."""
    from edgesdk.devices.adb import client

    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path / "cache"))
    port = lab_phone.serial.rpartition(":")[2]
    before = AdbDevice("emulated", Settings(f"adb:{lab_phone.serial}"))
    assert before.identity == f"adb:{lab_phone.serial}"
    before.run("mkdir -p /data/lab; printf '%s\\n' ro.boot.qemu=0 ro.kernel.qemu=0 > /data/lab/props", check=True)
    first, second = (AdbDevice(name, Settings(f"adb:{name}")) for name in (lab_phone.serial, f"localhost:{port}"))
    try:
        assert first.serial != second.serial and first.identity == second.identity == "adb:LAB0000001"
        with alone(first, "a profile"), pytest.raises(DeviceBusyError), alone(second, "another"):
            pass
    finally:
        before.run("rm -f /data/lab/props")
        client().disconnect(second.serial)


def test_a_fleet_is_listed_with_what_is_wrong(adbd: Adbd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adbd.reset()
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    Path("devices.toml").write_text(
        f'[phone]\naddress = "adb:{adbd.serial}"\n[board]\naddress = "ssh:nobody@127.0.0.1:{port}"\n'
    )
    found = {each.name: each for each in discover(Path("devices.toml"))}
    assert found["phone"].facts is not None and found["phone"].problem is None
    assert found["board"].facts is None and "cannot be reached" in (found["board"].problem or "")
    assert "linux-x86_64" in found["local"].targets or found["local"].facts.architecture != "x86_64"  # type: ignore[union-attr]
    assert f"adb:{adbd.serial}" not in found, "listed twice"


@pytest.mark.parametrize("program", ["ios", "pymobiledevice3"])
def test_ios_programs(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins that print what the real ones do: no claim about a phone."""
    script = tmp_path / program
    listing = '{"deviceList":["00008110-A"]}' if program == "ios" else '[{"Identifier":"00008110-A"}]'
    script.write_text(
        f"""#!/bin/sh
echo "$@" >> {tmp_path}/said
case "$*" in
    list|"usbmux list") echo '{listing}' ;;
    info*|lockdown*) echo '{{"ProductType":"iPhone14,5","ProductVersion":"18.1","CPUArchitecture":"arm64e"}}' ;;
    *pull*) for last; do :; done; last=${{last#--dstPath=}}; echo content > "$last" ;;
    *reboot*|*restart*) echo refused >&2; exit 3 ;;
esac
"""
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(shutil.which('sh') or '/bin/sh').parent}")
    monkeypatch.setenv("EDGESDK_DEVICES", str(tmp_path / "devices.toml"))
    (tmp_path / "devices.toml").write_text('[phone]\naddress = "ios:00008110-A"\napp = "org.example.chat"\n')
    device = open_device("phone")
    facts = device.facts()
    assert (facts.os, facts.model, facts.release, facts.architecture) == ("ios", "iPhone14,5", "18.1", "aarch64")
    device.push(script, "Documents/x")
    device.pull("Documents/x", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "content\n"
    with pytest.raises(DeviceError, match="refused"):
        device.reboot()
    with pytest.raises(DeviceError, match="cannot run commands"):
        device.run("true")
    with pytest.raises(DeviceGoneError) as gone:
        open_device("ios:OTHER")
    refused(gone, "00008110-A")
    with pytest.raises(DeviceError) as failure:
        open_device("ios:00008110-A").push(script, "x")
    refused(failure, "app = ")
