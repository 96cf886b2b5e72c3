"""A side of a comparison as lm-evaluation-harness sees a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import torch
from lm_eval.api.model import LM

from ..errors import EdgeError
from .sides import Side, refuse_nonfinite

if TYPE_CHECKING:
    from ..progress import Progress, Stage

_BATCH_TOKENS = 8192  # whose hidden states are in memory at a time

Request = tuple[list[int], int]  # token ids, and where the continuation in them begins
Answer = tuple[float, bool]  # log likelihood in nats, and whether greedy decoding would give the continuation


class HarnessModel(LM):  # type: ignore[misc]  # the harness is not typed
    """Scores continuations; choice tasks ask for nothing else.

    Attributes:
        cut: by task, how many requests were longer than the context and lost their beginning.
    """

    def __init__(self, side: Side, progress: Progress, stderr: TextIO) -> None:
        """``stderr`` is where progress is drawn while the harness's own output is held back."""
        super().__init__()
        assert side.tokenizer is not None
        self._side, self._tokenizer, self._progress, self._stderr = side, side.tokenizer, progress, stderr
        self.cut: Counter[str] = Counter()

    def loglikelihood(self, requests: Sequence[Any]) -> list[Answer]:
        """Log likelihood of every continuation after its context."""
        pairs = [self._request(request) for request in requests]
        title = f"Choice tasks in the {self._side.about.kind}"
        with redirect_stderr(self._stderr), self._progress.stage(title, len(pairs)) as stage:
            return list(self._streamed(pairs, stage) if self._side.reference is not None else self._run(pairs, stage))

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        raise EdgeError("choice tasks need no perplexity of whole texts")

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        raise EdgeError("choice tasks need no generated text")

    def _request(self, request: Any) -> Request:
        """Ids of context and continuation, tokenized as one text; spaces at the seam belong to the continuation."""
        context, continuation = request.args
        seam = len(context.rstrip())
        start = len(self._tokenizer.encode(context[:seam], prefix=True))
        ids = self._tokenizer.encode(context + continuation, prefix=True)
        start = max(1, min(start, len(ids) - 1))
        excess = len(ids) - self._side.context - 1  # the last token is not run
        if excess > 0:
            self.cut[request.task_name] += 1
            prefix = self._tokenizer.special.prefix
            if start <= excess + len(prefix):
                raise EdgeError(
                    f"a choice of {len(ids) - start} tokens does not fit the context of {self._side.context}",
                    hint="export with a larger --context, or leave the question out",
                )
            return [*prefix, *ids[excess + len(prefix) :]], start - excess
        return ids, start

    def _run(self, pairs: Sequence[Request], stage: Stage) -> Iterator[Answer]:
        session = self._side.open()
        for ids, start in pairs:
            session.reset()
            rows = [session.prefill(ids[:start])[None]]
            if len(ids) - start > 1:
                rows.append(session.score(ids[start:-1]))
            yield self._answer(np.concatenate(rows), ids[start:])
            stage.advance()

    @torch.inference_mode()
    def _streamed(self, pairs: Sequence[Request], stage: Stage) -> Iterator[Answer]:
        reference = self._side.reference
        assert reference is not None
        for batch in _batches(pairs):
            states = reference.hidden([torch.tensor([ids[:-1]]) for ids, _ in batch])
            for (ids, start), hidden in zip(batch, states, strict=True):
                yield self._answer(reference.logits(hidden[0, start - 1 :]).numpy(), ids[start:])
                stage.advance()
        reference.release()

    def _answer(self, logits: np.ndarray, wanted: Sequence[int]) -> Answer:
        """From logits [tokens, vocab] and the tokens that follow."""
        likely = torch.log_softmax(torch.from_numpy(refuse_nonfinite(logits, self._side)).double(), dim=-1)
        chosen = torch.tensor(list(wanted))
        greedy = bool((likely.argmax(-1) == chosen).all())
        return float(likely.gather(1, chosen[:, None]).sum()), greedy


def _batches(pairs: Sequence[Request]) -> Iterator[list[Request]]:
    """Requests in order, as many at a time as memory shall hold."""
    batch: list[Request] = []
    tokens = 0
    for pair in pairs:
        if batch and tokens + len(pair[0]) > _BATCH_TOKENS:
            yield batch
            batch, tokens = [], 0
        batch.append(pair)
        tokens += len(pair[0])
    if batch:
        yield batch
