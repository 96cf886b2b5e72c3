"""ONNX Runtime: Jetson-class boards, Arm and x86 Linux."""

from .convert import CONVERTER

__all__ = ["CONVERTER"]
