"""Trees of real source files under ``targets/<name>/app``, copied; a file ``X.j2`` is filled in and becomes ``X``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

_LEFT_OUT = {"__pycache__", "build", ".gradle", ".build", ".DS_Store"}


def fill(source: Path, folder: Path, values: Mapping[str, Any]) -> list[str]:
    """Copy a tree of templates.

    Args:
        source: the tree; every file keeps its place and its executable bit.
        folder: where it goes; made where it is missing.
        values: what ``{{ name }}`` in files named ``*.j2`` stands for; an unknown name is an error.

    Returns: the paths written, relative to ``folder``, sorted.
    """
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    written = []
    for file in sorted(source.rglob("*")):
        relative = file.relative_to(source)
        if not file.is_file() or _LEFT_OUT.intersection(relative.parts):
            continue
        out = folder / relative
        out.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".j2":
            out = out.with_suffix("")
            text = environment.from_string(file.read_text(encoding="utf-8")).render(values)
            out.write_text(text, encoding="utf-8", newline="\n")
            out.chmod(file.stat().st_mode & 0o777)
        else:
            shutil.copy(file, out)
        written.append(out.relative_to(folder).as_posix())
    return sorted(written)
