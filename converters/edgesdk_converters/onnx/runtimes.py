"""The ONNX Runtime that a program needs, by the operators in it.

Boards have old ones: 1.23 is the last for Python 3.10, that of JetPack 6. A number is the first version in which every
family with that operator gives the logits of transformers (tests/benchmarks/onnxruntime_versions.py runs them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesdk.targets import RuntimeRange

if TYPE_CHECKING:
    import onnx_ir as ir

OLDEST = 23  # of 1.x: the oldest that was tried
_SINCE = {
    "CausalConvWithState": 30,
    "GatedDeltaNet": 32,
    "LinearAttention": 30,
    "MoE": 32,  # 1.31 routes experts wrongly where their shares are not normalized
    "QMoE": 32,
}
_ADAPTERS_SINCE = 30  # older ones end the process that loads one
_WINDOWS_SINCE = 24  # 1.23 gives other logits where GroupQueryAttention looks back over a window


def runtime_for(*graphs: ir.Graph, adapters: bool = False) -> RuntimeRange:
    """The range of versions that run every one of a program's graphs.

    Args:
        graphs: of the program.
        adapters: it has files of adapters that a session switches to.
    """
    needed = max(_since(node) for graph in graphs for node in graph)
    if adapters:
        needed = max(needed, _ADAPTERS_SINCE)
    return RuntimeRange("onnxruntime", f">=1.{needed},<2")


def _since(node: ir.Node) -> int:
    window = node.attributes.get("local_window_size")
    if window is not None and window.as_int() > 0:
        return _WINDOWS_SINCE
    return _SINCE.get(node.op_type, OLDEST)
