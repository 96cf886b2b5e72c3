"""What compression cost, and whether the runtime computes what the model says.

Quality compares a program with the uncompressed model: Kullback-Leibler divergence and top-1 agreement on text that the
model samples itself (as in LLM-QAT, arXiv 2305.17888), perplexity on text that the user gives. Parity compares the
program with the reference model over the same compressed weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import ModelError
from ..model.reference import ReferenceModel
from ..progress import track
from .recording import GREEDY, Recording, row_slices

if TYPE_CHECKING:
    from pathlib import Path

    from ..model import DecoderSpec, Model, Tokenizer
    from ..progress import Progress

SEQUENCES, LENGTH, SEED = 16, 40, 0
WINDOW = 512
_SAMPLED = 16  # sequences that are sampled together: their caches are in memory
DOCUMENT_END = "<|endoftext|>"
_RESIDENT_BYTES = 1_200_000_000
_THREAD_WEIGHTS = 1 << 20  # of a matrix: what keeps one thread busy while few rows go through it


@dataclass(frozen=True)
class Divergence:
    """How far a program's predictions are from the uncompressed model's.

    Attributes:
        kl: mean Kullback-Leibler divergence, nats a token, uncompressed to compressed.
        kl_p99: its 99th percentile.
        top1: fraction of tokens where both like the same token best.
        top5: mean fraction of the uncompressed model's five likeliest tokens that are among the program's five.
        tokens: how many tokens were compared.
        text: where they came from (``self``: sampled from the uncompressed model).
    """

    kl: float
    kl_p99: float
    top1: float
    top5: float
    tokens: int
    text: str


class Differences:
    """Collects how far two models are apart, some tokens at a time."""

    def __init__(self) -> None:
        self._kl: list[torch.Tensor] = []
        self._top1, self._top5 = 0, 0.0

    def add(self, wanted: torch.Tensor, found: torch.Tensor) -> None:
        """Count tokens by their logits, uncompressed and compressed, float32 [tokens, vocab]."""
        p, q = F.log_softmax(wanted, dim=-1), F.log_softmax(found, dim=-1)
        self._kl.append((p.exp() * (p - q)).sum(-1).clamp(min=0))
        five = min(5, wanted.shape[-1])
        best, others = p.topk(five).indices, q.topk(five).indices
        self._top1 += int((p.argmax(-1) == q.argmax(-1)).sum())
        self._top5 += int((best.unsqueeze(-1) == others.unsqueeze(-2)).sum()) / five

    @property
    def kl(self) -> torch.Tensor:
        """Kullback-Leibler divergence of every token so far, nats, float32 [tokens]."""
        return torch.cat(self._kl)

    def summary(self, text: str) -> Divergence:
        """What all tokens so far say; ``text`` is where they came from."""
        kl = self.kl
        total, p99 = kl.numel(), np.quantile(kl.numpy(), 0.99)
        top1, top5 = self._top1 / total, self._top5 / total
        return Divergence(rounded(float(kl.mean())), rounded(float(p99)), rounded(top1), rounded(top5), total, text)


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
    def texts(self) -> list[list[int]]:
        """The sequences as lists of ids."""
        found: list[list[int]] = self.ids.tolist()
        return found


def may_stay(model: Model) -> bool:
    """Whether sampling keeps a model's float32 weights in memory; larger ones are read again for every step."""
    return 4 * model.spec.parameters <= _RESIDENT_BYTES


