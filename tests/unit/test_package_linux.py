"""The service's package and its manager, without Debian's tools and without a registry."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgesdk.bundle import open_bundle
from edgesdk.children import module_command
from edgesdk.package import package
from edgesdk.package.base import PackageError
from edgesdk.package.linux_service import DELIVERABLE, ServiceOptions, manager
from edgesdk.package.linux_service.manager import Service
from edgesdk.package.linux_service.python import SERVE, read_lock, requirements
from edgesdk.package.linux_service.whole import SUMS, ServiceError, damage
from edgesdk.serve import open_settings
from edgesdk.targets import target_names


def members(deb: Path) -> dict[str, bytes]:
    """What an ar archive holds."""
    data, at, found = deb.read_bytes(), 8, {}
    assert data[:8] == b"!<arch>\n"
    while at < len(data):
        header = data[at : at + 60]
        size = int(header[48:58])
        assert header[58:] == b"`\n"
        found[header[:16].decode().strip()] = data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return found


def opened(data: bytes) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            info.name: (info, file.read() if (file := archive.extractfile(info)) else b"")
            for info in archive.getmembers()
        }


@pytest.fixture(scope="module")
def made(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deliverable without wheels, which needs no registry."""
    out = tmp_path_factory.mktemp("service") / "out"
    package(bundle, "linux-service", out, options={"version": "1.2.0", "wheels": "no"})
    return out


def test_the_package_is_an_archive_that_dpkg_reads(made: Path) -> None:
    found = members(made / "edgesdk-service_1.2.0_amd64.deb")
    assert list(found) == ["debian-binary", "control.tar.gz", "data.tar.gz"] and found["debian-binary"] == b"2.0\n"
    control, data = opened(found["control.tar.gz"]), opened(found["data.tar.gz"])
    fields = dict(line.split(": ", 1) for line in control["./control"][1].decode().splitlines() if line[0] != " ")
    assert fields["Version"] == "1.2.0" and fields["Architecture"] == "amd64" and "python3.11" in fields["Depends"]
    size = sum(info.size for info, _ in data.values())
    assert abs(int(fields["Installed-Size"]) * 1024 - size) <= 1024
    for name in ("./preinst", "./postinst", "./prerm", "./postrm"):
        info, script = control[name]
        assert info.mode == 0o755 and script.startswith(b"#!/bin/sh\nset -e\n") and b"{{" not in script
    for name in control["./conffiles"][1].decode().splitlines():
        assert f".{name}" in data
    sums = dict(reversed(line.split("  ")) for line in control["./md5sums"][1].decode().splitlines())
    files = {name: content for name, (info, content) in data.items() if info.isfile()}
    assert {f"./{name}" for name in sums} == files.keys()
    assert all(sums[name[2:]] == hashlib.md5(content).hexdigest() for name, content in files.items())
    assert {(info.uname, info.gname, info.mtime) for info, _ in data.values()} == {("root", "root", 0)}
    assert {info.mode for info, _ in data.values()} == {0o644, 0o755}
    parents = {str(Path(name).parent) for name in data if name != "."}
    assert {parent.removeprefix("./") for parent in parents} <= {name.removeprefix("./") for name in data}


