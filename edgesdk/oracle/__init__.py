"""The outside oracle: what edgesdk reads of a checkpoint, against what transformers makes of the same files.

A comparison of edgesdk with itself passes a misread checkpoint, since both sides read the files through the same code.
Here transformers builds its own network and its own tokenizer from the files. Ids, rendered conversations and logits
must be the same; a bundle's manifest says what was compared.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from ..bundle.manifest import OracleRecord
from ..errors import EdgeError, MissingExtraError, ModelError
from ..model import Model
from .networks import Uncomparable, cut, installed, logits_of_network, probe
from .texts import REPORT, compare_texts

if TYPE_CHECKING:
    from ..model.opening import AnyModel
    from ..progress import Progress

#: ``auto``: where transformers is installed. ``required``: what cannot be compared is an error.
Choice = Literal["auto", "off", "required"]
CHOICES: tuple[Choice, ...] = ("auto", "off", "required")
#: Largest difference of logits, as a share of their spread, that rounding in float32 explains.
TOLERANCE = 2e-4


def consult(model: AnyModel, choice: Choice, progress: Progress) -> OracleRecord:
    """Ask transformers what it makes of the files that a model was opened from.

    Args:
        model: as it was opened, before adapters and passes.
        choice: whether to.
        progress: told of the comparison.

    Raises:
        ModelError: edgesdk reads the checkpoint otherwise than transformers.
        EdgeError: ``required``, and there is nothing to compare with.
    """
    if model.origin.oracle is not None:  # of the checkpoint before it was compressed
        return OracleRecord(**model.origin.oracle)
    if choice == "off":
        return OracleRecord(reason="switched off")
    try:
        version = installed()
        if not isinstance(model, Model):
            raise Uncomparable("encoders, encoder-decoders and vision-language models are not compared yet")
        with progress.stage("Asking transformers", None):
            return _compared(model, f"transformers {version}")
    except Uncomparable as reason:
        if choice == "required":
            if reason.missing:
                raise MissingExtraError("transformers", "oracle") from None
            raise EdgeError(f"--oracle required, but nothing was compared: {reason}") from None
        return OracleRecord(reason=str(reason))


def _compared(model: Model, oracle: str) -> OracleRecord:
    part = cut(model)
    ids = probe(part.spec, model.tokenizer.special.prefix if model.tokenizer else ())
    wanted, what = logits_of_network(part, ids)
    import torch

    from ..model.reference import ReferenceModel

    reference = ReferenceModel(part, resident=False)
    found = reference.logits(reference.hidden([torch.tensor([ids])])[0])[0]
    difference, spread = float((found - wanted).abs().max()), float(wanted.std())
    if not difference <= TOLERANCE * max(spread, 1e-6):
        raise ModelError(
            f"edgesdk reads this checkpoint otherwise than {oracle}: logits of {len(ids)} tokens through "
            f"{len(part.spec.layers)} layers differ by up to {difference:.3g}, where they spread by {spread:.3g} "
            f"({what})",
            hint=REPORT,
        )
    within = 10.0 ** math.ceil(math.log10(max(difference, 1e-7)))
    verdict = OracleRecord(
        oracle,
        logits_within=within,
        tokens=len(ids),
        layers=len(part.spec.layers),
        layers_of=len(model.spec.layers),
    )
    texts, conversations, reason = compare_texts(model, oracle)
    return replace(verdict, texts=texts, conversations=conversations, reason=reason)
