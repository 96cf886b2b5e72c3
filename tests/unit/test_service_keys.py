"""The board's service with a pinned key: what it refuses to configure, to select, and to serve of a store."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgesdk.bundle import SIGNATURE, open_bundle
from edgesdk.devices import Settings
from edgesdk.devices.local import LocalDevice
from edgesdk.devices.store import Parcel, Store
from edgesdk.digests import file_digest
from edgesdk.package import package
from edgesdk.package.linux_service import _seal
from edgesdk.package.linux_service.manager import Service
from edgesdk.package.linux_service.whole import ServiceError
from edgesdk.signing import SignatureError
from edgesdk.signing.signature import sign

from .signed_bundles import Signers, small_bundle

pytestmark = pytest.mark.usefixtures("own_configuration")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return small_bundle(tmp_path / "plain")


class Board:
    """A board whose packages bring bundles."""

    def __init__(self, root: Path, *keys: str) -> None:
        self.root, self.service, self.count = root, Service(root / "board"), 0
        self.service.config.mkdir(parents=True)
        self.keys(*keys)

    def keys(self, *keys: str, revoked: tuple[str, ...] = (), oldest: int = 1) -> None:
        lines = f"keys = {json.dumps(keys)}\nrevoked = {json.dumps(revoked)}\noldest = {oldest}\n"
        (self.service.config / "keys.toml").write_text(lines)

    def brings(self, bundle: Path) -> str:
        """Unpack a package with this bundle, as dpkg does; its version's name."""
        self.count += 1
        staged = self.service.payload / "staged"
        shutil.copytree(bundle, staged / "bundle")
        name = _seal(staged, f"{self.count}")
        staged.rename(self.service.payload / name)
        return name

    def gets(self, bundle: Path) -> str:
        name = self.brings(bundle)
        self.service.configure(name)
        self.service.select()
        self.service.settle()
        return name


@pytest.fixture
def board(tmp_path: Path, signers: Signers) -> Board:
    return Board(tmp_path, signers.public_a)


def changed(bundle: Path, file: str = "model.onnx") -> Path:
    """One byte of a bundle is another; whoever packs it anew writes the list of hashes anew as well."""
    path = bundle / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return bundle


def attacks(signers: Signers, plain: Path) -> list[tuple[Path, str]]:
    renumbered = signers.signed(plain, version=5)
    text = (renumbered / SIGNATURE).read_text()
    (renumbered / SIGNATURE).write_text(text.replace('"version": 5', '"version": 9'))
    return [
        (plain, "is not signed"),
        (signers.signed(plain, signers.b, 9), "is signed with key .* which is not pinned"),
        (changed(signers.signed(plain, version=9)), "is damaged: model.onnx"),
        (changed(signers.signed(plain, version=9), "manifest.json"), "a signature that is not its own"),
        (renumbered, "a signature that is not its own"),
        (signers.signed(plain, version=4), "has bundle version 4, which is older than 5"),
    ]


def test_configure_keeps_the_version_in_use(board, signers, plain) -> None:
    good = board.gets(signers.signed(plain, version=5))
    for bundle, words in attacks(signers, plain):
        name = board.brings(bundle)
        with pytest.raises(ServiceError, match=f"version {name} .*{words}.*; {good} stays in use"):
            board.service.configure(name)
        assert board.service.version("current") == good == board.service.select()
    newer = board.gets(signers.signed(plain, version=6))
    assert board.service.select() == newer


def test_select_refuses_what_lies_there_already(board, signers, plain) -> None:
    """A key is pinned, or `oldest` raised, after versions came without one."""
    for bundle, words in attacks(signers, plain):
        board.keys()
        name = board.gets(bundle)
        board.keys(signers.public_a, oldest=5)
        shutil.rmtree(board.service.versions / (board.service.version("previous") or "none"), ignore_errors=True)
        with pytest.raises(ServiceError, match=f"{name} .*{words}"):
            board.service.select()
        with pytest.raises(ServiceError, match=words):
            board.service.verify()


def test_select_goes_back_to_a_signed_version(board, signers, plain) -> None:
    good = board.gets(signers.signed(plain, version=5))
    board.keys()
    board.gets(plain)
    board.keys(signers.public_a)
    assert board.service.select() == good


def test_a_version_that_came_up_can_be_gone_back_to_but_not_installed_anew(board, signers, plain) -> None:
    old, new = board.gets(signers.signed(plain, version=5)), board.gets(signers.signed(plain, version=6))
    board.service.rollback()
    assert board.service.select() == old
    board.service.configure(new)
    with pytest.raises(ServiceError, match="older than 6"):
        board.service.configure(old)


def test_one_that_did_not_come_up_raises_no_bar(board, signers, plain) -> None:
    old = board.gets(signers.signed(plain, version=5))
    board.service.configure(board.brings(signers.signed(plain, version=900)))
    for _ in range(4):
        found = board.service.select()
    assert found == old
    board.gets(signers.signed(plain, version=6))


def test_a_key_is_changed_and_revoked(board, signers, plain) -> None:
    board.gets(signers.signed(plain, version=5))
    board.keys(signers.public_a, signers.public_b)
    current = board.gets(signers.signed(plain, signers.b, 6))
    board.keys(signers.public_a, signers.public_b, revoked=(signers.public_a,))
    name = board.brings(signers.signed(plain, version=7))
    with pytest.raises(ServiceError, match="which was revoked"):
        board.service.configure(name)
    assert board.service.select() == current


