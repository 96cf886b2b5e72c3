"""A session over an encoder in ExecuTorch's runtime: one text a call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgesdk.errors import EdgeError
from edgesdk.session import refuse_texts

from .native import native_log
from .session import load_program, refused
from .wheel import version


class ExecuTorchEncoderSession:
    """Runs an encoder's program; see :class:`edgesdk.session.EncoderSession` for the contract."""

    def __init__(self, program: Path, context: int, threads: int | None = None) -> None:
        """Load the program.

        Raises:
            BundleError: the file is damaged, of another schema, or the runtime refuses it.
        """
        self._program = load_program(program, threads)
        with native_log() as log:
            try:
                self._forward = self._program.load_method("forward")
                (self._vocab,) = self._program.load_method("get_vocab_size").call([])
            except RuntimeError as failure:
                raise refused(program, failure, log()) from None
        self._states: Any = None
        described = self._forward.method_meta()
        self._typed = described.num_inputs() > 1
        self.context, self.size = context, int(described.output_tensor_meta(0).sizes()[-1])

    def encode(self, texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None) -> np.ndarray:
        refuse_texts(texts, types, self.context, self._vocab)
        given = types or [[0] * len(text) for text in texts]
        return np.concatenate([self._run(self._forward, *each) for each in zip(texts, given, strict=True)])

    def states(self, ids: Sequence[int], types: Sequence[int] | None = None) -> np.ndarray:
        refuse_texts([ids], None if types is None else [types], self.context, self._vocab)
        if self._states is None:
            with native_log() as log:
                try:
                    self._states = self._program.load_method("states")
                except RuntimeError as failure:
                    raise EdgeError(f"the program gives no states: {failure} {log()}") from None
        found: np.ndarray = self._run(self._states, ids, types or [0] * len(ids))[0]
        return found

    def _run(self, method: Any, ids: Sequence[int], types: Sequence[int]) -> np.ndarray:
        inputs = [torch.tensor([list(part)]) for part in ((ids, types) if self._typed else (ids,))]
        try:
            (found,) = method.call(inputs)
        except RuntimeError as failure:
            raise EdgeError(f"ExecuTorch {version()} failed: {str(failure).splitlines()[0]}") from None
        values: np.ndarray = found.numpy().copy()
        return values
