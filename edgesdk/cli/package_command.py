"""``edgesdk package``."""

from __future__ import annotations

from pathlib import Path

import click

from .terminal import TerminalProgress, echo, json_option, print_json, print_table


@click.command("package")
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option("--as", "kind", help="Kind of deliverable: android, ios, linux-service, firmware.")
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="An option of that kind; --options lists them."
)
@click.option("--options", "list_options", is_flag=True, help="List the kinds, or the options of one, and exit.")
@json_option
def command(
    bundle: Path | None,
    kind: str | None,
    out: Path | None,
    settings: tuple[str, ...],
    list_options: bool,
    as_json: bool,
) -> None:
    """Make an app module, a Swift package, a board service or a firmware project out of BUNDLE."""
    if list_options:
        _list(kind, as_json)
        return
    if bundle is None or kind is None or out is None:
        raise click.UsageError("BUNDLE, --as and --out are needed.")
    from ..package import package

    made = package(bundle, kind, out, options=_parsed(settings), progress=TerminalProgress())
    if as_json:
        print_json(made)
        return
    rows = [("kind", made.kind), ("bundle", made.bundle[:16]), *made.written.facts.items()]
    rows.append(("size", f"{made.size / 1e6:.0f} MB in {made.files} files"))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        echo(f"{name:<{width}}  {value}")
    for remark in made.written.remarks:
        echo(f"Note: {remark}", err=True)
    echo(f"\nWrote {out}. Its README.md says how to go on.")
    for line in made.written.next:
        echo(f"    {line}")


def _parsed(settings: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{setting!r} is not NAME=VALUE", param_hint="--set")
        found[name.replace("-", "_")] = value
    return found


def _list(kind: str | None, as_json: bool) -> None:
    import dataclasses

    from ..package import DELIVERABLES

    if kind is None:
        kinds = {name: DELIVERABLES.get(name).description for name in DELIVERABLES.names()}
        if as_json:
            print_json(kinds)
        else:
            print_table(("kind", ""), list(kinds.items()))
        return
    options = DELIVERABLES.get(kind).options
    fields = [(field.name, field.default) for field in dataclasses.fields(options)]
    if as_json:
        print_json(dict(fields))
        return
    said = _attributes(options.__doc__ or "")
    print_table(
        ("option", "default", ""),
        [(name, "-" if value is None else str(value), said.get(name, "")) for name, value in fields],
    )


def _attributes(docstring: str) -> dict[str, str]:
    """The entries below ``Attributes:`` of a docstring, each on one line."""
    import inspect

    found: dict[str, str] = {}
    name = ""
    _, _, part = inspect.cleandoc(docstring).partition("Attributes:\n")
    for line in part.splitlines():
        if line.startswith("    ") and not line.startswith("     ") and ":" in line:
            name, _, text = line.strip().partition(": ")
            found[name] = text
        elif name and line.strip():
            found[name] += " " + line.strip()
    return found
