"""The page, put together."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ... import __version__
from ...errors import EdgeError
from ...files import replacing, writing_failed
from ..reasons import REASONS
from ..schema import Profile
from . import bar_charts, charts, tables
from .charts import NARROW, WIDE, Chart, Named
from .words import clean, emulated, short, time_unit

_FOLDER = Path(__file__).parent
MOST = 6  # profiles that colours tell apart
_HALF = 490


@dataclass(frozen=True)
class Part:
    """A heading with its charts."""

    title: str
    charts: tuple[Chart, ...]
    note: str = ""


def write(profiles: Sequence[Profile], path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        EdgeError: no profile, too many, or the file cannot be written.
    """
    write_page(render(profiles), path)


def write_page(text: str, path: Path) -> None:
    """Write a page's text.

    Raises:
        EdgeError: the file cannot be written.
    """
    if not path.absolute().parent.is_dir():
        raise EdgeError(f"{path.parent}: no such folder", hint="make it, or choose another")
    try:
        with replacing(path) as partial:
            partial.write_bytes(text.encode("utf-8"))
    except OSError as failure:
        raise writing_failed(path, failure) from None


def render(profiles: Sequence[Profile]) -> str:
    """The page as text.

    Raises:
        EdgeError: no profile, or too many.
    """
    if not profiles:
        raise EdgeError("a report needs a profile", hint="edgesdk report PROFILE... -o FILE.html")
    if len(profiles) > MOST:
        hint = "choose fewer, or follow them over time with edgesdk history --trend"
        raise EdgeError(f"{len(profiles)} profiles: a page tells {MOST} apart", hint=hint)
    several = len(profiles) > 1
    named = [Named("ABCDEF"[index], index, each, several) for index, each in enumerate(profiles)]
    found = tables.notes(named)
    text: str = template("page.html").render(
        title=_title(named),
        named=named,
        several=several,
        unreal=[(each, emulated(each.profile)) for each in named if emulated(each.profile)],
        identity=tables.identity(named),
        differences=tables.differences(named) if several else [],
        summaries=tables.summaries(named),
        parts=_parts(named),
        environment=[(title, rows) for title, rows in tables.environment(named) if rows],
        notes=found,
        glossary=[(code, REASONS[code]) for code in sorted(_codes(named)) if code in REASONS],
    )
    return text


def template(name: str) -> Any:
    """A template of this folder, with what every page needs."""
    css = (_FOLDER / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    loaded = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, finalize=_finalize,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    loaded.globals.update(
        css=Markup(css),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        version=__version__,
        wide=WIDE,
        half=_HALF,
        narrow=NARROW,
    )
    return loaded.get_template(name)


def _finalize(value: Any) -> Any:
    return clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _title(named: Sequence[Named]) -> str:
    if len(named) > 1:
        return f"{len(named)} profiles compared"
    bundle, device = named[0].profile.bundle, named[0].profile.device
    return f"{short(bundle.model, 80)} on {short(device.model or device.name, 60)}"


def _codes(named: Sequence[Named]) -> set[str]:
    found = {reason.code for each in named for reason in each.profile.reasons}
    for each in named:
        for _, part in charts.sections(each.profile):
            found |= {reason.code for reason in part.reasons}
            found |= {value.reason for value in part.values.values() if value.reason}
    parts = _parts(named)
    return found | {missing.code for part in parts for chart in part.charts for missing in chart.missing}


def _parts(named: Sequence[Named]) -> list[Part]:
    keys = tables.case_keys(named)
    titles = {key: next(case.title for it in named if (case := tables.find_case(it.profile, key))) for key in keys}
    over = "Seconds since the start of each profile; cooling down and other rest included."
    if all(time_unit(it.profile) == "ticks" for it in named):
        over = "Ticks of the runner's clock since the start of each profile."
    return [
        Part("Over time", tuple(charts.timeline(named)), over),
        Part("Distribution of token latency", tuple(charts.distribution(named, key, titles[key]) for key in keys),
             "Share of decoded tokens at or below a latency; all counted repeats together."),
        Part("Token latency by position", tuple(charts.positions(named, key, titles[key]) for key in keys),
             "Position of the token in the answer; the context grows with it."),
        Part("Memory", (bar_charts.memory(named),)),
        Part("Operators", (bar_charts.operators(named, "prefill"), bar_charts.operators(named, "decode")),
             "Timed in a run of their own: timing them costs time, so sums differ from the latencies above."),
    ]  # fmt: skip
