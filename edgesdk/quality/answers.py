"""Side by side: what both would answer, greedily, and where the answers part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..errors import EdgeError
from ..passages.prompts import question_ids
from .report import AnswerPair
from .sides import refuse_nonfinite

if TYPE_CHECKING:
    from ..progress import Progress, Stage
    from .sides import Side

#: Facts, arithmetic, code, a story, another language, an instruction.
PROMPTS = (
    "What is the capital of France?",
    "Explain in one sentence why the sky is blue.",
    "Write a Python function that adds two numbers.",
    "Tell me a short story about a robot.",
    "What is 12 times 12?",
    "Translate to French: Good morning, my friend.",
)
TOKENS = 48


def answer_pairs(a: Side, b: Side, prompts: Sequence[str], progress: Progress) -> tuple[AnswerPair, ...]:
    """Greedy answers of at most 48 tokens; both sides see the ids that A's tokenizer and chat template give.

    Raises:
        EdgeError: a prompt is empty, or leaves no room for an answer.
    """
    tokenizer = a.tokenizer
    assert tokenizer is not None
    room, questions = min(a.context, b.context), []
    for prompt in prompts:
        ids = question_ids(tokenizer, prompt)
        if not ids or len(ids) >= room:
            raise EdgeError(
                f"prompt {prompt[:40]!r}: {len(ids)} tokens, in a context of {room}", hint="give another one"
            )
        questions.append(ids)
    stop = set(tokenizer.special.stop)
    with progress.stage("Answering prompts", 2 * len(questions)) as stage:
        left, right = (_answers(side, questions, room, stop, stage) for side in (a, b))
    return tuple(
        AnswerPair(
            prompt, tokenizer.decode(first), tokenizer.decode(second), len(first), len(second), _part(first, second)
        )
        for prompt, first, second in zip(prompts, left, right, strict=True)
    )


def _part(first: Sequence[int], second: Sequence[int]) -> int | None:
    """Index of the first token that differs; an answer that ends sooner differs where it ends."""
    if list(first) == list(second):
        return None
    both = min(len(first), len(second))
    return next((index for index in range(both) if first[index] != second[index]), both)


def _answers(side: Side, questions: Sequence[list[int]], room: int, stop: set[int], stage: Stage) -> list[list[int]]:
    """Answers of a side; ``room`` is what both contexts hold, so that neither stops before the other."""
    limits = [min(TOKENS, room - len(ids)) for ids in questions]
    return (_from_session if side.sessions else _from_stream)(side, questions, limits, stop, stage)


def _from_session(
    side: Side, questions: Sequence[list[int]], limits: Sequence[int], stop: set[int], stage: Stage
) -> list[list[int]]:
    session, answers = side.open(), []
    for ids, limit in zip(questions, limits, strict=True):
        session.reset()
        answer: list[int] = []
        logits = session.prefill(ids)
        while (token := int(refuse_nonfinite(logits, side).argmax())) not in stop:
            answer.append(token)
            if len(answer) == limit:
                break
            logits = session.decode(token)
        answers.append(answer)
        stage.advance()
    return answers


@torch.inference_mode()
def _from_stream(
    side: Side, questions: Sequence[list[int]], limits: Sequence[int], stop: set[int], stage: Stage
) -> list[list[int]]:
    """For a model too large to stay: all answers grow by one token with each sweep over the weights."""
    reference = side.reference
    assert reference is not None
    running, answers = list(range(len(questions))), [list[int]() for _ in questions]
    while running:
        batches = [torch.tensor([questions[index] + answers[index]]) for index in running]
        hidden = torch.cat([x[:, -1] for x in reference.hidden(batches)])
        logits = refuse_nonfinite(reference.logits(hidden).numpy(), side)
        reference.release()
        going = []
        for index, token in zip(running, logits.argmax(-1).tolist(), strict=True):
            if token not in stop:
                answers[index].append(token)
                if len(answers[index]) < limits[index]:
                    going.append(index)
        stage.advance(len(running) - len(going))
        running = going
    return answers
