"""A session over a vision-language model in ONNX Runtime: the decoder's, with images shown before their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgesdk.errors import EdgeError
from edgesdk.session import ImageRows, usable

from .encoder_session import RUNTIME, load, run
from .names import IMAGE_ROWS, PIXELS, VISION_FILE
from .session import OnnxSession


class OnnxVisionSession(OnnxSession):
    """Runs both programs of a bundle; see :class:`edgesdk.session.VisionSession` for the contract."""

    def __init__(self, model: Path, context: int, threads: int | None = None) -> None:
        """Load the programs.

        Args:
            model: the decoder; the image's program and the data file lie beside it.
            context: capacity of the caches, in tokens.
            threads: threads of the matrix kernels; None leaves the choice to ONNX Runtime.

        Raises:
            BundleError: ONNX Runtime refuses a file.
        """
        with usable(model, RUNTIME):
            self._vision = load(model.with_name(VISION_FILE), threads)
            (pixels,), (rows,) = self._vision.get_inputs(), self._vision.get_outputs()
            self._shape = tuple(pixels.shape[1:])
            self.image_size, self.image_rows = int(pixels.shape[-1]), int(rows.shape[1])
            self.image_token = int(self._vision.get_modelmeta().custom_metadata_map["image_token"])
            self._images = ImageRows(self.image_token, int(rows.shape[2]))
            self._nothing = np.zeros((1, int(rows.shape[2])), dtype=np.float32)
        super().__init__(model, context, threads)

    def show(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.shape != self._shape:
            raise EdgeError(f"an image is {self._shape}, found {pixels.shape}", hint="resize it before")
        given = np.ascontiguousarray(pixels[None], dtype=np.float32)
        rows: np.ndarray = run(self._vision, [IMAGE_ROWS], {PIXELS: given})[0][0]
        self._images.add(rows)
        return rows

    def reset(self) -> None:
        super().reset()
        self._images.clear()

    def _run(self, ids: Sequence[int]) -> None:
        rows = self._images.take(self.position, list(ids))
        self._rows = rows if len(rows) else self._nothing  # kept alive while it is bound
        self._bind_input(IMAGE_ROWS, self._rows, self._rows.shape)
        super()._run(ids)
