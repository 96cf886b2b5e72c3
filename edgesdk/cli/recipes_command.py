"""``edgesdk recipes``."""

from __future__ import annotations

import click

from .terminal import json_option, print_json, print_table


@click.command("recipes")
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List recipes, or show the passes of one (a decodable name or a .toml file)."""
    from ..compress.recipe import BUILTIN, open_recipe

    if name is None:
        if as_json:
            print_json(BUILTIN)
        else:
            print_table(("name", ""), list(BUILTIN.items()))
            click.echo(
                "\nNames decode: w4g32-e8-a8 is 4-bit weights in groups of 32, 8-bit embedding, int8 activations."
            )
        return
    recipe = open_recipe(name)
    described = {
        "name": recipe.name,
        "activations": recipe.activations,
        "kv_bits": recipe.kv_bits,
        "passes": recipe.describe(),
    }
    if as_json:
        print_json(described)
        return
    for number, step in enumerate(recipe.describe(), 1):
        options = ", ".join(f"{key} = {value}" for key, value in step.items() if key != "use")
        click.echo(f"{number}. {step['use']}: {options}")
    if not recipe.passes:
        click.echo("no passes: weights stay as they are")
    click.echo(f"activations: {_bits(recipe.activations)}; key-value cache: {_bits(recipe.kv_bits)}")


def _bits(bits: int | None) -> str:
    return "what the target prefers" if bits is None else "float" if bits == 32 else f"int{bits}"