def test_the_same_inputs_make_the_same_bytes(made: Path, bundle: Path, tmp_path: Path) -> None:
    package(bundle, "linux-service", tmp_path / "out", options={"version": "1.2.0", "wheels": "no"})
    names = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    assert names == sorted(
        path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
    assert all((made / name).read_bytes() == (tmp_path / "out" / name).read_bytes() for name in names)


def test_files_of_the_service_are_whole(made: Path) -> None:
    root = made / "root"
    unit = (root / "usr/lib/systemd/system/edgesdk.service").read_text()
    for line in (
        "DynamicUser=yes",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "Restart=on-failure",
        "TimeoutStopSec=10",
        "LimitNOFILE=4096",
    ):
        assert f"\n{line}\n" in unit
    settings = open_settings(root / "etc/edgesdk/server.toml")
    assert settings == type(settings)()
    text = (root / "etc/edgesdk/server.toml").read_text()
    said = tomllib.loads(text.replace("\n# ", "\n").split("service.toml too.\n", 1)[1])
    plain = {key: [*value] if isinstance(value, tuple) else value for key, value in vars(settings).items()}
    assert said == {key: value for key, value in plain.items() if key in said}  # the values that are said to count
    assert tomllib.loads((root / "etc/edgesdk/service.toml").read_text()) == {"token": False}
    readme = (made / "README.md").read_text()
    assert "{{" not in readme and "{%" not in readme and "pip install" in readme and "uvicorn" in readme
    assert os.access(root / "usr/bin/edgesdk-service", os.X_OK)
    [version] = (root / "usr/lib/edgesdk-service/payload").iterdir()
    assert damage(version) is None


def test_the_packed_server_starts_by_its_own_files(made: Path, tmp_path: Path) -> None:
    """With the packages of this Python in place of wheels, and without the checkout."""
    [version] = (made / "root/usr/lib/edgesdk-service/payload").iterdir()
    (tmp_path / "server.toml").write_text("port = 0\n")
    started = subprocess.Popen(
        [*module_command(sys.executable, "edgesdk.serve", "-s", "-B"), version / "bundle", tmp_path / "server.toml"],
        env=os.environ | {"PYTHONPATH": str(version / "python")},
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
    )
    with started:
        assert started.stderr is not None
        line = started.stderr.readline()
        maps = Path(f"/proc/{started.pid}/maps").exists()
        started.send_signal(signal.SIGTERM)
        assert started.wait(30) == 0 and maps
    assert line.startswith("Serving ")
    assert damage(version) is None  # nothing was written there


def test_what_cannot_become_a_service_is_refused(bundle: Path) -> None:
    with open_bundle(bundle, check=False) as opened_bundle:
        manifest = opened_bundle.manifest
    phone = replace(manifest, target=replace(manifest.target, name="android-arm64", os="android"))
    plain = replace(manifest, tokenizer=replace(manifest.tokenizer, chat_template=None))
    firmware = replace(manifest, program=replace(manifest.program, converter="cortex_m"))
    for changed, said in ((phone, "not for a Linux board"), (plain, "no chat template"), (firmware, "no session")):
        with pytest.raises(PackageError, match=said):
            DELIVERABLE.check(changed, ServiceOptions())
    wrong: tuple[dict[str, Any], ...] = (
        {"version": "v1"},
        {"version": "1-2"},
        {"python": "3.9"},
        {"maintainer": "me"},
        {"lock": "x", "wheels": "no"},
    )
    for options in wrong:
        with pytest.raises(PackageError, match=f"option {next(iter(options))}"):
            DELIVERABLE.check(manifest, ServiceOptions(**options))
    assert {"linux-arm64", "jetson-orin", "linux-x86_64"} <= set(target_names())


def test_a_lock_names_every_wheel_with_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "python.lock"
    file.write_text(f"click==8.1.0 --hash=sha256:{'a' * 64}\n")
    [wheel] = read_lock(file)
    assert (wheel.name, wheel.version, wheel.sha256) == ("click", "8.1.0", "a" * 64)
    for text in ("", "click\n", "click==1 --hash=md5:aa\n"):
        file.write_text(text)
        with pytest.raises(PackageError, match=r"python\.lock"):
            read_lock(file)


def test_a_board_gets_what_the_extra_of_the_server_names() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert sorted(SERVE) == sorted(project["optional-dependencies"]["serve"])
    plain = {line for line in project["dependencies"] if ";" not in line}
    assert {*plain, *SERVE, "onnxruntime>=1"} == set(requirements("onnxruntime>=1", "3.11"))
    assert {*plain, *SERVE, "onnxruntime>=1", "tomli>=2"} == set(requirements("onnxruntime>=1", "3.10"))


def a_board(root: Path, *versions: str) -> tuple[Service, list[str]]:
    """A board whose packages brought these versions, and their names."""
    service, names = Service(root), []
    for version in versions:
        folder = service.payload / "staged"
        (folder / "bundle").mkdir(parents=True)
        (folder / "bundle" / "weights").write_text(f"weights of {version}")
        listing = f"{hashlib.sha256(f'weights of {version}'.encode()).hexdigest()}  bundle/weights\n".encode()
        (folder / SUMS).write_bytes(listing)
        names.append(f"{version}-{hashlib.sha256(listing).hexdigest()[:8]}")
        folder.rename(service.payload / names[-1])
    return service, names


def test_versions_are_switched_kept_and_forgotten(tmp_path: Path) -> None:
    service, (one, two, three) = a_board(tmp_path, "1", "2", "3")
    service.configure(one)
    assert (service.version("current"), service.version("previous"), service.select()) == (one, None, one)
    token = (tmp_path / "etc/edgesdk/token").read_text()
    assert len(token) > 30 and (tmp_path / "etc/edgesdk/token").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ServiceError, match="no version before"):
        service.rollback()
    service.configure(two)
    service.configure(two)  # a second time changes nothing
    assert (service.version("current"), service.version("previous")) == (two, one)
    service.rollback()
    assert (service.version("current"), service.version("previous")) == (one, two)
    service.configure(three)
    service.settle()
    assert {path.name for path in service.versions.iterdir()} == {one, three}
    assert (tmp_path / "etc/edgesdk/token").read_text() == token
    assert (service.versions / one / "bundle/weights").stat().st_nlink == 2  # with the payload's: nothing was copied


