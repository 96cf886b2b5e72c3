"""The report: one HTML page that holds all it shows, for one profile or for several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..schema import Profile


def write_report(profiles: Sequence[Profile], path: Path) -> None:
    """Write the page, whole or not at all; it asks no network and runs no script.

    Raises:
        EdgeError: no profile, more than the page can tell apart, or the file cannot be written.
    """
    from .page import write

    write(profiles, path)
