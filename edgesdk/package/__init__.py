"""Deliverables: from a bundle to what goes into an app or onto a board."""

from __future__ import annotations

from .base import Deliverable, Packaged
from .kinds import DELIVERABLES
from .packaging import package

__all__ = ["DELIVERABLES", "Deliverable", "Packaged", "package"]
