"""Signatures: made, checked, and every way to be wrong; keys as files; the pure verifier beside the library's."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import edgesdk
from edgesdk.bundle import FILE, SIGNATURE, open_bundle, pack
from edgesdk.cli import run
from edgesdk.errors import BundleError, EdgeError
from edgesdk.signing import SignatureError, ed25519, keys
from edgesdk.signing.signature import check, read_signature, sign
from edgesdk.signing.statement import LARGEST_VERSION, statement

from .signed_bundles import flip, small_bundle

pytestmark = pytest.mark.usefixtures("own_configuration")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return small_bundle(tmp_path / "bundle")


def checked(path: Path, *allowed: str, oldest: int = 1) -> int:
    with open_bundle(path) as opened:
        return check(opened, allowed, oldest=oldest).version


def test_a_signature_changes_nothing_else_and_holds_as_folder_and_zip(bundle, signers, tmp_path) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    sign(bundle, signers.a, 7)
    after = {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert after.pop(SIGNATURE) and after == before
    assert checked(bundle, signers.public_a) == 7
    pack(bundle, tmp_path / "of-folder.zip")
    assert checked(tmp_path / "of-folder.zip", signers.public_a) == 7
    (bundle / SIGNATURE).unlink()
    pack(bundle, tmp_path / "zip.zip")
    sign(tmp_path / "zip.zip", signers.a, 7)
    assert (tmp_path / "zip.zip").read_bytes() == (tmp_path / "of-folder.zip").read_bytes()


def test_what_is_wrong_with_a_signature_is_said(bundle, signers) -> None:
    with pytest.raises(SignatureError, match="is not signed"):
        checked(bundle, signers.public_a)
    with pytest.raises(SignatureError, match="is signed with key"):
        checked(signers.signed(bundle, signers.b), signers.public_a)
    assert checked(signers.signed(bundle, signers.b), signers.public_a, signers.public_b) == 5
    with pytest.raises(SignatureError, match="version 4, which is older than 5"):
        checked(signers.signed(bundle, version=4), signers.public_a, oldest=5)
    assert checked(signers.signed(bundle, version=5), signers.public_a, oldest=5) == 5


def test_one_changed_bit_anywhere_is_refused(bundle, signers) -> None:
    signed = signers.signed(bundle)
    for path in sorted(signed.iterdir()):
        whole = path.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 60)):
            flip(path, at)
            with pytest.raises(EdgeError):
                checked(signed, signers.public_a)
            path.write_bytes(whole)
    assert checked(signed, signers.public_a) == 5


def test_signature_of_another_bundle_or_version_is_refused(bundle, signers, tmp_path) -> None:
    signed = signers.signed(bundle)
    other = small_bundle(tmp_path / "other", b"other weights")
    shutil.copy(signed / SIGNATURE, other)
    with pytest.raises(SignatureError, match="not of this bundle"):
        checked(other, signers.public_a)
    data = json.loads((signed / SIGNATURE).read_text())
    for change in ({"version": 6}, {"key": signers.public_b}, {"signature": "00" * 64}):
        (signed / SIGNATURE).write_text(json.dumps({**data, **change}))
        with pytest.raises(SignatureError, match="not of this bundle"):
            checked(signed, signers.public_a, signers.public_b)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"schema": True},
        {"schema": 0},
        {"algorithm": "none"},
        {"key": "AB" * 32},
        {"key": 7},
        {"version": 0},
        {"version": -1},
        {"version": "5"},
        {"version": 5.0},
        {"version": True},
        {"version": LARGEST_VERSION + 1},
        {"manifest": "../x"},
        {"signature": ""},
        {"more": 1},
        None,
    ],
)
def test_a_file_that_is_no_signature_is_named(bundle, signers, change) -> None:
    signed = signers.signed(bundle)
    data = json.loads((signed / SIGNATURE).read_text())
    (signed / SIGNATURE).write_text("[" * 4000 if change is None else json.dumps({**data, **change}))
    with pytest.raises(SignatureError, match=SIGNATURE):
        checked(signed, signers.public_a)


def test_a_signature_file_is_a_small_regular_one(bundle, signers, tmp_path) -> None:
    signed = signers.signed(bundle)
    (signed / SIGNATURE).rename(tmp_path / "moved")
    (signed / SIGNATURE).symlink_to(tmp_path / "moved")
    with pytest.raises(EdgeError):
        checked(signed, signers.public_a)
    (signed / SIGNATURE).unlink()
    (signed / SIGNATURE).write_text(" " * 5000)
    with pytest.raises(SignatureError, match="too large"):
        checked(signed, signers.public_a)


def test_no_manifest_lists_the_signature(bundle, signers) -> None:
    from dataclasses import replace

    from edgesdk.bundle import Manifest
    from edgesdk.files import file_entry

    signed = signers.signed(bundle)
    manifest = Manifest.parse((signed / FILE).read_text(), FILE)
    listed = replace(manifest, files=(*manifest.files, file_entry(signed / SIGNATURE)))
    (signed / FILE).write_text(listed.text())
    with pytest.raises(BundleError, match=f"lists {SIGNATURE}"):
        checked(signed, signers.public_a)


def test_versions_count_up_beside_the_key(bundle, signers) -> None:
    assert [sign(bundle, signers.a).version for _ in range(3)] == [1, 2, 3]
    assert sign(bundle, signers.b).version == 1
    assert sign(bundle, signers.a, 10).version == 10
    assert sign(bundle, signers.a, 4).version == 4  # named on purpose
    assert sign(bundle, signers.a).version == 11
    for wrong in (0, -3, LARGEST_VERSION + 1):
        with pytest.raises(SignatureError, match="versions are 1 to"):
            sign(bundle, signers.a, wrong)
    counter = signers.a.with_name("a.version")
    for text in ("", "x", str(LARGEST_VERSION)):
        counter.write_text(text)
        with pytest.raises(SignatureError, match="no version that another one follows"):
            sign(bundle, signers.a)
    assert checked(bundle, signers.public_a) == 11


def test_a_damaged_bundle_is_not_signed(bundle, signers) -> None:
    flip(bundle / "model.onnx")
    with pytest.raises(BundleError, match="SHA-256"):
        sign(bundle, signers.a)
    assert not (bundle / SIGNATURE).exists()


def test_keys_are_for_their_owner_and_never_overwritten(bundle, tmp_path) -> None:
    key = tmp_path / "key"
    public = keys.make_key(key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert keys.public_key(str(tmp_path / "key.pub")) == public == keys.public_key(public.upper())
    whole = key.read_bytes(), (tmp_path / "key.pub").read_bytes()
    with pytest.raises(SignatureError, match="never overwritten"):
        keys.make_key(key)
    assert (key.read_bytes(), (tmp_path / "key.pub").read_bytes()) == whole
    (tmp_path / "other.pub").write_text("mine")
    with pytest.raises(SignatureError, match=r"other\.pub: is there already"):
        keys.make_key(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (tmp_path / "dangling").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SignatureError, match="is there already"):
        keys.make_key(tmp_path / "dangling")
    with pytest.raises(SignatureError, match="cannot be written"):
        keys.make_key(tmp_path / "no" / "such")
    for mode in (0o604, 0o640, 0o660, 0o601, 0o777):
        key.chmod(mode)
        with pytest.raises(SignatureError, match=f"permissions {mode:o}"):
            sign(bundle, key)
    key.chmod(0o400)
    assert sign(bundle, key, 1).version == 1


def test_files_that_are_no_keys_are_named(bundle, tmp_path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    made = Ed25519PrivateKey.generate()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked = made.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"secret"))
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, pkcs8, serialization.NoEncryption())
    os.mkfifo(tmp_path / "pipe")
    files = {"empty": b"", "noise": b"\xff\0", "large": b"x" * 20000, "locked": locked, "other": other}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for name in (*files, "pipe", "missing", "."):
        path = tmp_path / name
        if path.is_file():
            path.chmod(0o600)
        with pytest.raises(SignatureError):
            sign(bundle, path)
        with pytest.raises(SignatureError):
            keys.public_key(str(path))
    with pytest.raises(SignatureError, match="passphrase"):
        sign(bundle, tmp_path / "locked")
    with pytest.raises(SignatureError, match="a private key, where a public one"):
        keys.public_key(str(tmp_path / "locked"))
    with pytest.raises(SignatureError, match="no key can be read"):
        keys.public_key("a\0b")


@pytest.fixture(scope="module")
def real_bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose program runs: ``verify`` opens it."""
    out = tmp_path_factory.mktemp("signed") / "tiny"
    edgesdk.export(checkpoint, "linux-x86_64", out, recipe="w8", context=64, checks=edgesdk.Checks(skip=True))
    return out


