"""The versions of a service on its board; runs there by itself, with Python's standard library and nothing else.

    edgesdk-service configure ID   make a version of what the package brought, switch to it, restart the service
    edgesdk-service select         before a start: the version in use, or the one before where that is damaged or fails
    edgesdk-service exec           become the server of the version in use
    edgesdk-service settle         after a start: the version in use is good; older ones go
    edgesdk-service run            select, exec and settle in one, where no systemd does it
    edgesdk-service verify | status | rollback

``/var/lib/edgesdk`` holds ``versions/ID``, and the links ``current`` and ``previous`` to two of them. A version has
its name only when it is whole, and its name ends with the beginning of the SHA-256 of its list of hashes, so that a
cut at any moment leaves the old version in use, or the new one. One that did not come up is noted in ``refused``: it is
not gone back to, nor tried again before its package is unpacked again.

Where ``/etc/edgesdk/keys.toml`` pins a key, no version or bundle is used that is not signed with it. ``newest`` holds
the greatest version of a bundle that came up: what is configured or pushed later must not be older.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...children import module_command
from ...toml import toml_tables
from .pinned import PinError, Pinned, read_pinned
from .whole import SUMS, ServiceError, active_bundle, damage, listed, say

UNIT = "edgesdk.service"
_TRIES = 3  # starts that a new version has
_UP_SECONDS = 120.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Service:
    """The service below a root folder, which is ``/`` but in tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.payload = root / "usr/lib/edgesdk-service/payload"
        self.state = root / "var/lib/edgesdk"
        self.config = root / "etc/edgesdk"
        self.versions = self.state / "versions"
        self._note = self.state / "refused"

    def version(self, link: str) -> str | None:
        """What ``current`` or ``previous`` names, where there is such a version."""
        with suppress(OSError):
            name = (self.state / link).readlink().name
            return name if (self.versions / name).is_dir() else None
        return None

    def configure(self, name: str) -> None:
        """Install what the package brought, switch to it, and go back where the service does not come up with it."""
        self._make_token()
        with self._locked():
            before, older = self.version("current"), self.version("previous")
            if self._refused() == name and before not in (None, name):
                say(f"version {name} did not come up before, {before} stays in use (rm {self._note} to try it again)")
                return
            self.install(name)
            if (refused := self._refusal(name, self._newest())) is not None:
                raise ServiceError(f"version {name} {refused}; {before or 'no version'} stays in use")
            if before != name:
                self._write("trial", f"{name} 0")
                self._switch(name)
        if not _systemd_runs() or not _systemctl("is-enabled", "--quiet", UNIT):
            say(f"version {name} is in use at the next start")
            return
        _systemctl("daemon-reload")
        if _systemctl("restart", UNIT) and self.comes_up(_UP_SECONDS):
            say(f"version {name} is in use")
            return
        if before is None or before == name:
            raise ServiceError(f"version {name} does not come up: journalctl -u {UNIT} says why")
        with self._locked():
            self._refuse(name, before, older if older != name else None)
        _systemctl("restart", UNIT)
        raise ServiceError(f"version {name} does not come up, and {before} is in use again: journalctl -u {UNIT}")

    def install(self, name: str) -> None:
        """Make ``versions/name`` from the payload, verified and on the disk before it has its name."""
        final, partial = self.versions / name, self.versions / f"{name}.tmp"
        if final.is_dir() and damage(final) is None:
            return
        source = self.payload / name
        if not source.is_dir():
            raise ServiceError(f"{source}: there is no such payload; install the package again")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial, copy_function=_link_or_copy)
        wrong = damage(partial)
        if wrong is not None:
            shutil.rmtree(partial, ignore_errors=True)
            raise ServiceError(f"{source}: {wrong}; the package is damaged: install it again")
        os.sync()
        if final.exists():
            final.rename(self.versions / f"{name}.damaged.tmp")
        partial.rename(final)
        _sync_folder(self.versions)

    def select(self) -> str:
        """The version to start: the one in use, or the one before where it is damaged or did not come up."""
        with self._locked():
            current, previous, failed = self.version("current"), self.version("previous"), False
            wrong = "is missing" if current is None else self._wrong(current)
            if current is not None and wrong is None:
                tried = self._tried(current)
                if tried is None:
                    return current
                if tried < _TRIES:
                    self._write("trial", f"{current} {tried + 1}")
                    return current
                wrong, failed = f"did not come up in {tried} starts", True
            if previous is None or previous == current or self._wrong(previous) is not None:
                if current is not None and failed:
                    return current  # there is nothing better
                raise ServiceError(
                    f"version {current} {wrong}, and there is no whole one before: install the package again"
                )
            say(f"version {current} {wrong}: going back to {previous}")
            if current is not None and failed:
                self._refuse(current, previous, None)
            else:
                self._switch(previous)
            return previous

    def settle(self) -> None:
        """The version in use came up: it is kept, with the one before, and others go."""
        with self._locked():
            kept = {self.version("current"), self.version("previous")}
            (self.state / "trial").unlink(missing_ok=True)
            self._note_newest()
            for folder in self.versions.iterdir():
                if folder.name not in kept:
                    shutil.rmtree(folder, ignore_errors=True)

    def rollback(self) -> None:
        """Switch to the version before, and restart."""
        with self._locked():
            current, previous = self.version("current"), self.version("previous")
            if previous is None or previous == current:
                raise ServiceError("there is no version before")
            wrong = self._wrong(previous)
            if wrong is not None:
                raise ServiceError(f"version {previous} {wrong}")
            self._switch(previous)
            (self.state / "trial").unlink(missing_ok=True)
        if _systemd_runs():
            _systemctl("restart", UNIT)
            if not self.comes_up(_UP_SECONDS):
                raise ServiceError(f"version {previous} is in use, but does not come up: journalctl -u {UNIT}")
        say(f"version {previous} is in use")

    def command(self) -> tuple[list[str], dict[str, str]]:
        """The server's command line and environment."""
        current = self.version("current")
        if current is None:
            raise ServiceError("no version is installed")
        folder, settings = self.versions / current, self._settings("service.toml")
        python = str(settings.get("python") or sys.executable)
        bundle = folder / "bundle"
        if settings.get("store"):
            bundle, _ = active_bundle(Path(settings["store"]), self._pinned(), self._newest())
        environment = {**os.environ, "PYTHONPATH": str(folder / "python"), "PYTHONNOUSERSITE": "1"}
        environment.pop("EDGESDK_TOKEN", None)
        if settings.get("token"):
            place = os.environ.get("CREDENTIALS_DIRECTORY")
            file = Path(place) / "token" if place else self.config / "token"
            if not place and file.stat().st_mode & 0o077:
                raise ServiceError(f"{file}: others than its owner have permissions for it: chmod 600 {file}")
            environment["EDGESDK_TOKEN"] = file.read_text(encoding="ascii").strip()
        line = [*module_command(python, "edgesdk.serve", "-s", "-B"), str(bundle), str(self.config / "server.toml")]
        return line, environment

    def run(self) -> int:
        """Start and watch the server in the foreground; the status is the server's."""
        self.select()
        line, environment = self.command()
        server = subprocess.Popen(line, env=environment)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.terminate())
        if self.comes_up(math.inf, server):  # nobody else ends it: one that is slow is not one that fails
            self._settled(server)
        status = server.wait()
        return status if status >= 0 else 128 - status  # as a shell says that a signal ended it

    def _settled(self, server: subprocess.Popen[bytes]) -> None:
        try:
            self.settle()
        except ServiceError:
            server.terminate()
            server.wait()
            raise

    def comes_up(self, seconds: float, server: subprocess.Popen[bytes] | None = None) -> bool:
        """Whether the server answers within some seconds, and does not end meanwhile."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up and (server is None or server.poll() is None):
            if self.health() is not None:
                return True
            time.sleep(1)
        return False

    def health(self) -> dict[str, Any] | None:
        """What the running server says about itself."""
        settings = self._settings("server.toml")
        host = str(settings.get("host", "127.0.0.1"))
        host = _ANY.get(host, host)
        address = f"http://{f'[{host}]' if ':' in host else host}:{settings.get('port', 8080)}/health"
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=5) as answer:
                found = json.load(answer)
        except (OSError, ValueError, http.client.HTTPException):
            return None
        return found if isinstance(found, dict) else None

    def status(self) -> dict[str, Any]:
        """What is installed, and what runs."""
        return {
            "current": self.version("current"),
            "previous": self.version("previous"),
            "on_trial": (self.state / "trial").is_file(),
            "refused": self._refused(),
            "health": self.health(),
        }

    def verify(self) -> None:
        """Check every file of both versions."""
        for link in ("current", "previous"):
            name = self.version(link)
            wrong = None if name is None else self._wrong(name)
            if wrong is not None:
                raise ServiceError(f"{link} version {name} {wrong}")
            say(f"{link}: {name or 'none'}{' (verified)' if name else ''}")

    def _wrong(self, name: str) -> str | None:
        """Why a version is not to be used; one that was good before may be gone back to, whatever came after it."""
        return damage(self.versions / name) or self._refusal(name)

    def _refusal(self, name: str, newest: int = 1) -> str | None:
        """Why the bundle of a whole version is refused; None where it is not, or no key is pinned."""
        try:
            self._bundle_version(name, newest)
        except PinError as failure:
            return str(failure)
        return None

    def _bundle_version(self, name: str, newest: int = 1) -> int | None:
        folder = self.versions / name
        hashes = listed((folder / SUMS).read_bytes())
        return self._pinned().check(folder / "bundle", lambda path: hashes.get(f"bundle/{path}", ""), newest)

    def _pinned(self) -> Pinned:
        try:
            return read_pinned(self.config)
        except PinError as failure:
            raise ServiceError(str(failure)) from None

    def _newest(self) -> int:
        with suppress(FileNotFoundError):
            text = (self.state / "newest").read_text(encoding="ascii").strip()
            if text.isdigit():
                return int(text)
            raise ServiceError(f"{self.state / 'newest'}: holds no version")
        return 1

    def _note_newest(self) -> None:
        """Remember the version of the bundle in use, which came up."""
        name, store = self.version("current"), self._settings("service.toml").get("store")
        try:
            if store:
                _, version = active_bundle(Path(store), self._pinned(), self._newest())
            else:
                version = None if name is None else self._bundle_version(name)
        except PinError as failure:
            raise ServiceError(f"version {name} {failure}") from None
        if version is not None and version > self._newest():
            self._write("newest", str(version))
            (self.state / "newest").chmod(0o644)  # `exec` reads it as another user

    def _switch(self, name: str) -> None:
        before = self.version("current")
        links = [("previous", before), ("current", name)]
        if name == self.version("previous"):
            links.reverse()  # cut between the two, what is gone back to is in use already
        for link, target in links:
            if target is not None and before != name:
                self._link(link, target)

    def _refuse(self, name: str, back: str, before: str | None) -> None:
        """Go back from a version that did not come up, and to what was ``previous`` until it came."""
        self._write("refused", name)
        self._link("current", back)
        if before is None:
            (self.state / "previous").unlink(missing_ok=True)
        else:
            self._link("previous", before)
        (self.state / "trial").unlink(missing_ok=True)

    def _refused(self) -> str | None:
        with suppress(OSError, UnicodeDecodeError):
            return self._note.read_text(encoding="ascii").strip()
        return None

    def _link(self, link: str, name: str) -> None:
        partial = self.state / f".{link}"
        partial.unlink(missing_ok=True)
        partial.symlink_to(f"versions/{name}")
        partial.replace(self.state / link)
        _sync_folder(self.state)

    def _tried(self, name: str) -> int | None:
        with suppress(OSError, ValueError):
            found, count = (self.state / "trial").read_text(encoding="ascii").split()
            return int(count) if found == name else None
        return None

    def _write(self, name: str, text: str) -> None:
        partial = self.state / f".{name}"
        partial.write_text(text, encoding="ascii")
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(self.state / name)

    def _make_token(self) -> None:
        file, partial = self.config / "token", self.config / ".token"
        if not file.exists():
            self.config.mkdir(parents=True, exist_ok=True)
            partial.unlink(missing_ok=True)
            partial.touch(0o600)
            partial.write_text(secrets.token_urlsafe(32) + "\n", encoding="ascii")
            partial.replace(file)

    def _settings(self, name: str) -> dict[str, Any]:
        file = self.config / name
        try:
            return toml_tables(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as failure:
            raise ServiceError(f"{file}: not valid TOML ({failure})") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.versions.mkdir(parents=True, exist_ok=True)
        with (self.state / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy(source, target)
    return target


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _systemd_runs() -> bool:
    return Path("/run/systemd/system").is_dir()


def _systemctl(*arguments: str) -> bool:
    return subprocess.run(["systemctl", *arguments], check=False).returncode == 0


def main(arguments: list[str], service: Service) -> int:
    """Do what the command line says; the status."""
    plain: dict[str, Callable[[], object]] = {
        "exec": lambda: _become(*service.command()),
        "rollback": service.rollback,
        "select": service.select,
        "settle": service.settle,
        "status": lambda: sys.stdout.write(json.dumps(service.status(), indent=1) + "\n"),
        "verify": service.verify,
    }
    try:
        match arguments:
            case ["configure", name]:
                service.configure(name)
            case ["run"]:
                return service.run()
            case [name] if name in plain:
                plain[name]()
            case _:
                sys.stderr.write(__doc__ or "")
                return 2
    except ServiceError as failure:
        say(str(failure))
        return 1
    except OSError as failure:
        say(f"{failure.filename or 'the system'}: {failure.strerror}")
        return 1
    return 0


def _become(line: list[str], environment: dict[str, str]) -> None:
    os.execve(line[0], line, environment)
