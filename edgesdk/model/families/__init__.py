"""Families: one module for each published architecture that edgesdk maps to a decoder spec.

A module holds one ``FAMILY``. To add a family, write the module and add a row to ``tests/unit/family_rows.py``; modules
are found by being here. Other packages add theirs through the entry-point group ``edgesdk.families``.
"""

from __future__ import annotations

from pkgutil import iter_modules

from ...registry import Registry
from .base import Family

_NO_FAMILIES = {"base", "places", "ropes", "support"}
FAMILIES: Registry[Family] = Registry(
    "family",
    "edgesdk.families",
    {
        module.name: f"edgesdk.model.families.{module.name}:FAMILY"
        for module in iter_modules(__path__)
        if module.name not in _NO_FAMILIES
    },
)

__all__ = ["FAMILIES", "Family"]
