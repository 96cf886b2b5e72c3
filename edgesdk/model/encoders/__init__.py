"""Encoders: one module for each published architecture that edgesdk maps to an encoder spec.

A module holds one ``FAMILY``. To add one, write the module and add a row to ``tests/unit/encoder_rows.py``; modules are
found by being here. Other packages add theirs through the entry-point group ``edgesdk.encoders``.
"""

from __future__ import annotations

from ...registry import Registry, modules
from .base import EncoderFamily

ENCODERS: Registry[EncoderFamily] = Registry(
    "encoder family",
    "edgesdk.encoders",
    modules(__name__, __path__, apart={"base", "model", "network", "opening", "reference"}),
)

__all__ = ["ENCODERS", "EncoderFamily"]