def test_a_damaged_version_gives_way_to_the_one_before(tmp_path: Path) -> None:
    service, (one, two) = a_board(tmp_path, "1", "2")
    for name in (one, two):
        service.configure(name)
        service.settle()
    weights = service.versions / two / "bundle/weights"
    weights.unlink()
    weights.write_text("weights of X")
    with pytest.raises(ServiceError, match=f"current version {two} is damaged: bundle/weights"):
        service.verify()
    assert service.select() == one == service.version("current")
    with pytest.raises(ServiceError, match=f"version {two} is damaged"):
        service.rollback()
    service.configure(two)  # the package's own copy is whole
    assert service.select() == two
    (service.versions / one / SUMS).write_text("")
    weights = service.versions / two / "bundle/extra"
    weights.write_text("")
    with pytest.raises(ServiceError, match="too many files or too few: bundle/extra, and there is no whole one before"):
        service.select()


def test_a_version_that_does_not_come_up_in_three_starts_gives_way(tmp_path: Path) -> None:
    service, (one, two) = a_board(tmp_path, "1", "2")
    service.configure(one)
    assert [service.select() for _ in range(5)] == [one] * 5  # there is nothing better
    service.settle()
    service.configure(two)
    assert [service.select() for _ in range(4)] == [two, two, two, one]
    assert (service.select(), service.version("previous")) == (one, None)
    with pytest.raises(ServiceError, match="no version before"):
        service.rollback()  # to one that fails
    service.configure(two)
    assert service.select() == one  # dpkg-reconfigure does not try it again


