"""``edgesdk fit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .terminal import TerminalProgress, echo, json_option, print_json, print_table

if TYPE_CHECKING:
    from ..fit import Fit


@click.command("fit")
@click.argument("model")
@click.option("--recipe", "-r", help="Compression (edgesdk recipes).  [default: w4g32, or the checkpoint's own]")
@click.option("--context", type=click.IntRange(min=1), help="Context in tokens.  [default: 2048 or the model's]")
@json_option
def command(model: str, recipe: str | None, context: int | None, as_json: bool) -> int:
    """Say which microcontroller boards hold MODEL, in C99 form, and with how much context.

    Exits with 1 when none does.
    """
    from ..fit import fit

    found = fit(model, recipe=recipe, context=context, progress=TerminalProgress())
    if as_json:
        print_json(found)
    else:
        _print(found)
    return int(not any(each.fits for each in found))


def _print(found: list[Fit]) -> None:
    rows = []
    for each in found:
        flash, ram = each.weights + each.tokenizer + each.code, each.kv_cache + each.work + each.runner
        used = (f"{_kilobytes(flash)} of {_kilobytes(each.flash)}", f"{_kilobytes(ram)} of {_kilobytes(each.ram)}")
        rows.append((each.board, each.core, *used, "yes" if each.fits else "no", str(each.largest_context or "none")))
    print_table(("board", "core", "flash KB", "RAM KB", "fits", "largest context"), rows)
    first = found[0]
    code = sorted({_kilobytes(each.code) for each in found if each.code_measured})
    linked = f"code {' to '.join(code)} KB (linked here)" if code else f"code about {_kilobytes(first.code)} KB"
    echo(
        f"\nflash: weights {_kilobytes(first.weights)} KB, tokenizer {_kilobytes(first.tokenizer)} KB, {linked}\n"
        f"RAM: KV cache {_kilobytes(first.kv_cache)} KB, work {_kilobytes(first.work)} KB, runner and stack "
        f"{_kilobytes(first.runner)} KB"
    )
    unmeasured = [each.board for each in found if each.code_measured is None]
    if unmeasured:
        echo(f"no compiler here builds for {', '.join(unmeasured)}: code counted as on the largest core")


def _kilobytes(count: int) -> str:
    return f"{(count + 1023) // 1024:,}"
