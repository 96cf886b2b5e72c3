"""What is wrong with an artifact before a store, a phone or a board says so."""

from __future__ import annotations

from .examining import examine_artifact
from .findings import Finding, Level

__all__ = ["Finding", "Level", "examine_artifact"]
