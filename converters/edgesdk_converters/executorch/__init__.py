"""Programs for ExecuTorch: phones."""

from .convert import CONVERTER

__all__ = ["CONVERTER"]
