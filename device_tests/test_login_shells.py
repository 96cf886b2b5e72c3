"""Whatever a user's login shell is, and whichever programs a small board lacks: a push, an answer, the sensors."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import edgesdk
from edgesdk.bundle import Bundle, open_bundle
from edgesdk.devices import Settings
from edgesdk.devices.base import DeviceError
from edgesdk.devices.chat import DeviceChat
from edgesdk.devices.local import LocalDevice
from edgesdk.devices.runner.start import running
from edgesdk.devices.ssh import SshDevice
from edgesdk.devices.store import Parcel, Store
from edgesdk.profile.sampler import discover, once
from tests.conftest import make_checkpoint

from .lab import LabUnavailableError
from .lab.login import SHELLS, applets, login

#: What the files of a login shell may do: print without an end of line, to both outputs, and leave traps.
NOISY = {
    ".bashrc": "echo Welcome to OctoPi; echo '  --- !$ ---' >&2; printf 'no end of line'; set -u; set -o noclobber\n",
    ".zshenv": "print 'zsh says hello'; print -u2 noise; setopt noclobber nounset; alias sh=false\n",
    ".tcshrc": "echo 'csh says hello'; set noclobber\n",
    ".config/fish/config.fish": "echo 'fish says hello'; echo noise >&2; function cat; false; end\n",
}
REMOVED = (
    "stat", "tee", "sha256sum", "find", "sync", "uname", "df", "tail", "head", "chmod", "touch", "sed", "date", "ln",
    "mkdir", "mv", "rm", "cp", "cat",
)  # fmt: skip
#: Of these a push knows no other way, on a board that has nothing else that hashes.
NEEDED = {"mkdir", "mv", "rm", "cp", "cat", "sha256sum", "sync"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    folder = tmp_path_factory.mktemp("login")
    make_checkpoint(folder / "model")
    edgesdk.export(folder / "model", "linux-x86_64", folder / "bundle", context=128, checks=edgesdk.Checks(skip=True))
    with open_bundle(folder / "bundle") as opened:
        yield opened


@contextmanager
def board(folder: Path, shell: str, *without: str) -> Iterator[SshDevice]:
    """A board whose user has a login shell, of BusyBox's applets alone where some are missing or it is ash."""
    few = bool(without) or shell == "ash"
    place = f"/usr/bin/{shell}" if few else shutil.which(shell)
    if place is None:
        pytest.skip(f"no {shell} here (Debian: {SHELLS[shell]})")
    try:
        programs = applets(folder / "bin", without) if few else None
        with login(folder, Path(place), NOISY, programs) as settings:
            named = Settings(**{**vars(settings), "store": "~/a store", "python": sys.executable})
            device = SshDevice("board", named)
            try:
                yield device
            finally:
                device.close()
    except LabUnavailableError as missing:
        pytest.skip(missing.message)


@pytest.mark.parametrize("shell", ["ash", *SHELLS])
def test_a_login_shell_does_not_matter(tmp_path: Path, bundle: Bundle, shell: str) -> None:
    with board(tmp_path, shell) as device:
        assert device.facts().architecture == "x86_64"
        pushed = Store(device).push(Parcel.of_bundle(bundle))
        assert pushed.path == f"{tmp_path}/home/a store/bundles/{pushed.name}" and pushed.sent
        assert not Store(device).push(Parcel.of_bundle(bundle)).sent
        with running(device, bundle) as link:
            here = edgesdk.Chat(bundle).ask("hello", max_tokens=8)
            assert "".join(DeviceChat(link, bundle).stream("hello", max_tokens=8)) == here
        found = discover(device).sensors
        assert [sensor.name for sensor in found] == [sensor.name for sensor in discover(here_too(tmp_path)).sensors]
        assert once(device, found).keys() >= {"load average"}
        odd = "printf '%s|' \"a'b!c\\\\d\" '$HOME' '!!' \"tab\there\"\nprintf 'second line é'"
        assert device.run(odd, stdin=b"input").text == "a'b!c\\d|$HOME|!!|tab\there|second line é"
        assert device.run("cat; echo said >&2; exit 3", stdin=b"of the command\n").status == 3
        assert device.run("cat", stdin=b"of the command\n").stdout == b"of the command\n"


def here_too(folder: Path) -> LocalDevice:
    return LocalDevice("here", Settings("local", store=str(folder / "here")))


@pytest.mark.parametrize("applet", REMOVED)
def test_a_missing_program_has_a_stand_in_or_is_named_before_anything_goes_over(
    tmp_path: Path, bundle: Bundle, applet: str
) -> None:
    with board(tmp_path, "sh", applet) as device:
        store = Store(device)
        if applet in NEEDED:
            with pytest.raises(DeviceError, match=rf"lacks programs that a push needs:.* {applet}"):
                store.push(Parcel.of_bundle(bundle))
            assert not (tmp_path / "home/a store").exists()
            return
        first = store.push(Parcel.of_bundle(bundle))
        again = store.push(Parcel.of_bundle(bundle))
        assert first.sent and not again.sent and store.verify() == []
        place = Path(first.path) / bundle.manifest.program.main
        data = place.read_bytes()
        place.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert store.verify() == [bundle.manifest.program.main]
        assert store.push(Parcel.of_bundle(bundle)).sent  # damaged files are not taken for whole ones
        assert device.facts().cores and discover(device).sensors


def test_sha256_by_other_names(tmp_path: Path, bundle: Bundle) -> None:
    with board(tmp_path, "sh", "sha256sum", "stat", "date", "find", "tee") as device:
        (tmp_path / "bin/hidden").mkdir()
        (tmp_path / "bin/hidden/sha256sum").symlink_to("../box")
        for name in ("sha256", "shasum", "openssl"):
            script = tmp_path / "bin" / name
            place = {"sha256": 2, "shasum": 3, "openssl": 4}[name]  # of the file among its arguments
            script.write_text(f'#!/usr/bin/sh\nexec /usr/bin/hidden/sha256sum "${{{place}:--}}"\n')
            script.chmod(0o755)
            store = Store(device)
            store.push(Parcel.of_bundle(bundle))
            assert store.verify() == [], name
            store.clean(everything=True)
            script.unlink()


def test_no_posix_shell_is_said_with_its_own_words(tmp_path: Path) -> None:
    refusing = tmp_path / "refusing"
    refusing.write_text("#!/bin/sh\necho 'This account is currently not available.'\nexit 1\n")
    refusing.chmod(0o755)
    (tmp_path / "x").mkdir()
    try:
        with login(tmp_path / "x", refusing) as settings:
            device = SshDevice("board", settings)
            with pytest.raises(DeviceError, match="has no POSIX shell that answers: This account is currently not"):
                device.facts()
            device.close()
    except LabUnavailableError as missing:
        pytest.skip(missing.message)


@pytest.mark.parametrize("store", ["~other/models", "$MODELS/x", "/data/$USER"])
def test_what_a_shell_would_fill_in_is_refused(store: str) -> None:
    with pytest.raises(DeviceError, match=r"only ~ and \$HOME are known"):
        Store(LocalDevice("here", Settings("local", store=store))).survey()


@pytest.mark.parametrize(("store", "folder"), [("$HOME/m", "m"), ("${HOME}/m", "m"), ("~", "."), ("~/a b/c", "a b/c")])
def test_a_store_below_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, folder: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store(LocalDevice("here", Settings("local", store=store))).survey().root == str(
        (tmp_path / folder).resolve()
    )
    assert not (tmp_path / "~").exists()
