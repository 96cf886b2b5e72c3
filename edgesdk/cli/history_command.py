"""``edgesdk history``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import EdgeError
from .terminal import echo, json_option, print_json, print_table

if TYPE_CHECKING:
    from ..profile.history import Filter, History

_DB = click.option(
    "--db", metavar="URL", envvar="EDGESDK_HISTORY", help="File, or postgresql://...  [default: the user's data folder]"
)
_FILTERS = (
    _DB,
    click.option("--since", metavar="DATE", help="Measured then or later (ISO 8601)."),
    click.option("--commit", help="Beginning of the commit."),
    click.option("--bundle", help="Beginning of the bundle's digest."),
    click.option("--device", help="Part of the device's name or identity."),
    click.option("--model", help="Part of the model's name."),
)


def _filtered(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in _FILTERS:
        function = option(function)
    return function


@click.group("history", invoke_without_command=True)
@_filtered
@click.option("--trend", metavar="METRIC", help="One value over time: decode_rate, peak_rss, decode_energy ...")
@click.option("--case", help="Of this case only, such as '128 + 64 tokens, 4 threads'.")
@click.option("--plot", type=click.Path(path_type=Path), help="Figure of the trend: .svg, .png or .html.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    model: str | None,
    device: str | None,
    bundle: str | None,
    commit: str | None,
    since: str | None,
    db: str | None,
    trend: str | None,
    case: str | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """List the profiles that were kept, or show how one value went.

    A trend joins profiles of one model, recipe, device, regime and case; others are series of their own.
    """
    if ctx.invoked_subcommand is not None:
        _refuse_before(ctx)
        return
    if trend is None and (plot is not None or case is not None):
        raise click.UsageError("--plot and --case need --trend METRIC")
    from ..profile.history import History

    only = _filter(model, device, bundle, commit, since)
    with History(db) as history:
        if trend is None:
            _list(history, only, as_json)
        else:
            _trend(history, trend, case, only, plot, as_json)


@command.command("add")
@click.argument("profiles", nargs=-1, required=True, type=click.Path(path_type=Path))
@_DB
def add(profiles: tuple[Path, ...], db: str | None) -> None:
    """Keep PROFILES; one that is there already is passed over."""
    from ..profile.history import History
    from ..profile.schema import read_profile

    found = [(path, read_profile(path)) for path in profiles]
    with History(db) as history:
        for path, profile in found:
            echo(f"{path}: {'added' if history.add(profile) else 'was there'}")


@command.command("export")
@click.argument("folder", type=click.Path(path_type=Path))
@_filtered
def export(folder: Path, db: str | None, **filters: str | None) -> None:
    """Write kept profiles to FOLDER: each as JSON, for edgesdk report, and all values as values.csv."""
    from ..files import writing_failed
    from ..profile.export import to_csv
    from ..profile.history import History
    from ..profile.report.page import write_page
    from ..profile.schema import write_profile

    only = _filter(**filters)
    with History(db) as history:
        found = list(zip(history.entries(only), history.profiles(only), strict=True))
    if not found:
        raise EdgeError("no such profile in the history", hint="edgesdk history lists them")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for entry, profile in found:
            write_profile(profile, folder / f"{entry.fingerprint[:16]}.json")
    except OSError as failure:
        raise writing_failed(folder, failure) from None
    write_page(to_csv(*(profile for _, profile in found)), folder / "values.csv")
    echo(f"Wrote {len(found)} profile{'s' if len(found) > 1 else ''} and values.csv to {folder}.")


def _refuse_before(ctx: click.Context) -> None:
    """Options of the list that stand before a subcommand would be lost in silence."""
    if any(ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE for name in ctx.params):
        raise click.UsageError(f"options go after '{ctx.invoked_subcommand}'")


def _filter(model: str | None, device: str | None, bundle: str | None, commit: str | None, since: str | None) -> Filter:
    from ..profile import history

    return history.Filter(bundle, model, device, commit, history.since(since) if since else None)


def _list(history: History, only: Filter, as_json: bool) -> None:
    from ..profile.report.words import DASH, digest, short

    found = history.entries(only)
    if as_json:
        print_json(found)
        return
    if not found:
        echo(f"No profile in {history.name}.")
        return
    rows = [
        (
            it.started,
            short(it.model, 40),
            short(it.recipe, 16),
            digest(it.bundle),
            short(it.device, 20),
            short(it.commit, 12) if it.commit else DASH,
            it.validity,
            it.throttling,
            "emulated" if it.emulated else "",
        )
        for it in found
    ]
    print_table(("measured", "model", "recipe", "bundle", "device", "commit", "validity", "throttling", ""), rows)


def _trend(history: History, name: str, case: str | None, only: Filter, plot: Path | None, as_json: bool) -> None:
    from ..profile.report.trend import check_plot, draw, figures, trends

    if plot is not None:
        check_plot(plot)
    points = history.trend(name, case, only)
    if not points:
        known = history.metrics()
        text = f"there are: {', '.join(known)}" if known else "edgesdk history add PROFILE... fills the history"
        raise EdgeError(f"no profile here has '{name}'" if name in known else f"no value '{name}'", hint=text)
    found = trends(points)
    if plot is not None:
        draw(name, found, plot)
    if as_json:
        print_json(points)
        return
    for index, trend in enumerate(found):
        echo(("\n" if index else "") + trend.title)
        print_table(("measured", "commit", "bundle", "value", "95 % interval"), figures(trend))
    if plot is not None:
        echo(f"\nWrote {plot}.")
