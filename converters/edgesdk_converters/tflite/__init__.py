"""LiteRT (TensorFlow Lite) for 64-bit boards and Android; TFLite-Micro for microcontrollers (:mod:`.micro`)."""

from .convert import CONVERTER

__all__ = ["CONVERTER"]
