"""The figures of a comparison. What was not measured is None, with the reason beside it, never 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import EdgeError, QualityError

if TYPE_CHECKING:
    from ..compress.quality import Divergence, Perplexity

Kind = Literal["model", "bundle"]


@dataclass(frozen=True)
class Compared:
    """One of the two.

    Attributes:
        name: what the user called it.
        kind: a model runs in the float32 reference, a bundle in its own runtime.
        runtime: that runtime, with its version.
        recipe: how it was compressed, as far as it says so.
    """

    name: str
    kind: Kind
    runtime: str
    recipe: str | None


@dataclass(frozen=True)
class TokenCheck:
    """Both tokenizers gave the same ids for these texts; where they do not, there is no report but an error."""

    texts: int
    tokens: int


@dataclass(frozen=True)
class TextQuality:
    """How far the predictions for one text are apart.

    Attributes:
        summary: mean and 99th percentile of the KL divergence, agreement of the best tokens.
        kl: divergence of every token, nats, in the order of the text.
    """

    summary: Divergence
    kl: tuple[float, ...]


@dataclass(frozen=True)
class PerplexityByWindow:
    """Perplexity of the evaluation text.

    Attributes:
        summary: over all windows.
        before: of each window, in A.
        after: of each window, in B.
    """

    summary: Perplexity
    before: tuple[float, ...]
    after: tuple[float, ...]


@dataclass(frozen=True)
class LayerError:
    """What comes out of one layer: |B - A|^2 / |A|^2 of a token's hidden state, mean over the tokens of A's own text.

    Attributes:
        layer: from 0.
        output: with everything before it as it is in B: the error that has gathered up to here.
        alone: with the input that the layer has in A: what this layer adds by itself.
    """

    layer: int
    output: float
    alone: float


@dataclass(frozen=True)
class AnswerPair:
    """Greedy answers to one prompt.

    Attributes:
        prompt: as given; a chat template was put around it where A has one.
        a: A's answer.
        b: B's answer.
        tokens_a: tokens of A's answer.
        tokens_b: tokens of B's answer.
        first_divergence: index of the first answer token that differs, or None when both are the same.
    """

    prompt: str
    a: str
    b: str
    tokens_a: int
    tokens_b: int
    first_divergence: int | None


@dataclass(frozen=True)
class Accuracy:
    """Fraction of questions answered rightly, and its standard error (None when there is only one question).

    Attributes:
        acc: the likeliest choice is right.
        acc_norm: the likeliest choice by log likelihood a character is right.
    """

    acc: float
    acc_stderr: float | None
    acc_norm: float
    acc_norm_stderr: float | None


@dataclass(frozen=True)
class ChoiceScore:
    """One file of multiple-choice questions, both sides asked the same ones.

    Attributes:
        name: of the file.
        form: whose fields it has (``arc``, ``hellaswag``, ``piqa``).
        questions: how many.
        cut: choices whose text did not fit a context, so that its beginning was left out.
        a: accuracy of A.
        b: accuracy of B.
        difference: B less A, question by question: its standard error is the paired one.
        only_a: questions that only A answered rightly (by ``acc``).
        only_b: questions that only B answered rightly.
    """

    name: str
    form: str
    questions: int
    cut: int
    a: Accuracy
    b: Accuracy
    difference: Accuracy
    only_a: int
    only_b: int


@dataclass(frozen=True)
class QualityReport:
    """A is the reference, B is judged; see each part."""

    a: Compared
    b: Compared
    tokenizers: TokenCheck | None
    tokenizers_reason: str | None
    own_text: TextQuality | None
    own_text_reason: str | None
    eval_text: TextQuality | None
    perplexity: PerplexityByWindow | None
    eval_text_reason: str | None
    layers: tuple[LayerError, ...] | None
    layers_reason: str | None
    answers: tuple[AnswerPair, ...] | None
    answers_reason: str | None
    tasks: tuple[ChoiceScore, ...] | None
    tasks_reason: str | None


@dataclass(frozen=True)
class Gates:
    """Limits on a report.

    Attributes:
        max_kl: largest mean KL divergence, nats a token, on every text that was compared.
        max_ppl_increase: largest increase of perplexity, percent.
        min_top1: smallest fraction of tokens with the same best token, on every text that was compared.
    """

    max_kl: float | None = None
    max_ppl_increase: float | None = None
    min_top1: float | None = None

    def __post_init__(self) -> None:
        if self.min_top1 is not None and not 0 <= self.min_top1 <= 1:
            raise EdgeError(f"min_top1 = {self.min_top1} is no fraction from 0 to 1")


def enforce(report: QualityReport, gates: Gates) -> None:
    """Compare a report with limits.

    Raises:
        QualityError: every limit that is not met, with what was found.
        EdgeError: there is no perplexity to hold against its limit.
    """
    texts = {"A's own text": report.own_text, "the evaluation text": report.eval_text}
    missed = []
    for where, found in texts.items():
        if found is None:
            continue
        kl, top1 = found.summary.kl, found.summary.top1
        if gates.max_kl is not None and not kl <= gates.max_kl:
            missed.append(f"the mean KL divergence on {where} is {kl:.4g}, over the limit of {gates.max_kl:g}")
        if gates.min_top1 is not None and not top1 >= gates.min_top1:
            missed.append(f"the same best token on {where} is {top1:.1%}, under the limit of {gates.min_top1:.1%}")
    if gates.max_ppl_increase is not None:
        if report.perplexity is None:
            raise EdgeError("a limit on perplexity needs a text", hint="add --eval-text FILE")
        ppl = report.perplexity.summary
        if not ppl.increase <= gates.max_ppl_increase:
            missed.append(
                f"perplexity rises from {ppl.before:.4g} to {ppl.after:.4g}, by {ppl.increase:.1f} %, over the limit "
                f"of {gates.max_ppl_increase:g} %"
            )
    if report.own_text is None and report.eval_text is None and (gates.max_kl, gates.min_top1) != (None, None):
        missed.append(f"there is no text to hold against the limits: {report.own_text_reason}")
    if missed:
        raise QualityError("; ".join(missed), hint="use more bits (edgesdk recipes), or another limit")
