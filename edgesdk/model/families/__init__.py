"""Families: one module for each published architecture that edgesdk maps to a decoder spec.

A module holds one ``FAMILY``. To add a family, write the module and add a row to ``tests/unit/family_rows.py``; modules
are found by being here. Other packages add theirs through the entry-point group ``edgesdk.families``.
"""

from __future__ import annotations

from ...registry import Registry, modules
from .base import Family

FAMILIES: Registry[Family] = Registry(
    "family", "edgesdk.families", modules(__name__, __path__, apart={"base", "places", "ropes"})
)

__all__ = ["FAMILIES", "Family"]
