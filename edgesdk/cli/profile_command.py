"""``edgesdk profile``: measure a bundle on a device."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import EdgeError
from .device_options import chosen_device, device_option, fleet_option
from .quantities import celsius, counts, span
from .terminal import TerminalProgress, echo, json_option, print_json, print_table

if TYPE_CHECKING:
    from ..profile.schema import Case, Plan, Profile, Value

_ROWS = {
    "time_to_first_token": ("Time to first token", 1e3, "ms"),
    "prefill_rate": ("Prefill", 1, "tokens/s"),
    "decode_rate": ("Decode", 1, "tokens/s"),
    "token_floor": ("Token, undisturbed", 1e3, "ms"),
    "token_p50": ("Token latency p50", 1e3, "ms"),
    "token_p90": ("Token latency p90", 1e3, "ms"),
    "token_p99": ("Token latency p99", 1e3, "ms"),
    "decode_power": ("Power, decode", 1, "W"),
    "prefill_energy": ("Energy, prefill", 1e3, "mJ/token"),
    "decode_energy": ("Energy, decode", 1e3, "mJ/token"),
    "efficiency": ("Efficiency", 1, "tokens/J"),
    "peak": ("Hottest zone", 1, "°C"),
}


@click.command("profile")
@click.argument("bundle", type=click.Path(path_type=Path))
@device_option
@fleet_option
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Profile to write.  [default: BUNDLE-DEVICE.json]")
@click.option(
    "--prompt-tokens", callback=counts, metavar="N,N", default="128", show_default=True, help="Lengths of prompts."
)
@click.option("--new-tokens", type=click.IntRange(1), default=64, show_default=True, help="Tokens of every answer.")
@click.option("--threads", callback=counts, metavar="N,N", help="Threads of the runtime.  [default: its own choice]")
@click.option("--repeats", type=click.IntRange(1), help="Of every case.  [default: 6, or 35 with --against]")
@click.option(
    "--starts",
    type=click.IntRange(1),
    help="Of the runner, that the repeats are spread over.  [default: 3, or 7 with --against]",
)
@click.option(
    "--warmup", type=click.IntRange(0), default=1, show_default=True, help="Runs in each start that are not counted."
)
@click.option(
    "--cooldown-to",
    callback=celsius,
    metavar="CELSIUS",
    help="Wait before every repeat until the hottest zone is as cool.",
)
@click.option(
    "--wait-quiet",
    callback=span,
    metavar="TIME",
    help="Wait so long, at most, until other programs leave the processors.",
)
@click.option(
    "--sustained",
    callback=span,
    metavar="TIME",
    help="Repeat the first case for so long without rest, to see what heat does.",
)
@click.option(
    "--interval",
    callback=span,
    metavar="TIME",
    help="Between two looks at the sensors.  [default: 0.1s, or longer where that would take 1 % of a core]",
)
@click.option(
    "--idle", callback=span, metavar="TIME", default="3", show_default=True, help="Rest whose power is the baseline."
)
@click.option("--meter", "meters", multiple=True, metavar="URL", help="External meter (edgesdk sensors --meters).")
@click.option("--quick", is_flag=True, help="Latency alone: no memory, operators or cost of the sampler.")
@click.option("--commit", envvar="EDGESDK_COMMIT", help="What the model or app was made from, for the history.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the HTML report too.")
@click.option("--history/--no-history", default=True, show_default=True, help="Keep it in the history.")
@click.option("--db", metavar="URL", envvar="EDGESDK_HISTORY", help="History.  [default: in the user's data folder]")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Measure another bundle in turns with this one, and say what is better or worse than with that one.",
)
@click.option(
    "--from",
    "result",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Measure nothing: read what the benchmark of BUNDLE's app wrote (edgesdk package).",
)
@json_option
def command(
    bundle: Path,
    device: str | None,
    fleet: Path | None,
    out: Path | None,
    prompt_tokens: tuple[int, ...],
    new_tokens: int,
    threads: tuple[int, ...] | None,
    repeats: int | None,
    starts: int | None,
    warmup: int,
    cooldown_to: float | None,
    wait_quiet: float | None,
    sustained: float | None,
    interval: float | None,
    idle: float,
    meters: tuple[str, ...],
    quick: bool,
    commit: str | None,
    report: Path | None,
    history: bool,
    db: str | None,
    against: Path | None,
    result: Path | None,
    as_json: bool,
) -> int:
    """Measure BUNDLE on a device: latency, memory, temperature, power.

    The raw record lies beside the profile; a run that was broken off goes on when the same command runs again.
    """
    from ..profile.profiling import IN_TURNS
    from ..profile.schema import Plan

    usual = Plan() if against is None else IN_TURNS
    plan = Plan(
        prompt_tokens,
        new_tokens,
        threads or (None,),
        repeats or usual.repeats,
        starts or usual.starts,
        warmup,
        cooldown_to,
        idle=idle,
        sustained=sustained,
        wait_quiet=wait_quiet,
        interval=interval or 0.1,
        share=None if interval else Plan.share,
        memory=not quick,
        cost=0 if quick else 3,
        operators=not quick,
    )
    bundles = [bundle] if against is None else [bundle, against]
    if result is None:
        found = _measured(bundles, device, fleet, out, plan, meters, commit)
    else:
        found = [_read(bundle, result, out)]
    if history:
        _keep([made for made, _ in found], db)
    if report is not None:
        from ..profile.report import write_report

        write_report([made for made, _ in found], report)
    if as_json:
        print_json([made for made, _ in found] if against else found[0][0])
    else:
        for made, path in found:
            show(made)
            echo(f"\nProfile: {path}")
    if against is not None and not as_json:
        from ..profile.compare import compared
        from .compare_command import show_changes

        echo(f"\nB, {bundle}, against A, {against}:")
        show_changes(compared(found[1][0], found[0][0], allow=["bundle"]))
    return 1 if any(made.validity == "invalid" for made, _ in found) else 0


def _measured(
    bundles: list[Path],
    device: str | None,
    fleet: Path | None,
    out: Path | None,
    plan: Plan,
    meters: tuple[str, ...],
    commit: str | None,
) -> list[tuple[Profile, Path]]:
    from ..bundle import open_bundle
    from ..profile.profiling import profile, profile_in_turns
    from ..profile.sensors.meters import open_meter

    progress = TerminalProgress()
    measuring = [open_meter(each) for each in meters] if meters else []
    with ExitStack() as stack:
        opened = [stack.enter_context(open_bundle(each, progress=progress)) for each in bundles]
        place = stack.enter_context(chosen_device(device, fleet, "edgesdk profile"))
        path = out or Path(f"{bundles[0].name.removesuffix('.zip')}-{re.sub(r'[^A-Za-z0-9.-]+', '_', place.name)}.json")
        if len(opened) == 1:
            made = profile(place, opened[0], path, plan, meters=measuring, commit=commit, progress=progress)
            return [(made, path)]
        paths = path, path.with_suffix(".against.json")
        pair = profile_in_turns(
            (place, place), (opened[0], opened[1]), paths, plan, meters=measuring, commit=commit, progress=progress
        )
        return list(zip(pair, paths, strict=True))


def _read(bundle: Path, result: Path, out: Path | None) -> tuple[Profile, Path]:
    """A profile of what an app wrote."""
    from ..bundle import open_bundle
    from ..profile.from_app import profile_from_app
    from ..profile.profiling import record_path
    from ..profile.schema import write_profile

    path = out or result.with_suffix(".json")
    if result.resolve() in (path.resolve(), record_path(path).resolve()):
        raise EdgeError(f"{path}: the profile would replace what the app wrote", hint="-o names another file")
    with open_bundle(bundle) as opened:
        made = profile_from_app(opened, result, path)
    write_profile(made, path)
    return made, path


def _keep(made: list[Profile], db: str | None) -> None:
    """Add profiles to the history; what was measured is not lost where that fails."""
    from ..profile.history import History

    try:
        with History(db) as history:
            for each in made:
                history.add(each)
    except EdgeError as failure:
        hint = f" ({failure.hint})" if failure.hint else ""
        echo(f"Note: not kept in the history: {failure.message}{hint}", err=True)


def show(made: Profile) -> None:
    """A profile as tables."""
    where = f"{made.device.name} ({made.device.model})" if made.device.model else made.device.name
    echo(f"{made.bundle.model} {made.bundle.recipe} on {where}, {made.runtime}: {made.validity}")
    for each in made.reasons:
        echo(f"  {each.code}: {each.text}")
    headers = ["", "unit", *(case.title for case in made.cases)]
    rows = []
    for name, (title, scale, unit) in _ROWS.items():
        values = [_values(case)[name] for case in made.cases]
        if any(value.value is not None for value in values):
            ticks = values[0].unit in ("ticks", "tokens/tick")
            shown = values[0].unit if ticks else unit
            rows.append([title, shown, *(_cell(value, 1 if ticks else scale) for value in values)])
    print_table(headers, rows)
    others = {"Load": (made.load, "seconds", 1e3, "ms"), "Peak RSS": (made.memory, "peak_rss", 1e-6, "MB")}
    others["PSS"] = (made.memory, "pss", 1e-6, "MB")
    others["Idle power"] = (made.idle, "power", 1, "W")
    others["Sampler, of one core"] = (made.sampler, "cpu_share", 100, "%")
    for title, (section, name, scale, unit) in others.items():
        value = section.values.get(name)
        if value is not None:
            echo(f"{title}: {_cell(value, scale)} {unit}" if value.value is not None else f"{title}: {_why(value)}")
    echo(f"Energy: {made.energy_scope or _why(made.cases[0].energy.values['decode_energy'])}")
    echo(f"Throttling: {made.throttling.verdict}{''.join(f'; {each}' for each in made.throttling.evidence)}")


def _values(case: Case) -> dict[str, Value]:
    return {**case.latency.values, **case.energy.values, **case.temperature.values}


def _cell(value: Value, scale: float) -> str:
    if value.value is None:
        return _why(value)
    middle = f"{value.value * scale:.4g}"
    if value.low is None or value.high is None:
        return middle
    return f"{middle} [{value.low * scale:.4g}, {value.high * scale:.4g}]"


def _why(value: Value) -> str:
    return f"none ({value.reason})"
