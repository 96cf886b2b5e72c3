"""Which release of its runtime an app is built with."""

from __future__ import annotations

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from ..bundle import Manifest
from .base import PackageError


def check_versions(text: str) -> None:
    """Refuse a range of versions that pip would not read as one (PEP 440).

    Raises:
        PackageError: what stands there.
    """
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        raise PackageError(f"the bundle needs versions {text!r} of its runtime, which is no range") from None


def pinned_version(manifest: Manifest) -> str:
    """The release of the runtime that verified the bundle; it lies inside of the bundle's range.

    Raises:
        PackageError: the manifest does not name it, or names one outside.
    """
    program = manifest.program
    check_versions(program.runtime_versions)
    found = manifest.tools.get(program.runtime, "")
    try:
        release = Version(found).public if found else ""
    except InvalidVersion:
        raise PackageError(f"the bundle was made with version {found!r} of {program.runtime}, which is none") from None
    if not found or not SpecifierSet(program.runtime_versions).contains(release, prereleases=True):
        raise PackageError(
            f"the bundle was made with {program.runtime} {found or 'of no known version'}, and it needs "
            f"{program.runtime_versions}",
            hint="export it again",
        )
    return release
