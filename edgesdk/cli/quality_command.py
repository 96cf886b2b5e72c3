"""``edgesdk quality``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import EdgeError
from .terminal import TerminalProgress, echo, json_option, print_json, print_table

if TYPE_CHECKING:
    from ..quality.report import Accuracy, AnswerPair, ChoiceScore, LayerError, QualityReport, TextQuality

_BAR = 40  # characters


@click.command("quality")
@click.argument("a")
@click.argument("b")
@click.option("--eval-text", type=click.Path(path_type=Path), help="Text file to measure perplexity on.")
@click.option(
    "--eval-windows", type=click.IntRange(min=1), default=6, show_default=True, help="Windows of it, or documents."
)
@click.option(
    "--window", type=click.IntRange(min=2), help="Tokens of a window.  [default: 512, or the smaller context]"
)
@click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    help="LoRA adapter to merge into A, a model, first: a folder that PEFT wrote.",
)
@click.option("--plot", type=click.Path(path_type=Path), help="Figure to write: .png or .svg (extra 'quality').")
@click.option(
    "--samples", type=click.IntRange(min=0), default=3, show_default=True, help="Built-in prompts to answer with both."
)
@click.option("--prompt", "prompts", multiple=True, help="Prompt to answer instead; may be repeated.")
@click.option(
    "--tasks",
    multiple=True,
    type=click.Path(path_type=Path),
    help="JSONL file of questions as in ARC, HellaSwag or PIQA (extra 'lm-eval'); may be repeated.",
)
@click.option("--max-kl", type=click.FloatRange(min=0), help="Fail above this mean KL divergence (nats a token).")
@click.option("--max-ppl-increase", type=click.FloatRange(min=0), help="Fail above this rise of perplexity (percent).")
@click.option("--min-top1", type=click.FloatRange(0, 1), help="Fail below this share of equal best tokens (0 to 1).")
@json_option
def command(
    a: str,
    b: str,
    eval_text: Path | None,
    eval_windows: int,
    window: int | None,
    adapter: Path | None,
    plot: Path | None,
    samples: int,
    prompts: tuple[str, ...],
    tasks: tuple[Path, ...],
    max_kl: float | None,
    max_ppl_increase: float | None,
    min_top1: float | None,
    as_json: bool,
) -> None:
    """Say what compression cost: B against A, the reference.

    Each is a model (a Hugging Face folder, a .gguf or llama2.c .bin file, a catalogue name), which runs in the float32
    reference, or a bundle (folder or zip), which runs in its own runtime. Exits with 1 when a limit is not met.
    """
    from ..model.opening import open_model
    from ..quality import Gates, compare_quality, enforce
    from ..quality.plot import check_plot, draw

    gates = Gates(max_kl, max_ppl_increase, min_top1)
    if max_ppl_increase is not None and eval_text is None:
        raise EdgeError("--max-ppl-increase needs a text", hint="add --eval-text FILE")
    if plot is not None:
        check_plot(plot)
    report = compare_quality(
        a if adapter is None else open_model(a, adapter=adapter),
        b,
        eval_text=eval_text,
        eval_windows=eval_windows,
        window=window,
        samples=samples,
        prompts=prompts,
        tasks=tasks,
        progress=TerminalProgress(),
    )
    if as_json:
        print_json(report)
    else:
        print_report(report)
    if plot is not None:
        draw(report, plot)
        if not as_json:
            echo(f"\nWrote {plot}.")
    enforce(report, gates)


def print_report(report: QualityReport) -> None:
    """Figures, then the divergence of tokens as bars, layers, choice tasks, and answers side by side."""
    rows = [
        (label, f"{side.name} ({side.kind}, {side.runtime}{f', {side.recipe}' if side.recipe else ''})")
        for label, side in (("A", report.a), ("B", report.b))
    ]
    check = report.tokenizers
    same = (
        f"the same {check.tokens} ids for {check.texts} texts" if check else f"not compared: {report.tokenizers_reason}"
    )
    rows.append(("tokenizers", same))
    if report.own_text is not None:
        rows += _text_rows("own text", report.own_text)
    else:
        rows.append(("own text", f"not compared: {report.own_text_reason}"))
    if report.eval_text is not None:
        rows += _text_rows("eval text", report.eval_text)
    rows.append(("perplexity", _perplexity(report)))
    if report.layers is None:
        rows.append(("layers", f"not compared: {report.layers_reason}"))
    if report.answers is None:
        rows.append(("answers", f"none: {report.answers_reason}"))
    print_table(("", ""), rows)
    for name, text in (("own text", report.own_text), ("eval text", report.eval_text)):
        if text is not None:
            echo(f"\nKL divergence of tokens, {name}:")
            _print_bars(text.kl)
            break
    if report.layers is not None:
        echo("\nerror of layers, mean |B - A|^2 / |A|^2 of a token:")
        _print_layers(report.layers)
    if report.tasks is not None:
        echo()
        _print_tasks(report.tasks)
    for pair in report.answers or ():
        _print_answers(pair)


def _text_rows(name: str, found: TextQuality) -> list[tuple[str, str]]:
    it = found.summary
    return [
        (name, f"KL {it.kl:g} nats a token, 99th percentile {it.kl_p99:g} ({it.tokens} tokens)"),
        ("", f"same best token {it.top1:.1%}, of the five best {it.top5:.1%}"),
    ]


def _perplexity(report: QualityReport) -> str:
    if report.perplexity is None:
        return f"not measured: {report.eval_text_reason}"
    it = report.perplexity.summary
    return f"{it.before:g} -> {it.after:g}, {it.increase:+.1f} % ({it.windows} windows of {it.window} tokens)"


def _print_bars(kl: Sequence[float]) -> None:
    """Shares of tokens by powers of ten."""
    edges = (0.001, 0.01, 0.1, 1.0, 10.0)
    names = [f"below {edges[0]:g}", *(f"below {edge:g}" for edge in edges[1:]), f"{edges[-1]:g} and more"]
    counts = [0] * len(names)
    for value in kl:
        counts[sum(value >= edge for edge in edges)] += 1
    for name, count in zip(names, counts, strict=True):
        share = count / len(kl)
        echo(f"  {name:<12} {share:6.1%}  {'█' * round(_BAR * share)}".rstrip())


def _print_layers(layers: Sequence[LayerError]) -> None:
    rows = [(str(each.layer), f"{each.output:g}", f"{each.alone:g}") for each in layers]
    print_table(("layer", "gathered", "alone"), rows)


def _print_tasks(tasks: Sequence[ChoiceScore]) -> None:
    rows = [
        (
            f"{task.name} ({task.form}, {task.questions})",
            name,
            *(_figure(side, name) for side in (task.a, task.b, task.difference)),
            f"{task.only_a} / {task.only_b}" if name == "acc" else "",
        )
        for task in tasks
        for name in ("acc", "acc_norm")
    ]
    print_table(("task", "", "A", "B", "B - A, paired", "right only in A / B"), rows)
    for task in tasks:
        if task.cut:
            echo(f"{task.name}: {task.cut} choices did not fit a context; their beginning was left out")


def _figure(found: Accuracy, name: str) -> str:
    value, error = getattr(found, name), getattr(found, f"{name}_stderr")
    return f"{value:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def _print_answers(pair: AnswerPair) -> None:
    parted = "the same" if pair.first_divergence is None else f"they part at token {pair.first_divergence + 1}"
    echo(f"\n> {pair.prompt}   [{parted}]")
    for label, answer in (("A", pair.a), ("B", pair.b)):
        echo(f"{label}: {' '.join(answer.split())}")
