"""Bills of materials and OpenSSF signatures, read by the makers' own validator and verifier."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from model_signing import verifying

from edgesdk.bundle import FILE, Manifest, open_bundle, pack
from edgesdk.cli import run
from edgesdk.digests import file_digest
from edgesdk.errors import EdgeError
from edgesdk.files import FileEntry
from edgesdk.profile.derive import derived
from edgesdk.profile.schema import write_profile
from edgesdk.signing import SignatureError
from edgesdk.signing.keys import public_key
from edgesdk.signing.materials import bill_of_materials
from edgesdk.signing.openssf import make_openssf_key, sign_openssf
from edgesdk.signing.signature import check, sign

from .profile_records import record
from .signed_bundles import flip, small_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return small_bundle(tmp_path / "bundle")


def bill(bundle: Path) -> dict:
    with open_bundle(bundle) as opened:
        text = bill_of_materials(opened)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    Bom.from_json(json.loads(text))
    return json.loads(text)


def changed(bundle: Path, **changes: object) -> Path:
    """The bundle with another manifest."""
    manifest = Manifest.parse((bundle / FILE).read_text(), FILE)
    (bundle / FILE).write_text(replace(manifest, **changes).text())  # type: ignore[arg-type]
    return bundle


def properties(component: dict) -> dict[str, str]:
    return {each["name"]: each["value"] for each in component.get("properties", ())}


def test_a_bill_names_files_hashes_licence_and_runtime(bundle, signers) -> None:
    manifest = Manifest.parse((bundle / FILE).read_text(), FILE)
    source = (FileEntry("model.safetensors", 7, "ab" * 32),)
    changed(bundle, model=replace(manifest.model, source=source))
    signed = signers.signed(bundle, version=7)
    data = bill(signed)
    main = data["metadata"]["component"]
    assert (main["name"], main["type"], main["version"]) == ("tiny", "machine-learning-model", "7")
    assert main["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert main["hashes"] == [{"alg": "SHA-256", "content": file_digest(signed / FILE)}]
    files = {each["name"]: each["hashes"][0]["content"] for each in main["components"]}
    assert files == {name: file_digest(signed / name) for name in ("model.onnx", "tokenizer.json")}
    parts = {each["bom-ref"]: each for each in data["components"]}
    assert parts["model"]["components"][0]["hashes"][0]["content"] == "ab" * 32
    assert properties(parts["runtime"])["edgesdk:versions"] == ">=1"
    facts = properties(main)
    assert facts["edgesdk:signature"] == f"ed25519 {signers.public_a}"
    assert facts["edgesdk:energy"] == "null: no profile was given"


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        ("apache-2.0", [{"license": {"id": "Apache-2.0"}}]),
        ("MIT OR Apache-2.0", [{"expression": "MIT OR Apache-2.0"}]),
        ("Gemma terms of use", [{"license": {"name": "Gemma terms of use"}}]),
        (None, None),
    ],
)
def test_licences(bundle, licence, said) -> None:
    manifest = Manifest.parse((bundle / FILE).read_text(), FILE)
    changed(bundle, model=replace(manifest.model, licence=licence))
    assert bill(bundle)["metadata"]["component"].get("licenses") == said
    assert properties(bill(bundle)["metadata"]["component"])["edgesdk:signature"] == "null: not signed"


def test_the_same_bundle_gives_the_same_bill_in_every_process(bundle, tmp_path) -> None:
    texts = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "edgesdk", "bom", bundle, "-o", tmp_path / "bill.json"]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": seed})
        texts.add((tmp_path / "bill.json").read_text())
    (text,) = texts
    assert "serialNumber" not in text and "timestamp" not in text and str(tmp_path) not in text


def test_a_profile_brings_measured_energy(bundle, tmp_path) -> None:
    profiled = derived(record())
    measured = replace(profiled, bundle=replace(profiled.bundle, digest=_digest(bundle)))
    with open_bundle(bundle) as opened:
        text = bill_of_materials(opened, measured)
        with pytest.raises(SignatureError, match="the profile is of bundle"):
            bill_of_materials(opened, profiled)
    facts = properties(json.loads(text)["metadata"]["component"])
    case = measured.cases[0]
    value = case.energy.values["decode_energy"]
    assert value.value is not None
    assert facts[f"edgesdk:energy:{case.title}:decode_energy"].startswith(f"{value.value:.6g} J/token")
    assert facts["edgesdk:energy:scope"] == measured.energy_scope
    unmeasured = replace(
        case, energy=replace(case.energy, values={"decode_energy": replace(value, value=None, reason="no-sensor")})
    )
    with open_bundle(bundle) as opened:
        text = bill_of_materials(opened, replace(measured, cases=(unmeasured,), energy_scope=None))
    facts = properties(json.loads(text)["metadata"]["component"])
    assert facts[f"edgesdk:energy:{case.title}:decode_energy"] == "null: no-sensor"
    assert facts["edgesdk:energy:scope"].startswith("null: ")
    write_profile(measured, tmp_path / "profile.json")
    assert run(["bom", str(bundle), "--profile", str(tmp_path / "profile.json")]) == 0
    assert (tmp_path / "bundle.cdx.json").is_file()
    assert run(["bom", str(bundle), "-o", str(tmp_path / "no" / "such")]) == 1
    assert run(["bom", str(bundle), "--profile", str(tmp_path / "none")]) == 1


def _digest(bundle: Path) -> str:
    return Manifest.parse((bundle / FILE).read_text(), FILE).digest


def verified(bundle: Path, public: Path) -> bool:
    """Whether model_signing's own command line accepts it."""
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(bundle)]
    command += ["--signature", f"{bundle}.sig", "--public_key", str(public)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0


def test_openssfs_verifier_accepts_it_and_notices_each_change(bundle, signers, tmp_path) -> None:
    for name in ("ec", "other"):
        make_openssf_key(tmp_path / name)
    sign(bundle, signers.a, 3)
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert sign_openssf(bundle, tmp_path / "ec") == tmp_path / "bundle.sig"
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    assert verified(bundle, tmp_path / "ec.pub")
    assert not verified(bundle, tmp_path / "other.pub")
    config = verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "ec.pub")
    config.verify(bundle, tmp_path / "bundle.sig")
    for name in before:
        flip(bundle / name, 0)
        with pytest.raises(Exception, match=r"(?i)match|differ"):
            config.verify(bundle, tmp_path / "bundle.sig")
        (bundle / name).write_bytes(before[name])
    (bundle / "more").write_text("x")
    with pytest.raises(Exception, match=r"(?i)match|differ"):
        config.verify(bundle, tmp_path / "bundle.sig")


