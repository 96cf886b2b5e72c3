"""Measures the ranges of a float program over decode steps on calibration text: all, or what an observer keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgesdk.compress.activations import Histogram, Observer
from edgesdk.compress.calibration import Calibration
from edgesdk.progress import track

from .decoder import DecoderGraph
from .numerics import Numerics, Range
from .session import LiteRtSession

if TYPE_CHECKING:
    from edgesdk.model import Model
    from edgesdk.progress import Progress

#: Text that the model samples itself: long enough to fill a small context, seconds for a model of a microcontroller.
TEXT = Calibration(sequences=16, length=256)

#: Scores this far below the best of their row have no probability that an integer softmax would show.
DEPTH = 12.0


def measure(
    model: Model, context: int, progress: Progress, text: Calibration | None = None, observer: Observer = "minmax"
) -> dict[str, Range]:
    """Ranges by tensor name, over every step of a text (default: :data:`TEXT`).

    ``minmax`` clips nothing; the other observers clip tensors other than attention scores.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    graph = DecoderGraph(model, context, Numerics())
    for _ in graph.emit():
        pass
    interpreter = Interpreter(
        model_content=graph.graph.serialize(),
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    session = LiteRtSession(interpreter)
    points = {value.name: value.index for value in graph.points}
    scores = {value.name: value.index for value in graph.scores}
    low: dict[str, np.ndarray] = {}
    high: dict[str, np.ndarray] = {}
    histograms: dict[str, Histogram] = {}

    def widen(name: str, least: np.ndarray, greatest: np.ndarray) -> None:
        if name not in low:
            low[name], high[name] = least.copy(), greatest.copy()
        np.minimum(low[name], least, out=low[name])
        np.maximum(high[name], greatest, out=high[name])

    for ids in track(progress, "Measuring ranges", (text or TEXT).tokens(model, progress).tolist()):
        session.reset()
        for token in ids[:context]:
            session.decode(token)
            for name, index in points.items():
                found = interpreter.get_tensor(index)
                widen(name, found, found)
                if observer != "minmax":
                    histograms.setdefault(name, Histogram()).add(found)
            for name, index in scores.items():
                best = interpreter.get_tensor(index).max(-1)
                widen(name, best - DEPTH, best)
    for name, histogram in histograms.items():
        least, greatest = histogram.limits(observer)
        low[name], high[name] = np.clip(low[name], least, greatest), np.clip(high[name], least, greatest)
    return {name: Range(low[name], high[name]) for name in low}
