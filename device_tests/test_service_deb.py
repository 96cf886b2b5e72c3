"""The board's service, installed by the real dpkg in a root of its own: used, upgraded, killed, rolled back, gone."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from edgesdk.bundle import open_bundle
from edgesdk.package.linux_service.manager import Service

from .lab.host import LabUnavailableError, free_port
from .service_files import Root, bundle, deb, debian_root

_UP_SECONDS = 60.0
_MOMENTS = int(os.environ.get("EDGESDK_KILLS", "8"))
QUESTION: Any = [{"role": "user", "content": "hello"}]


@dataclass(frozen=True)
class Release:
    """One version of the package."""

    file: Path
    version: str
    digest: str


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Release]:
    """Two versions over two bundles, with the same wheels."""
    folder = tmp_path_factory.mktemp("releases")
    made = []
    for version, context in (("1.0.0", 256), ("2.0.0", 128)):
        path = bundle(folder, "linux-x86_64", context)
        lock = folder / "out-1.0.0" / "python.lock"
        try:
            file = deb(folder, path, version, lock if lock.exists() else None)
        except LabUnavailableError as failure:
            pytest.skip(f"{failure.message} ({failure.hint})")
        with open_bundle(path, check=False) as opened:
            made.append(Release(file, version, opened.manifest.digest))
    return made[0], made[1]


@pytest.fixture
def root(releases: tuple[Release, Release], tmp_path: Path) -> Iterator[Root]:
    try:
        with debian_root(tmp_path / "overlay") as found:
            yield found
    except LabUnavailableError as failure:
        pytest.skip(f"{failure.message} ({failure.hint})")


def install(root: Root, release: Release) -> str:
    return root.run("dpkg", "-i", str(release.file))


@contextmanager
def served(root: Root) -> Iterator[OpenAI]:
    """The service in the foreground, as a supervisor other than systemd starts it."""
    port = free_port()
    settings = root.path / "etc/edgesdk/server.toml"
    lines = [line for line in settings.read_text().splitlines() if not line.startswith("port")]
    settings.write_text("\n".join([*lines, f"port = {port}", ""]))
    started = subprocess.Popen(root.command("edgesdk-service", "run"), stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    with started:
        while "Serving " not in (line := started.stderr.readline()):
            assert line, f"it ended with {started.wait()}"
        yield OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=_UP_SECONDS)
        root.run("pkill", "-TERM", "-f", "edgesdk-service/manager.pyz run")
        assert started.wait(_UP_SECONDS) == 0


def in_use(root: Root) -> tuple[str | None, str | None]:
    service = Service(root.path)
    return service.version("current"), service.version("previous")


def release_of(name: str | None) -> str:
    assert name is not None
    return name.rpartition("-")[0]


def fingerprint(client: OpenAI) -> str | None:
    answer = client.chat.completions.create(model="default", messages=QUESTION, max_tokens=4)
    return answer.system_fingerprint


def test_it_installs_serves_upgrades_rolls_back_and_goes(root: Root, releases: tuple[Release, Release]) -> None:
    one, two = releases
    said = install(root, one)
    assert "is in use at the next start" in said  # no systemd runs here
    assert root.run("dpkg", "--verify", "edgesdk-service") == ""
    assert root.run("dpkg-query", "-W", "-f", "${Status} ${Version}", "edgesdk-service") == "install ok installed 1.0.0"
    assert (root.path / "etc/systemd/system/multi-user.target.wants/edgesdk.service").is_symlink()
    assert root.run("systemd-analyze", "verify", "edgesdk.service") == ""
    with served(root) as client:
        stream = client.chat.completions.create(model="default", messages=QUESTION, max_tokens=8, stream=True)
        chunks = list(stream)
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")
        assert chunks[0].system_fingerprint == f"edgesdk-{one.digest[:12]}"
        install(root, two)  # what runs goes on with its own files
        assert fingerprint(client) == f"edgesdk-{one.digest[:12]}"
    assert tuple(map(release_of, in_use(root))) == ("2.0.0", "1.0.0")
    with served(root) as client:
        assert fingerprint(client) == f"edgesdk-{two.digest[:12]}"
    assert "(verified)" in root.run("edgesdk-service", "verify")
    root.run("edgesdk-service", "rollback")
    with served(root) as client:
        assert fingerprint(client) == f"edgesdk-{one.digest[:12]}"
    status = json.loads(root.run("edgesdk-service", "status"))
    assert release_of(status["current"]) == "1.0.0" and status["on_trial"] is False and status["health"] is None
    root.run("dpkg", "-r", "edgesdk-service")
    assert (root.path / "etc/edgesdk/server.toml").is_file() and not (root.path / "var/lib/edgesdk/versions").exists()
    root.run("dpkg", "-P", "edgesdk-service")
    for gone in ("etc/edgesdk", "var/lib/edgesdk", "usr/lib/edgesdk-service", "usr/bin/edgesdk-service"):
        assert not (root.path / gone).exists(), gone
    assert not (root.path / "etc/systemd/system/multi-user.target.wants/edgesdk.service").is_symlink()


def test_an_upgrade_killed_at_any_moment_leaves_old_or_new(root: Root, releases: tuple[Release, Release]) -> None:
    install(root, releases[0])
    began = time.monotonic()
    install(root, releases[1])
    whole = time.monotonic() - began
    old, new = releases[1], releases[0]
    seen, killed = set(), 0
    for moment in range(1, _MOMENTS + 1):
        killed += root.killed_after(whole * moment / _MOMENTS * 0.95, "dpkg", "-i", str(new.file))
        with served(root) as client:
            said = fingerprint(client)
        assert said in {f"edgesdk-{release.digest[:12]}" for release in (old, new)}
        current = release_of(in_use(root)[0])
        assert said == f"edgesdk-{(old if current == old.version else new).digest[:12]}"
        seen.add("old" if current == old.version else "new")
        install(root, new)
        assert release_of(in_use(root)[0]) == new.version
        root.run("edgesdk-service", "verify")
        old, new = new, old
    assert killed and "old" in seen, (killed, seen)


def test_a_configuration_killed_at_any_moment_leaves_old_or_new(root: Root, releases: tuple[Release, Release]) -> None:
    """The part of an upgrade that makes and switches versions, at closer moments."""
    install(root, releases[0])
    install(root, releases[1])
    service = Service(root.path)
    name, before = in_use(root)
    assert name is not None and before is not None
    began = time.monotonic()
    service_again(root, service, name, before)
    whole = time.monotonic() - began
    seen = []
    for moment in range(1, 2 * _MOMENTS + 1):
        root.run("edgesdk-service", "rollback")
        root.run("rm", "-rf", f"/var/lib/edgesdk/versions/{name}", "/var/lib/edgesdk/previous")
        root.killed_after(whole * moment / (2 * _MOMENTS), "edgesdk-service", "configure", name)
        root.run("edgesdk-service", "select")
        root.run("edgesdk-service", "verify")
        seen.append(in_use(root)[0])
        assert seen[-1] in (name, before)
        root.run("edgesdk-service", "configure", name)
        assert in_use(root) == (name, before)
    assert before in seen, seen


def service_again(root: Root, service: Service, name: str, before: str) -> None:
    """Make a version anew, as the upgrade to it did."""
    root.run("edgesdk-service", "rollback")
    root.run("rm", "-rf", f"/var/lib/edgesdk/versions/{name}", "/var/lib/edgesdk/previous")
    root.run("edgesdk-service", "configure", name)
    assert in_use(root) == (name, before)


def test_a_damaged_version_gives_way_at_the_start(root: Root, releases: tuple[Release, Release]) -> None:
    one, two = releases
    install(root, one)
    install(root, two)
    weights = root.path / "var/lib/edgesdk/current/bundle/model.onnx.data"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with served(root) as client:
        assert fingerprint(client) == f"edgesdk-{one.digest[:12]}"
    assert release_of(in_use(root)[0]) == "1.0.0"


def test_a_pinned_key_keeps_an_unsigned_package_out(root: Root, releases: tuple[Release, Release]) -> None:
    one, two = releases
    install(root, one)
    keys = root.path / "etc/edgesdk/keys.toml"
    assert "keys = []" in keys.read_text()
    keys.write_text(keys.read_text().replace("keys = []", f'keys = ["{"ab" * 32}"]'))
    with pytest.raises(AssertionError, match=r"2\.0\.0-\w+ is not signed; 1\.0\.0-\w+ stays in use"):
        install(root, two)
    assert release_of(in_use(root)[0]) == "1.0.0"
    with pytest.raises(AssertionError, match=r"1\.0\.0-\w+ is not signed"):
        root.run("edgesdk-service", "select")  # what is in use is not signed either
    root.run("dpkg", "-P", "edgesdk-service")


_SYSTEMCTL = """#!/bin/sh
# stands in for systemd: starts the service at once, or fails where /broken says so
[ "$1" = restart ] || exit 0
test ! -e /broken || exit 1
pkill -TERM -f "edgesdk-service/manager.pyz run" && while pgrep -f "manager.pyz run" > /dev/null; do sleep 0.1; done
nohup edgesdk-service run > /dev/null 2>&1 < /dev/null &
"""


def test_an_upgrade_that_does_not_come_up_is_refused_until_it_is_installed_again(
    root: Root, releases: tuple[Release, Release]
) -> None:
    """By a systemctl of the test's: no systemd runs here as process 1."""
    one, two = releases
    install(root, one)
    settings = root.path / "etc/edgesdk/server.toml"
    settings.write_text(settings.read_text().replace("port = 8080", f"port = {free_port()}"))
    (root.path / "usr/bin/systemctl").write_text(_SYSTEMCTL)
    (root.path / "run/systemd/system").mkdir(parents=True, exist_ok=True)
    (root.path / "broken").touch()
    with pytest.raises(AssertionError, match=r"2\.0\.0-\w+ does not come up, and 1\.0\.0-\w+ is in use again"):
        install(root, two)
    assert (release_of(in_use(root)[0]), in_use(root)[1]) == ("1.0.0", None)
    said = root.run("dpkg", "--configure", "-a")
    assert "did not come up before" in said and release_of(in_use(root)[0]) == "1.0.0"
    assert root.run("dpkg-query", "-W", "-f", "${Status}", "edgesdk-service") == "install ok installed"
    (root.path / "broken").unlink()
    assert "is in use" in install(root, two)
    assert tuple(map(release_of, in_use(root))) == ("2.0.0", "1.0.0")
    assert json.loads(root.run("edgesdk-service", "status"))["health"]["bundle"] == two.digest
    root.run("dpkg", "-P", "edgesdk-service")
    assert not (root.path / "var/lib/edgesdk").exists()
