"""The Kotlin library with a pinned key, on a JVM: which models it opens, and its verifier beside the host's library."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesdk.package import package
from edgesdk.signing import SignatureError
from edgesdk.signing.signature import sign

from .android.kotlin import App
from .signatures import Owners, copied, vectors


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> Owners:
    return Owners(tmp_path_factory.mktemp("owners") / "keys")


@pytest.fixture(scope="module")
def app(chain: Path, owners: Owners, classpath: list[Path], tmp_path_factory: pytest.TempPathFactory) -> App:
    home = tmp_path_factory.mktemp("signed")
    bundle = copied(chain, home / "bundle")
    sign(bundle, owners.a, 5)
    return App(bundle, home, classpath, key=f"{owners.a}.pub")


def test_a_signed_model_is_opened_and_answers(app: App, owners: Owners) -> None:
    assert app.run("packaged") == {"version": 5}
    assert app.run("stream", "A:", 64)["pieces"][0] == "Gr"
    for oldest in (1, 5):
        assert app.run("signed", owners.public_a, oldest) == {"version": 5}


def test_a_copy_from_assets_keeps_its_signature(app: App, tmp_path: Path) -> None:
    assert app.run("copy", tmp_path, model=app.model.parent)["version"] == 5


def test_every_attack_is_refused(app: App, owners: Owners, tmp_path: Path) -> None:
    """By the app that was packaged with the model, and by one that takes any model of the key."""
    (program,) = (path.name for path in (app.model / "bundle").glob("*.pte"))
    refusals = {}
    for number, (name, attack) in enumerate(owners.attacks(program).items()):
        tree = copied(app.model, tmp_path / str(number))
        attack(tree / "bundle")
        for way in (["packaged"], ["signed", owners.public_a, 5]):
            refusals[name, way[0]] = app.run(*way, model=tree).get("error")
    damaged = {(name, way) for name, way in refusals if name == "one byte of the program changed"}
    assert {each for each, error in refusals.items() if error == "BundleDamagedException"} == damaged
    assert {each for each, error in refusals.items() if error != "BundleRefusedException"} == damaged


def test_a_newer_model_of_the_key_is_taken_where_the_app_asks_for_any(app: App, owners: Owners, tmp_path: Path) -> None:
    tree = copied(app.model, tmp_path / "newer")
    sign(tree / "bundle", owners.a, 6)
    assert app.run("signed", owners.public_a, 5, model=tree) == {"version": 6}
    assert app.run("signed", owners.public_b, 5, model=tree)["error"] == "BundleRefusedException"


def test_the_verifier_agrees_with_the_library(app: App, tmp_path: Path) -> None:
    known = vectors()
    lines = [" ".join(part.hex() for part in parts) for *parts, _ in known]
    (tmp_path / "vectors").write_text("\n".join(lines))
    assert app.run("vectors", tmp_path / "vectors")["verdicts"] == [good for *_, good in known]


def test_a_project_is_not_made_of_a_bundle_with_another_key(chain: Path, owners: Owners, tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="is not signed"):
        package(chain, "android", tmp_path / "project", options={"key": owners.public_a})
    signed = copied(chain, tmp_path / "signed")
    sign(signed, owners.b, 5)
    with pytest.raises(SignatureError, match="is signed with key"):
        package(signed, "android", tmp_path / "project", options={"key": owners.public_a})
    assert not (tmp_path / "project").exists()
