"""What compression cost, and whether the runtime computes what the model says.

Quality compares a program with the uncompressed model: Kullback-Leibler divergence and top-1 agreement on text that the
model samples itself (as in LLM-QAT, arXiv 2305.17888), perplexity on text that the user gives. Parity compares the
program with the reference model over the same compressed weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import ModelError
from ..model.reference import ReferenceModel
from ..progress import track

if TYPE_CHECKING:
    from pathlib import Path

    from ..model import Model
    from ..progress import Progress
    from ..session import Session

SEQUENCES, LENGTH, SEED = 16, 40, 0
PROMPTS = (1, 31, 128, 600)
GREEDY = 64
WINDOW = 512
_ROWS = 128  # logits compared at a time


@dataclass(frozen=True)
class Divergence:
    """How far a program's predictions are from the uncompressed model's.

    Attributes:
        kl: mean Kullback-Leibler divergence, nats a token, uncompressed to compressed.
        kl_p99: its 99th percentile.
        top1: fraction of tokens where both like the same token best.
        tokens: how many tokens were compared.
        text: where they came from.
    """

    kl: float
    kl_p99: float
    top1: float
    tokens: int
    text: str


@dataclass(frozen=True)
class Perplexity:
    """Perplexity before and after, over consecutive windows of a text; the first token of a window is not scored."""

    before: float
    after: float
    windows: int
    window: int
    sha256: str

    @property
    def increase(self) -> float:
        """Percent."""
        return 100 * (self.after / self.before - 1)


@dataclass(frozen=True)
class PromptParity:
    """Program against reference on one prompt and a greedy answer of 64 tokens.

    ``first_divergence`` is the index of the first answer token that the reference would have chosen otherwise, or None
    when all agree.
    """

    prompt: int
    max_logit_difference: float
    top1: float
    first_divergence: int | None


@dataclass(frozen=True)
class Sample:
    """Token sequences drawn from a model, with what the model thought at every position.

    Attributes:
        ids: [sequences, length].
        hidden: final hidden states, float32 [sequences, length, hidden]: far smaller than logits.
    """

    ids: torch.Tensor
    hidden: torch.Tensor

    @property
    def tokens(self) -> list[int]:
        """All sequences, one after the other."""
        found: list[int] = self.ids.flatten().tolist()
        return found


@torch.inference_mode()
def sample_text(
    reference: ReferenceModel, progress: Progress, *, sequences: int = SEQUENCES, length: int = LENGTH, seed: int = SEED
) -> Sample:
    """Sample sequences at temperature 1, each from its own random first token; the same for the same seed."""
    random = torch.Generator().manual_seed(seed)
    caches = reference.caches(sequences, length)
    ids = torch.randint(0, reference.spec.vocab, (sequences, 1), generator=random)
    states = []
    with progress.stage("Sampling text from the model", length) as stage:
        for position in range(length):
            (hidden,) = reference.hidden([ids[:, -1:]], caches, position)
            states.append(hidden)
            stage.advance()
            if position + 1 < length:
                ids = torch.cat((ids, _draw(reference.logits(hidden[:, -1]), random)), dim=1)
    return Sample(ids, torch.cat(states, dim=1))


@torch.inference_mode()
def divergence(reference: ReferenceModel, session: Session, sample: Sample, progress: Progress) -> Divergence:
    """Compare a program with the uncompressed model that ``sample`` was drawn from."""
    kl: list[torch.Tensor] = []
    same = 0
    for ids, hidden in track(
        progress, "Comparing with the uncompressed model", list(zip(sample.ids, sample.hidden, strict=True))
    ):
        session.reset()
        for rows in _row_slices(len(ids)):
            p = F.log_softmax(reference.logits(hidden[rows]), dim=-1)
            q = F.log_softmax(torch.from_numpy(session.score(ids[rows].tolist())), dim=-1)
            kl.append((p.exp() * (p - q)).sum(-1).clamp(min=0))
            same += int((p.argmax(-1) == q.argmax(-1)).sum())
    joined = torch.cat(kl)
    total = joined.numel()
    return Divergence(
        rounded(float(joined.mean())), rounded(float(joined.quantile(0.99))), rounded(same / total), total, "self"
    )


def perplexity(model: Model, session: Session, text: Path, windows: int, progress: Progress) -> Perplexity:
    """Perplexity of the uncompressed ``model`` and of a program on the first windows of a file.

    Raises:
        ModelError: the file is no UTF-8 text or shorter than a window.
    """
    from ..files import sha256

    length = min(WINDOW, session.context)
    cut = text_windows(model, text, windows, length)
    before, after, scored = 0.0, 0.0, 0
    reference = ReferenceModel(model, resident=False)
    for ids, hidden in track(progress, f"Perplexity on {text.name}", _hidden(reference, cut), len(cut)):
        session.reset()
        for rows in _row_slices(len(ids) - 1):
            wanted = torch.tensor(ids[rows.start + 1 : rows.stop + 1])
            found = torch.from_numpy(session.score(ids[rows]))
            before += float(F.cross_entropy(reference.logits(hidden[rows]), wanted, reduction="sum"))
            after += float(F.cross_entropy(found, wanted, reduction="sum"))
        scored += len(ids) - 1
    return Perplexity(
        rounded(math.exp(before / scored)), rounded(math.exp(after / scored)), len(cut), length, sha256(text)
    )


def reference_perplexity(model: Model, text: Path, windows: int, progress: Progress, length: int = WINDOW) -> float:
    """Perplexity of a model in the reference, so with its weights alone rounded and nothing else."""
    loss, scored = 0.0, 0
    reference = ReferenceModel(model, resident=False)
    cut = text_windows(model, text, windows, length)
    for ids, hidden in track(progress, f"Perplexity on {text.name}", _hidden(reference, cut), len(cut)):
        for rows in _row_slices(len(ids) - 1):
            wanted = torch.tensor(ids[rows.start + 1 : rows.stop + 1])
            loss += float(F.cross_entropy(reference.logits(hidden[rows]), wanted, reduction="sum"))
        scored += len(ids) - 1
    return math.exp(loss / scored)


def parity(model: Model, session: Session, source: Sequence[int], progress: Progress) -> tuple[PromptParity, ...]:
    """Compare a program with the reference over the same (compressed) ``model``.

    Prompts are the first 1, 31, 128 and 600 tokens of ``source``, as far as they and an answer fit the context; each is
    run in uneven chunks and answered greedily by the program, and the reference sees the same tokens.
    """
    prompts = [
        list(source[:length]) for length in PROMPTS if length <= len(source) and length + GREEDY <= session.context
    ]
    answered: list[tuple[list[int], np.ndarray]] = []
    for prompt in track(progress, "Running the program", prompts):
        answered.append(_greedy(session, prompt))
    reference = ReferenceModel(model, resident=False)
    found = []
    texts = [ids for ids, _ in answered]
    for prompt, (ids, logits), (_, hidden) in zip(prompts, answered, _hidden(reference, texts), strict=True):
        first = len(prompt) - 1
        wanted = reference.logits(hidden[first:]).numpy()
        best = wanted.argmax(-1)
        chosen = logits.argmax(-1)
        differs = np.flatnonzero(best != chosen)
        found.append(
            PromptParity(
                len(prompt),
                rounded(float(np.abs(wanted - logits).max())),
                rounded(float((best == chosen).mean())),
                int(differs[0]) if len(differs) else None,
            )
        )
        assert len(ids) == first + len(logits)
    return tuple(found)


def text_windows(model: Model, path: Path, windows: int, length: int) -> list[list[int]]:
    """The first windows of ``length`` tokens of a text file."""
    if model.tokenizer is None:
        raise ModelError("this model has no tokenizer, so a text cannot be scored")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as failure:
        raise ModelError(f"{path}: {failure.strerror}") from None
    except UnicodeDecodeError as failure:
        raise ModelError(f"{path}: not UTF-8 text (byte {failure.start})") from None
    ids = model.tokenizer.encode(text)
    if len(ids) < length:
        raise ModelError(f"{path}: {len(ids)} tokens are less than one window of {length}")
    return [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)][:windows]


def rounded(value: float) -> float:
    """Four significant digits: what is meaningful, and what repeats from run to run."""
    return float(f"{value:.4g}")


def _draw(logits: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """One token for each row of logits [rows, vocab], by inverting the distribution; int64 [rows, 1]."""
    cumulative = torch.softmax(logits.double(), dim=-1).cumsum(-1)
    wanted = torch.rand((len(logits), 1), generator=random, dtype=torch.float64) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, wanted).clamp_(max=logits.shape[-1] - 1)


def _greedy(session: Session, prompt: list[int]) -> tuple[list[int], np.ndarray]:
    """The prompt with its greedy answer, and the logits that chose each token of the answer."""
    session.reset()
    head = len(prompt) // 3  # two uneven chunks: what a second turn of a chat does
    if head:
        session.prefill(prompt[:head])
    logits = [session.prefill(prompt[head:]).copy()]
    ids = list(prompt)
    while len(logits) < GREEDY:
        ids.append(int(logits[-1].argmax()))
        logits.append(session.decode(ids[-1]).copy())
    return ids, np.stack(logits)


def _hidden(reference: ReferenceModel, texts: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Final hidden states of every text, computed with one sweep over the layers."""
    states = reference.hidden([torch.tensor([list(ids)]) for ids in texts])
    for ids, hidden in zip(texts, states, strict=True):
        yield list(ids), hidden[0]


def _row_slices(count: int) -> list[slice]:
    return [slice(at, min(at + _ROWS, count)) for at in range(0, count, _ROWS)]
