"""Encoder-decoders: one module for each published architecture that edgesdk maps to a :class:`Seq2SeqSpec`.

A module holds one ``FAMILY``; it is found by being here, and has a row in ``tests/unit/seq2seq_rows.py``. Other
packages add theirs through the entry-point group ``edgesdk.seq2seqs``.
"""

from __future__ import annotations

from ...registry import Registry, modules
from .base import Seq2SeqFamily

SEQ2SEQS: Registry[Seq2SeqFamily] = Registry(
    "encoder-decoder family",
    "edgesdk.seq2seqs",
    modules(__name__, __path__, apart={"base", "model", "network", "reference"}),
)

__all__ = ["SEQ2SEQS", "Seq2SeqFamily"]