def test_the_command_line_signs_and_verifies(real_bundle, signers, tmp_path, capsys) -> None:
    bundle = shutil.copytree(real_bundle, tmp_path / "copy")
    assert run(["verify", str(bundle)]) == 0
    assert "signature: none" in capsys.readouterr().out
    assert run(["verify", str(bundle), "--key", signers.public_a]) == 1
    assert "is not signed" in capsys.readouterr().err
    assert run(["sign", str(bundle), "--key", str(signers.a), "--version", "3"]) == 0
    assert signers.public_a in capsys.readouterr().out
    assert run(["verify", str(bundle)]) == 0
    said = capsys.readouterr().out
    assert signers.public_a in said and "NOT checked" in said
    assert run(["verify", str(bundle), "--key", f"{signers.a}.pub", "--json"]) == 0
    signature = json.loads(capsys.readouterr().out)["signature"]
    assert signature == {"key": signers.public_a, "version": 3, "checked": True}
    assert run(["verify", str(bundle), "--key", signers.public_a, "--oldest", "4"]) == 1
    assert run(["verify", str(bundle), "--key", signers.public_b]) == 1
    assert run(["sign", str(bundle), "--key", f"{signers.a}.pub"]) == 1
    assert run(["keys", "make", str(tmp_path / "new")]) == 0
    assert run(["keys", "make", str(tmp_path / "new")]) == 1
    assert run(["keys", "show", str(tmp_path / "new.pub")]) == 0
    capsys.readouterr()
    assert run(["keys", "revoke", signers.public_a]) == 0
    assert run(["verify", str(bundle), "--key", signers.public_a]) == 1
    assert "was revoked" in capsys.readouterr().err


