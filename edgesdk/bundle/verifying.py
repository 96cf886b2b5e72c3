"""Whether the programs of a bundle hold together: what each converter checks of its own, without the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from ..errors import MissingExtraError
from .manifest import Manifest


@runtime_checkable
class VerifiesPrograms(Protocol):
    """A converter that can tell whether a program holds together without running it."""

    def verify_programs(self, folder: Path, files: Mapping[str, int]) -> None:
        """Check offsets, indices and the places of data in every program of a bundle.

        Args:
            folder: of the bundle.
            files: bytes of each file, by its path there.

        Raises:
            BundleError: what does not hold together.
            MissingExtraError: the schema of the program is not installed.
        """


def verify_programs(folder: Path, manifest: Manifest) -> str | None:
    """Check the programs of a bundle whose files are what its manifest says.

    Returns: why nothing was checked, or None.

    Raises:
        BundleError: what does not hold together.
    """
    from ..converter import CONVERTERS

    name = manifest.program.converter
    if name not in CONVERTERS.names():
        return f"no converter '{name}' is installed here"
    try:
        converter = CONVERTERS.get(name)
        if not isinstance(converter, VerifiesPrograms):
            return f"the {name} converter checks no programs"
        converter.verify_programs(folder, {entry.path: entry.size for entry in manifest.files})
    except MissingExtraError as missing:
        return missing.message
    return None


__all__ = ["VerifiesPrograms", "verify_programs"]
