"""What a kind of deliverable is: it takes some bundles, knows its options, and writes one folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from ..errors import EdgeError

if TYPE_CHECKING:
    from ..bundle import Bundle, Manifest
    from ..progress import Progress

RECORD = "deliverable.json"
Options = TypeVar("Options")


class PackageError(EdgeError):
    """A bundle cannot become this deliverable, or an option of it is wrong."""


@dataclass(frozen=True)
class Written:
    """What a kind wrote.

    Attributes:
        facts: what was chosen, by name, for the record and for people.
        remarks: what a developer should know, each one sentence.
        next: commands to go on with, in the folder.
    """

    facts: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    next: tuple[str, ...] = ()


@dataclass(frozen=True)
class Packaged:
    """A deliverable.

    Attributes:
        kind: of which kind.
        folder: where it lies.
        bundle: digest of the bundle inside.
        written: what was chosen.
        size: bytes of all its files.
        files: how many there are.
    """

    kind: str
    folder: Path
    bundle: str
    written: Written
    size: int
    files: int


class Deliverable(Protocol[Options]):
    """One kind of deliverable.

    Attributes:
        description: one line for people.
        options: a frozen dataclass of what a user may choose: every field with a default, and said in its docstring.
    """

    description: str
    options: type[Options]

    def check(self, manifest: Manifest, options: Options) -> None:
        """Refuse, before any work, what cannot be made.

        Raises:
            PackageError: what is wrong with the bundle or with an option, and the way out.
        """

    def write(self, bundle: Bundle, options: Options, folder: Path, progress: Progress) -> Written:
        """Write the deliverable into an empty folder.

        Raises:
            EdgeError: it cannot be made.
        """


def slug(name: str) -> str:
    """A model's name as a package name: lower-case letters, digits and single hyphens, at least one letter first."""
    found = re.sub(r"[^a-z0-9]+", "-", name.lower().removesuffix(".gguf")).strip("-")
    return found if found[:1].isalpha() else f"model-{found}".rstrip("-")
