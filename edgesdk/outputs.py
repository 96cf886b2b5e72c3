"""Which folders and files a command may replace: what it made itself, as the record in it says, and nothing else."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from .documents import read_json
from .errors import EdgeError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_OTHER = "name another output"


@dataclass(frozen=True)
class Product:
    """Something that commands write as a folder with a record of its files.

    Attributes:
        words: for it, with an article.
        record: the file that lists all others, under ``files``.
    """

    words: str
    record: str


BUNDLE = Product("a bundle", "manifest.json")
CHECKPOINT = Product("a compressed checkpoint", "checkpoint.json")
DELIVERABLE = Product("a deliverable", "deliverable.json")


def output_path(out: str | Path) -> Path:
    """Where an output goes, whatever folder is the current one later; a link of that name is not followed."""
    path = Path(out)
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def refuse_foreign(out: Path, product: Product, error: type[EdgeError] = EdgeError) -> None:
    """Stop where writing ``out`` would remove what the last such command did not write there.

    Args:
        out: the folder to be written.
        product: what is written.
        error: the error class to raise.

    Raises:
        EdgeError: (of class ``error``) it is a symbolic link, a file, another folder, or holds files of somebody's own.
    """
    if out.is_symlink():
        raise error(f"{out}: is a symbolic link, so it is not replaced", hint="name the folder itself")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    listed = _listed(out, product)
    if listed is None:
        raise error(f"{out}: exists and is not {product.words}, so it is not replaced", hint=_OTHER)
    paths = sorted(path for path in out.rglob("*") if path.is_symlink() or not path.is_dir())
    others = [name for path in paths if (name := path.relative_to(out).as_posix()) not in listed or path.is_symlink()]
    if others:
        kind = product.words.removeprefix("a ")
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise error(
            f"{out}: holds {others[0]!r}{more}, which the {kind} there does not list, so it is not replaced",
            hint=f"move it away, or {_OTHER}",
        )


def _listed(out: Path, product: Product) -> set[str] | None:
    """Names of the files that the record lists, and its own; None where there is no record of that product."""
    if not out.is_dir():
        return None
    try:
        record = read_json(out / product.record)
    except EdgeError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
        return None
    files = record.get("files")
    if not isinstance(files, list) or not files or not all(map(_is_entry, files)):
        return None
    if product is BUNDLE and not _is_sealed((out / product.record).read_text(encoding="utf-8"), record.get("digest")):
        return None
    return {product.record, *(entry["path"] for entry in files)}


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str) or not isinstance(entry.get("size"), int):
        return False
    return isinstance(entry.get("sha256"), str) and _SHA256.fullmatch(entry["sha256"]) is not None


def _is_sealed(text: str, digest: object) -> bool:
    """Whether a manifest, of whatever schema, was written by a command: its digest is that of the text without it."""
    if not isinstance(digest, str):
        return False
    bare = text.replace(f'"digest": "{digest}"', '"digest": ""')
    return hashlib.sha256(bare.encode()).hexdigest() == digest
