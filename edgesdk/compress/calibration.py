"""Calibration text for passes that look at activations: the model's own, or from a file. Nothing leaves the machine.

Source of the self-generated default: LLM-QAT, arXiv 2305.17888.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from ..errors import EdgeError, ModelError

if TYPE_CHECKING:
    import torch

    from ..model import Model
    from ..model.tokenizer import Tokenizer
    from ..progress import Progress

SELF = "self"
_LINES = 256  # of a file that are tokenized together
_MOST_TOKENS = 4_000_000  # of a file that are looked at


@dataclass(frozen=True)
class Calibration:
    """Where calibration text comes from; the same options give the same tokens.

    Attributes:
        file: a text file, or chats as JSON lines (``{"messages": [...]}`` or ``{"text": ...}``), or None to sample from
            the model.
        sequences: how many sequences.
        length: tokens of each.
        seed: of the sampling, or of the choice among the windows of a file.
    """

    file: Path | None = None
    sequences: int = 64
    length: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sequences < 1 or self.length < 2:
            raise EdgeError("calibration needs at least one sequence of two tokens")

    def tokens(self, model: Model, progress: Progress) -> torch.Tensor:
        """Token ids, int64 [sequences, length]; fewer sequences where the file has no more.

        Raises:
            EdgeError: the file cannot be read as text, or holds less than one sequence.
        """
        length = min(self.length, model.spec.context)
        return (
            self._sampled(model, length, progress)
            if self.file is None
            else self._read(model, self.file, length, progress)
        )

    def _sampled(self, model: Model, length: int, progress: Progress) -> torch.Tensor:
        from ..model.reference import ReferenceModel
        from .quality import may_stay, sample_text

        reference = ReferenceModel(model, resident=may_stay(model))
        return sample_text(reference, progress, sequences=self.sequences, length=length, seed=self.seed).ids

    def _read(self, model: Model, file: Path, length: int, progress: Progress) -> torch.Tensor:
        """Windows of the file, drawn evenly in one sweep over it (reservoir sampling)."""
        import torch

        if model.tokenizer is None:
            raise ModelError("calibration text needs a tokenizer, and this model has none")
        random, seen = Random(self.seed), 0
        chosen: list[list[int]] = []
        with progress.stage("Reading calibration text", None):
            for window in _windows(model.tokenizer, file, length):
                seen += 1
                if len(chosen) < self.sequences:
                    chosen.append(window)
                elif (place := random.randrange(seen)) < self.sequences:
                    chosen[place] = window
                if seen * length >= _MOST_TOKENS:
                    break
        return torch.tensor(chosen)


def _windows(tokenizer: Tokenizer, file: Path, length: int) -> Iterator[list[int]]:
    """Consecutive windows of a text, or of chats one after the other."""
    left: list[int] = []
    whole = 0
    for part in file_parts(tokenizer, file):
        left += tokenizer.encode(part)
        while len(left) >= length:
            yield left[:length]
            left = left[length:]
            whole += 1
    if not whole:
        raise EdgeError(
            f"{file}: {len(left)} tokens are less than one calibration sequence of {length}",
            hint="give more text, or leave out --calibration to use text that the model samples itself",
        )


def file_parts(tokenizer: Tokenizer, file: Path) -> Iterator[str]:
    """Pieces of a text file, or one text a line of JSON.

    Raises:
        EdgeError: the file cannot be read, or a line is no chat.
    """
    chats = file.suffix.lower() in (".jsonl", ".ndjson")
    try:
        with file.open(encoding="utf-8") as lines:
            if chats:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield _chat_text(tokenizer, line, f"{file}: line {number}")
                return
            while block := list(islice(lines, _LINES)):
                yield "".join(block)
    except OSError as failure:
        raise EdgeError(f"{file}: {failure.strerror or failure}") from None
    except UnicodeDecodeError as failure:
        raise EdgeError(
            f"{file}: not UTF-8 text (byte {failure.object[failure.start]:#04x}: {failure.reason})",
            hint="convert it, for example with iconv -t UTF-8",
        ) from None


def _chat_text(tokenizer: Tokenizer, line: str, where: str) -> str:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as failure:
        raise EdgeError(f"{where}: not valid JSON ({failure})") from None
    if isinstance(entry, dict) and isinstance(entry.get("text"), str):
        return str(entry["text"])
    messages = entry.get("messages") if isinstance(entry, dict) else None
    if not isinstance(messages, list) or not messages:
        raise EdgeError(
            f"{where}: neither 'messages' nor 'text'",
            hint='a line is {"messages": [{"role": "user", "content": "..."}, ...]} or {"text": "..."}',
        )
    if tokenizer.chat_template is None:
        raise EdgeError(f"{where}: chats need a chat template, and this model's tokenizer has none")
    try:
        return tokenizer.render(messages, answering=False)
    except EdgeError as failure:
        raise EdgeError(f"{where}: {failure.message}", hint=failure.hint) from None
