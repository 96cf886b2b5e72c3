"""Golden records of folders: every path with its hash; EDGESDK_WRITE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


def check_golden(folder: Path, golden: Path, left_out: Iterable[str] = ()) -> None:
    """Compare a folder with its record: one line a file, its path and the beginning of its SHA-256."""
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if not any(name == each or name.startswith(f"{each}/") for each in left_out):
            lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()[:16]} {name}\n")
    if os.environ.get("EDGESDK_WRITE_GOLDEN"):
        golden.write_text("".join(lines), encoding="utf-8")
    assert "".join(lines) == golden.read_text(encoding="utf-8"), (
        "EDGESDK_WRITE_GOLDEN=1 records what changed on purpose"
    )
