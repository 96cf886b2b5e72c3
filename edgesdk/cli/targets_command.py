"""``edgesdk targets``."""

from __future__ import annotations

import click

from .terminal import json_option, print_json, print_table


@click.command("targets")
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List targets, or show one."""
    from ..schema import dump
    from ..targets import open_target, target_names

    if name is not None:
        target = open_target(name)
        if as_json:
            print_json(target)
        else:
            print_table(("", ""), [(key, str(value)) for key, value in dump(target).items()])
        return
    targets = [open_target(each) for each in target_names()]
    if as_json:
        print_json(targets)
        return
    print_table(
        ("name", "runtime", "architecture", "memory", ""),
        [
            (t.name, f"{t.runtime.name} {t.runtime.versions}", t.architecture, f"{t.memory_mb} MB", t.description)
            for t in targets
        ],
    )
