"""Sweeps: models x recipes x targets x devices, cached by content, and the trade-off that they show.

A sweep is a TOML file (:mod:`.plan`).
:func:`sweep` exports what its folder does not hold yet, then profiles what is not
measured yet, and writes ``sweep.json``, ``sweep.csv`` and ``sweep.html`` there:

    from edgesdk.sweep import sweep

    table = sweep("sweep.toml", "out")
    print([(row.recipe, row.figures["bytes"].value, row.figures["decode_rate"].value) for row in table.rows])
"""

from __future__ import annotations

from .running import Preview, preview, sweep
from .table import Figure, Row, Table

__all__ = ["Figure", "Preview", "Row", "Table", "preview", "sweep"]
