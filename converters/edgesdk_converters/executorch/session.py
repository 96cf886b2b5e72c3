"""A session over ExecuTorch's runtime: the methods of a program, each with its own caches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgesdk.errors import BundleError, EdgeError
from edgesdk.session import refuse_rewind, refuse_tokens

from .native import native_log
from .verifying import check_program
from .wheel import load_runtime, version


class ExecuTorchSession:
    """Runs a program of this converter; see :class:`edgesdk.session.Session` for the contract.

    Going back in a program with states runs tokens again, from where the last step of several tokens began: the program
    saved its states there (see :mod:`.states`). Further back it begins at the first token.
    """

    scores_apart = True  # ``forward`` and ``score`` are methods that each keep track of what their caches hold
    sums_over_steps = True  # custom_sdpa: the products with values run over all that the step has put into the cache

    def __init__(self, program: Path, context: int, threads: int | None = None) -> None:
        """Load the program.

        Args:
            program: the ``.pte`` file.
            context: capacity of the caches, in tokens.
            threads: threads of the matrix kernels, for the whole process; None leaves the choice to ExecuTorch.

        Raises:
            BundleError: the file is damaged, of another schema, or the runtime refuses it.
        """
        self._program = load_program(program, threads)
        with native_log() as log:
            try:
                self._forward = _Method(self._program, "forward")
            except (RuntimeError, LookupError, TypeError, ValueError) as failure:
                raise refused(program, failure, log()) from None
        self._score: _Method | None = None
        self._ran = self._forward  # the last
        self.context, self.vocab = context, self._forward.vocab
        self._ids: list[int] = []

    @property
    def position(self) -> int:
        """Tokens in the cache now."""
        return len(self._ids)

    def reset(self) -> None:
        self._ids.clear()

    def rewind(self, count: int) -> None:
        refuse_rewind(self, count)
        del self._ids[self.position - count :]

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        refuse_tokens(self, ids)
        last: np.ndarray = self._run(self._forward, ids)[-1]
        return last

    def decode(self, token: int) -> np.ndarray:
        return self.prefill([token])

    def score(self, ids: Sequence[int]) -> np.ndarray:
        refuse_tokens(self, ids)
        if self._score is None:
            with native_log() as log:
                try:
                    self._score = _Method(self._program, "score")
                except RuntimeError as failure:
                    raise EdgeError(f"the program has no method that scores: {failure} {log()}") from None
        return self._run(self._score, ids)

    def _run(self, method: _Method, ids: Sequence[int]) -> np.ndarray:
        if method is not self._ran:
            method.forget(self.context)
        self._ran = method
        wanted = [*self._ids, *ids]
        rows = method.extend(wanted, len(self._ids))
        self._ids = wanted
        return rows


class _Method:
    """One method and the tokens that it put into caches; what another method has run meanwhile is run again here."""

    def __init__(self, program: Any, name: str) -> None:
        self._method = program.load_method(name)
        described = self._method.method_meta()
        longest = described.input_tensor_meta(0).sizes()[1]
        self._chunk = min(longest, _fact(program, "get_step_len", longest))
        self.vocab: int = described.output_tensor_meta(0).sizes()[-1]
        self._slack = _fact(program, "get_rewind_limit")  # tokens that every cache can forget without harm; 0: states
        self._cached: list[int] = []
        self._saved = 0  # where the last call of several tokens began

    def forget(self, context: int) -> None:
        """Begin anew, as another method has run.

        The binding gives all methods of a program the same memory, in which rings and states have lost what they held;
        caches of the whole ``context`` lie alike in all methods, and hold the session's tokens whoever wrote them.
        """
        if self._slack < context:
            self._cached = []

    def extend(self, ids: list[int], start: int) -> np.ndarray:
        """Bring the caches to ``ids``; returns what the method gives for those from ``start``, [rows, vocab]."""
        kept = min(_common(self._cached, ids), start)
        if len(self._cached) - kept > self._slack:
            # States go back to where the program saved them; a ring has overwritten what a window there would see.
            kept = self._saved if self._slack == 0 and self._saved <= kept else 0
        self._steps(ids, kept, start)
        rows = self._steps(ids, start, len(ids))
        self._cached = list(ids)
        return np.concatenate(rows)

    def _steps(self, ids: list[int], start: int, stop: int) -> list[np.ndarray]:
        rows = []
        for at in range(start, stop, self._chunk):
            tokens = torch.tensor([ids[at : min(at + self._chunk, stop)]])
            self._cached = ids[:at]
            if at == 0 or tokens.shape[1] > 1:
                self._saved = at
            try:
                (logits,) = self._method.call([tokens, torch.tensor([at])])
                rows.append(logits[0].float().numpy())
            except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as failure:
                raise EdgeError(f"ExecuTorch {version()} failed: {str(failure).splitlines()[0]}") from None
        return rows


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common beginning."""
    for index, (one, other) in enumerate(zip(first, second)):  # noqa: B905 - boards with Python 3.8
        if one != other:
            return index
    return min(len(first), len(second))


def _fact(program: Any, name: str, missing: int | None = None) -> int:
    """A number that the program says about itself; ``missing`` where it was written before there was such a fact."""
    names = [program.get_method_name(number) for number in range(program.num_methods())]
    if missing is not None and name not in names:
        return missing
    (value,) = program.load_method(name).call([])
    return int(value)


def load_program(program: Path, threads: int | None) -> Any:
    """A program in the runtime; ``threads`` count for the whole process.

    Raises:
        BundleError: the file is damaged, of another schema, or the runtime refuses it.
    """
    check_program(program)
    runtime = load_runtime()
    with native_log() as log:
        if threads is not None:
            runtime._unsafe_reset_threadpool(threads)
        try:
            return runtime._load_program(str(program), program_verification=runtime.Verification.InternalConsistency)
        except RuntimeError as failure:
            raise refused(program, failure, log()) from None


def refused(program: Path, failure: Exception, log: str) -> BundleError:
    """The error for a program that the runtime refuses, with what its log says."""
    known = [name for name in log.splitlines() if "Missing operator" in name or "missing" in name.lower()]
    reason = (
        known[-1].rpartition("] ")[2] if known else (str(failure).strip() or type(failure).__name__).splitlines()[0]
    )
    return BundleError(f"{program.name}: ExecuTorch {version()} cannot load it: {reason}")
