"""One side of a comparison: a model in the float32 reference, or a bundle in its runtime.

A side answers three questions: which tokens it would write, what it thinks of given tokens, and how it continues a
prompt. Two sides never lie in memory together; what one says is kept as hidden states, or on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from .. import bundle as bundles
from ..bundle.contents import vocabulary_size
from ..chat import bundle_tokenizer, open_session
from ..compress.recording import LogitsFile, counted, row_slices
from ..errors import EdgeError, QualityError
from ..model import Model, Tokenizer
from ..model.opening import open_model
from ..model.reference import ReferenceModel, ReferenceSession
from ..model.vocabulary import ids_in, restricted
from ..passages.own import OwnText, own_text
from ..passages.passage import Passage, batches, counted_states
from ..passages.reference import ReferenceWriter, may_stay
from ..progress import Progress
from .report import Compared
from .tokens import TEXTS

if TYPE_CHECKING:
    from ..session import Session

#: Logits of some of the rows that count of several texts, text after text, float32 [rows, vocab].
Rows: TypeAlias = Callable[[slice], torch.Tensor]
Passages: TypeAlias = Sequence[Passage]


@dataclass(frozen=True)
class Side:
    """A model or a bundle.

    Attributes:
        about: what the report says of it.
        vocab: length of a row of logits.
        context: most tokens that it takes.
        tokenizer: None for a model made without one.
        model: None for a bundle.
        open: a session that may be long in memory: a bundle's program, or a model that may stay.
    """

    about: Compared
    vocab: int
    context: int
    tokenizer: Tokenizer | None
    model: Model | None
    open: Callable[[], Session]

    @cached_property
    def reference(self) -> ReferenceModel | None:
        """The reference of a model, resident where it may be; release it after use."""
        return None if self.model is None else ReferenceModel(self.model, resident=may_stay(self.model))

    @property
    def sessions(self) -> bool:
        """Whether :attr:`open` is affordable: a larger model reads its weights for every token instead."""
        return self.model is None or may_stay(self.model)

    def release(self) -> None:
        """Drop the weights that are kept."""
        if self.reference is not None:
            self.reference.release()


@contextmanager
def open_side(given: str | Path | Model | bundles.Bundle, progress: Progress) -> Iterator[Side]:
    """Open a model, or a bundle folder or zip.

    Raises:
        EdgeError: what is wrong with it.
    """
    if isinstance(given, Model):
        yield _model_side(given, given.origin.name)
    elif isinstance(given, bundles.Bundle):
        yield _bundle_side(given, str(given.folder))
    elif _looks_like_bundle(Path(given)):
        with bundles.open_bundle(given, progress=progress) as bundle:
            yield _bundle_side(bundle, str(given))
    else:
        yield _model_side(open_model(given, progress), str(given))


def in_vocabulary(side: Side, other: Side) -> Side:
    """The side as it is; or, where the other has only some of a model's tokens, over those alone."""
    if side.model is None or side.vocab <= other.vocab or side.tokenizer is None or other.tokenizer is None:
        return side
    ids = ids_in(side.tokenizer, other.tokenizer)
    if ids is None or len(ids) != other.vocab or not _same_tokens(side.tokenizer, other.tokenizer, ids):
        return side  # the check of tokenizers says what is wrong
    return _model_side(restricted(side.model, ids, other.tokenizer), side.about.name)


def _same_tokens(whole: Tokenizer, part: Tokenizer, ids: list[int]) -> bool:
    """Whether texts whose tokens are all in the part are written with the same ones by both."""
    kept = set(ids)
    written = ((whole.encode(text), part.encode(text)) for text in TEXTS)
    return all([ids[index] for index in found] == wanted for wanted, found in written if kept.issuperset(wanted))


def write_text(side: Side, context: int, progress: Progress) -> OwnText:
    """Text that the side writes itself, as :func:`edgesdk.passages.own.own_text` has it."""
    writer = _SessionWriter(side) if side.reference is None else ReferenceWriter(side.reference)
    return own_text(writer, side.tokenizer, context, progress)


