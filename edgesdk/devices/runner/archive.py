"""Makes the Python runner: one archive with the session code that verified the bundle here, and nothing to install."""

from __future__ import annotations

import io
import json
import zipfile
from importlib.util import find_spec
from pathlib import Path

from ...converter import OnDevice

#: What every runner takes along, besides its converter's modules.
_SHARED = ("edgesdk.errors", "edgesdk.session", "edgesdk.runner_lines", "edgesdk.silence", "edgesdk.partials")
_MAIN = "edgesdk.devices.runner.remote"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def runner_archive(on_device: OnDevice) -> bytes:
    """A program for ``python3 FILE BUNDLE [THREADS]``; the same bytes each time."""
    files = {"__main__.py": _source(_MAIN)}
    for module in (*_SHARED, *on_device.modules):
        path = module.replace(".", "/")
        files[f"{path}.py"] = _source(module)
        for parent in list(Path(path).parents)[:-1]:
            files[f"{parent.as_posix()}/__init__.py"] = b""
    plan = {"opener": on_device.opener, "runtimes": on_device.runtimes, "operators": on_device.operators}
    files["runner.json"] = json.dumps(plan).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), files[name])
    return out.getvalue()


def _source(module: str) -> bytes:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_bytes()
