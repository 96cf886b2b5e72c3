"""A session over an encoder in ONNX Runtime: a batch of texts in, a row for each out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edgesdk.errors import EdgeError
from edgesdk.session import padded, refuse_texts, usable

from .names import STATES

RUNTIME = f"ONNX Runtime {ort.__version__}"


class OnnxEncoderSession:
    """Runs ``model.onnx`` of an encoder's bundle; see :class:`edgesdk.session.EncoderSession` for the contract."""

    def __init__(self, model: Path, context: int, threads: int | None = None) -> None:
        """Load the program.

        Raises:
            BundleError: ONNX Runtime refuses the file.
        """
        with usable(model, RUNTIME):
            self._session = load(model, threads)
            self.context = context
            self._vocab = int(self._session.get_modelmeta().custom_metadata_map["vocab"])
            answer = next(output for output in self._session.get_outputs() if output.name != STATES)
            self._answer, self.size = answer.name, int(answer.shape[-1])
            self._inputs = {value.name for value in self._session.get_inputs()}

    def encode(self, texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None) -> np.ndarray:
        return self._run(self._answer, texts, types)

    def states(self, ids: Sequence[int], types: Sequence[int] | None = None) -> np.ndarray:
        found: np.ndarray = self._run(STATES, [ids], None if types is None else [types])[0]
        return found

    def _run(self, output: str, texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None) -> np.ndarray:
        refuse_texts(texts, types, self.context, self._vocab)
        ids, kinds, mask = padded(texts, types)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
        return run(self._session, [output], {name: given[name] for name in self._inputs})[0]


def load(model: Path, threads: int | None = None) -> ort.InferenceSession:
    """An inference session on the CPU.

    Raises:
        BundleError: ONNX Runtime refuses the file.
    """
    options = ort.SessionOptions()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # failures reach the caller as exceptions
    if threads is not None:
        options.intra_op_num_threads = threads
    with usable(model, RUNTIME):
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=False)


def run(session: ort.InferenceSession, outputs: Sequence[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run a program once.

    Raises:
        EdgeError: ONNX Runtime fails.
    """
    try:
        found: list[np.ndarray] = session.run(list(outputs), inputs)
    except Exception as failure:
        raise EdgeError(f"{RUNTIME} failed: {str(failure).splitlines()[0]}") from None
    return found
