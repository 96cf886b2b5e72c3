"""Mixtures of experts as ``QMoE`` (packed integers) or ``MoE`` (float): only the experts that are chosen are computed.

The weights of those chosen are worked out in the graph, so that every way of routing is the spec's own; the operators
choose by the router's logits. Both take gate and up of an expert as rows of one matrix, in turns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from edgesdk.errors import RecipeError
from edgesdk.model.tensors import QuantizedTensor
from edgesdk.model.weights import dense, stack_rows, stackable

from .builder import CONTRIB, onnx_type
from .linear import VALUES, block_scales, block_size, linear, pack, wide_scales

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesdk.model.spec import Moe
    from edgesdk.model.weights import Stored

    from .blocks import Blocks

_NEVER = -1e30  # a router logit that is not chosen again


def experts(blocks: Blocks, name: str, moe: Moe, x: ir.Value) -> ir.Value:
    """A mixture of experts over ``x`` [batch, sequence, hidden]."""
    b = blocks.builder
    logits = _small(blocks, f"{name}.router", x)
    logits = b.op("Reshape", [logits, b.constant(f"experts.{moe.experts}", [-1, moe.experts])], f"{name}.router.flat")
    mixed = _mixture(blocks, name, moe, x, logits, _weights(blocks, name, moe, logits))
    if moe.shared is None:
        return mixed
    shared = blocks.mlp(f"{name}.shared", moe.shared, x)
    if moe.shared_gate:
        part = b.op("Sigmoid", [_small(blocks, f"{name}.shared_router", x)], f"{name}.shared_router.part")
        shared = b.op("Mul", [part, shared], f"{name}.shared.part")
    return b.op("Add", [mixed, shared], f"{name}.experts.sum")


def _small(blocks: Blocks, name: str, x: ir.Value) -> ir.Value:
    """The product with a matrix that stays in float."""
    return linear(blocks.builder, x, name, blocks.vector(f"{name}.weight"), blocks.activations)


def _weights(blocks: Blocks, name: str, moe: Moe, logits: ir.Value) -> ir.Value:
    """What each expert counts for a token, [tokens, experts], right where it is chosen."""
    b = blocks.builder
    if moe.routing != "sparsemixer":
        return b.op("Softmax", [logits], f"{name}.router.weights", axis=-1)
    one, numbers = b.constant("experts.one", [1]), b.constant("experts.numbers", [list(range(moe.experts))])
    never, zero = b.floats("experts.never", torch.tensor(_NEVER)), b.floats("experts.zero", torch.tensor(0.0))
    width = b.floats("experts.width", torch.tensor(2 * moe.jitter))
    left, parts, magnitude = logits, [], b.op("Abs", [logits], f"{name}.router.magnitude")
    for turn in range(moe.active):
        at = f"{name}.router.{turn}"
        most, number = b.multi("TopK", [left, one], f"{at}.most", outputs=2, axis=-1)
        chosen = b.op("Equal", [number, numbers], f"{at}.chosen")
        below, scale = b.op("Sub", [most, logits], f"{at}.below"), b.op("Max", [magnitude, most], f"{at}.scale")
        far = b.op("Greater", [b.op("Div", [below, scale], f"{at}.distance"), width], f"{at}.far")
        near = b.op("Softmax", [b.op("Where", [far, never, left], f"{at}.near")], f"{at}.softmax", axis=-1)
        parts.append(b.op("Where", [chosen, near, zero], f"{at}.part"))
        left = b.op("Where", [chosen, never, left], f"{at}.left")
    return b.op("Sum", parts, f"{name}.router.weights")


def _mixture(blocks: Blocks, name: str, moe: Moe, x: ir.Value, logits: ir.Value, weights: ir.Value) -> ir.Value:
    """The weighted sum of what the chosen experts give."""
    get = blocks.model.weights.get
    each = [
        [get(f"{name}.experts.{expert}.{part}.weight") for part in ("gate", "up", "down")]
        for expert in range(moe.experts)
    ]
    upper = [_in_turns(name, gate, up) for gate, up, _ in each]
    lower = [down for _, _, down in each]
    attributes = {
        "k": moe.active,
        "normalize_routing_weights": int(moe.routing == "chosen"),
        "activation_type": "swiglu",
        "activation_alpha": 1.0,
        "activation_beta": 0.0,
        "swiglu_fusion": 1,
    }
    integers = [tensor for tensor in (*upper, *lower) if isinstance(tensor, QuantizedTensor)]
    if not integers:
        return _float_mixture(blocks, name, moe, (x, logits, weights), {"fc1": upper, "fc2": lower}, attributes)
    grids, block = {tensor.bits for tensor in integers}, min(block_size(tensor) for tensor in integers)
    if len(integers) < len(upper) + len(lower) or len(grids) > 1:
        raise RecipeError(
            f"{name}: ONNX Runtime computes experts of one grid, but the recipe gives these several",
            hint="leave out exceptions and measured bits for experts",
        )
    if any(tensor.zero_points is not None or tensor.group % block for tensor in integers):
        raise RecipeError(f"{name}: ONNX Runtime's experts take symmetric integers in whole blocks of {block}")
    inputs: list[ir.Value | None] = [x, logits]
    for part, tensors in (("fc1", upper), ("fc2", lower)):
        inputs += [*_stacked(blocks, f"{name}.experts.{part}", tensors, block), None]
    inputs += [None] * 6 + [weights]
    return blocks.builder.op(
        "QMoE",
        inputs,
        f"{name}.experts.out",
        domain=CONTRIB,
        expert_weight_bits=grids.pop(),
        block_size=block,
        accuracy_level=blocks.activations.accuracy_level,
        weights_prepacked=0,
        **attributes,
    )


def _stacked(blocks: Blocks, name: str, tensors: Sequence[Stored], block: int) -> tuple[ir.Value, ir.Value]:
    """Integers [experts, out, in * bits / 8] and scales [experts, out, blocks] of one matrix of all experts."""
    b = blocks.builder
    quantized = [tensor for tensor in tensors if isinstance(tensor, QuantizedTensor)]
    values = b.weight(name + VALUES, torch.stack([pack(tensor, block).flatten(1) for tensor in quantized]))
    scales = torch.stack([block_scales(tensor, block) for tensor in quantized])
    return values, wide_scales(b, name, scales)


def _float_mixture(
    blocks: Blocks,
    name: str,
    moe: Moe,
    data: tuple[ir.Value, ir.Value, ir.Value],
    parts: dict[str, list[Stored]],
    attributes: dict[str, Any],
) -> ir.Value:
    """Experts in float32, whatever the program's float type: the kernel knows no other.

    ``data``: x, the router's logits, and what the experts count for. The kernel works weights out of logits alone: the
    sparse mixer's are put in as logarithms, which it makes parts of one, and multiplied by their sum behind it.
    """
    b, single, narrow = blocks.builder, int(ir.DataType.FLOAT), int(onnx_type(blocks.builder.dtype))
    x, logits, weights = data
    mixer = moe.routing == "sparsemixer"
    if mixer:
        attributes = attributes | {"normalize_routing_weights": 1}
        logits = b.op("Log", [weights], f"{name}.experts.log")
    inputs: list[ir.Value | None] = [x, logits]
    if narrow != single:
        inputs = [b.op("Cast", [v], f"{name}.experts.wide.{i}", to=single) for i, v in enumerate((x, logits))]
    for part, tensors in parts.items():
        stacked = torch.stack([dense(tensor) for tensor in tensors])
        inputs += [b.weight(f"{name}.experts.{part}.weight", stacked), None]
    mixed = b.op("MoE", inputs, f"{name}.experts.out", domain=CONTRIB, **attributes)
    if narrow != single:
        mixed = b.op("Cast", [mixed], f"{name}.experts.narrow", to=narrow)
    if not mixer:
        return mixed
    total = b.op("ReduceSum", [weights, b.constant("experts.axis", [-1])], f"{name}.experts.total", keepdims=1)
    shape = b.op("Shape", [x], f"{name}.experts.shape", start=0, end=2)
    shape = b.op("Concat", [shape, b.constant("experts.one", [1])], f"{name}.experts.rows", axis=0)
    return b.op("Mul", [mixed, b.op("Reshape", [total, shape], f"{name}.experts.scale")], f"{name}.experts.scaled")


def _in_turns(name: str, gate: Stored, up: Stored) -> Stored:
    """Rows of both matrices, in turns."""
    if not stackable([gate, up]):
        raise RecipeError(f"{name}: ONNX Runtime takes gate and up of an expert on one grid")
    both, rows = stack_rows([gate, up]), gate.shape[0]
    order = torch.arange(2 * rows).view(2, rows).T.reshape(-1)
    return both.select_rows(order) if isinstance(both, QuantizedTensor) else both[order]
