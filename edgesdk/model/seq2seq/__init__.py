"""Encoder-decoders: one module for each published architecture that edgesdk maps to a :class:`Seq2SeqSpec`.

A module holds one ``FAMILY``; add its line below and a row to ``tests/unit/seq2seq_rows.py``. Other packages add
theirs through the entry-point group ``edgesdk.seq2seqs``.
"""

from __future__ import annotations

from ...registry import Registry
from .base import Seq2SeqFamily

SEQ2SEQS: Registry[Seq2SeqFamily] = Registry(
    "encoder-decoder family", "edgesdk.seq2seqs", {"t5": "edgesdk.model.seq2seq.t5:FAMILY"}
)

__all__ = ["SEQ2SEQS", "Seq2SeqFamily"]
