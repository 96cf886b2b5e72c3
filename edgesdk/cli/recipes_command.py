"""``edgesdk recipes``."""

from __future__ import annotations

import click

from .terminal import echo, json_option, print_json, print_table


@click.command("recipes")
@click.argument("name", required=False)
@json_option
@click.option("--target", "-t", help="Device class whose fast, balanced and best are meant (edgesdk targets).")
def command(name: str | None, target: str | None, as_json: bool) -> None:
    """List recipes, or show the passes of one (a decodable name or a .toml file)."""
    from ..compress.names import GRAMMAR
    from ..compress.recipe import BUILTIN, PRESETS, open_recipe
    from ..targets import open_target

    presets = open_target(target).recipes if target else PRESETS
    if name is None:
        listed = {preset: f"{recipe}: for {target or 'any target'}" for preset, recipe in presets.items()} | BUILTIN
        if as_json:
            print_json(listed)
        else:
            print_table(("name", ""), list(listed.items()))
            echo(f"\n{GRAMMAR}")
        return
    recipe = open_recipe(name, presets)
    described = {
        "name": recipe.name,
        "activations": recipe.activations,
        "kv_bits": recipe.kv_bits,
        "size": recipe.size,
        "passes": recipe.describe(),
    }
    if as_json:
        print_json(described)
        return
    for number, step in enumerate(recipe.describe(), 1):
        options = ", ".join(f"{key} = {value}" for key, value in step.items() if key != "use")
        echo(f"{number}. {step['use']}: {options}")
    if not recipe.passes:
        echo("no passes: weights stay as they are")
    if recipe.size:
        echo(f"size: {recipe.size}, by bits chosen for every matrix")
    echo(f"activations: {_bits(recipe.activations)}; key-value cache: {_bits(recipe.kv_bits)}")


def _bits(bits: int | None) -> str:
    return "what the target prefers" if bits is None else "float" if bits == 32 else f"int{bits}"
