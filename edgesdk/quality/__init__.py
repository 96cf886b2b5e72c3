"""What compression cost: two models or bundles side by side, on texts, layer by layer, in answers, on choice tasks."""

from __future__ import annotations

from .compare import compare_quality
from .report import Gates, QualityReport, enforce

__all__ = ["Gates", "QualityReport", "compare_quality", "enforce"]
