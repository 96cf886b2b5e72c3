"""Trees of real source files under ``targets/<name>/app``, copied; a file ``X.j2`` is filled in and becomes ``X``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from .escaping import FILTERS, android_string, finalizer

_LEFT_OUT = {"__pycache__", "build", ".gradle", ".build", ".DS_Store"}


def render(template: Path, values: Mapping[str, Any]) -> str:
    """The text of one template ``NAME.j2``: what ``{{ }}`` stands for is escaped as NAME's format has it.

    Constants and values that hold the format's own words are marked with ``| safe``, or as :class:`markupsafe.Markup`.
    """
    environment = Environment(
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
        finalize=finalizer(template.with_suffix("").name),
    )
    environment.filters |= {**FILTERS, "android_string": android_string}
    return environment.from_string(template.read_text(encoding="utf-8")).render(values)


def fill(source: Path, folder: Path, values: Mapping[str, Any]) -> list[str]:
    """Copy a tree of templates.

    Args:
        source: the tree; every file keeps its place and its executable bit.
        folder: where it goes; made where it is missing.
        values: what ``{{ name }}`` in files named ``*.j2`` stands for; an unknown name is an error.

    Returns: the paths written, relative to ``folder``, sorted.
    """
    written = []
    for file in sorted(source.rglob("*")):
        relative = file.relative_to(source)
        if not file.is_file() or _LEFT_OUT.intersection(relative.parts):
            continue
        out = folder / relative
        out.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".j2":
            out = out.with_suffix("")
            text = render(file, values)
            out.write_text(text, encoding="utf-8", newline="\n")
            out.chmod(file.stat().st_mode & 0o777)
        else:
            shutil.copy(file, out)
        written.append(out.relative_to(folder).as_posix())
    return sorted(written)
