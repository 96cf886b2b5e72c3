"""Python packages as wheels."""

from __future__ import annotations

import base64
import csv
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..bounds.zips import blocks
from .entries import Entries, Entry, text_of
from .findings import Finding


def check_wheel(path: Path, file: IO[bytes], entries: Entries) -> Iterator[Finding]:
    """A Python package: whether every file is the one that its ``RECORD`` lists (PEP 427)."""
    records = [name for name in entries if re.fullmatch(r"[^/]+\.dist-info/RECORD", name)]
    if len(records) != 1:
        yield Finding("error", path.name, "no RECORD in a .dist-info folder, so no wheel", "build or fetch it again")
        return
    text = text_of(entries[records[0]]).decode("utf-8", "replace")
    listed = {row[0]: row[1] for row in csv.reader(text.splitlines()) if len(row) == 3 and row[1]}
    wrong = [name for name, said in listed.items() if name not in entries or _record_hash(entries[name]) != said]
    extra = [name for name in entries if name not in listed and ".dist-info/" not in name]
    for name in wrong + extra:
        yield Finding("error", name, "is not the file that RECORD lists", "do not install this wheel")
    if not wrong and not extra:
        yield Finding("good", path.name, f"{len(listed)} files as its RECORD lists them")


def _record_hash(entry: Entry) -> str:
    digest = hashlib.sha256()
    with entry.open() as file:
        for block in blocks(file):
            digest.update(block)
    return "sha256=" + base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
