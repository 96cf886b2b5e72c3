"""Options with quantities: lists of counts, lengths of time, temperatures; callbacks for ``click.option``."""

from __future__ import annotations

import re

import click


def counts(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Whole numbers with commas between: 128,512."""
    if value is None:
        return None
    try:
        found = tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of whole numbers, such as 128,512") from None
    if any(number < 1 for number in found):
        raise click.BadParameter("numbers must be 1 or more")
    return tuple(dict.fromkeys(found))


def span(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A length of time in seconds: 90, 90s, 10m, 1h."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h)?", value.strip())
    if found is None:
        raise click.BadParameter(f"{value!r} is no length of time, such as 90s or 10m")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2] or "s"]


def celsius(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A temperature: 35 or 35C."""
    if value is None:
        return None
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*°?[cC]?", value.strip())
    if found is None:
        raise click.BadParameter(f"{value!r} is no temperature, such as 35C")
    return float(found[1])
