"""A session over an encoder-decoder in ExecuTorch's runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgesdk.errors import EdgeError
from edgesdk.session import refuse_answer, refuse_texts

from .native import native_log
from .session import load_program, refused
from .wheel import version


class ExecuTorchSeq2SeqSession:
    """Runs an encoder-decoder's program; see :class:`edgesdk.session.Seq2SeqSession` for the contract."""

    def __init__(self, program: Path, context: int, threads: int | None = None) -> None:
        """Load the program.

        Raises:
            BundleError: the file is damaged, of another schema, or the runtime refuses it.
        """
        self._program = load_program(program, threads)
        with native_log() as log:
            try:
                self._encode, self._decode = (self._program.load_method(name) for name in ("encode", "decode"))
                (self.vocab,) = self._program.load_method("get_vocab_size").call([])
                (self.start,) = self._program.load_method("get_start_id").call([])
            except RuntimeError as failure:
                raise refused(program, failure, log()) from None
        self.context = context
        self._source: list[torch.Tensor] = []
        self.reset()

    def reset(self) -> None:
        self.position = 0

    def encode(self, ids: Sequence[int]) -> None:
        refuse_texts([ids], None, self.context, self.vocab)
        found = self._call(self._encode, [torch.tensor([list(ids)])])
        self._source = [tensor.clone() for tensor in found]
        self.reset()

    def decode(self, tokens: Sequence[int]) -> np.ndarray:
        refuse_answer(self, tokens, bool(self._source))
        rows = []
        for token in tokens:
            given = [torch.tensor([[token]]), torch.tensor([self.position]), *self._source]
            (logits,) = self._call(self._decode, given)
            rows.append(logits[0].numpy().copy())
            self.position += 1
        return np.concatenate(rows)

    def _call(self, method: Any, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        try:
            found: list[torch.Tensor] = method.call(inputs)
        except RuntimeError as failure:
            raise EdgeError(f"ExecuTorch {version()} failed: {str(failure).splitlines()[0]}") from None
        return found