def test_where_systemd_runs_an_upgrade_that_does_not_answer_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a systemctl that only notes what it is asked for; no test starts a real one."""
    service, (one, two, three) = a_board(tmp_path, "1", "2", "3")
    asked: list[tuple[str, str | None]] = []
    answers = {one: True, two: False, three: True}

    def systemctl(*arguments: str) -> bool:
        asked.append((arguments[0], service.version("current")))
        return True

    monkeypatch.setattr(manager, "_systemd_runs", lambda: True)
    monkeypatch.setattr(manager, "_systemctl", systemctl)
    monkeypatch.setattr(service, "comes_up", lambda seconds: answers[str(service.version("current"))])
    service.configure(one)
    assert asked == [("is-enabled", one), ("daemon-reload", one), ("restart", one)]
    asked.clear()
    with pytest.raises(ServiceError, match=f"version {two} does not come up, and {one} is in use again"):
        service.configure(two)
    assert service.version("current") == one
    assert [(verb, version) for verb, version in asked if verb == "restart"] == [("restart", two), ("restart", one)]
    assert service.version("previous") is None
    asked.clear()
    service.configure(two)  # by a later dpkg --configure: it does not stop a service that answers
    assert asked == [] and service.version("current") == one
    service.configure(three)
    assert service.status()["refused"] == two
    asked.clear()
    with pytest.raises(ServiceError, match=f"version {two} does not come up, and {three} is in use again"):
        service._note.unlink()  # what the package's preinst does
        service.configure(two)
    assert (service.version("current"), service.version("previous")) == (three, one)  # as before the attempt
    service.rollback()
    assert (service.version("current"), service.version("previous")) == (one, three)


def _dying(calls: int, death: type[BaseException]) -> dict[str, Any]:
    """Ways to change a file, of which the last one dies after so many calls."""
    left = [calls]

    def dying(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise death
            return real(*arguments, **options)

        return call

    return {name: dying(getattr(Path, name)) for name in ("replace", "symlink_to", "unlink", "write_text")}


def test_a_way_back_that_is_killed_at_any_moment_leaves_a_good_version(tmp_path: Path) -> None:
    """The service that did not come up is given up by four changes of files; each is the last one once."""
    from unittest import mock

    class Killed(BaseException):
        pass

    for deadline in range(20):
        service, (one, two, three) = a_board(tmp_path / str(deadline), "1", "2", "3")
        for name in (one, two):
            service.configure(name)
        service.configure(three)
        with mock.patch.multiple(Path, **_dying(deadline, Killed)):
            try:
                for _ in range(4):
                    service.select()
                done = True
            except Killed:
                done = False
        for _ in range(5):
            found = service.select()
        assert found == two and service.version("previous") != three
        if done:
            break
    assert 5 < deadline < 19


def test_a_damaged_payload_is_not_installed(tmp_path: Path) -> None:
    service, (one, two) = a_board(tmp_path, "1", "2")
    service.configure(one)
    (service.payload / two / "bundle/weights").write_text("other")
    with pytest.raises(ServiceError, match="the package is damaged"):
        service.configure(two)
    assert service.version("current") == one and {path.name for path in service.versions.iterdir()} == {one}


def test_an_installation_killed_at_any_moment_leaves_old_or_new(tmp_path: Path) -> None:
    """Every call that changes a file is the last one once."""
    from unittest import mock

    class Killed(BaseException):
        pass

    for deadline in range(200):
        service, (one, two) = a_board(tmp_path / str(deadline), "1", "2")
        service.configure(one)
        service.settle()
        left = [deadline]

        def dying(real: Any, left: list[int] = left) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                return real(*arguments, **options)

            return call

        names = ("link", "mkdir", "rename", "replace", "symlink", "unlink", "fsync", "sync")
        patches = [mock.patch.object(os, name, dying(getattr(os, name))) for name in names]
        with mock.patch("shutil.rmtree"):
            for patch in patches:
                patch.start()
            try:
                service.configure(two)
                done = True
            except Killed:
                done = False
            for patch in patches:
                patch.stop()
        assert service.select() in (one, two)
        service.configure(two)
        assert service.select() == two and service.version("previous") == one
        if done:
            break
    assert 5 < deadline < 199


def test_the_command_starts_the_server_with_the_token_and_the_store(tmp_path: Path) -> None:
    service, (one,) = a_board(tmp_path, "1")
    service.configure(one)
    line, environment = service.command()
    assert line[-2:] == [str(service.versions / one / "bundle"), str(tmp_path / "etc/edgesdk/server.toml")]
    assert "EDGESDK_TOKEN" not in environment and environment["PYTHONPATH"] == str(service.versions / one / "python")
    store = tmp_path / "store"
    entries = [{"path": "weights", "size": 1, "sha256": hashlib.sha256(b"w").hexdigest()}]
    for name in ("a", "b"):
        (store / "bundles" / name).mkdir(parents=True)
        (store / "bundles" / name / "weights").write_bytes(b"w")
        (store / "bundles" / name / "manifest.json").write_text(json.dumps({"files": entries}))
    (store / "active").write_text("b\na\n")
    (tmp_path / "etc/edgesdk/service.toml").write_text(f'token = true\npython = "/opt/python"\nstore = "{store}"\n')
    line, environment = service.command()
    assert line[0] == "/opt/python" and line[-2] == str(store / "bundles/b")
    assert environment["EDGESDK_TOKEN"] == (tmp_path / "etc/edgesdk/token").read_text().strip()
    (store / "bundles/b/weights").write_bytes(b"v")
    assert service.command()[0][-2] == str(store / "bundles/a")
    (store / "bundles/a/weights").unlink()
    with pytest.raises(ServiceError, match="no whole bundle"):
        service.command()


def test_the_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert manager.main(["frobnicate"], Service(tmp_path)) == 2
    assert manager.main(["configure", "9-aaaaaaaa"], Service(tmp_path)) == 1
    assert "there is no such payload" in capsys.readouterr().err
    assert manager.main(["status"], Service(tmp_path)) == 0
    assert json.loads(capsys.readouterr().out)["current"] is None
