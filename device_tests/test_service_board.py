"""The service's package on the emulated 64-bit Arm board: installed by Debian's dpkg there, asked from this machine.

Emulation is slow (170 MB of wheels take dpkg minutes), so the package leaves numpy and ONNX Runtime to the board, which
has both, and leaves out what a server does not import. The wheels that remain hold native code for Arm too.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from edgesdk.package.base import PackageError
from edgesdk.package.linux_service.python import lock_text, requirements, resolved

from .lab import LabUnavailableError
from .lab.board import Board
from .lab.host import free_port, lab_dir, run, tool
from .lab.packages import ForeignApt
from .service_files import bundle, deb

_SECONDS = 400.0  # for the slowest step under emulation
_DPKG = ("dpkg", "tar", "libc-bin")
_LIBRARIES = ("libmd0", "libzstd1", "liblzma5", "libbz2-1.0", "zlib1g", "libselinux1", "libpcre2-8-0", "libacl1")
_PACKED = {
    *("annotated-doc", "annotated-types", "anyio", "click", "fastapi", "h11", "idna", "jinja2", "markupsafe"),
    *(
        "opentelemetry-api",
        "packaging",
        "platformdirs",
        "prometheus-client",
        "pydantic",
        "pydantic-core",
        "starlette",
        "tokenizers",
    ),
    *("typing-extensions", "typing-inspection", "uvicorn"),
}
QUESTION: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def package_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, with wheels for 64-bit Arm."""
    folder = tmp_path_factory.mktemp("arm64")
    try:
        wheels = resolved(requirements("onnxruntime>=1.32,<2", "3.11"), "3.11", "aarch64")
        kept = [wheel for wheel in wheels if wheel.name.lower().replace("_", "-") in _PACKED]
        assert len(kept) == len(_PACKED)
        (folder / "python.lock").write_text(lock_text(kept))
        return deb(folder, bundle(folder, "linux-arm64", 128), "1.0.0", folder / "python.lock")
    except (LabUnavailableError, PackageError) as failure:
        pytest.skip(f"{failure.message} ({failure.hint})")


def with_dpkg(board: Board, folder: Path) -> None:
    """Give the board Debian's own dpkg, which its image leaves out."""
    apt = ForeignApt(lab_dir() / "apt")
    root = folder / "root"
    for file in apt.download([apt.candidate(name) for name in (*_DPKG, *_LIBRARIES)], folder / "debs"):
        run(["dpkg-deb", "--extract", file, root])
    run(["tar", "-C", root, "-cf", folder / "dpkg.tar", "."])
    send(board, folder / "dpkg.tar", "tar -C / -xf -")
    board.run("mkdir -p /var/lib/dpkg/updates /var/lib/dpkg/info && : > /var/lib/dpkg/status")


def ssh(board: Board, *options: str) -> list[str]:
    return [tool("ssh") or "ssh", *board.ssh_options, "-p", str(board.port), *options, f"{board.user}@{board.host}"]


def slowly(board: Board, command: str) -> str:
    """What a command prints that takes long there; it must not fail."""
    done = subprocess.run([*ssh(board), command], capture_output=True, text=True, check=False, timeout=_SECONDS)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]
    return done.stdout


def send(board: Board, file: Path, command: str) -> None:
    """Run a command on the board that reads a file of this machine."""
    with file.open("rb") as source:
        subprocess.run([*ssh(board), command], stdin=source, check=True, timeout=_SECONDS)


@contextmanager
def forwarded(board: Board, port: int) -> Iterator[int]:
    """A port of this machine that leads to one of the board's loopback."""
    here = free_port()
    tunnel = subprocess.Popen([*ssh(board, "-N", "-L", f"{here}:127.0.0.1:{port}", "-o", "ExitOnForwardFailure=yes")])
    try:
        yield here
    finally:
        tunnel.terminate()
        tunnel.wait(10)


def test_the_package_installs_and_streams_a_chat(lab_board: Board, package_file: Path, tmp_path: Path) -> None:
    with_dpkg(lab_board, tmp_path)
    marks = [("begin", time.monotonic())]
    send(lab_board, package_file, "cat > /root/service.deb")
    # the image's packages were unpacked without dpkg, which so knows none of those that this one depends on
    said = slowly(lab_board, "dpkg --force-depends --force-unsafe-io -i /root/service.deb 2>&1")
    marks.append(("installed", time.monotonic()))
    assert "is in use at the next start" in said and lab_board.run("uname -m").strip() == "aarch64"
    assert lab_board.run("dpkg-query -W -f '${Status} ${Architecture}' edgesdk-service") == "install ok installed arm64"
    lab_board.run("nohup edgesdk-service run > /root/service.log 2>&1 < /dev/null & echo $! > /root/service.pid")
    slowly(lab_board, "until grep -q 'Serving\\|Error\\|Traceback' /root/service.log; do sleep 0.5; done")
    marks.append(("serving", time.monotonic()))
    assert "Serving " in lab_board.run("cat /root/service.log")
    with forwarded(lab_board, 8080) as port:
        client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=9, timeout=_SECONDS)
        ask: Any = {"model": "default", "messages": QUESTION, "max_tokens": 6, "temperature": 0}
        pieces = [chunk.choices[0] for chunk in client.chat.completions.create(**ask, stream=True)]
        whole = client.chat.completions.create(**ask).choices[0]
    marks.append(("answered", time.monotonic()))
    assert pieces[-1].finish_reason == whole.finish_reason == "length"
    assert "".join(piece.delta.content or "" for piece in pieces) == whole.message.content
    lab_board.run(
        "kill -TERM $(cat /root/service.pid); while kill -0 $(cat /root/service.pid) 2>/dev/null; do sleep 0.2; done"
    )
    assert "Traceback" not in lab_board.run("cat /root/service.log")
    slowly(lab_board, "dpkg -P edgesdk-service && ! test -e /var/lib/edgesdk && ! test -e /etc/edgesdk")
    steps = pairwise(marks)
    print(*(f"{name} in {at - before:.0f} s" for (_, before), (name, at) in steps), sep=", ", file=sys.stderr)
