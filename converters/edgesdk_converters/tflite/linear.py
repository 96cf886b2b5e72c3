"""Products with weights and caches, the embedding and the head, in each arithmetic.

Weights keep the pass's integers and scales: an int8 matrix has its scales as the scales of its rows. An int8 embedding
is looked up in a table declared with the scale 1, and the row multiplied by its own scale from a second table: TFLM's
EMBEDDING_LOOKUP knows one scale only. A tied head is a second tensor over the same buffer, with the scales of the rows.

TFLM decodes a 4-bit matrix to int8 just before its product (:mod:`.decode`): the file has its rows and their scales.
LiteRT takes 4-bit matrices always in blocks: of 4-bit rows with one scale each its builtin kernel
computes garbage, where XNNPACK does not take over. Its DEQUANTIZE makes zeros of blocks: with float activations such a
matrix is stored in float, dequantized exactly.

int16 kernels of microcontrollers take matrices with one scale. Rows with scales of their own are declared with one
(1.0), and the float product is multiplied by the scales.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgesdk.compress.base import one_scale
from edgesdk.model.tensors import QuantizedTensor
from edgesdk.model.weights import dense

from .convert import BLOCKS
from .graph import Grid, Value
from .numerics import KIND, Numerics, grid_of
from .ops import Ops

if TYPE_CHECKING:
    from edgesdk.model import Model
    from edgesdk.model.weights import Stored

SCALES = ".scales"
_ONE = Grid(np.ones(1, np.float32))


class Linears:
    """Emits products; in a float graph it lists the tensors whose ranges a static graph needs."""

    def __init__(self, ops: Ops, model: Model, numerics: Numerics) -> None:
        self._o, self._model, self._numerics = ops, model, numerics
        self._kind = KIND[numerics.linear]
        self._quantized: dict[tuple[int, str], Value] = {}
        self._tied: Value | None = None
        self.points: list[Value] = []
        self.scores: list[Value] = []

    def embedding(self, tok: Value) -> Value:
        """The float row [1, hidden] of a token."""
        o, table = self._o, self._model.weights.get("embed.weight")
        if not isinstance(table, QuantizedTensor):
            self._tied = o.floats("embed.weight", dense(table).numpy())
            return o.lookup(tok, self._tied, "embed")
        if table.bits == 4 and not self._numerics.static:
            self._tied = self._nibbles("embed.weight", table)
            return o.lookup(tok, self._tied, "embed")
        scales = table.scales.numpy()
        if one_scale(table):
            self._tied = o.graph.constant("embed.weight", table.values.numpy(), Grid(scales[0]))
            return o.lookup(tok, self._tied, "embed")
        self._tied = o.graph.constant("embed.weight", table.values.numpy(), _ONE)
        row = o.lookup(tok, self._tied, "embed.row")
        scale = o.lookup(tok, o.floats("embed.weight" + SCALES, scales), "embed.scale")
        return o.multiply(row, scale, "embed")

    def head(self, x: Value) -> Value:
        """Logits [1, vocab], in integers where the arithmetic is static."""
        return self._product(x, "logits", self._model.spec.head_name)

    def product(self, x: Value, name: str, near: Value | None = None, *, wide: bool = False) -> Value:
        """``x @ weight.T + bias`` in float; ``near`` is what its result goes :meth:`onto`, if nothing comes between.

        ``wide`` asks int8 arithmetic for int16, where the input has outliers.
        """
        weight, bias = f"{name}.weight", f"{name}.bias"
        if bias in self._model.spec.tensors():
            found = self.floating(self._product(x, f"{name}.product", weight, wide=wide))
            values = dense(self._model.weights.get(bias)).numpy().reshape(1, -1)
            return self._o.add(found, self._o.floats(bias, values), f"{name}.out")
        found = self._product(x, f"{name}.out", weight, near, wide=wide)
        return self.floating(found) if near is None else found

    def _product(self, x: Value, name: str, weight: str, near: Value | None = None, *, wide: bool = False) -> Value:
        """``x @ weight.T`` as the kernel leaves it: on the grid of ``near`` where the types agree."""
        o, stored = self._o, self._model.weights.get(weight)
        if not isinstance(stored, QuantizedTensor):
            return o.fully_connected(self.floating(x), self._floats(weight, stored), name)
        if not self._numerics.static:
            return self._point(o.fully_connected(self._point(self.floating(x)), self._matrix(weight, stored), name))
        kind = "INT16" if wide else self._kind
        x, found = self.measured(x, kind), self._numerics.ranges[name]
        if kind == "INT16" and not one_scale(stored):
            scales = stored.scales.numpy().reshape(1, -1)
            grid = grid_of(found.divided(scales), kind)
            units = o.fully_connected(x, self._integers(weight, stored, one=True), f"{name}.units", grid)
            return o.multiply(self.floating(units), o.floats(weight + SCALES, scales), name)
        grid = near.grid if near is not None and near.kind == kind and near.grid else grid_of(found, kind)
        return o.fully_connected(x, self._integers(weight, stored), name, grid)

    def batch_matmul(self, a: Value, b: Value, name: str, measured: str | None = None) -> Value:
        """``a @ b^T`` in the arithmetic of attention, on the grid of its range or of the one called ``measured``."""
        if a.kind == "FLOAT32":
            found = self._o.batch_matmul(a, b, name)
            return found if measured else self._point(found)
        return self._o.batch_matmul(a, b, name, self._numerics.grid(measured or name, a.kind))

    def measured(self, x: Value, kind: str, name: str | None = None) -> Value:
        """A tensor on the grid of its own measured range, or of the one called ``name``."""
        if kind == "FLOAT32":
            return self.floating(x) if name else self._point(self.floating(x))
        if x.kind == kind:
            return x
        key = (x.index, kind)
        if key not in self._quantized:
            grid = self._numerics.grid(name or x.name, kind)
            self._quantized[key] = self._o.quantize(x, kind, f"{x.name}.{kind.lower()}", grid)
        return self._quantized[key]

    def onto(self, x: Value, like: Value) -> Value:
        """A tensor on the grid of another."""
        if x.kind == "FLOAT32" and like.kind == "FLOAT32":
            return self._point(x)
        if x.kind == like.kind:
            return x
        assert like.grid is not None
        return self._o.quantize(x, like.kind, f"{x.name}.{like.kind.lower()}", like.grid)

    def floating(self, x: Value) -> Value:
        """A tensor in float32."""
        return x if x.kind == "FLOAT32" else self._o.dequantize(x, f"{x.name}.float")

    def _point(self, x: Value) -> Value:
        self.points.append(x)
        return x

    def _floats(self, name: str, stored: Stored) -> Value:
        if name == "embed.weight" and self._tied is not None and self._tied.kind == "FLOAT32":
            return self._tied
        return self._o.floats(name, dense(stored).numpy())

    def _matrix(self, name: str, stored: QuantizedTensor) -> Value:
        """A packed matrix for float activations."""
        if self._numerics.linear == "dynamic":
            return self._integers(name, stored)
        if stored.bits == 4:
            return self._floats(name, stored)
        return self._o.dequantize(self._integers(name, stored), f"{name}.float")

    def _nibbles(self, name: str, stored: QuantizedTensor) -> Value:
        """Blocks of 32, 64 or 128; longer groups become several blocks with the same scale."""
        block = next((size for size in BLOCKS if stored.group % size == 0), BLOCKS[-1])
        scales = stored.scales.repeat_interleave(stored.group // block, dim=1).numpy()
        return self._o.graph.nibbles(name, stored.values.numpy(), Grid(scales, block=block))

    def _integers(self, name: str, stored: QuantizedTensor, *, one: bool = False) -> Value:
        if stored.bits == 4 and not self._numerics.static:
            tied = self._tied if name == "embed.weight" else None
            return tied or self._nibbles(name, stored)
        grid = (
            _ONE if one else Grid(stored.scales[0].numpy() if one_scale(stored) else stored.scales.numpy().reshape(-1))
        )
        if name == "embed.weight" and self._tied is not None:
            if self._tied.grid is not None and np.array_equal(self._tied.grid.scales, grid.scales):
                return self._tied
            return self._o.graph.alias(self._tied, "head.weight", grid)
        if stored.bits == 4:
            return self._o.decode(stored.values.numpy(), name, grid)
        return self._o.graph.constant(name, stored.values.numpy(), grid)
