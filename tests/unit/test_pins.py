"""Pinned keys: what is refused before anything is sent, on a real store of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgesdk.bundle import SIGNATURE, open_bundle
from edgesdk.cli import run
from edgesdk.devices import Settings
from edgesdk.devices.local import LocalDevice
from edgesdk.devices.runner.start import running
from edgesdk.devices.serial import SerialDevice
from edgesdk.devices.store import Parcel, Store
from edgesdk.signing import SignatureError, pins

from .signed_bundles import Signers, flip, small_bundle

pytestmark = pytest.mark.usefixtures("own_configuration")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return small_bundle(tmp_path / "bundle")


@pytest.fixture
def device(tmp_path: Path) -> LocalDevice:
    return LocalDevice("bench", Settings("local", store=str(tmp_path / "store")))


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    file = tmp_path / "devices.toml"
    file.write_text(f'[bench]\naddress = "local"\nstore = "{tmp_path / "bench-store"}"\n')
    return file


def put(device: LocalDevice, path: Path) -> str:
    with open_bundle(path) as opened:
        return Store(device).push(Parcel.of_bundle(opened)).path


def sent(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def attacks(signers: Signers, bundle: Path) -> dict[str, tuple[Path, str]]:
    """What the issue lists, each with a word of its refusal; version 5 came before."""
    changed = signers.signed(bundle, version=6)
    text = (changed / SIGNATURE).read_text()
    (changed / SIGNATURE).write_text(text.replace('"version": 6', '"version": 7'))
    return {
        "unsigned": (bundle, "is not signed"),
        "signed with key B": (signers.signed(bundle, signers.b, 6), "is signed with key"),
        "changed by one byte": (changed, "one of them was changed"),
        "older": (signers.signed(bundle, version=4), "version 4, which is older than 5"),
    }


def test_push_refuses_each_attack_before_anything_is_sent(bundle, signers, fleet, tmp_path, capsys) -> None:
    assert run(["keys", "pin", f"{signers.a}.pub", "--device", "bench", "--devices", str(fleet), "--oldest", "5"]) == 0
    push = ["push", "--device", "bench", "--devices", str(fleet)]
    for name, (path, words) in attacks(signers, bundle).items():
        assert run([*push, str(path)]) == 1, name
        assert words in capsys.readouterr().err, name
        assert sent(tmp_path / "bench-store") == [], name
    flipped = signers.signed(bundle, version=6)
    flip(flipped / "model.onnx")
    assert run([*push, str(flipped)]) == 1 and "SHA-256" in capsys.readouterr().err
    assert run([*push, str(signers.signed(bundle, version=5))]) == 0
    assert (tmp_path / "bench-store" / "bundles").is_dir() and sent(tmp_path / "bench-store")


def test_every_way_to_a_device_reads_the_pins(bundle, signers, device, tmp_path) -> None:
    pins.pin(signers.public_a, oldest=5)
    for path, words in attacks(signers, bundle).values():
        with open_bundle(path) as opened:
            with pytest.raises(SignatureError, match=words), running(device, opened):
                pass
            board = SerialDevice("board", Settings("serial:/dev/null@115200"))
            with pytest.raises(SignatureError, match=words), running(board, opened):
                pass
    assert sent(tmp_path / "store") == []


def test_flash_and_profile_refuse_before_they_begin(bundle, signers, fleet, tmp_path, capsys) -> None:
    pins.pin(signers.public_a, oldest=5)
    at = ["--device", "bench", "--devices", str(fleet)]
    for path, words in attacks(signers, bundle).values():
        for command in ("flash", "profile"):
            more = ["--out", str(tmp_path / "p.json"), "--no-history"] if command == "profile" else []
            assert run([command, *at, *more, str(path)]) == 1
            assert words in capsys.readouterr().err
        assert run(["flash", "--device", "serial:/dev/null", str(path)]) == 1
        assert words in capsys.readouterr().err
    assert sent(tmp_path / "bench-store") == []


def test_the_newest_version_is_remembered_and_the_signature_goes_along(bundle, signers, device) -> None:
    pins.pin(signers.public_a)
    there = Path(put(device, signers.signed(bundle, version=7)))
    assert json.loads((there / SIGNATURE).read_text())["version"] == 7
    with pytest.raises(SignatureError, match="version 6, which is older than 7"):
        put(device, signers.signed(bundle, version=6))
    put(device, signers.signed(bundle, version=7))
    assert put(device, signers.signed(bundle, version=8)) != str(there)  # the same files, another signature
    assert [each.newest for each in pins.read_pins().pins] == [8]


def test_a_key_is_changed_for_another_while_both_count(bundle, signers, device) -> None:
    pins.pin(signers.public_a)
    put(device, signers.signed(bundle, version=3))
    pins.pin(signers.public_b)
    put(device, signers.signed(bundle, signers.b, 4))
    with pytest.raises(SignatureError, match="older than 4"):  # versions go on across keys
        put(device, signers.signed(bundle, version=3))
    pins.revoke(signers.public_a)
    with pytest.raises(SignatureError, match="was revoked"):
        put(device, signers.signed(bundle, version=9))
    put(device, signers.signed(bundle, signers.b, 5))
    with pytest.raises(SignatureError, match="was revoked"):
        pins.pin(signers.public_a)
    pins.revoke(signers.public_b)
    with pytest.raises(SignatureError, match="every key of it was revoked"):
        put(device, bundle)
    pins.unpin(signers.public_a)
    pins.unpin(signers.public_b)
    put(device, bundle)
    with pytest.raises(SignatureError, match="is not pinned for every device"):
        pins.unpin(signers.public_a)


def test_a_pin_of_a_device_counts_under_its_name_and_its_address(bundle, signers) -> None:
    pins.pin(signers.public_b)
    pins.pin(signers.public_a, "bench", "ssh:a@b", oldest=2)
    found = pins.read_pins()
    for names in (("bench", "ssh:new@place"), ("ssh:a@b", "ssh:a@b"), ("renamed", "ssh:a@b")):
        pin = found.for_device(*names)
        assert pin is not None and pin.keys == (signers.public_a,)
    everyone = found.for_device("other", "ssh:c@d")
    assert everyone is not None and everyone.keys == (signers.public_b,)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "\xff",
        '{"pins": [{"device": null, "address": null, "keys": ["x"], "newest": 1}]}',
        '{"pins": [{"device": null, "address": null, "keys": [], "newest": 0}]}',
        '{"revoked": ["AA"]}',
        '{"pinned": []}',
        "[" * 100_000,
    ],
)
def test_a_record_that_cannot_be_read_pins_everything(bundle, device, own_configuration, text, tmp_path) -> None:
    own_configuration.mkdir(parents=True)
    (own_configuration / "keys.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(SignatureError, match=r"keys\.json"):
        put(device, bundle)
    assert sent(tmp_path / "store") == []


def test_the_command_line_lists_and_forgets(signers, capsys) -> None:
    for words in (["pin", signers.public_a], ["pin", f"{signers.b}.pub"], ["revoke", signers.public_b]):
        assert run(["keys", *words]) == 0
    capsys.readouterr()
    assert run(["keys", "list"]) == 0
    said = capsys.readouterr().out
    assert signers.public_a in said and f"{signers.public_b}  revoked" in said
    assert run(["keys", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["revoked"] == [signers.public_b]
    assert run(["keys", "unpin", signers.public_b]) == 0
    assert run(["keys", "unpin", signers.public_b]) == 1
    assert run(["keys", "pin", "nonsense"]) == 1
    assert run(["keys", "pin", signers.public_a, "--device", "nobody"]) == 1
    assert "no device 'nobody'" in capsys.readouterr().err


def test_going_back_asks_for_the_key_and_not_for_the_version(tmp_path, signers, bundle) -> None:
    device = LocalDevice("here", Settings("local", store=str(tmp_path / "store")))
    store = Store(device)
    other = small_bundle(tmp_path / "other", b"other" * 100)

    def pushed(path: Path) -> str:
        with open_bundle(path) as opened:
            return store.push(Parcel.of_bundle(opened)).name

    pushed(bundle)  # before there was a pin
    pins.pin(signers.public_a)
    old = pushed(signers.signed(bundle, version=3))
    new = pushed(signers.signed(other, version=4))
    assert store.rollback() == old and store.rollback() == new
    pins.revoke(signers.public_a)
    with pytest.raises(SignatureError, match="revoked"):
        store.rollback()


def test_going_back_to_what_nobody_signed_is_refused(tmp_path, signers, bundle) -> None:
    store = Store(LocalDevice("here", Settings("local", store=str(tmp_path / "store"))))
    other = small_bundle(tmp_path / "other", b"other" * 100)
    for path in (bundle, signers.signed(other)):
        with open_bundle(path) as opened:
            store.push(Parcel.of_bundle(opened))
    pins.pin(signers.public_a)
    with pytest.raises(SignatureError, match="is not signed"):
        store.rollback()
