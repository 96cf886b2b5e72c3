"""Files that may have programs run: what a user looked at and trusts, by place and content, kept for this user.

A file that merely lies in a folder (a ``devices.toml``, the file of a sweep, a bundle's firmware project) may name
programs, hosts and interpreters. None of them is followed before ``edgesdk trust FILE`` was said, and a changed file
has to be trusted again.
"""

from __future__ import annotations

import json
from pathlib import Path

from .digests import file_digest
from .documents import read_json
from .errors import EdgeError
from .files import replacing
from .lines import shown_line

_FILE = "trusted.json"


def is_trusted(path: Path) -> bool:
    """Whether the user trusts this file as it is now."""
    known = _known()
    place = _place(path)
    return place in known and path.is_file() and known[place] == file_digest(path)


def trust(path: Path) -> None:
    """Trust a file as it is now; a bundle's folder stands for its manifest, which has the hashes of all else.

    Raises:
        EdgeError: there is no such file, or this user's configuration cannot be written.
    """
    if not path.is_file():
        raise EdgeError(f"{shown_line(str(path))}: no such file to trust", hint="name a file, or a bundle's folder")
    _write({**_known(), _place(path): file_digest(path)})


def forget(path: Path) -> bool:
    """Trust a file no more; whether it was trusted."""
    known = _known()
    if known.pop(_place(path), None) is None:
        return False
    _write(known)
    return True


def trusted_files() -> list[Path]:
    """Every file that was trusted, changed since or not."""
    return [Path(name) for name in sorted(_known())]


def subject(path: Path) -> Path:
    """The file that stands for what the user named: itself, or a bundle's manifest."""
    return path / "manifest.json" if path.is_dir() else path


def _place(path: Path) -> str:
    return str(path.resolve())


def _record() -> Path:
    import platformdirs

    return platformdirs.user_config_path("edgesdk") / _FILE


def _known() -> dict[str, str]:
    """Absolute paths with the SHA-256 of what was trusted; a record that cannot be read trusts nothing."""
    try:
        data = read_json(_record())
    except EdgeError:
        return {}
    if not isinstance(data, dict):
        return {}
    return {key: value for key, value in data.items() if isinstance(value, str)}


def _write(known: dict[str, str]) -> None:
    record = _record()
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with replacing(record) as partial:
            partial.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as failure:
        raise EdgeError(f"{record}: cannot be written ({failure.strerror or failure})") from None
