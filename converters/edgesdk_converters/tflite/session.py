"""Sessions over a decode-step program, in LiteRT and in the host build of TFLM: one token a step, caches in place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from edgesdk.errors import BundleError, EdgeError, MissingExtraError
from edgesdk.session import refuse_rewind, refuse_tokens

from .format import Contents, scales_of, zero_of
from .verifying import check_program

_TYPES = {"FLOAT32": np.float32, "INT8": np.int8, "INT16": np.int16}
_ROOM = 1 << 24  # for all but the caches; memory that is not touched costs the host nothing


class _DecodeSession(ABC):
    """What both runtimes share; see :class:`edgesdk.session.Session` for the contract."""

    context: int
    vocab: int

    def __init__(self) -> None:
        self.position = 0

    def reset(self) -> None:
        self.position = 0

    def rewind(self, count: int) -> None:
        refuse_rewind(self, count)
        self.position -= count

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        last: np.ndarray = self.score(ids)[-1]
        return last

    def decode(self, token: int) -> np.ndarray:
        return self.prefill([token])

    def score(self, ids: Sequence[int]) -> np.ndarray:
        refuse_tokens(self, ids)
        rows = np.empty((len(ids), self.vocab), np.float32)
        for row, token in zip(rows, ids):  # noqa: B905 - boards with Python 3.8
            try:
                row[:] = self._step(token)
            except (RuntimeError, ValueError, IndexError, TypeError) as failure:
                raise EdgeError(f"the runtime failed: {str(failure).strip() or type(failure).__name__}") from None
            self.position += 1
        return rows

    @abstractmethod
    def _step(self, token: int) -> np.ndarray:
        """Logits after one more token, [vocab]; the new rows go into the caches."""


class LiteRtSession(_DecodeSession):
    """Runs a program in LiteRT's interpreter; the caches lie in its own memory, since they are outputs too."""

    def __init__(self, interpreter: Any) -> None:
        """``interpreter`` is one of ``ai_edge_litert`` or ``tflite_runtime`` over the program.

        Raises:
            ValueError, RuntimeError: the runtime refuses the program.
        """
        super().__init__()
        interpreter.allocate_tensors()
        self._interpreter = interpreter
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        self._tok, self._pos, *self._caches = (detail["index"] for detail in inputs)
        self._logits, *self._rows = (detail["index"] for detail in outputs[: 1 + len(self._caches)])
        self.vocab, self.context = int(outputs[0]["shape"][-1]), int(inputs[2]["shape"][1])
        for cache in self._caches:
            interpreter.tensor(cache)()[...] = 0

    def _step(self, token: int) -> np.ndarray:
        interpreter = self._interpreter
        interpreter.set_tensor(self._tok, np.array([token], np.int32))
        interpreter.set_tensor(self._pos, np.array([self.position], np.int32))
        interpreter.invoke()
        for number, (cache, row) in enumerate(zip(self._caches, self._rows)):  # noqa: B905 - boards with Python 3.8
            _write(interpreter.tensor(cache)(), number, self.position, interpreter.get_tensor(row))
        logits: np.ndarray = interpreter.get_tensor(self._logits)[0]
        return logits


def open_program(main: Path, context: int, threads: int | None = None) -> LiteRtSession:
    """Open a program in LiteRT, or in the older package that some boards have; the program knows its context.

    Raises:
        BundleError: the file is damaged, or the runtime refuses it.
        MissingExtraError: neither package is installed.
    """
    interpreter = _interpreter()
    with suppress(MissingExtraError):  # the older package brings no schema
        check_program(main)
    try:
        return LiteRtSession(interpreter(model_path=str(main), num_threads=threads))
    except Exception as failure:  # the interpreter's own, and whatever inputs and outputs of another kind end in
        raise BundleError(f"{main}: LiteRT cannot load it ({failure})", hint="export it again") from None


def _interpreter() -> type:
    """The interpreter of LiteRT, or of the older package that some boards have."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError as missing:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ModuleNotFoundError:
            raise MissingExtraError(missing.name or "ai_edge_litert", "tflite") from None
    found: type = Interpreter
    return found


class MicroSession(_DecodeSession):
    """Runs a program in the host build of TFLite-Micro; the caches lie in numpy, as they would in a firmware."""

    def __init__(self, file: Contents) -> None:
        """Raises: RuntimeError: TFLM refuses the program."""
        from tflite_micro import runtime

        super().__init__()
        tensors = file.graph.tensors
        shapes = [tensors[index] for index in file.graph.inputs[2:]]
        self._caches = [np.zeros(tensor.shape, _TYPES[file.kind(tensor)]) for tensor in shapes]
        arena = _ROOM + 4 * sum(cache.nbytes for cache in self._caches)
        self._interpreter = runtime.Interpreter.from_bytes(file.content, arena_size=arena)
        logits = tensors[file.graph.outputs[0]]
        self.vocab, self.context = int(logits.shape[-1]), self._caches[0].shape[1]
        scales = scales_of(logits)
        self._scale, self._zero = np.float32(scales[0] if len(scales) else 1.0), zero_of(logits)

    def _step(self, token: int) -> np.ndarray:
        run = self._interpreter
        run.set_input(np.array([token], np.int32), 0)
        run.set_input(np.array([self.position], np.int32), 1)
        for number, cache in enumerate(self._caches):
            run.set_input(cache, 2 + number)
        run.invoke()
        for number, cache in enumerate(self._caches):
            _write(cache, number, self.position, run.get_output(1 + number))
        logits: np.ndarray = (run.get_output(0)[0].astype(np.float32) - self._zero) * self._scale
        return logits


def _write(cache: np.ndarray, number: int, at: int, row: np.ndarray) -> None:
    """Put a new row into K (even numbers, [kv, S, d]) or a new column into VT (odd ones, [kv, d, S])."""
    if number % 2:
        cache[:, :, at : at + 1] = row
    else:
        cache[:, at : at + 1] = row
