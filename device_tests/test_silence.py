"""Nothing leaves the machine: no look-up, no socket but the one asked for, no file outside of what is named."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from edgesdk.converter import CONVERTERS
from edgesdk.devices.runner.archive import runner_archive
from edgesdk.runner_lines import sealed

from .lab.host import LabUnavailableError, free_port
from .service_files import bundle, deb, debian_root
from .watched import Watch, changed, sockets, tracing, watched

EDGESDK = (sys.executable, "-m", "edgesdk")
WAIT_SECONDS = 60
_ASK = f"""
i=0; until curl -sf -o /dev/null http://127.0.0.1:$PORT/health; do
    i=$((i + 1)); [ $i -lt {WAIT_SECONDS} ] || break; sleep 1
done
curl -sf http://127.0.0.1:$PORT/v1/chat/completions -H 'Content-Type: application/json' \
    -d '{{"model": "default", "messages": [{{"role": "user", "content": "hi"}}], "max_tokens": 2}}'
sleep 3
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home with nothing in it; temporary files of commands go elsewhere."""
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "tmp").mkdir()
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "EDGESDK_CACHE", "EDGESDK_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("HOME", folder), ("TMPDIR", tmp_path / "tmp"), ("PYTHONDONTWRITEBYTECODE", "1")):
        monkeypatch.setenv(name, str(value))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("silent"), "linux-x86_64", 256)


def silently(command: list[object], tmp_path: Path, *, beside: str = "", **environment: str) -> Watch:
    try:
        found = watched([str(each) for each in command], tmp_path / "trace", beside=beside, **environment)
    except LabUnavailableError as failure:
        pytest.skip(f"{failure.message} ({failure.hint})")
    assert found.status == 0, found.output[-3000:]
    return found


def test_the_watch_sees_what_is_sent(made: Path, home: Path, tmp_path: Path) -> None:
    """ONNX Runtime with its own default: files of its telemetry at once, look-ups of Microsoft's host later."""
    code = f"import onnxruntime as o, time; o.InferenceSession({str(made / 'model.onnx')!r}); time.sleep(8)"
    found = silently([sys.executable, "-c", code], tmp_path)
    assert any("Microsoft" in path for path in found.changed), "ONNX Runtime is silent by itself now"
    code = "import socket; s = socket.socket(); s.connect_ex(('10.1.2.3', 80)); socket.getaddrinfo"
    code += "; import contextlib\nwith contextlib.suppress(OSError): socket.getaddrinfo('example.invalid', 1)"
    found = silently([sys.executable, "-c", code], tmp_path)
    assert "connect AF_INET 10.1.2.3:80" in found.sockets and any("look-up" in each for each in found.sockets)


@pytest.mark.parametrize("target", ["linux-x86_64", "android-arm64", "litert-arm64"])
def test_export(target: str, made: Path, home: Path, tmp_path: Path) -> None:
    model = made.parent / "model"
    found = silently([*EDGESDK, "export", model, "-t", target, "--context", 256, "-o", tmp_path / "o" / "b"], tmp_path)
    assert found.sockets == ()
    assert found.outside(tmp_path / "o", tmp_path / "tmp", home / ".cache/edgesdk") == []
    assert list((tmp_path / "o").iterdir()) == [tmp_path / "o" / "b"]


def test_run(made: Path, home: Path, tmp_path: Path) -> None:
    found = silently([*EDGESDK, "run", made, "hi", "--max-tokens", 4], tmp_path)
    assert found.sockets == ()
    assert found.outside(tmp_path / "tmp", home / ".cache/edgesdk") == []


def test_profile(made: Path, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "o" / "p.json"
    out.parent.mkdir()
    options = ["--device", "local", "--prompt-tokens", 8, "--new-tokens", 4, "-o", out]
    found = silently([*EDGESDK, "profile", made, *options], tmp_path)
    assert found.sockets == ()
    own = (home / ".cache/edgesdk", home / ".local/share/edgesdk")
    assert found.outside(tmp_path / "tmp", tmp_path / "o", *own) == []


def test_serve(made: Path, home: Path, tmp_path: Path) -> None:
    port = str(free_port())
    beside = f"{_ASK}\nkill -TERM $(pgrep -P $server)"
    found = silently([*EDGESDK, "serve", made, "--port", port], tmp_path, beside=beside, PORT=port)
    assert '"finish_reason"' in found.output
    assert set(found.sockets) == {f"bind AF_INET 127.0.0.1:{port}"}
    assert found.outside(tmp_path / "tmp", home / ".cache/edgesdk") == []


def test_the_runner_of_boards(made: Path, home: Path, tmp_path: Path) -> None:
    on_device = CONVERTERS.get("onnx").on_device
    assert on_device is not None
    (tmp_path / "runner.pyz").write_bytes(runner_archive(on_device))
    commands = b"".join(map(sealed, ("hello", "measure 4 1,2,3")))
    (tmp_path / "commands").write_bytes(commands)
    script = f"{sys.executable} -I {tmp_path / 'runner.pyz'} {made} < {tmp_path / 'commands'}; sleep 3"
    found = silently(["sh", "-c", script], tmp_path)
    assert '"done"' in found.output and found.sockets == () and found.outside(tmp_path / "tmp") == []


def test_the_debian_service(made: Path, tmp_path: Path) -> None:
    port = str(free_port())
    try:
        package = deb(tmp_path, made, "1.0.0")
        with debian_root(tmp_path / "overlay") as root:
            root.run("dpkg", "-i", str(package))
            settings = root.path / "etc/edgesdk/server.toml"
            settings.write_text(settings.read_text().replace("port = 8080", f"port = {port}"))
            (root.path / "empty").mkdir()
            beside = f"{_ASK}\npkill -TERM -f edgesdk-service/manager[.]pyz.run"
            quiet = "env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/empty"
            started = f"{quiet} {shlex.join(tracing('/empty.trace'))} edgesdk-service run"
            script = f"ip link set lo up; PORT={port}; {started} & server=$!; {beside}\nwait $server"
            output = root.run("unshare", "-n", "sh", "-c", script)
            lines = (root.path / "empty.trace").read_text(errors="replace").splitlines()
            left = list((root.path / "empty").rglob("*"))
    except LabUnavailableError as failure:
        pytest.skip(f"{failure.message} ({failure.hint})")
    assert '"finish_reason"' in output
    assert set(sockets(lines)) <= {f"bind AF_INET 127.0.0.1:{port}", f"connect AF_INET 127.0.0.1:{port}"}
    own = ("/var/lib/edgesdk/", "/run/", "/tmp/")
    cache = Path("/empty/.cache/edgesdk")
    outside = [path for path in changed(lines) if not path.startswith((*own, str(cache)))]
    assert {Path(path) for path in outside} <= {*cache.parents}
    assert [each for each in left if "edgesdk" not in each.parts and each.name != ".cache"] == []


def test_a_bundle_that_is_open_sends_nothing(made: Path, home: Path, tmp_path: Path) -> None:
    """The session in a program of the user's own, as long as an upload would take to begin."""
    code = (
        "import time, edgesdk\n"
        f"with edgesdk.open_bundle({str(made)!r}) as b:\n    edgesdk.Chat(b).ask('hi', max_tokens=2); time.sleep(12)"
    )
    found = silently([sys.executable, "-c", code], tmp_path)
    assert found.sockets == () and found.outside(tmp_path / "tmp", home / ".cache/edgesdk") == []
