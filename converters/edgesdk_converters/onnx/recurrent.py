"""Mixers that carry states: ``CausalConvWithState``, ``LinearAttention`` and ``GatedDeltaNet`` of ONNX Runtime, a
``Scan`` for RWKV-4.

A state is an input and an output of the program, one sequence's, zero at the beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
import torch

from edgesdk.model.mixers import UNIT_EPS
from edgesdk.model.spec import GatedDelta, Mamba, Mamba2, Rwkv, ShortConv

from .builder import CONTRIB
from .linear import linear
from .names import state_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesdk.model.spec import Layer

    from .blocks import Blocks

_LONG = "sequence_length"


class RecurrentBlocks:
    """Adds such mixers to a graph. All values are [batch, sequence, channels]."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks, self._b, self._hidden = blocks, blocks.builder, blocks.model.spec.hidden

    def mix(self, index: int, layer: Layer, x: ir.Value) -> ir.Value:
        """What the mixer of a layer gives for the normed stream ``x``."""
        mixer, name = layer.mixer, f"layers.{index}"
        if isinstance(mixer, ShortConv):
            b, c, value = self._parts(self._projected(name, x, "in"), f"{name}.in", [self._hidden] * 3)
            gated = self._b.op("Mul", [b, value], f"{name}.conv.in")
            mixed = self._b.op("Mul", [c, self._convolved(index, gated, self._hidden, "none")], f"{name}.conv.gated")
        elif isinstance(mixer, Mamba):
            mixed = self._mamba(index, mixer, x)
        elif isinstance(mixer, Mamba2):
            mixed = self._mamba2(index, mixer, x)
        elif isinstance(mixer, GatedDelta):
            mixed = self._gated_delta(index, mixer, x)
        else:
            assert isinstance(mixer, Rwkv)
            return self._rwkv(index, mixer, x)
        return self._projected(name, mixed, "out")

    def channel_mix(self, index: int, x: ir.Value) -> ir.Value:
        """RWKV's feed-forward block."""
        b, name = self._b, f"layers.{index}"
        before = self._shifted(index, x, "ffn_shift")
        key, gate = (self._blend(x, before, f"{name}.ffn_shift.{part}") for part in "kr")
        inner = self._blocks.activated(name, self._projected(name, key, "up"), "relu2")
        part = b.op("Sigmoid", [self._projected(name, gate, "gate")], f"{name}.gate.part")
        return b.op("Mul", [part, self._projected(name, inner, "down")], f"{name}.fed")

    def _mamba(self, index: int, mixer: Mamba, x: ir.Value) -> ir.Value:
        b, name = self._b, f"layers.{index}"
        value, gate = self._parts(self._projected(name, x, "in"), f"{name}.in", [mixer.inner] * 2)
        value = self._convolved(index, value, mixer.inner, "silu")
        step, read, written = self._selected(name, mixer, value)
        delta = b.op("Softplus", [step], f"{name}.delta")
        rate = b.floats(f"{name}.ssm.a", -torch.exp(self._blocks.vector(f"{name}.ssm.a_log")))
        wide = b.op("Unsqueeze", [delta, b.constant("ssm.last", [-1])], f"{name}.delta.wide")
        decay = self._flat(b.op("Mul", [wide, rate], f"{name}.decay"), mixer.inner * mixer.state)
        keys = self._each(read, f"{name}.b", mixer.heads, mixer.state, mixer.inner // mixer.heads)
        added = b.op("Mul", [delta, value], f"{name}.added")
        out = self._scanned(index, (written, keys, added, decay), (mixer.inner, mixer.state, 1), heads=mixer.heads)
        return b.op("Mul", [self._skipped(name, out, value), self._silu(gate, f"{name}.gate")], f"{name}.ssm.gated")

    def _selected(self, name: str, mixer: Mamba, value: ir.Value) -> list[ir.Value]:
        """Step sizes before softplus [inner], B and C [heads * state], from the channels ``value``."""
        if mixer.heads == 1:
            return self._selected_by(name, mixer, value)
        values = self._parts(value, f"{name}.heads", [mixer.inner // mixer.heads] * mixer.heads)
        each = [self._selected_by(f"{name}.heads.{head}", mixer, part) for head, part in enumerate(values)]
        return [
            self._b.op("Concat", parts, f"{name}.{part}.each", axis=-1)
            for part, parts in zip(("dt", "b", "c"), zip(*each, strict=True), strict=True)
        ]

    def _selected_by(self, name: str, mixer: Mamba, value: ir.Value) -> list[ir.Value]:
        """The same of one head, whose matrices are called ``name``."""
        sizes = [mixer.rank, mixer.state, mixer.state]
        parts = self._parts(self._projected(name, value, "x"), f"{name}.x", sizes)
        if mixer.normed:
            parts = [
                self._blocks.rms_norm(part, f"{name}.{each}_norm", mixer.eps)
                for part, each in zip(parts, ("dt", "b", "c"), strict=True)
            ]
        return [self._projected(name, parts[0], "dt"), *parts[1:]]

    def _mamba2(self, index: int, mixer: Mamba2, x: ir.Value) -> ir.Value:
        b, name, shared = self._b, f"layers.{index}", mixer.groups * mixer.state
        sizes = [mixer.inner, mixer.conv_size, mixer.heads]
        gate, inner, step = self._parts(self._projected(name, x, "in"), f"{name}.in", sizes)
        inner = self._convolved(index, inner, mixer.conv_size, "silu")
        value, read, written = self._parts(inner, f"{name}.conv", [mixer.inner, shared, shared])
        bias = b.floats(f"{name}.ssm.dt_bias", self._blocks.vector(f"{name}.ssm.dt_bias"))
        delta = b.op("Softplus", [b.op("Add", [step, bias], f"{name}.step")], f"{name}.delta")
        if mixer.limited:
            limits = [
                None if each is None else b.floats(f"ssm.step.{each:g}", torch.tensor(each))
                for each in (mixer.least_step, mixer.most_step)
            ]
            delta = b.op("Clip", [delta, *limits], f"{name}.delta.limited")
        rate = b.floats(f"{name}.ssm.a", -torch.exp(self._blocks.vector(f"{name}.ssm.a_log")))
        decay = b.op("Mul", [delta, rate], f"{name}.decay")
        keys = self._each(read, f"{name}.b", mixer.groups, mixer.state, mixer.heads // mixer.groups)
        heads = b.op("Reshape", [value, self._shape(mixer.heads, mixer.head_dim)], f"{name}.heads")
        wide = b.op("Unsqueeze", [delta, b.constant("ssm.last", [-1])], f"{name}.delta.wide")
        added = self._flat(b.op("Mul", [wide, heads], f"{name}.added"), mixer.inner)
        shape = (mixer.heads, mixer.state, mixer.head_dim)
        out = self._scanned(index, (written, keys, added, decay), shape, heads=mixer.groups)
        skip = self._blocks.vector(f"{name}.ssm.d").repeat_interleave(mixer.head_dim)
        out = self._skipped(name, out, value, skip)
        gated = b.op("Mul", [out, self._silu(gate, f"{name}.gate")], f"{name}.ssm.gated")
        if mixer.groups == 1:
            return self._blocks.rms_norm(gated, f"{name}.out_norm")
        size = mixer.inner // mixer.groups
        grouped = b.op("Reshape", [gated, self._shape(mixer.groups, size)], f"{name}.groups")
        ones = b.floats(f"ssm.ones.{size}", torch.ones(size))
        eps = self._blocks.model.spec.norm_eps
        normed = b.op(
            "SimplifiedLayerNormalization", [grouped, ones], f"{name}.normed", epsilon=eps, axis=-1, stash_type=1
        )
        weight = b.floats(f"{name}.out_norm.weight", self._blocks.vector(f"{name}.out_norm.weight"))
        return b.op("Mul", [self._flat(normed, mixer.inner), weight], f"{name}.out_norm.out")

    def _gated_delta(self, index: int, mixer: GatedDelta, x: ir.Value) -> ir.Value:
        b, name = self._b, f"layers.{index}"
        inner, z = self._delta_inputs(name, mixer, x)
        inner = self._units(name, mixer, self._convolved(index, inner, mixer.conv_size, "silu"))
        gates = [self._float_projected(f"{name}.delta.{part}", x) for part in ("decay", "beta")]
        rates = [self._vector(f"{name}.ssm.{part}") for part in ("a_log", "dt_bias")]
        shape = (mixer.heads, mixer.value_dim, mixer.key_dim)
        out, present = b.multi(
            "GatedDeltaNet",
            [inner, None, None, None, *gates, self._past(index, "delta", shape), *rates],
            f"{name}.delta",
            domain=CONTRIB,
            outputs=2,
            gate_activation="softplus",
            beta_activation="sigmoid",
        )
        self._present(index, "delta", present, shape)
        normed = self._flat(self._blocks.rms_norm(out, f"{name}.out_norm"), mixer.inner)
        return b.op("Mul", [normed, self._silu(z, f"{name}.delta.z")], f"{name}.delta.gated")

    def _delta_inputs(self, name: str, mixer: GatedDelta, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Queries, keys and values in one, and the gate behind them."""
        joined, *others = self._blocks.projections(f"{name}.delta", x, ["q", "k", "v", "z"])
        assert joined is not None
        if others[0] is None:
            inner, z = self._parts(joined, f"{name}.delta", [mixer.conv_size, mixer.inner])
            return inner, z
        k, v, z = (part for part in others if part is not None)
        return self._b.op("Concat", [joined, k, v], f"{name}.delta.in", axis=-1), z

    def _units(self, name: str, mixer: GatedDelta, inner: ir.Value) -> ir.Value:
        """Queries and keys of length 1, before values that stay: the operator's own has another epsilon."""
        b, size = self._b, mixer.key_dim
        both, value = self._parts(inner, f"{name}.conv", [2 * mixer.key_size, mixer.inner])
        heads = b.op("Reshape", [both, self._shape(2 * mixer.key_heads, size)], f"{name}.delta.heads")
        units = b.op(
            "SimplifiedLayerNormalization",
            [heads, b.floats(f"delta.unit.{size}", torch.full((size,), size**-0.5))],
            f"{name}.delta.units",
            epsilon=UNIT_EPS / size,
            axis=-1,
            stash_type=1,
        )
        return b.op("Concat", [self._flat(units, 2 * mixer.key_size), value], f"{name}.delta.qkv", axis=-1)

    def _rwkv(self, index: int, mixer: Rwkv, x: ir.Value) -> ir.Value:
        b, name = self._b, f"layers.{index}"
        before = self._shifted(index, x, "shift")
        key, value, receptance = (
            self._projected(name, self._blend(x, before, f"{name}.shift.{part}"), part) for part in "kvr"
        )
        past = self._past(index, "wkv", (3, mixer.size))
        decay = b.floats(f"{name}.wkv.rate", -torch.exp(self._blocks.vector(f"{name}.wkv.decay")))
        first = b.floats(f"{name}.wkv.first", self._blocks.vector(f"{name}.wkv.first"))
        axis = b.constant("wkv.axis", [1])
        sums = b.multi("Split", [past], f"{name}.wkv.sums", outputs=3, axis=1, num_outputs=3)
        sums = [b.op("Squeeze", [part, axis], f"{name}.wkv.{i}") for i, part in enumerate(sums)]
        body = _wkv_step(mixer.size, b.dtype, decay, first)
        *states, out = b.multi(
            "Scan",
            [*sums, key, value],
            f"{name}.wkv.scan",
            outputs=4,
            body=body,
            num_scan_inputs=2,
            scan_input_axes=[1, 1],
            scan_output_axes=[1],
        )
        wide = [b.op("Unsqueeze", [part, axis], f"{name}.wkv.new.{i}") for i, part in enumerate(states)]
        self._present(index, "wkv", b.op("Concat", wide, f"{name}.wkv.new", axis=1), (3, mixer.size))
        part = b.op("Sigmoid", [receptance], f"{name}.r.part")
        return self._projected(name, b.op("Mul", [part, out], f"{name}.wkv.gated"), "o")

    def _scanned(
        self,
        index: int,
        data: tuple[ir.Value, ir.Value, ir.Value, ir.Value],
        shape: tuple[int, int, int],
        *,
        heads: int,
    ) -> ir.Value:
        """A gated linear recurrence: what reads it, what writes to it and where, and its decay; state of ``shape``."""
        out, present = self._b.multi(
            "LinearAttention",
            [*data[:3], self._past(index, "ssm", shape), data[3]],
            f"layers.{index}.ssm",
            domain=CONTRIB,
            outputs=2,
            update_rule="gated",
            q_num_heads=heads,
            kv_num_heads=shape[0],
            scale=1.0,
        )
        self._present(index, "ssm", present, shape)
        return out

    def _convolved(self, index: int, x: ir.Value, channels: int, activation: str) -> ir.Value:
        b, name = self._b, f"layers.{index}.conv"
        weight, bias = self._blocks.vector(f"{name}.weight"), self._blocks.optional(f"{name}.bias")
        shape = (weight.shape[1] - 1, channels)
        out, present = b.multi(
            "CausalConvWithState",
            [
                x,
                b.floats(f"{name}.weight", weight.unsqueeze(1)),
                None if bias is None else b.floats(f"{name}.bias", bias),
                self._past(index, "conv", shape),
            ],
            f"{name}.out",
            domain=CONTRIB,
            outputs=2,
            activation=activation,
            channels_last=1,
        )
        self._present(index, "conv", present, shape)
        return out

    def _shifted(self, index: int, x: ir.Value, state: str) -> ir.Value:
        """What stood one position before."""
        b, name, shape = self._b, f"layers.{index}.{state}", (1, self._hidden)
        longer = b.op("Concat", [self._past(index, state, shape), x], f"{name}.longer", axis=1)
        start, last, end = b.constant("shift.0", [0]), b.constant("shift.-1", [-1]), b.constant("shift.end", [2**62])
        axis = b.constant("shift.axis", [1])
        self._present(index, state, b.op("Slice", [longer, last, end, axis], f"{name}.new"), shape)
        return b.op("Slice", [longer, start, last, axis], f"{name}.before")

    def _blend(self, x: ir.Value, before: ir.Value, name: str) -> ir.Value:
        b, part = self._b, self._blocks.vector(name)
        now = b.op("Mul", [x, b.floats(name, part)], f"{name}.now")
        return b.op(
            "Add", [now, b.op("Mul", [before, b.floats(f"{name}.rest", 1 - part)], f"{name}.old")], f"{name}.out"
        )

    def _past(self, index: int, state: str, shape: tuple[int, ...]) -> ir.Value:
        return self._b.input(state_names(index, state)[0], ir.DataType.FLOAT, ["batch_size", *shape])

    def _present(self, index: int, state: str, value: ir.Value, shape: tuple[int, ...]) -> None:
        self._b.output(value, state_names(index, state)[1], ir.DataType.FLOAT, ["batch_size", *shape])

    def _vector(self, name: str) -> ir.Value:
        return self._b.floats(name, self._blocks.vector(name))

    def _float_projected(self, name: str, x: ir.Value) -> ir.Value:
        """The product with a matrix that stays in float."""
        return linear(self._b, x, name, self._blocks.vector(f"{name}.weight"), self._blocks.activations)

    def _projected(self, name: str, x: ir.Value, part: str) -> ir.Value:
        return self._blocks.projection(name, x, part)

    def _parts(self, x: ir.Value, name: str, sizes: Sequence[int]) -> list[ir.Value]:
        b = self._b
        lengths = b.constant(f"parts.{'.'.join(map(str, sizes))}", list(sizes))
        return list(b.multi("Split", [x, lengths], f"{name}.part", outputs=len(sizes), axis=-1))

    def _each(self, x: ir.Value, name: str, groups: int, size: int, repeats: int) -> ir.Value:
        """Every group of ``size`` channels ``repeats`` times in a row."""
        if repeats == 1:
            return x
        b = self._b
        split = b.op("Reshape", [x, self._shape(groups, 1, size)], f"{name}.split")
        # Tile, unlike Expand, needs no length of the sequence.
        tiled = b.op("Tile", [split, b.constant(f"tile.{repeats}", [1, 1, 1, repeats, 1])], f"{name}.tiled")
        return self._flat(tiled, groups * repeats * size)

    def _flat(self, x: ir.Value, size: int) -> ir.Value:
        return self._b.op("Reshape", [x, self._shape(size)], f"{x.name}.flat")

    def _shape(self, *sizes: int) -> ir.Value:
        """The shape [batch, sequence, sizes]; the sequence is worked out where both stay as they are."""
        return self._b.constant(f"shape.{'.'.join(map(str, sizes))}", [0, -1, *sizes])

    def _silu(self, x: ir.Value, name: str) -> ir.Value:
        return self._b.op("QuickGelu", [x], f"{name}.silu", domain=CONTRIB, alpha=1.0)

    def _skipped(self, name: str, out: ir.Value, value: ir.Value, skip: torch.Tensor | None = None) -> ir.Value:
        b = self._b
        weight = b.floats(f"{name}.ssm.skip", self._blocks.vector(f"{name}.ssm.d") if skip is None else skip)
        return b.op("Add", [out, b.op("Mul", [value, weight], f"{name}.skip")], f"{name}.ssm.out")


def _wkv_step(size: int, dtype: torch.dtype, decay: ir.Value, first: ir.Value) -> ir.Graph:
    """One position of RWKV-4: sums and their exponent in, key and value of the position; the same and the mean out."""
    assert dtype == torch.float32
    kind = ir.TensorType(ir.DataType.FLOAT)
    above, below, most, key, value = (
        ir.Value(name=f"wkv.step.{name}", type=kind, shape=ir.Shape(["batch_size", size]))
        for name in ("above", "below", "most", "key", "value")
    )
    nodes: list[ir.Node] = []

    def op(name: str, *inputs: ir.Value) -> ir.Value:
        node = ir.node(name, list(inputs), outputs=[ir.Value(name=f"wkv.step.{len(nodes)}", type=kind)])
        nodes.append(node)
        return node.outputs[0]

    def shared(peak: ir.Value, before: ir.Value, new: ir.Value) -> tuple[ir.Value, ir.Value]:
        old, new = op("Exp", op("Sub", before, peak)), op("Exp", op("Sub", new, peak))
        return op("Add", op("Mul", old, above), op("Mul", new, value)), op("Add", op("Mul", old, below), new)

    ahead = op("Add", key, first)
    over, under = shared(op("Max", most, ahead), most, ahead)
    mean = op("Div", over, under)
    faded = op("Add", most, decay)
    peak = op("Max", faded, key)
    over, under = shared(peak, faded, key)
    return ir.Graph([above, below, most, key, value], [over, under, peak, mean], nodes=nodes, name="wkv")
