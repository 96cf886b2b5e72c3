"""``edgesdk lint``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .compression_options import prefix_space_option
from .terminal import TerminalProgress, json_option, print_json, print_table

if TYPE_CHECKING:
    from ..targets import FloatType


@click.command("lint")
@click.argument("model")
@click.option("--target", "-t", help="Device class (edgesdk targets).  [default: the checkpoint alone is looked at]")
@click.option("--recipe", "-r", help="Compression (edgesdk recipes).  [default: w4g32, or the checkpoint's own]")
@click.option("--context", type=click.IntRange(min=1), help="Capacity of the KV cache in tokens.")
@click.option("--float", "float_type", type=click.Choice(["float32", "float16"]), help="Float type.")
@click.option("--memory", "memory_mb", type=click.IntRange(min=1), help="Memory of your device in MB.")
@click.option("--delegate", help="Hardware path (edgesdk targets NAME).")
@click.option("--oracle", is_flag=True, help="Compare what is read of MODEL with transformers (extra: oracle).")
@prefix_space_option
@json_option
def command(
    model: str,
    target: str | None,
    recipe: str | None,
    context: int | None,
    float_type: FloatType | None,
    memory_mb: int | None,
    delegate: str | None,
    oracle: bool,
    prefix_space: bool | None,
    as_json: bool,
) -> int:
    """Check MODEL, against a target too, before any work; exits with 1 when an export would fail.

    MODEL may also be a finished .tflite file, for a microcontroller.
    """
    from ..errors import EdgeError
    from ..linting import lint, lint_program

    if model.endswith(".tflite"):
        if target is None:
            raise EdgeError("a finished program is checked against a target", hint="add --target cortex-m4f")
        remarks = lint_program(model, target)
    else:
        remarks = lint(
            model,
            target,
            recipe=recipe,
            context=context,
            float_type=float_type,
            memory_mb=memory_mb,
            delegate=delegate,
            prefix_space=prefix_space,
            oracle="auto" if oracle else "off",
            progress=TerminalProgress(),
        )
    if as_json:
        print_json(remarks)
    else:
        rows: list[tuple[str, str, str]] = []
        for remark in remarks:
            rows.append((remark.level, remark.about, remark.text))
            if remark.way_out:
                rows.append(("", "", f"-> {remark.way_out}"))
        print_table(("", "", ""), rows)
    return int(any(remark.level == "error" for remark in remarks))
