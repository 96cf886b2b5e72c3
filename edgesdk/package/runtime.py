"""Which release of its runtime an app is built with."""

from __future__ import annotations

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from ..bundle import Manifest
from .base import PackageError


def pinned_version(manifest: Manifest) -> str:
    """The release of the runtime that verified the bundle; it lies inside of the bundle's range.

    Raises:
        PackageError: the manifest does not name it, or names one outside.
    """
    program = manifest.program
    found = manifest.tools.get(program.runtime, "")
    release = Version(found).public if found else ""
    if not found or not SpecifierSet(program.runtime_versions).contains(release, prereleases=True):
        raise PackageError(
            f"the bundle was made with {program.runtime} {found or 'of no known version'}, and it needs "
            f"{program.runtime_versions}",
            hint="export it again",
        )
    return release
