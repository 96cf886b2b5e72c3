"""A session over ONNX Runtime: preallocated caches that are updated in place, inputs bound once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edgesdk.errors import EdgeError
from edgesdk.session import Recall, refuse_rewind, refuse_tokens, usable

from .names import LOGITS_START, past_names, present_names

PROVIDERS = {  # by the names that users write, in the order that a board with all of them should try
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_NAME = f"ONNX Runtime {ort.__version__}"
_CHUNK = 256  # positions of one prefill step: bounds the activations, keeps the matrix kernels busy


class OnnxSession:
    """Runs ``model.onnx`` of a bundle; see :class:`edgesdk.session.Session` for the contract.

    Attributes:
        runs: steps run so far.
        providers: what runs the program, as ONNX Runtime says: operators go to the first that has them.
    """

    def __init__(
        self,
        model: Path,
        context: int,
        threads: int | None = None,
        *,
        profile: Path | None = None,
        providers: Sequence[str] = ("cpu",),
        adapter: Path | None = None,
    ) -> None:
        """Load the program.

        Args:
            model: the ``.onnx`` file, its data file beside it.
            context: capacity of the caches, in tokens.
            threads: threads of the matrix kernels; None leaves the choice to ONNX Runtime.
            profile: where ONNX Runtime writes what every operator took; None times nothing.
            providers: names of :data:`PROVIDERS`, the first choice first; those that this ONNX Runtime lacks are
                passed over, and the CPU is always the last.
            adapter: an ``.onnx_adapter`` file of the bundle, to run the program with.

        Raises:
            EdgeError: there is no such provider.
            BundleError: ONNX Runtime refuses a file.
        """
        options = ort.SessionOptions()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # failures reach the caller as exceptions
        if threads is not None:
            options.intra_op_num_threads = threads
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        with usable(model, _NAME):
            available = _available(providers)
            more = {"enable_fallback": len(available) > 1}  # with one alone it tries that again, and prints
            self._session = ort.InferenceSession(model, options, providers=available, **more)
            self.providers = tuple(self._session.get_providers())
            self.context, self.position, self.runs = context, 0, 0
            self.vocab = int(self._session.get_outputs()[0].shape[-1])
            self._binding = self._session.io_binding()
            self._float = np.dtype(np.float16 if "float16" in self._session.get_outputs()[0].type else np.float32)
            self._ids = np.zeros((1, context), dtype=np.int64)
            self._mask = np.ones((1, context), dtype=np.int64)
            self._last, self._first = np.array([-1], dtype=np.int64), np.array([0], dtype=np.int64)
            self._logits = np.zeros(self.vocab, dtype=self._float)
            self._bound_ids, self._bound_last = 0, False  # what the last step bound, which costs time after every step
            if adapter is not None:
                self._bind_adapter(adapter)
            self._caches = self._bind_caches()  # before logits, which are then the last of the outputs
            self._states = self._make_states()
            self._bind_states()  # likewise
            self._bind_last()
        self.reset()

    def reset(self) -> None:
        self._restore(0, None)
        self._recall = Recall(self._save, self._restore, self.prefill) if self._states else None

    def rewind(self, count: int) -> None:
        refuse_rewind(self, count)
        if self._recall is None:
            self.position -= count
        else:
            self._recall.rewind(self.position - count)

    def _save(self) -> dict[str, np.ndarray]:
        return {name: state.copy() for name, (state, _) in self._states.items()}

    def _restore(self, position: int, saved: Mapping[str, np.ndarray] | None) -> None:
        self.position = position
        for name, (state, _) in self._states.items():
            state[...] = saved[name] if saved else 0

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        refuse_tokens(self, ids)
        if not self._bound_last:
            self._bind_last()
        for chunk in _chunks(ids):
            self._run(chunk)
        last: np.ndarray = self._logits.astype(np.float32)
        return last

    def decode(self, token: int) -> np.ndarray:
        return self.prefill([token])

    def score(self, ids: Sequence[int]) -> np.ndarray:
        refuse_tokens(self, ids)
        self._bind_input(LOGITS_START, self._first, (1,))
        self._bound_last = False
        rows = []
        for chunk in _chunks(ids):
            self._binding.bind_output("logits", "cpu")  # more rows than declared: ONNX Runtime must allocate them
            self._run(chunk)
            rows.append(self._binding.get_outputs()[-1].numpy()[0].astype(np.float32))
        return np.concatenate(rows)

    def end_profile(self) -> str:
        """End timing operators; the path of what was written."""
        return str(self._session.end_profiling())

    def _run(self, ids: Sequence[int]) -> None:
        """Run one step; the caches already hold ``position`` tokens."""
        if self._recall is not None:
            self._recall.note(self.position, ids)
        self._bind_states()
        count, total = len(ids), self.position + len(ids)
        self._ids[0, :count] = ids
        if count != self._bound_ids:
            self._bind_input("input_ids", self._ids, (1, count))
            self._bound_ids = count
        self._bind_input("attention_mask", self._mask, (1, total))
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as failure:  # the binding raises a class per status code
            raise EdgeError(f"{_NAME} failed: {str(failure).splitlines()[0]}") from None
        self.position, self.runs = total, self.runs + 1
        self._states = {name: (following, state) for name, (state, following) in self._states.items()}

    def _bind_last(self) -> None:
        """Have the next steps give the logits of their last tokens."""
        self._bind_input(LOGITS_START, self._last, (1,))
        self._binding.bind_output("logits", "cpu", 0, self._float, (1, 1, self.vocab), self._logits.ctypes.data)
        self._bound_last = True

    def _bind_input(self, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
        self._binding.bind_input(name, "cpu", 0, array.dtype, shape, array.ctypes.data)

    def _bind_adapter(self, path: Path) -> None:
        """Bind what an adapter holds as inputs (adapters of run options do nothing where inputs are bound)."""
        with usable(path, _NAME):
            parameters = ort.AdapterFormat.read_adapter(str(path)).get_parameters()
            for name, value in parameters.items():
                self._binding.bind_ortvalue_input(name, value)
        self._parameters = parameters  # their memory is what is bound

    def _bind_caches(self) -> list[Any]:
        """One buffer for each cache, bound as past and as present: GroupQueryAttention then writes in place."""
        shapes = {value.name: value.shape for value in self._session.get_inputs()}
        kept = []
        for layer in [int(name.split(".")[1]) for name in shapes if name.endswith(".key")]:
            for past, present in zip(past_names(layer), present_names(layer)):  # noqa: B905 - boards with Python 3.8
                _, heads, _, head_dim = shapes[past]
                cache = np.zeros((1, heads, self.context, head_dim), dtype=self._float)
                self._bind_input(past, cache, cache.shape)
                self._binding.bind_output(present, "cpu", 0, self._float, cache.shape, cache.ctypes.data)
                kept.append(cache)
        return kept

    def _make_states(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Two buffers for each recurrent state, which take turns: what a step reads, and what it writes."""
        found = {}
        for value in self._session.get_inputs():
            if value.name.startswith("past_state."):
                shape = (1, *value.shape[1:])
                found[value.name] = (np.zeros(shape, np.float32), np.zeros(shape, np.float32))
        return found

    def _bind_states(self) -> None:
        for name, (state, following) in self._states.items():
            self._bind_input(name, state, state.shape)
            present = name.replace("past", "present", 1)
            self._binding.bind_output(present, "cpu", 0, state.dtype, state.shape, following.ctypes.data)


def _available(names: Sequence[str]) -> list[str]:
    wanted = []
    for name in (*names, "cpu"):
        if name not in PROVIDERS:
            raise EdgeError(f"no execution provider '{name}'; there are: {', '.join(sorted(PROVIDERS))}")
        wanted.append(PROVIDERS[name])
    here = ort.get_available_providers()
    return [name for name in dict.fromkeys(wanted) if name in here]


def _chunks(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for at in range(0, len(ids), _CHUNK):
        yield ids[at : at + _CHUNK]
