"""Encoders: one module for each published architecture that edgesdk maps to an encoder spec.

A module holds one ``FAMILY``. To add one, write the module, add its line below, and add a row to the oracle test
(``tests/unit/encoder_rows.py``). Other packages add theirs through the entry-point group ``edgesdk.encoders``.
"""

from __future__ import annotations

from ...registry import Registry
from .base import EncoderFamily

ENCODERS: Registry[EncoderFamily] = Registry(
    "encoder family",
    "edgesdk.encoders",
    {
        name: f"edgesdk.model.encoders.{name}:FAMILY"
        for name in ("bert", "distilbert", "mobilebert", "modernbert", "roberta")
    },
)

__all__ = ["ENCODERS", "EncoderFamily"]
