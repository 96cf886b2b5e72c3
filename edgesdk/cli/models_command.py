"""``edgesdk models``."""

from __future__ import annotations

import click

from .terminal import TerminalProgress, echo, json_option, print_json, print_table


@click.group("models", invoke_without_command=True)
@click.option("--families", is_flag=True, help="Show which families run in which runtimes instead.")
@json_option
@click.pass_context
def command(ctx: click.Context, families: bool, as_json: bool) -> None:
    """List the catalogue, fetch a model from it, or list families."""
    if ctx.invoked_subcommand is not None:
        return
    if families:
        _families(as_json)
        return
    from ..model import catalogue

    entries = catalogue.load().values()
    if as_json:
        keys = ("name", "description", "licence", "size")
        rows = [{key: getattr(entry, key) for key in keys} for entry in entries]
        print_json(
            [
                row | {"path": str(entry.path) if entry.fetched else None}
                for row, entry in zip(rows, entries, strict=True)
            ]
        )
        return
    print_table(
        ("name", "size", "licence", "fetched", ""),
        [
            (
                entry.name,
                f"{entry.size / 1e6:.0f} MB",
                entry.licence,
                "yes" if entry.fetched else "no",
                entry.description,
            )
            for entry in entries
        ],
    )


def _families(as_json: bool) -> None:
    from ..model.encoders import ENCODERS
    from ..model.families import FAMILIES
    from ..model.seq2seq import SEQ2SEQS
    from ..model.support import RUNTIMES, numbered, support
    from ..model.vision import VISIONS
    from ..schema import dump

    found = support()
    if as_json:
        print_json(dump(found))
        return
    kinds = {
        name: ", ".join(registry.get(name).model_types)
        for registry in (FAMILIES, ENCODERS, SEQ2SEQS, VISIONS)
        for name in registry.names()
    }
    rows, reasons = numbered(found)
    print_table(
        ("family", "kind", "model_type", *RUNTIMES),
        [(family.name, family.kind, kinds.get(family.name, ""), *rows[family.name]) for family in found],
    )
    echo("\nWhat is not built:\n" + "\n".join(reasons))


@command.command("fetch")
@click.argument("name")
def fetch(name: str) -> None:
    """Bring a catalogue model into the cache and print its path."""
    from ..errors import ModelError
    from ..model import catalogue
    from ..registry import unknown

    entries = catalogue.load()
    if name not in entries:
        raise ModelError(unknown("catalogue model", name, entries))
    echo(str(catalogue.fetch(entries[name], TerminalProgress())))