class _SessionWriter:
    """A program as a writer of text, one text at a time."""

    together = 1

    def __init__(self, side: Side) -> None:
        self._side, self._session, self.vocab = side, side.open(), side.vocab

    def start(self, texts: int, length: int) -> None:
        self._session.reset()

    def run(self, ids: torch.Tensor) -> torch.Tensor:
        tokens = ids[0].tolist()
        logits = self._session.decode(tokens[0]) if len(tokens) == 1 else self._session.prefill(tokens)
        return torch.from_numpy(refuse_nonfinite(logits, self._side)[None])


def logits_in_memory(side: Side, texts: Passages, scratch: Path, progress: Progress) -> Rows:
    """What a side thinks of texts: a model keeps hidden states and its head, a bundle writes to disk."""
    if side.reference is None:
        return logits_on_disk(side, texts, scratch, progress)
    reference, runs = side.reference, batches(texts)
    with progress.stage(f"Running {_short(side)}", 1) as stage:
        hidden = counted_states(reference.hidden([run.ids for run in runs]), runs)
        stage.advance()
    reference.release()
    return lambda rows: _finite_tensor(reference.logits(hidden[rows]), side)


def logits_on_disk(side: Side, texts: Passages, scratch: Path, progress: Progress) -> Rows:
    """What a side thinks of texts, each row that counts, in a file of ``scratch``: 4 bytes a logit."""
    file = LogitsFile(scratch / f"{len(list(scratch.iterdir()))}.f32", side.vocab)
    if side.reference is not None:
        rows = logits_in_memory(side, texts, scratch, progress)
        for piece in row_slices(sum(text.rows for text in texts)):
            file.append(rows(piece).numpy())
        side.release()
    else:
        session = side.open()
        with progress.stage(f"Running {_short(side)}", len(texts)) as stage:
            for text in texts:
                for logits in counted(session, text):
                    file.append(refuse_nonfinite(logits, side))
                stage.advance()
    return lambda rows: torch.from_numpy(file.read(rows.start, rows.stop - rows.start))


def refuse_nonfinite(logits: np.ndarray, side: Side) -> np.ndarray:
    """The logits, checked to be finite."""
    if not np.isfinite(logits).all():
        raise QualityError(
            f"the logits of {side.about.name} are NaN or infinite: its values overflow",
            hint="export it with --float float32; if it is a checkpoint, its weights are out of range",
        )
    return logits


def _finite_tensor(logits: torch.Tensor, side: Side) -> torch.Tensor:
    refuse_nonfinite(logits.numpy(), side)
    return logits


def _looks_like_bundle(path: Path) -> bool:
    """A damaged bundle is to be called one, not a model without a configuration."""
    path = path.expanduser()
    if path.is_dir():
        return (path / bundles.FILE).is_file() and not (path / "config.json").is_file()
    return path.is_file() and (path.suffix == ".zip" or bundles.is_bundle(path))


def _model_side(model: Model, name: str) -> Side:
    recipe = model.compression.name if model.compression is not None else None
    about = Compared(name, "model", f"torch {torch.__version__}, float32", recipe)
    return Side(about, model.spec.vocab, model.spec.context, model.tokenizer, model, lambda: ReferenceSession(model))


def _bundle_side(bundle: bundles.Bundle, name: str) -> Side:
    manifest = bundle.manifest
    program = manifest.program
    try:
        version = metadata.version(program.runtime)
    except metadata.PackageNotFoundError:
        version = "in edgesdk"
    about = Compared(name, "bundle", f"{program.runtime} {version}", manifest.recipe.name)
    tokenizer = bundle_tokenizer(bundle) if manifest.tokenizer.file else None

    def start() -> Session:
        reason = manifest.quality.divergence_reason
        try:
            return open_session(bundle)
        except EdgeError as failure:
            was = f" (its manifest says: {reason})" if reason else ""
            hint = failure.hint or "compare where it runs, or compare the compressed checkpoint (edgesdk compress)"
            raise EdgeError(f"{name} cannot run here{was}: {failure.message}", hint=hint) from None

    return Side(about, vocabulary_size(manifest), manifest.context, tokenizer, None, start)


def _short(side: Side) -> str:
    name = side.about.name.rstrip("/").rpartition("/")[2]
    return name if len(name) <= 32 else name[:31] + "…"
