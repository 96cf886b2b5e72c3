"""Vision-language models: one module for each published architecture that edgesdk maps to a :class:`VisionSpec`.

A module holds one ``FAMILY``; add its line below and a row to ``tests/unit/test_vision.py``. Other packages add
theirs through the entry-point group ``edgesdk.visions``.
"""

from __future__ import annotations

from ...registry import Registry
from .base import VisionFamily

VISIONS: Registry[VisionFamily] = Registry(
    "vision-language family", "edgesdk.visions", {"smolvlm": "edgesdk.model.vision.smolvlm:FAMILY"}
)

__all__ = ["VISIONS", "VisionFamily"]