def worthwhile_threads(spec: DecoderSpec) -> int:
    """How many of torch's threads to share products of few rows with a model's matrices: more would spin and wait."""
    largest = max(spec.hidden * layer.mlp.size for layer in spec.layers)
    return min(torch.get_num_threads(), max(1, largest // _THREAD_WEIGHTS))


@contextmanager
def _few_threads(spec: DecoderSpec) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(worthwhile_threads(spec))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def sample_text(
    reference: ReferenceModel, progress: Progress, *, sequences: int = SEQUENCES, length: int = LENGTH, seed: int = SEED
) -> Sample:
    """Sample sequences at temperature 1, each from its own random first token; the same for the same seed."""
    random = torch.Generator().manual_seed(seed)
    first = torch.randint(0, reference.spec.vocab, (sequences, 1), generator=random)
    chances = [torch.rand((sequences, 1), generator=random, dtype=torch.float64) for _ in range(length - 1)]
    found = []
    steps = -(-sequences // _SAMPLED) * length
    with _few_threads(reference.spec), progress.stage("Sampling text from the model", steps) as stage:
        for start in range(0, sequences, _SAMPLED):
            rows = slice(start, start + _SAMPLED)
            ids, states = first[rows], []
            caches = reference.caches(len(ids), length)
            for position in range(length):
                (hidden,) = reference.hidden([ids[:, -1:]], caches, position)
                states.append(hidden)
                stage.advance()
                if position + 1 < length:
                    drawn = _draw(reference.logits(hidden[:, -1]), chances[position][rows])
                    ids = torch.cat((ids, drawn), dim=1)
            found.append((ids, torch.cat(states, dim=1)))
    return Sample(torch.cat([ids for ids, _ in found]), torch.cat([states for _, states in found]))


@torch.inference_mode()
def divergence(reference: ReferenceModel, sample: Sample, recording: Recording, progress: Progress) -> Divergence:
    """Compare what a program said about ``sample`` with the uncompressed model that it was drawn from."""
    hidden, found = sample.hidden.flatten(0, 1), Differences()
    for rows in track(progress, "Comparing with the uncompressed model", row_slices(len(hidden))):
        logits = recording.text_logits.read(rows.start, rows.stop - rows.start)
        found.add(reference.logits(hidden[rows]), torch.from_numpy(logits))
    return found.summary("self")


@torch.inference_mode()
def reference_loss(reference: ReferenceModel, windows: Sequence[Sequence[int]], progress: Progress) -> float:
    """Summed negative log likelihood of windows in the reference, each without its first token, nats."""
    loss = 0.0
    with progress.stage("Perplexity of the reference", len(windows)) as stage:
        for ids, hidden in _hidden(reference, windows):
            for rows in row_slices(len(ids) - 1):
                wanted = torch.tensor(ids[rows.start + 1 : rows.stop + 1])
                loss += float(F.cross_entropy(reference.logits(hidden[rows]), wanted, reduction="sum"))
            stage.advance()
    return loss


def perplexity_of(loss: float, windows: Sequence[Sequence[int]]) -> float:
    """Perplexity from the summed loss of windows whose first tokens are not scored."""
    return math.exp(loss / sum(len(window) - 1 for window in windows))


@torch.inference_mode()
def parity(reference: ReferenceModel, recording: Recording, progress: Progress) -> tuple[PromptParity, ...]:
    """Compare a program's greedy answers with the reference over the same compressed weights.

    The reference sees the program's own tokens, so the first token on which they differ is where greedy decoding of the
    two would part.
    """
    found = []
    answers = recording.answers
    with progress.stage("Comparing with the reference", len(answers)) as stage:
        states = _hidden(reference, [answer.ids for answer in answers])
        for answer, (_, hidden) in zip(answers, states, strict=True):
            logits = recording.answer_logits.read(answer.first_row, GREEDY)
            wanted = reference.logits(hidden[answer.prompt - 1 :]).numpy()
            agree = wanted.argmax(-1) == logits.argmax(-1)
            found.append(
                PromptParity(
                    answer.prompt,
                    rounded(float(np.abs(wanted - logits).max())),
                    rounded(float(agree.mean())),
                    None if agree.all() else int(agree.argmin()),
                )
            )
            stage.advance()
    return tuple(found)


def text_windows(model: Model, path: Path, windows: int, length: int) -> list[list[int]]:
    """The first windows of a text file; see :func:`windows_of`."""
    if model.tokenizer is None:
        raise ModelError("this model has no tokenizer, so a text cannot be scored")
    return windows_of(model.tokenizer, read_text(path), str(path), windows, length)


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        ModelError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as failure:
        raise ModelError(f"{path}: {failure.strerror}") from None
    except UnicodeDecodeError as failure:
        raise ModelError(f"{path}: not UTF-8 text (byte {failure.start})") from None


def windows_of(tokenizer: Tokenizer, text: str, where: str, windows: int, length: int) -> list[list[int]]:
    """The first windows of a text.

    A text with ``<|endoftext|>`` holds documents: each is one window, stripped, behind the tokenizer's prefix, and cut
    at ``length``. Any other is cut into consecutive windows of ``length`` tokens, without a prefix.

    Raises:
        ModelError: the text is shorter than one window, or all its documents are empty.
    """
    if DOCUMENT_END in text:
        documents = [part.strip() for part in text.split(DOCUMENT_END)]
        found = [tokenizer.encode(part, prefix=True)[:length] for part in documents if part]
        whole = [ids for ids in found if len(ids) > 1][:windows]
        if not whole:
            raise ModelError(f"{where}: no document in it has two tokens")
        return whole
    ids = tokenizer.encode(text)
    if len(ids) < length:
        raise ModelError(f"{where}: {len(ids)} tokens are less than one window of {length}")
    return [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)][:windows]


def rounded(value: float) -> float:
    """Four significant digits: what is meaningful, and what repeats from run to run."""
    return float(f"{value:.4g}")


def _draw(logits: torch.Tensor, chances: torch.Tensor) -> torch.Tensor:
    """One token for each row of logits [rows, vocab], by inverting the distribution at chances [rows, 1]; int64."""
    cumulative = torch.softmax(logits.double(), dim=-1).cumsum(-1)
    wanted = chances * cumulative[:, -1:]
    return torch.searchsorted(cumulative, wanted).clamp_(max=logits.shape[-1] - 1)


def _hidden(reference: ReferenceModel, texts: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Final hidden states of every text, computed with one sweep over the layers."""
    states = reference.hidden([torch.tensor([list(ids)]) for ids in texts])
    for ids, hidden in zip(texts, states, strict=True):
        yield list(ids), hidden[0]
