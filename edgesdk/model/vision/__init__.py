"""Vision-language models: one module for each published architecture that edgesdk maps to a :class:`VisionSpec`.

A module holds one ``FAMILY``; it is found by being here, and has a row in ``tests/unit/vision_rows.py``. Other packages
add theirs through the entry-point group ``edgesdk.visions``.
"""

from __future__ import annotations

from ...registry import Registry, modules
from .base import VisionFamily

VISIONS: Registry[VisionFamily] = Registry(
    "vision-language family",
    "edgesdk.visions",
    modules(__name__, __path__, apart={"base", "model", "network", "preparing", "reference"}),
)

__all__ = ["VISIONS", "VisionFamily"]
