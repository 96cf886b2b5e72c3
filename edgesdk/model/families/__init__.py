"""Families: one module for each published architecture that edgesdk maps to a decoder spec.

A module holds one ``FAMILY``. To add a family, write the module, add its line below, and add a row to the oracle test
(``tests/unit/test_families.py``). Other packages add theirs through the entry-point group ``edgesdk.families``.
"""

from __future__ import annotations

from ...registry import Registry
from .base import Family

FAMILIES: Registry[Family] = Registry(
    "family",
    "edgesdk.families",
    {
        name: f"edgesdk.model.families.{name}:FAMILY"
        for name in ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma3")
    },
)

__all__ = ["FAMILIES", "Family"]
