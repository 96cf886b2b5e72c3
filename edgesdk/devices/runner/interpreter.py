"""Whether a device has the Python and the runtime that the runner's archive needs, asked before anything is sent."""

from __future__ import annotations

import re
import shlex

from ...bundle import Bundle
from ...converter import CONVERTERS
from ...progress import SILENT, Progress
from ..base import DeviceError
from ..shell import ShellDevice

PYTHON = "python3"
#: The oldest that the archive's modules run on: that of JetPack 5.
OLDEST = (3, 8)
# Any Python reads this, to say which it is.
_ASK = """
import sys
print("@python %d.%d" % sys.version_info[:2])
if sys.version_info >= (3, 8):
    from importlib import metadata
    for name in sys.argv[1:]:
        try:
            print("@has %s %s" % (name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            pass
"""
_SAID = re.compile(r"^@python (\d+)\.(\d+)\r?$", re.MULTILINE)
_HAS = re.compile(r"^@has (\S+) (\S+)\r?$", re.MULTILINE)
_ANOTHER = "another: python = '...' in devices.toml"


def check_python(device: ShellDevice, bundle: Bundle, progress: Progress = SILENT) -> None:
    """Refuse a device whose Python cannot start the runner; a note where its runtime is another than the bundle's.

    Raises:
        DeviceError: it has no such Python, an older one, or none of the runtimes.
    """
    program = bundle.manifest.program
    on_device = CONVERTERS.get(program.converter).on_device
    if on_device is None:
        return
    python, oldest = device.python or PYTHON, ".".join(map(str, OLDEST))
    done = device.run(shlex.join([python, "-c", _ASK, *on_device.runtimes]))
    version = _SAID.search(done.text)
    if version is None:
        raise DeviceError(
            f"{device.name} has no Python that starts as '{python}': {done.reason}",
            hint=f"install Python {oldest} or later there, or {_ANOTHER}",
        )
    if (int(version[1]), int(version[2])) < OLDEST:
        raise DeviceError(
            f"{device.name}: '{python}' is Python {version[1]}.{version[2]}, and the runner needs {oldest} or later",
            hint=f"install a later one there, or {_ANOTHER}",
        )
    found = _HAS.search(done.text)
    if found is None:
        raise DeviceError(
            f"{device.name}: '{python}' has no {' or '.join(on_device.runtimes)}",
            hint=f"there: {python} -m pip install {on_device.runtimes[0]}; or {_ANOTHER}",
        )
    if not _fits(found[2], program.runtime_versions):
        progress.note(
            f"{device.name} has {found[1]} {found[2]}, and the bundle was made for {program.runtime}"
            f" {program.runtime_versions}: it may lack operators"
        )


def _fits(version: str, wanted: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion

    try:
        return SpecifierSet(wanted).contains(version, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return True  # what is no version cannot be compared
