"""Dropbear on this machine with a login shell and programs of the test's choosing, in a mount namespace of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edgesdk.devices import Settings

from .host import LabUnavailableError, free_port, require, tool

#: Programs to Debian packages.
TOOLS = {"dropbear": "dropbear-bin", "busybox": "busybox-static", "unshare": "util-linux"}
#: Login shells to Debian packages; each but BusyBox's own is a program of this machine.
SHELLS = {"dash": "dash", "mksh": "mksh", "bash": "bash", "fish": "fish", "tcsh": "tcsh", "zsh": "zsh"}
APPLETS = tuple(
    """ash awk basename cat chmod cp cut date dd df dirname echo env expr false find grep head id kill ln ls mkdir
    mkfifo mktemp mv od printf ps pwd rm rmdir sed sh sha256sum sleep sort stat sync tail tee test touch tr true uname
    wc""".split()  # noqa: SIM905
)
_USER = "edge"
_START = 10.0


@contextmanager
def login(
    folder: Path,
    shell: Path,
    files: Mapping[str, str] | None = None,
    programs: Path | None = None,
) -> Iterator[Settings]:
    """A server for one user, who has a home folder below ``folder``.

    Args:
        folder: empty; keys, home and store go there.
        shell: the user's login shell.
        files: of the home folder, such as ``.bashrc``.
        programs: a folder that stands in the place of ``/usr/bin``.

    Yields: how edgesdk reaches it.

    Raises:
        LabUnavailableError: a program or a right is missing.
    """
    require(TOOLS)
    if os.geteuid() != 0:
        raise LabUnavailableError("a login shell of its own needs root")
    home, port = folder / "home", free_port()
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    for name, text in (files or {}).items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    keys = _keys(folder, home, port)
    (folder / "passwd").write_text(f"root:x:0:0:root:/root:/bin/sh\n{_USER}:x:0:0::{home}:{shell}\n")
    (folder / "shells").write_text(f"{shell}\n")
    binds = {folder / "passwd": "/etc/passwd", folder / "shells": "/etc/shells"}
    if programs is not None:
        binds[programs] = "/usr/bin"
    mounts = " && ".join(f"mount --bind '{source}' {target}" for source, target in binds.items())
    server = tool("dropbear")
    script = f"{mounts} && exec {server} -F -E -s -r '{folder}/host' -p 127.0.0.1:{port} -P '{folder}/pid'"
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script], stdout=log, stderr=log, start_new_session=True
        )
    try:
        _await(running, port, folder / "log")
        yield Settings(f"ssh:{_USER}@127.0.0.1:{port}", key=str(keys), known_hosts=str(folder / "known_hosts"))
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def applets(folder: Path, without: Collection[str] = ()) -> Path:
    """A folder of BusyBox's applets, but for some: BusyBox itself has another name there, so that nobody finds them.

    Where some are missing the shell is dash, for BusyBox's own runs applets that have no link.
    """
    require({"busybox": "busybox-static", "dash": "dash"})
    folder.mkdir()
    shutil.copy(str(tool("busybox")), folder / "box")
    for name in APPLETS:
        if name not in without:
            (folder / name).symlink_to("box")
    if without:
        (folder / "sh").unlink()
        shutil.copy(str(tool("dash")), folder / "sh")
    return folder


def _keys(folder: Path, home: Path, port: int) -> Path:
    """The keys of the server and of the user; the user's private one."""
    for name in ("host", "user"):
        subprocess.run(["dropbearkey", "-t", "ed25519", "-f", folder / name], check=True, capture_output=True)
    public = [_public(folder / name) for name in ("host", "user")]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public[0]}\n")
    (home / ".ssh/authorized_keys").write_text(f"{public[1]}\n")
    (home / ".ssh/authorized_keys").chmod(0o600)
    private = folder / "user.openssh"
    subprocess.run(
        ["dropbearconvert", "dropbear", "openssh", folder / "user", private], check=True, capture_output=True
    )
    return private


def _public(key: Path) -> str:
    said = subprocess.run(["dropbearkey", "-y", "-f", key], check=True, capture_output=True, text=True).stdout
    return next(line for line in said.splitlines() if line.startswith("ssh-ed25519"))


def _await(running: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up = time.monotonic() + _START
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if running.poll() is not None or time.monotonic() > give_up:
                raise LabUnavailableError(f"dropbear does not start: {log.read_text()[-300:]}") from None
            time.sleep(0.02)  # between two attempts to reach it