def test_a_zip_is_signed_as_it_lies_there(bundle, tmp_path) -> None:
    make_openssf_key(tmp_path / "ec")
    pack(bundle, tmp_path / "b.zip")
    sign_openssf(tmp_path / "b.zip", tmp_path / "ec")
    assert zipfile.is_zipfile(tmp_path / "b.zip") and verified(tmp_path / "b.zip", tmp_path / "ec.pub")


def test_keys_that_openssf_cannot_use_are_named(bundle, signers, tmp_path) -> None:
    with pytest.raises(SignatureError, match="cannot be signed with it"):
        sign_openssf(bundle, signers.a)
    make_openssf_key(tmp_path / "ec")
    (tmp_path / "ec").chmod(0o644)
    with pytest.raises(SignatureError, match="permissions 644"):
        sign_openssf(bundle, tmp_path / "ec")
    (tmp_path / "ec").chmod(0o600)
    (tmp_path / "ec").write_text("no key")
    with pytest.raises(SignatureError, match="cannot be signed with it"):
        sign_openssf(bundle, tmp_path / "ec")
    with pytest.raises(SignatureError, match="never overwritten"):
        make_openssf_key(tmp_path / "ec")
    flip(bundle / "model.onnx")
    make_openssf_key(tmp_path / "ec2")
    with pytest.raises(EdgeError, match="SHA-256"):
        sign_openssf(bundle, tmp_path / "ec2")
    assert not (tmp_path / "bundle.sig").exists()


def test_both_signatures_by_one_command(bundle, tmp_path, capsys) -> None:
    assert run(["keys", "make", str(tmp_path / "key")]) == 0
    assert run(["keys", "make", "--for", "openssf", str(tmp_path / "ec")]) == 0
    words = ["sign", str(bundle), "--key", str(tmp_path / "key"), "--openssf", str(tmp_path / "ec")]
    assert run(words) == 0
    assert "model_signing verify key" in capsys.readouterr().out
    assert verified(bundle, tmp_path / "ec.pub")
    with open_bundle(bundle) as opened:
        assert check(opened, (public_key(str(tmp_path / "key.pub")),)).version == 1