@pytest.mark.parametrize(
    "text",
    ["keys = [", 'keys = "aa"', 'keys = ["AA"]', "revoked = [1]", "oldest = 0", "oldest = true", "kyes = []", "\xff"],
)
def test_keys_that_cannot_be_read_stop_the_service(board, signers, plain, text) -> None:
    board.gets(signers.signed(plain))
    (board.service.config / "keys.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ServiceError, match=r"keys\.toml"):
        board.service.select()
    with pytest.raises(ServiceError, match=r"keys\.toml"):
        board.service.configure(board.brings(plain))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{}", "[" * 4000, '{"schema": 1, "algorithm": "ed25519", "key": 5, "version": 5}'],
)
def test_a_signature_that_is_none_is_refused(board, signers, plain, text) -> None:
    signed = signers.signed(plain)
    (signed / SIGNATURE).write_text(text)
    with pytest.raises(ServiceError, match="a signature that cannot be read"):
        board.service.configure(board.brings(signed))


def test_a_store_serves_signed_bundles_alone(board, signers, plain, tmp_path) -> None:
    board.gets(signers.signed(plain, version=1))
    store = tmp_path / "store"
    (board.service.config / "service.toml").write_text(f'store = "{store}"\n')
    device = LocalDevice("here", Settings("local", store=str(store)))

    def pushed(bundle: Path) -> str:
        """By a computer that has no key pinned."""
        with open_bundle(bundle) as opened:
            return Store(device).push(Parcel.of_bundle(opened)).path

    def served() -> str:
        return board.service.command()[0][-2]

    good = pushed(signers.signed(plain, version=5))
    assert served() == good
    board.service.settle()
    renumbered, older = signers.signed(plain, version=4), signers.signed(plain, version=4)
    text = (renumbered / SIGNATURE).read_text()
    (renumbered / SIGNATURE).write_text(text.replace('"version": 4', '"version": 9'))
    for bundle in (plain, signers.signed(plain, signers.b, 9), renumbered, older):
        assert pushed(bundle) != good
        assert served() == good  # the one before
        pushed(signers.signed(plain, version=5))
    weights = Path(served()) / "model.onnx"
    weights.write_bytes(b"x" + weights.read_bytes()[1:])
    with pytest.raises(ServiceError, match="holds no whole bundle"):
        served()


def test_a_package_brings_its_key_and_its_program_refuses_by_itself(bundle, signers, tmp_path) -> None:
    """The program of the package, in a Python with nothing else, below a root folder."""
    signed = signers.signed(bundle, version=7)
    options = {"version": "1.0.0", "wheels": "no"}
    with pytest.raises(SignatureError, match="is signed with key"):
        package(signed, "linux-service", tmp_path / "no", options={**options, "key": signers.public_b})
    with pytest.raises(SignatureError, match="is not signed"):
        package(bundle, "linux-service", tmp_path / "no", options={**options, "key": f"{signers.a}.pub"})
    assert not (tmp_path / "no").exists()
    package(signed, "linux-service", tmp_path / "out", options={**options, "key": f"{signers.a}.pub"})
    root = tmp_path / "out/root"
    assert f'keys = ["{signers.public_a}"]' in (root / "etc/edgesdk/keys.toml").read_text()
    [version] = (root / "usr/lib/edgesdk-service/payload").iterdir()
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from edgesdk.package.linux_service.manager import Service, main;"
        "sys.exit(main(sys.argv[3:], Service(Path(sys.argv[2]))))"
    )

    archive = root / "usr/lib/edgesdk-service/manager.pyz"

    def manager(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", "-c", program, archive, root, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert manager("configure", version.name).returncode == 0
    assert manager("select").returncode == 0
    keys = root / "etc/edgesdk/keys.toml"
    keys.write_text(keys.read_text().replace(signers.public_a, signers.public_b))
    done = manager("select")
    assert done.returncode == 1 and "which is not pinned" in done.stderr and "Traceback" not in done.stderr
    usage = subprocess.run([sys.executable, "-B", "-I", archive], capture_output=True, text=True, check=False)
    assert usage.returncode == 2 and "edgesdk-service configure ID" in usage.stderr


def test_signing_again_with_a_higher_number_is_the_way_back(board, signers, plain) -> None:
    bundle = signers.signed(plain, version=5)
    digest = file_digest(bundle / "manifest.json")
    board.gets(signers.signed(plain, version=6))
    sign(bundle, signers.a, 7)
    assert file_digest(bundle / "manifest.json") == digest
    board.gets(bundle)


@pytest.mark.parametrize("asked", [{"revoked": True}, {"oldest": 2}])
def test_a_board_without_a_key_left_takes_nothing(board, signers, plain, asked) -> None:
    """Revoking the only key must not open the board to everything."""
    current = board.gets(signers.signed(plain, version=5))
    revoked = (signers.public_a,) if "revoked" in asked else ()
    board.keys(revoked=revoked, oldest=asked.get("oldest", 1))
    for bundle in (plain, signers.signed(plain, version=6), signers.signed(plain, signers.b, 6)):
        with pytest.raises(ServiceError):
            board.service.configure(board.brings(bundle))
    assert board.service.version("current") == current
