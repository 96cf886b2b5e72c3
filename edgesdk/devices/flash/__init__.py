"""Putting firmware onto microcontrollers: with the tools people use, or over the UART through the project's loader."""

from __future__ import annotations

from ...errors import EdgeError


class FlashError(EdgeError):
    """A firmware could not be put onto a board, or is not on it as it should be."""