# RFC 8032, section 7.1: secret key, public key, message, signature.
RFC = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe"
        "24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302a"
        "eeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed2"
        "8dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC)
def test_the_pure_verifier_on_the_vectors_of_the_rfc(secret, public, message, signature) -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    assert private.public_key().public_bytes_raw().hex() == public
    assert private.sign(bytes.fromhex(message)).hex() == signature  # the vector was copied right
    assert ed25519.verify(bytes.fromhex(public), bytes.fromhex(signature), bytes.fromhex(message))
    assert not ed25519.verify(bytes.fromhex(public), bytes.fromhex(signature), bytes.fromhex(message) + b"x")


def test_the_pure_verifier_agrees_with_the_library() -> None:
    rng = random.Random(8032)
    for number in range(200):
        private = Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))
        public, message = private.public_key().public_bytes_raw(), rng.randbytes(rng.randrange(200))
        signature = private.sign(message)
        assert ed25519.verify(public, signature, message)
        changed = bytearray(public + signature + message)
        changed[rng.randrange(len(changed)) if number % 2 else rng.randrange(96)] ^= 1 << rng.randrange(8)
        parts = bytes(changed[:32]), bytes(changed[32:96]), bytes(changed[96:])
        assert ed25519.verify(*parts) is keys.is_signed_by(parts[0].hex(), parts[1], parts[2]) is False


def test_the_pure_verifier_refuses_what_is_written_in_another_way() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public, message = private.public_key().public_bytes_raw(), statement("0" * 64, 1)
    signature = private.sign(message)
    order = 2**252 + 27742317777372353535851937790883648493
    again = int.from_bytes(signature[32:], "little") + order  # the same residue
    assert not ed25519.verify(public, signature[:32] + again.to_bytes(32, "little"), message)
    for key in (
        b"",
        public[:-1],
        public + b"\0",
        b"\xff" * 32,
        (2**255 - 19).to_bytes(32, "little"),
        b"\x02" + bytes(31),
    ):
        assert not ed25519.verify(key, signature, message)
    zero_with_sign = (1 | 1 << 255).to_bytes(32, "little")
    assert not ed25519.verify(zero_with_sign, signature, message)
    for wrong in (b"", signature[:-1], signature + b"\0"):
        assert not ed25519.verify(public, wrong, message)
    assert ed25519.verify(public, signature, message)


def test_reading_no_signature_is_none(bundle) -> None:
    assert read_signature(bundle) is None
