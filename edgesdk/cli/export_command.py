"""``edgesdk export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import EdgeError
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
    from ..bundle import Manifest
    from ..bundle.manifest import DraftRecord
    from ..oracle import Choice
    from ..targets import FloatType


@click.command("export")
@click.argument("model")
@click.option("--target", "-t", required=True, help="Device class (edgesdk targets).")
@click.option(
    "--out", "-o", required=True, type=click.Path(path_type=Path), help="Bundle to write: a folder, or a .zip."
)
@click.option(
    "--recipe",
    "-r",
    help="Compression (edgesdk recipes), or a .toml file.  [default: w4g32 (encoders: w8), or the checkpoint's own]",
)
@click.option(
    "--context",
    type=click.IntRange(min=1),
    help="Capacity of the KV cache in tokens.  [default: 2048, or the model's own]",
)
@click.option(
    "--float", "float_type", type=click.Choice(["float32", "float16"]), help="Float type.  [default: target's]"
)
@click.option(
    "--memory", "memory_mb", type=click.IntRange(min=1), help="Memory of your device in MB.  [default: target's]"
)
@click.option("--delegate", help="Hardware path (edgesdk targets NAME).  [default: target's]")
@adapter_option
@prefix_space_option
@oracle_option
@click.option(
    "--switchable",
    "switchable",
    multiple=True,
    metavar="NAME=FOLDER",
    help="LoRA adapter to keep apart, for `edgesdk run --adapter NAME`; may be repeated.",
)
@click.option("--draft", metavar="MODEL", help="Smaller model with the same tokens, for speculative decoding.")
@click.option("--draft-recipe", help="Compression of the draft.  [default: w4g32, or the checkpoint's own]")
@calibration_options
@check_options
@json_option
def command(
    model: str,
    target: str,
    out: Path,
    recipe: str | None,
    context: int | None,
    float_type: FloatType | None,
    memory_mb: int | None,
    delegate: str | None,
    adapter: Path | None,
    prefix_space: bool | None,
    oracle: Choice,
    switchable: tuple[str, ...],
    draft: str | None,
    draft_recipe: str | None,
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
    as_json: bool,
) -> None:
    """Compress MODEL, convert it for a target, verify it, and write a bundle.

    MODEL is a Hugging Face folder, a compressed checkpoint (edgesdk compress), a .gguf or llama2.c .bin file, a name
    from the catalogue (edgesdk models), or a hub id org/name.
    """
    from ..exporting import Checks, export

    manifest = export(
        model,
        target,
        out,
        recipe=recipe,
        context=context,
        float_type=float_type,
        memory_mb=memory_mb,
        delegate=delegate,
        size=size,
        adapter=adapter,
        prefix_space=prefix_space,
        oracle=oracle,
        switchable=_by_name(switchable),
        draft=draft,
        draft_recipe=draft_recipe,
        calibration=calibration_of(calibration, sequences, length, seed),
        checks=Checks(eval_text, eval_windows, max_kl, max_ppl_increase, skip_checks),
        progress=TerminalProgress(),
    )
    if as_json:
        print_json(manifest)
    else:
        print_summary(manifest)
        echo(f"\nWrote {out}. Try: edgesdk run {out}")


def _by_name(given: tuple[str, ...]) -> dict[str, str]:
    """Adapters to keep apart, by name."""
    pairs = [each.partition("=") for each in given]
    names = [name for name, _, _ in pairs]
    for name, mark, folder in pairs:
        if not (name and mark and folder) or names.count(name) > 1:
            raise EdgeError(f"--switchable {name}{mark}{folder}: each is NAME=FOLDER, with a name of its own")
    return {name: folder for name, _, folder in pairs}


def print_summary(manifest: Manifest) -> None:
    """A bundle in a dozen lines."""
    from ..bundle import kind_of
    from ..estimate import megabytes
    from ..kinds import DECODER
    from .other_kinds import measured_rows

    model, program = manifest.model, manifest.program
    quality = manifest.quality
    size = sum(entry.size for entry in manifest.files)
    memory = manifest.memory
    peak = memory.weights + memory.kv_cache + memory.activations + memory.runtime
    rows = [
        (
            "model",
            f"{model.name} ({model.family}, {model.parameters / 1e6:.1f} M parameters, "
            f"licence {model.licence or 'unknown'})",
        ),
        ("target", f"{manifest.target.name}: {program.runtime} {program.runtime_versions}"),
        (
            "recipe",
            f"{manifest.recipe.name}, int8 activations"
            if manifest.recipe.activations == 8 and manifest.recipe.passes
            else manifest.recipe.name,
        ),
        ("size", f"{megabytes(size)} in {len(manifest.files)} files"),
        ("context", f"{manifest.context} tokens"),
        ("oracle", manifest.oracle.words() if manifest.oracle else "none (the bundle is older)"),
        ("memory", f"about {megabytes(peak)} at full context, {megabytes(memory.kv_cache)} of it KV cache (estimate)"),
    ]
    if kind_of(manifest) != DECODER:
        print_table(("", ""), [*rows, *measured_rows(manifest), *(("note", note) for note in manifest.notes)])
        return
    if boards := program.facts.get("boards"):
        rows += _boards(boards, program.facts.get("arena_bytes"))
    if (found := quality.divergence) is not None:
        rows.append(
            (
                "quality",
                f"KL {found['kl']:g} nats a token, same best token {found['top1']:.1%} "
                f"(own text, {found['tokens']} tokens)",
            )
        )
    if (ppl := quality.perplexity) is not None:
        rows.append(
            ("perplexity", f"{ppl['before']:g} -> {ppl['after']:g} ({ppl['windows']} windows of {ppl['window']})")
        )
    if manifest.parity is None:
        rows.append(("parity", f"not measured: {manifest.parity_reason}"))
    for row in manifest.parity or ():
        first = row["first_divergence"]
        agreed = "all 64 greedy tokens agree" if first is None else f"greedy tokens differ from number {first + 1}"
        rows.append(
            (
                f"parity, {row['prompt']}",
                f"logits within {row['max_logit_difference']:g}, same best {row['top1']:.1%}, {agreed}",
            )
        )
    rows += [
        (f"adapter {record.name}", _adapter(record.parity)) for record in manifest.adapters if record.file is not None
    ]
    if manifest.draft is not None:
        rows.append(("draft", _draft(manifest.draft)))
    rows += [("note", note) for note in manifest.notes]
    print_table(("", ""), rows)


def _adapter(parity: dict[str, Any] | None) -> str:
    if parity is None:
        return "to switch to; not measured"
    return (
        f"to switch to; logits within {parity['max_logit_difference']:g} of the merged model's, same best "
        f"{parity['top1']:.1%} ({parity['tokens']} tokens)"
    )


def _draft(draft: DraftRecord) -> str:
    model, worth = draft.model, draft.worth
    text = f"{model.name} ({model.parameters / 1e6:.1f} M parameters, {draft.recipe.name})"
    if worth is None:
        return f"{text}; not measured"
    share = worth["accepted"] / worth["drafted"] if worth["drafted"] else 0
    return (
        f"{text}; {share:.1%} of drafted tokens taken, {worth['tokens'] / max(worth['steps'], 1):.2f} tokens a step, "
        f"{worth['as_token_by_token']} of {worth['prompts']} answers as token by token"
    )


def _boards(boards: dict[str, dict[str, Any]], arena: int | None) -> list[tuple[str, str]]:
    """Flash, RAM and the boards of a microcontroller's program."""
    from ..estimate import megabytes

    flash, ram = (max(board[key] for board in boards.values()) for key in ("flash", "ram"))
    known = "" if arena is None else " without TensorFlow Lite Micro's code; the arena is measured, with 10 % margin"
    words = {True: "{}", False: "not {}", None: "{} (if its code fits too)"}
    return [
        ("device", f"flash {megabytes(flash)}, RAM {megabytes(ram)}{known}"),
        ("boards", ", ".join(words[board["fits"]].format(name) for name, board in boards.items())),
    ]
