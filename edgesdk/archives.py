"""Programs of one file, made of edgesdk's own modules, for a Python that has nothing installed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)


def program_archive(main: bytes, modules: Iterable[str], more: Mapping[str, bytes] | None = None) -> bytes:
    """A program for ``python3 FILE``; the same bytes each time.

    Args:
        main: the source that runs.
        modules: what it imports, by full names; the packages that they lie in are empty there.
        more: other files, by path.
    """
    files = {"__main__.py": main, **(more or {})}
    for module in modules:
        path = module.replace(".", "/")
        files[f"{path}.py"] = source(module)
        for parent in list(Path(path).parents)[:-1]:
            files[f"{parent.as_posix()}/__init__.py"] = b""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), files[name])
    return out.getvalue()


def source(module: str) -> bytes:
    """The source of a module, by its full name."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_bytes()
