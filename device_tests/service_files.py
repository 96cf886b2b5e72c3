"""Packages of the board's service to test with, and a Debian root of this machine to install them in."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edgesdk
from edgesdk.package import package

from .lab.host import LabUnavailableError

_CONFTEST = Path(__file__).parents[1] / "tests" / "conftest.py"
_TOOLS = ("dpkg", "unshare", "nsenter", "mount", "chroot")
_MOUNTS = """
set -e
mount -t tmpfs none "$0"
cd "$0"
mkdir up work root
mount -t overlay overlay -o lowerdir=/,upperdir=up,workdir=work root
mount -t proc proc root/proc
mount --bind /dev root/dev
echo ready
exec sleep infinity
"""


def bundle(folder: Path, target: str, context: int) -> Path:
    """A bundle of the unit tests' tiny chat model."""
    spec = importlib.util.spec_from_file_location("edgesdk_unit_conftest", _CONFTEST)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = folder / "model"
    if not model.is_dir():
        module.make_checkpoint(model)
    out = folder / f"bundle-{context}"
    edgesdk.export(model, target, out, context=context)
    return out


def deb(folder: Path, made: Path, version: str, lock: Path | None = None) -> Path:
    """The package of a bundle.

    Raises:
        LabUnavailableError: the package registry does not give the wheels.
    """
    out = folder / f"out-{version}"
    try:
        package(made, "linux-service", out, options={"version": version, "lock": str(lock or "")})
    except edgesdk.EdgeError as failure:
        raise LabUnavailableError(failure.message, hint="connect to a package registry") from failure
    return next(out.glob("*.deb"))


@dataclass(frozen=True)
class Root:
    """A throw-away copy of this machine's Debian; what runs in it ends with it.

    Attributes:
        pid: of the process that holds its namespaces.
        inside: the root as that process sees it.
    """

    pid: int
    inside: str

    @property
    def path(self) -> Path:
        """The root as this process sees it."""
        return Path(f"/proc/{self.pid}/root{self.inside}")

    def command(self, *command: str) -> list[str]:
        """The command line that runs a command there."""
        return ["nsenter", "-t", str(self.pid), "-m", "-p", "chroot", self.inside, *command]

    def run(self, *command: str) -> str:
        """What a command prints there; it must not fail."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(
            self.command(*command), capture_output=True, text=True, check=False, env=environment, timeout=120
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
        return done.stdout + done.stderr

    def killed_after(self, seconds: float, *command: str) -> bool:
        """Start a command and kill it and its children so much later; False where it had ended before."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        started = subprocess.Popen(
            self.command(*command),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        try:
            started.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
            return True
        return False


@contextmanager
def debian_root(folder: Path) -> Iterator[Root]:
    """An overlay over this machine's root, in namespaces of its own.

    Raises:
        LabUnavailableError: this is no Debian with Python 3.11, or namespaces or mounts are not allowed.
    """
    missing = [name for name in _TOOLS if shutil.which(name) is None]
    if missing or not Path("/usr/bin/python3.11").exists() or not Path("/var/lib/dpkg/status").exists():
        raise LabUnavailableError(f"no Debian 12 with python3.11 and {', '.join(missing or _TOOLS)}", hint="use one")
    folder.mkdir()
    command = ["unshare", "-m", "-p", "-f", "--kill-child", "sh", "-c", _MOUNTS, str(folder)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stderr is not None
    with holder:
        try:
            if holder.stdout.readline() != "ready\n":
                raise LabUnavailableError(f"no root of its own: {holder.stderr.read()[-300:]}", hint="run as root")
            [child] = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text(encoding="ascii").split()
            yield Root(int(child), f"{folder}/root")
        finally:
            with suppress(ProcessLookupError):
                holder.kill()
