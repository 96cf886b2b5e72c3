"""One figure of a report: divergence by token, error by layer, perplexity by window. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EdgeError, MissingExtraError
from ..files import replacing, writing_failed

if TYPE_CHECKING:
    from .report import LayerError, PerplexityByWindow, QualityReport, TextQuality

_FORMATS = (".png", ".svg")
_BLUE, _ORANGE, _GREY = "#1f6fb4", "#d95f02", "#666666"
_LEAST = 1e-6  # nats, and relative squared error: less is drawn as this much


def check_plot(path: Path) -> None:
    """Stop before any work when a figure cannot be drawn.

    Raises:
        EdgeError: another format, or no folder to write to.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix.lower() not in _FORMATS:
        raise EdgeError(f"{path}: a figure is written as {' or '.join(_FORMATS)}", hint="name the file accordingly")
    if not path.absolute().parent.is_dir():
        raise EdgeError(f"{path.parent}: no such folder")
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError("matplotlib", "quality") from None


def draw(report: QualityReport, path: Path) -> None:
    """Write the figure; the same report gives the same bytes.

    Raises:
        EdgeError: the format, or the file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    check_plot(path)
    import matplotlib
    from matplotlib.figure import Figure

    panels = 1 + (report.layers is not None) + (report.perplexity is not None)
    with matplotlib.rc_context({"svg.hashsalt": "edgesdk", "font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(4.6 * panels + 0.4, 3.9), dpi=150, layout="constrained")
        figure.suptitle(f"{_short(report.b.name)}  against  {_short(report.a.name)}", fontsize=10)
        axes = iter(np.atleast_1d(figure.subplots(1, panels)))
        _draw_kl(next(axes), report.own_text, report.eval_text)
        if report.layers is not None:
            _draw_layers(next(axes), report.layers)
        if report.perplexity is not None:
            _draw_perplexity(next(axes), report.perplexity)
        form = path.suffix.lower()[1:]
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        try:
            with replacing(path) as partial:
                figure.savefig(partial, format=form, metadata=metadata)
        except OSError as failure:
            raise writing_failed(path, failure) from None


def _draw_kl(axis: Any, own: TextQuality | None, given: TextQuality | None) -> None:
    named = (("A's own text", own, _BLUE), ("evaluation text", given, _ORANGE))
    texts = [(name, text, colour) for name, text, colour in named if text is not None]
    if not texts:
        axis.set_title("KL divergence: not measured")
        return
    values = np.clip([value for _, text, _ in texts for value in text.kl], _LEAST, None)
    least = 10 ** np.floor(np.log10(np.quantile(values, 0.005)))  # smaller ones fall into the first bar
    edges = np.geomspace(least, max(10 * least, 1.2 * values.max()), 41)
    for name, text, colour in texts:
        shares = np.full(len(text.kl), 100 / len(text.kl))
        mean, p99 = text.summary.kl, text.summary.kl_p99
        label = f"{name}: mean {mean:.3g}, 99th percentile {p99:.3g}"
        axis.hist(np.clip(text.kl, least, None), edges, weights=shares, color=colour, alpha=0.5, label=label)
        axis.axvline(max(mean, least), color=colour, linewidth=1.4)
        axis.axvline(max(p99, least), color=colour, linewidth=1.4, linestyle=":")
    axis.set_xscale("log")
    axis.set_xlim(edges[0], edges[-1])
    axis.set_title("KL divergence of each token")
    axis.set_xlabel("nats (line: mean, dots: 99th percentile)")
    axis.set_ylabel("% of tokens")
    _legend_below(axis)


def _draw_layers(axis: Any, layers: tuple[LayerError, ...]) -> None:
    numbers = [each.layer for each in layers]
    for name, values, colour, style in (
        ("gathered up to here", [each.output for each in layers], _BLUE, "o-"),
        ("of this layer alone", [each.alone for each in layers], _GREY, "s--"),
    ):
        axis.plot(
            numbers, np.clip(values, _LEAST, None), style, color=colour, markersize=3.5, linewidth=1.2, label=name
        )
    axis.set_yscale("log")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_title("Error of each layer's output")
    axis.set_xlabel("layer")
    axis.set_ylabel("mean |B - A|² / |A|² of a token")
    axis.grid(axis="y", alpha=0.3)
    _legend_below(axis)


def _draw_perplexity(axis: Any, found: PerplexityByWindow) -> None:
    numbers = np.arange(len(found.before)) + 1
    total = found.summary
    for name, values, value, colour, shift in (
        ("A", found.before, total.before, _BLUE, -0.2),
        ("B", found.after, total.after, _ORANGE, 0.2),
    ):
        axis.bar(numbers + shift, values, 0.38, color=colour, alpha=0.75, label=f"{name}: {value:g} over all")
        axis.axhline(value, color=colour, linewidth=1, linestyle=":")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_title("Perplexity of the evaluation text")
    axis.set_xlabel(f"window of {total.window} tokens")
    _legend_below(axis)


def _legend_below(axis: Any) -> None:
    """A legend under the axis, where it hides nothing."""
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False, fontsize=8)


def _short(name: str) -> str:
    name = name.rstrip("/").rpartition("/")[2]
    return name if len(name) <= 60 else name[:59] + "…"
