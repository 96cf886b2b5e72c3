"""``edgesdk compress``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from .compression_options import (
    adapter_option,
    calibration_of,
    calibration_options,
    check_options,
    oracle_option,
    prefix_space_option,
)
from .terminal import TerminalProgress, echo, json_option, print_json, print_table

if TYPE_CHECKING:
    from ..model.checkpoint import Description
    from ..oracle import Choice


@click.command("compress")
@click.argument("model")
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--recipe", "-r", help="Compression (edgesdk recipes), or a .toml file.  [default: w4g32]")
@click.option(
    "--target", "-t", help="Device class that the weights are for (edgesdk targets).  [default: what all of them hold]"
)
@click.option("--teacher", help="Model that -heal learns from instead of MODEL itself, with the same tokens.")
@adapter_option
@prefix_space_option
@oracle_option
@calibration_options
@check_options
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@json_option
def command(
    model: str,
    out: Path,
    recipe: str | None,
    target: str | None,
    teacher: str | None,
    adapter: Path | None,
    prefix_space: bool | None,
    oracle: Choice,
    size: str | None,
    calibration: str,
    sequences: int,
    length: int,
    seed: int,
    eval_text: Path | None,
    eval_windows: int,
    max_kl: float | None,
    max_ppl_increase: float | None,
    skip_checks: bool,
    resume: bool,
    as_json: bool,
) -> None:
    """Compress MODEL into a checkpoint that ``edgesdk export`` takes for any target.

    MODEL is a Hugging Face folder, a .gguf or llama2.c .bin file, a name from the catalogue (edgesdk models), or a hub
    id org/name.
    """
    from ..compressing import compress_model
    from ..exporting import Checks

    described = compress_model(
        model,
        out,
        recipe=recipe,
        target=target,
        size=size,
        adapter=adapter,
        prefix_space=prefix_space,
        oracle=oracle,
        teacher=teacher,
        calibration=calibration_of(calibration, sequences, length, seed),
        checks=Checks(eval_text, eval_windows, max_kl, max_ppl_increase, skip_checks),
        resume=resume,
        progress=TerminalProgress(),
    )
    if as_json:
        print_json(described)
    else:
        print_summary(described, target)
        echo(f"\nWrote {out}. Try: edgesdk quality {model} {out}; edgesdk export {out} --target T --out B")


def print_summary(described: Description, target: str | None) -> None:
    """A compressed checkpoint in a few lines, and what a target gains from what was taken away."""
    from ..estimate import megabytes

    schemes: dict[str, int] = {}
    for report in described.reports:
        schemes = dict(report["tensors"]) or schemes
    rows = [
        ("model", f"{described.name} ({described.spec.family}, {described.spec.parameters / 1e6:.1f} M parameters)"),
        ("recipe", f"{described.recipe} ({', then '.join(entry['use'] for entry in described.passes)})"),
        ("weights", ", ".join(f"{count} x {scheme}" for scheme, count in sorted(schemes.items())) or "as they were"),
        ("size", megabytes(sum(file.size for file in described.files))),
    ]
    rows += _gains(described, target)
    rows += _quality(described)
    notes = [*described.notes, *(note for report in described.reports for note in report["notes"])]
    print_table(("", ""), rows + [("note", note) for note in notes])


def _gains(described: Description, target: str | None) -> list[tuple[str, str]]:
    """Which of speed, memory, storage and download get better with what was taken away."""
    from ..compress.pruning.gains import taken_away
    from ..targets import Gain, open_target

    taken = taken_away(described.passes)
    rows = [
        ("zeros", f"{report['zeros']:.1%} of the weights of the layers' matrices")
        for report in described.reports
        if report["zeros"] is not None
    ]
    if taken and target is None:
        return [*rows, ("gains", "name a --target to see what a device gains from what was taken away")]
    for what in taken:
        assert target is not None
        gains = open_target(target).gains
        seen = getattr(gains, what.kind)
        unseen = [each for each in get_args(Gain) if each not in seen]
        rows.append(
            (
                "gains",
                f"{what.words} on {target}: {', '.join(seen)}"
                + (f"; not {', '.join(unseen)}: {gains.why}" if unseen else ""),
            )
        )
    return rows


def _quality(described: Description) -> list[tuple[str, str]]:
    """What compression cost, as it was measured."""
    found = described.quality
    if found is None:
        return [("quality", f"not measured: {described.quality_reason}")]
    rows = []
    if found["own_text"] is None:
        rows.append(("quality", f"not measured on its own text: {found.get('own_text_reason')}"))
    for name, what in (("own_text", "own text"), ("eval_text", "evaluation text")):
        if (it := found[name]) is not None:
            rows.append(
                (
                    "quality",
                    f"KL {it['kl']:g} nats a token, same best token {it['top1']:.1%} ({what}, {it['tokens']} tokens)",
                )
            )
    if (it := found["perplexity"]) is not None:
        rows.append(("perplexity", f"{it['before']:g} -> {it['after']:g} ({it['windows']} windows of {it['window']})"))
    return rows
