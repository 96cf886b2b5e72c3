"""Debian packages of another processor, by a private apt configuration: nothing on the host is changed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from edgesdk.errors import EdgeError

from .host import LabUnavailableError, run

_SOURCES = Path("/etc/apt")
_FRESH = 7 * 24 * 3600  # seconds for which the lists of packages are good
_OPTIONS = ("--no-install-recommends", "--yes", "--quiet")


class ForeignApt:
    """apt for another processor or another release of Debian, with the sources of this machine.

    The sources of this machine's own release have its backports beside them.
    """

    def __init__(self, home: Path, architecture: str = "arm64", release: str | None = None) -> None:
        self._home = home
        self._architecture = architecture
        self._release = release
        self._env = {**os.environ, "APT_CONFIG": str(home / "apt.conf"), "LC_ALL": "C"}

    def update(self) -> float:
        """Fetch the lists of packages, unless those here are recent; old ones serve where there is no network.

        Returns:
            When the lists were fetched.

        Raises:
            LabUnavailableError: there are none, and none could be fetched.
        """
        stamp = self._home / "updated"
        if stamp.is_file() and time.time() - stamp.stat().st_mtime < _FRESH:
            return stamp.stat().st_mtime
        self._configure()
        try:
            self._apt("apt-get", "update", "--quiet", "--error-on=any")
        except LabUnavailableError:
            if not stamp.is_file():
                raise
        else:
            stamp.touch()
        return stamp.stat().st_mtime

    def closure(self, packages: Sequence[str], *, backports: bool = False) -> list[str]:
        """These packages and all that they depend on, each as ``name=version``."""
        options = [*_OPTIONS, f"--target-release={_release()}-backports"] if backports else _OPTIONS
        said = self._apt("apt-get", "install", "--simulate", *options, *packages)
        return sorted(f"{name}={version}" for name, version in re.findall(r"^Inst (\S+) \((\S+) ", said, re.MULTILINE))

    def candidate(self, package: str) -> str:
        """One package, as ``name=version``."""
        return f"{package}={self._field(package, 'Version')}"

    def depends(self, package: str) -> str:
        """The first package that a metapackage stands for."""
        return self._field(package, "Depends").split()[0]

    def download(self, pinned: Sequence[str], folder: Path) -> list[Path]:
        """The files of packages given as ``name=version``, downloaded into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        self._apt("apt-get", "download", "--quiet", *pinned, cwd=folder)
        found = {tuple(unquote(path.name).split("_")[:2]): path for path in folder.glob("*.deb")}
        return [found[(name, version)] for name, version in (each.split("=", 1) for each in pinned)]

    def _field(self, package: str, name: str) -> str:
        said = self._apt("apt-cache", "show", "--no-all-versions", package)
        found = re.search(rf"^{name}: (.*)$", said, re.MULTILINE)
        if found is None:
            raise EdgeError(f"the package {package} has no field {name}")
        return found[1]

    def _apt(self, *command: str, cwd: Path | None = None) -> str:
        try:
            return run(command, env=self._env, cwd=cwd)
        except EdgeError as error:
            raise LabUnavailableError(
                f"{self._architecture} packages: {error.message}", hint="connect to the package sources of this machine"
            ) from error

    def _configure(self) -> None:
        for folder in ("state/lists/partial", "cache/archives/partial", "none"):
            (self._home / folder).mkdir(parents=True, exist_ok=True)
        (self._home / "status").touch()
        (self._home / "sources.list").write_text(
            "".join(f"{line}\n" for line in _sources(self._release)), encoding="utf-8"
        )
        settings = {
            "APT::Architecture": self._architecture,
            "APT::Sandbox::User": "root",
            "Dir::State": self._home / "state",
            "Dir::State::status": self._home / "status",
            "Dir::Cache": self._home / "cache",
            "Dir::Etc::sourcelist": self._home / "sources.list",
            "Dir::Etc::sourceparts": self._home / "none",
            "Dir::Etc::preferencesparts": self._home / "none",
            "Acquire::Languages": "none",
        }
        lines = [f'{key} "{value}";' for key, value in settings.items()]
        lines.append(f'APT::Architectures {{ "{self._architecture}"; }};')
        (self._home / "apt.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _release() -> str:
    found = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise LabUnavailableError("this machine's release is not known", hint="use Debian")
    return found[1]


def _sources(release: str | None) -> list[str]:
    """The host's own sources of this release as lines, and the backports beside them; or those of another release."""
    name = _release()
    if release is not None:
        entries = [f"deb {options}{uri} {release} main" for options, uri, suite in _entries() if suite == name]
        return list(dict.fromkeys(entries))
    lines = []
    for options, uri, suite in _entries():
        if suite == name or suite.startswith(f"{name}-"):
            lines.append(f"deb {options}{uri} {suite} main")
        if suite == name:
            lines.append(f"deb {options}{uri} {name}-backports main")
    if not lines:
        raise LabUnavailableError(f"no package source for {name} in {_SOURCES}", hint="use Debian")
    return list(dict.fromkeys(lines))


def _entries() -> list[tuple[str, str, str]]:
    """Options, address and suite of every source of binary packages."""
    found = []
    for path in sorted([_SOURCES / "sources.list", *_SOURCES.glob("sources.list.d/*.list")]):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        for options, uri, suite in re.findall(r"^deb\s+(\[[^]]*\]\s+)?(\S+)\s+(\S+)", text, re.MULTILINE):
            found.append((re.sub(r"arch=\S+\s*", "", options), uri, suite))
    for path in sorted(_SOURCES.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
            fields = {key: value.strip() for key, value in re.findall(r"^([\w-]+):(.*)$", stanza, re.MULTILINE)}
            signed = fields.get("Signed-By", "")
            options = f"[signed-by={signed}] " if signed.startswith("/") else ""
            if "deb" in fields.get("Types", "").split():
                for uri in fields.get("URIs", "").split():
                    found.extend((options, uri, suite) for suite in fields.get("Suites", "").split())
    return found
