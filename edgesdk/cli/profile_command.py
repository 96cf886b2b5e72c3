"""``edgesdk profile``: measure a bundle on a device."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .device_options import chosen_device, device_option, fleet_option
from .terminal import TerminalProgress, json_option, print_json, print_table

if TYPE_CHECKING:
    from ..profile.schema import Plan, Profile

_ROWS = {
    "time_to_first_token": ("Time to first token", 1e3, "ms"),
    "prefill_rate": ("Prefill", 1, "tokens/s"),
    "decode_rate": ("Decode", 1, "tokens/s"),
    "token_p50": ("Token latency p50", 1e3, "ms"),
    "token_p90": ("Token latency p90", 1e3, "ms"),
    "token_p99": ("Token latency p99", 1e3, "ms"),
    "decode_power": ("Power, decode", 1, "W"),
    "prefill_energy": ("Energy, prefill", 1e3, "mJ/token"),
    "decode_energy": ("Energy, decode", 1e3, "mJ/token"),
    "efficiency": ("Efficiency", 1, "tokens/J"),
    "peak": ("Hottest zone", 1, "°C"),
}


class Counts(click.ParamType):
    """Whole numbers with commas between."""

    name = "N,N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            found = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers, such as 128,512", param, ctx)
        if any(number < 1 for number in found):
            self.fail("numbers must be 1 or more", param, ctx)
        return tuple(dict.fromkeys(found))


class Span(click.ParamType):
    """A length of time: 90, 90s, 10m, 1h; in seconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h)?", str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no length of time, such as 90s or 10m", param, ctx)
        return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2] or "s"]


class Celsius(click.ParamType):
    """A temperature: 35 or 35C."""

    name = "CELSIUS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        found = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*°?[cC]?", str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no temperature, such as 35C", param, ctx)
        return float(found[1])


@click.command("profile")
@click.argument("bundle", type=click.Path(path_type=Path))
@device_option
@fleet_option
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Profile to write.  [default: BUNDLE-DEVICE.json]")
@click.option("--prompt-tokens", type=Counts(), default="128", show_default=True, help="Lengths of prompts.")
@click.option("--new-tokens", type=click.IntRange(1), default=64, show_default=True, help="Tokens of every answer.")
@click.option("--threads", type=Counts(), help="Threads of the runtime.  [default: its own choice]")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Of every case.")
@click.option("--warmup", type=click.IntRange(0), default=2, show_default=True, help="Runs that are not counted.")
@click.option("--cooldown-to", type=Celsius(), help="Wait before every repeat until the hottest zone is as cool.")
@click.option("--sustained", type=Span(), help="Repeat the first case for so long without rest, to see what heat does.")
@click.option("--interval", type=Span(), default="0.1", show_default=True, help="Between two looks at the sensors.")
@click.option("--idle", type=Span(), default="3", show_default=True, help="Rest whose power is the baseline.")
@click.option("--meter", "meters", multiple=True, metavar="URL", help="External meter (edgesdk sensors --meters).")
@click.option("--quick", is_flag=True, help="Latency alone: no memory, operators or cost of the sampler.")
@click.option("--commit", envvar="EDGESDK_COMMIT", help="What the model or app was made from, for the history.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the HTML report too.")
@click.option("--history/--no-history", default=True, show_default=True, help="Keep it in the history.")
@json_option
def command(
    bundle: Path,
    device: str | None,
    fleet: Path | None,
    out: Path | None,
    prompt_tokens: tuple[int, ...],
    new_tokens: int,
    threads: tuple[int, ...] | None,
    repeats: int,
    warmup: int,
    cooldown_to: float | None,
    sustained: float | None,
    interval: float,
    idle: float,
    meters: tuple[str, ...],
    quick: bool,
    commit: str | None,
    report: Path | None,
    history: bool,
    as_json: bool,
) -> int:
    """Measure BUNDLE on a device: latency, memory, temperature, power.

    The raw record lies beside the profile; a run that was broken off goes on when the same command runs again.
    """
    from ..profile.schema import Plan

    plan = Plan(
        prompt_tokens,
        new_tokens,
        threads or (None,),
        repeats,
        warmup,
        cooldown_to,
        idle=idle,
        sustained=sustained,
        interval=interval,
        memory=not quick,
        cost=0 if quick else 3,
        operators=not quick,
    )
    made, path = _measured(bundle, device, fleet, out, plan, meters, commit)
    if history:
        from ..profile.history import History

        History().add(made)
    if report is not None:
        from ..profile.report import write_report

        write_report([made], report)
    if as_json:
        print_json(made)
    else:
        show(made)
        click.echo(f"\nProfile: {path}")
    return 1 if made.validity == "invalid" else 0


def _measured(
    bundle: Path,
    device: str | None,
    fleet: Path | None,
    out: Path | None,
    plan: Plan,
    meters: tuple[str, ...],
    commit: str | None,
) -> tuple[Profile, Path]:
    from ..bundle import open_bundle
    from ..profile.profiling import profile
    from ..profile.sensors.meters import open_meter

    progress = TerminalProgress()
    opened = [open_meter(each) for each in meters]
    with open_bundle(bundle, progress=progress) as found, chosen_device(device, fleet, "edgesdk profile") as place:
        path = out or Path(f"{bundle.name.removesuffix('.zip')}-{re.sub(r'[^A-Za-z0-9.-]+', '_', place.name)}.json")
        return profile(place, found, path, plan, meters=opened, commit=commit, progress=progress), path


def show(made: Profile) -> None:
    """A profile as tables."""
    where = f"{made.device.name} ({made.device.model})" if made.device.model else made.device.name
    click.echo(f"{made.bundle.model} {made.bundle.recipe} on {where}, {made.runtime}: {made.validity}")
    for each in made.reasons:
        click.echo(f"  {each.code}: {each.text}")
    headers = ["", "unit", *(case.title for case in made.cases)]
    rows = []
    for name, (title, scale, unit) in _ROWS.items():
        values = [(case.latency.values | case.energy.values | case.temperature.values)[name] for case in made.cases]
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
            click.echo(
                f"{title}: {_cell(value, scale)} {unit}" if value.value is not None else f"{title}: {_why(value)}"
            )
    click.echo(f"Energy: {made.energy_scope or _why(made.cases[0].energy.values['decode_energy'])}")
    click.echo(f"Throttling: {made.throttling.verdict}{''.join(f'; {each}' for each in made.throttling.evidence)}")


def _cell(value: Any, scale: float) -> str:
    if value.value is None:
        return _why(value)
    middle = f"{value.value * scale:.4g}"
    if value.low is None:
        return middle
    return f"{middle} [{value.low * scale:.4g}, {value.high * scale:.4g}]"


def _why(value: Any) -> str:
    return f"none ({value.reason})"
