"""Makes the Python runner: one archive with the session code that verified the bundle here, and nothing to install."""

from __future__ import annotations

import json

from ...archives import program_archive, source
from ...converter import OnDevice

#: What every runner takes along, besides its converter's modules.
_SHARED = ("edgesdk.errors", "edgesdk.session", "edgesdk.runner_lines", "edgesdk.silence", "edgesdk.partials")
_MAIN = "edgesdk.devices.runner.remote"


def runner_archive(on_device: OnDevice) -> bytes:
    """A program for ``python3 FILE BUNDLE [THREADS]``; the same bytes each time."""
    plan = {"opener": on_device.opener, "runtimes": on_device.runtimes, "operators": on_device.operators}
    files = {"runner.json": json.dumps(plan).encode()}
    return program_archive(source(_MAIN), (*_SHARED, *on_device.modules), files)
