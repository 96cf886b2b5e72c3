"""The ONNX graphs of a vision-language model: rows of an image, and a decoder that takes them.

``vision.onnx`` makes ``image_features`` of ``pixel_values``; ``model.onnx`` is the usual decoder with one input more:
rows that stand in the place of image tokens, as many as there are among ``input_ids``, or one that nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import onnx_ir as ir
import torch

from edgesdk.model.vision import network
from edgesdk.model.weights import dense

from .arithmetic import OnnxArithmetic
from .builder import GraphBuilder
from .names import IMAGE_ROWS, PIXELS

if TYPE_CHECKING:
    from edgesdk.model.vision.model import VisionModel

    from .linear import Activations

_EMBEDDED = "embed.out"  # what the decoder's graph calls its tokens' rows


class ImageGraph(OnnxArithmetic):
    """Arithmetic over images; implements :class:`network.ImageArithmetic`."""

    def __init__(self, builder: GraphBuilder, model: VisionModel, activations: Activations) -> None:
        super().__init__(builder, model.weights, list(model.spec.tensors()), activations)
        self._spec = model.spec.image
        shape: list[int | str] = ["images", self._spec.channels, self._spec.size, self._spec.size]
        self._pixels = builder.input(PIXELS, ir.DataType.FLOAT, shape)

    def patches(self) -> ir.Value:
        edge = [self._spec.patch, self._spec.patch]
        weights = [self.floats("patch.weight"), self.floats("patch.bias")]
        found = self.op("Conv", [self._pixels, *weights], kernel_shape=edge, strides=edge)
        return self.op("Transpose", [self._reshape(found, [0, 0, -1])], perm=[0, 2, 1])

    def patch_positions(self) -> ir.Value:
        table = dense(self.stored("patch_positions.weight"))[network.position_numbers(self._spec)]
        return self.builder.floats("patch_positions", table.unsqueeze(0))

    def shuffled(self, x: ir.Value) -> ir.Value:
        grid, edge, hidden = self._spec.grid, self._spec.shuffle, self._spec.hidden
        apart = self._reshape(x, [0, grid // edge, edge, grid // edge, edge * hidden])
        turned = self.op("Transpose", [apart], perm=[0, 1, 3, 2, 4])
        return self._reshape(turned, [0, self._spec.rows, hidden * edge**2])

    def _reshape(self, x: ir.Value, shape: list[int]) -> ir.Value:
        named = self.builder.constant(f"shape.{'.'.join(map(str, shape))}", shape)
        return self.op("Reshape", [x, named])


class SeeingBuilder(GraphBuilder):
    """Builds a decoder's graph in which rows of images stand in the place of image tokens."""

    def __init__(
        self, folder: Path, data: BinaryIO, dtype: torch.dtype, stored: dict[str, ir.TensorProtocol], token: int
    ) -> None:
        super().__init__(folder, data, dtype, stored)
        self._token, self._replaced = token, False

    def multi(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        *,
        domain: str = "",
        outputs: int,
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        found = super().multi(kind, inputs, name, domain=domain, outputs=outputs, **attributes)
        if name != _EMBEDDED:
            return found
        self._replaced = True
        return [self._with_images(found[0])]

    def graph(self, name: str, opset: int) -> ir.Graph:
        assert self._replaced, "the decoder's graph has no embedding by the name that images are put behind"
        return super().graph(name, opset)

    def _with_images(self, embedded: ir.Value) -> ir.Value:
        ids = next(value for value in self.inputs if value.name == "input_ids")
        rows = self.input(IMAGE_ROWS, ir.DataType.FLOAT, ["rows", "hidden"])
        image = self.op("Equal", [ids, self.constant("image.token", [self._token])], "image.is")
        numbers = self.op("Cast", [image], "image.numbers", to=int(ir.DataType.INT64))
        count = self.op("CumSum", [numbers, self.constant("image.axis", 1)], "image.count")
        places = self.op("Sub", [count, numbers], "image.before")  # rows before each token, all of the step's
        last = self.op(
            "Sub", [self.op("Shape", [rows], "image.rows", start=0, end=1), self.constant("one", [1])], "image.last"
        )
        index = self.op("Min", [places, last], "image.index")
        chosen = self.op("Gather", [rows, index], "image.chosen")
        wide = self.op("Unsqueeze", [image, self.constant("minus.one", [-1])], "image.wide")
        return self.op("Where", [wide, chosen, embedded], "embed.seen")


def emit_vision(
    builder: GraphBuilder, model: VisionModel, activations: Activations, on_layer: Callable[[], object]
) -> None:
    """Build the graph of the image's side."""
    spec = model.spec
    rows = network.image_rows(ImageGraph(builder, model, activations), spec.image, on_layer)
    builder.output(rows, IMAGE_ROWS, ir.DataType.FLOAT, ["images", spec.image.rows, spec.text.hidden])
