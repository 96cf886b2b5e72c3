"""What ONNX Runtime's kernels hold, and what they take: shared by decoders and encoders."""

from __future__ import annotations

from edgesdk.compress.base import Limits

ACCURACY = {8: 4, 32: 1}  # accuracy_level of MatMulNBits, by bits of the activations
LIMITS = Limits(widths=(2, 4, 8))
RUNTIME_BYTES = 60_000_000  # resident size of a process with ONNX Runtime and numpy loaded, measured
GRAPH_BYTES = 400_000
BLOCK_BYTES = 12  # MatMulNBits keeps, in float32, each block's scale twice and its sum
