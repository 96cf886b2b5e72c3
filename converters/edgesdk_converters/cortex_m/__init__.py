"""Microcontrollers with a Cortex-M core: the C99 runtime, and TensorFlow Lite Micro."""

from .convert import CONVERTER

__all__ = ["CONVERTER"]
