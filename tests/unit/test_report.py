"""The report, as a browser shows it: nothing loaded, nothing run, nothing too wide, nothing taken for HTML."""

from __future__ import annotations

import dataclasses
import html
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgesdk.cli.report_command import command
from edgesdk.errors import EdgeError
from edgesdk.profile.report import write_report
from edgesdk.profile.report.page import render
from edgesdk.profile.report.svg import Span, span, thinned
from edgesdk.profile.report.words import number, scale
from edgesdk.profile.schema import Profile, Value, write_profile

from .profile_samples import HOSTILE, cool, degraded, hostile, long_run, microcontroller, no_sensors, profile

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (Debian: chromium)")
PAGES: dict[str, Callable[[], list[Profile]]] = {
    "one": lambda: [profile()],
    "degraded": lambda: [degraded()],
    "no sensors": lambda: [no_sensors()],
    "microcontroller": lambda: [microcontroller()],
    "hostile": lambda: [hostile()],
    "two": lambda: [profile(), cool(seed=2, speed=1.3)],
    "four": lambda: [profile(), degraded(), no_sensors(), microcontroller()],
}


@pytest.fixture(scope="module", params=PAGES)
def page(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(PAGES[request.param](), path)
    return path


def chromium(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    line += ["--enable-logging=stderr", "--virtual-time-budget=2000", f"--user-data-dir={folder / 'browser'}"]
    return subprocess.run([*line, *arguments], capture_output=True, text=True, timeout=120, check=True)


def screenshot(page: Path, to: Path, width: int, *arguments: str) -> bytes:
    chromium(page.parent, f"--window-size={width},1600", f"--screenshot={to}", *arguments, page.as_uri())
    return to.read_bytes()


def said(profiles: Sequence[Profile]) -> str:
    """The page's text."""
    text = re.sub(r"<style>.*?</style>|<svg.*?</svg>", " ", render(profiles), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


def test_nothing_is_loaded_or_run(page) -> None:
    text = html.unescape(page.read_text(encoding="utf-8").partition("<title>")[0])
    assert "default-src 'none'; style-src 'sha256-" in text
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img|iframe|object|embed|base|form|use|image|foreignObject)\b", text, re.I)
    tags = re.findall(r"<[a-zA-Z][^>]*>", text)
    assert tags and not [tag for tag in tags if re.search(r"\s(src|href|style|xlink:href|on\w+)\s*=", _unquoted(tag))]
    assert "@import" not in text and "url(" not in text
    assert len(text.encode()) < 2_000_000


def _unquoted(tag: str) -> str:
    return re.sub(r'"[^"]*"', '""', tag)


def test_drawings_are_well_formed_and_named(page) -> None:
    drawings = re.findall(r'<svg role="img".*?</svg>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert drawings
    names = []
    for each in drawings:
        root = ET.fromstring(each)
        names += [child.attrib["id"] for child in root[:2]]
        assert [child.tag for child in root[:2]] == ["title", "desc"] and root[1].text
        assert "nan" not in each.replace("dominant", "") and "inf" not in re.sub(r"<(title|desc).*?</\1>", "", each)
    assert len(names) == len(set(names))


@browser
def test_no_error_and_no_overflow_on_a_phone(page, tmp_path) -> None:
    """In a frame of 360 pixels, whose script measures what is wider than it."""
    inner = page.read_text(encoding="utf-8").replace("&", "&amp;").replace('"', "&quot;")
    (tmp_path / "outer.html").write_text(
        f'<!doctype html><meta charset=utf-8><p id=out></p><iframe id=f width=360 height=700 srcdoc="{inner}"></iframe>'
        "<script>f.onload=()=>{const d=f.contentDocument,r=d.documentElement;out.textContent="
        "[d.defaultView.innerWidth,r.scrollWidth,d.querySelectorAll('script,img').length,getComputedStyle(d.body)"
        ".maxWidth,[...d.querySelectorAll('svg')].filter(e=>e.getBoundingClientRect().right>361&&!e.closest('.scroll'))"
        ".length].join(' ')}</script>",
        encoding="utf-8",
    )
    done = chromium(tmp_path, "--window-size=800,900", "--dump-dom", (tmp_path / "outer.html").as_uri())
    found = re.search(r'<p id="out">(.*?)</p>', done.stdout)
    assert found is not None
    inside, wide, foreign, most, beyond = found[1].split()
    assert 340 <= int(inside) <= 364 and int(wide) <= int(inside)
    assert most == "1080px", "the policy must let its own style in"
    assert (foreign, beyond) == ("0", "0")
    assert "CONSOLE" not in done.stderr


@browser
def test_light_dark_and_paper(page, tmp_path) -> None:
    light = screenshot(page, tmp_path / "light.png", 1280, "--blink-settings=preferredColorScheme=1")
    dark = screenshot(page, tmp_path / "dark.png", 1280, "--blink-settings=preferredColorScheme=0")
    assert light != dark and min(len(light), len(dark)) > 20_000
    chromium(tmp_path, f"--print-to-pdf={tmp_path / 'a.pdf'}", "--no-pdf-header-footer", page.as_uri())
    assert (tmp_path / "a.pdf").read_bytes()[:5] == b"%PDF-"


def test_contrast() -> None:
    """Every colour of text is readable on every ground it stands on, in light and in dark."""
    css = (Path(sys.modules["edgesdk.profile.report"].__file__ or "").parent / "page.css").read_text()
    for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        for name in ("text", "muted", "valid", "degraded", "invalid"):
            assert _contrast(colours[name], colours["back"]) >= 4.5, name
        for name in ("text", "muted"):
            assert _contrast(colours[name], colours["warn"]) >= 4.5, name
        for name in ("idle", "prefill", "decode"):
            assert _contrast(colours["text"], colours[name]) >= 4.5, name
        for name in (f"c{i}" for i in range(6)):
            assert all(_contrast(colours[name], colours[on]) >= 3 for on in ("back", "idle", "prefill", "decode")), name


def _contrast(a: str, b: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        line = [each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
        return 0.2126 * line[0] + 0.7152 * line[1] + 0.0722 * line[2]

    low, high = sorted((light(a), light(b)))
    return (high + 0.05) / (low + 0.05)


def test_hostile_names_stay_text() -> None:
    for profiles in ([hostile()], [profile(), hostile()]):
        text = render(profiles)
        assert "&lt;script&gt;" in text and "{{ 7*7 }}" in text
        assert "<script" not in text and "<img" not in text and "<svg onload" not in text
        assert "\u202e" not in text and "\x00" not in text and "\ud800" not in text
    assert HOSTILE not in render([hostile()])


def test_figures_and_their_intervals() -> None:
    it = profile()
    value = it.cases[0].latency.values["token_p50"]
    text = said([it])
    assert f"{value.value * 1e3:.2f} {value.low * 1e3:.2f} \u2013 {value.high * 1e3:.2f}" in text
    assert "degraded" in text and "throttling: throttled" in text and "972 MHz of 1728 MHz" in text
    assert "n = 2" in said([degraded()])
    for fact in (it.device.identity, "schedutil", "ina3221", "400 µs", "board: VDD_IN", it.bundle.digest):
        assert fact in text


def test_what_is_missing_says_why() -> None:
    text = said([no_sensors()])
    assert "No temperature \u2013 the device has no such sensor, or does not let this user read it no-sensor" in text
    assert "No power \u2013" in text and "No clocks \u2013 this device cannot run the sampler" in text
    assert "No memory \u2013 the runner does not report it" in text and "No operators of decode \u2013" in text
    assert "— no-sensor" in text and "No sensor was found." in text
    silent = dataclasses.replace(profile(), stretches=(), operators=())
    assert "No token latency \u2013" in said([silent])
    nothing = dataclasses.replace(no_sensors(), stretches=(), cases=())
    assert "No run or sensor with times \u2013" in said([nothing])


def test_emulated_time_is_no_time_of_a_device() -> None:
    text = said([microcontroller()])
    assert "EMULATED TIME QEMU 8.2 mps2-an386 . No time on this page is a device's." in text
    assert text.count("emulated time") > 5
    assert not re.search(r"\d (ms|µs|s)\b", text.partition("Environment")[0].partition("Summary")[2])
    both = said([profile(), dataclasses.replace(cool(), device=dataclasses.replace(cool().device, emulated="QEMU"))])
    latency = both.partition(" latency valid")[2].partition(" energy ")[0]
    assert "\u00d7" not in latency and "emulated" in latency


def test_ratios_and_what_differs() -> None:
    a, b = (
        profile(),
        dataclasses.replace(cool(seed=2, speed=1.3), energy_scope="battery", regime={"governor": "powersave"}),
    )
    text = said([a, b])
    assert "These profiles differ in bundle, regime, energy scope." in text
    ratio = b.cases[0].latency.values["token_p50"].value / a.cases[0].latency.values["token_p50"].value
    assert f"\u00d7 {ratio:.3f}" in text and "intervals overlap" in text
    assert "Not like for like" not in said([a, a]) and "\u00d7 1.00" in said([a, a])
    assert "\u00d7" not in said([a]).partition("Summary")[2].partition("Over time")[0]


def test_long_runs_are_thinned(tmp_path) -> None:
    long = long_run()
    assert sum(len(it.tokens) for it in long.stretches) > 5000 and len(long.series) == 20
    write_report([long], tmp_path / "a.html")
    write_report([long, dataclasses.replace(long, commit="b")], tmp_path / "b.html")
    assert max((tmp_path / name).stat().st_size for name in ("a.html", "b.html")) < 2_000_000


def test_thinning_keeps_extremes_and_gaps() -> None:
    points = [(float(i), float(i % 7)) for i in range(10_000)]
    points[5000] = (5000.0, 99.0)
    points[7000] = (7000.0, None)
    lines = thinned(points, Span(0, 10_000), 100)
    assert len(lines) == 2 and sum(len(line) for line in lines) <= 4 * 102
    assert (5000.0, 99.0) in lines[0] and lines[0][0] == (0.0, 0.0) and lines[1][-1] == points[-1]


def test_numbers_and_axes() -> None:
    assert [number(it) for it in (0, 6.04e-6, 0.031, 31.4159, 12345.6, -1.5, float("nan"))] == [
        "0", "6.040e\u221206", "0.03100", "31.42", "12\u202f346", "\u22121.500", "—"]  # fmt: skip
    shown = [(scale([value], unit).unit) for value, unit in (
        (0.031, "s"), (7e-5, "s"), (1.7e9, "Hz"), (3e8, "B"), (0.2, "J/token"), (5e6, "ticks"),
        (0.5, "1"))]  # fmt: skip
    assert shown == ["ms", "µs", "GHz", "MiB", "mJ/token", "ticks", ""]
    for values in ([], [0.0], [5.0, 5.0], [-1e-9, 1e9]):
        assert 1 <= len(span(values, zero=True).ticks(4)) <= 12


def test_values_that_are_no_numbers_are_drawn_around() -> None:
    it = profile()
    nan = float("nan")
    bad = dataclasses.replace(it.series[0], values=(nan, float("inf"), None, *it.series[0].values[3:]))
    latency = dataclasses.replace(it.cases[0].latency, values={"token_p50": Value(nan, "s")})
    case = dataclasses.replace(it.cases[0], latency=latency)
    text = render([dataclasses.replace(it, series=(bad, *it.series[1:]), cases=(case,))])
    assert 'd="Mnan' not in text and "Lnan" not in text


def test_refusals(tmp_path) -> None:
    with pytest.raises(EdgeError, match="a report needs a profile"):
        write_report([], tmp_path / "a.html")
    with pytest.raises(EdgeError, match="7 profiles: a page tells 6 apart"):
        write_report([profile()] * 7, tmp_path / "a.html")
    with pytest.raises(EdgeError, match="no such folder"):
        write_report([profile()], tmp_path / "none" / "a.html")
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path) -> None:
    for name, each in (("a", profile()), ("b", cool(seed=2))):
        write_profile(each, tmp_path / f"{name}.json")
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    outputs = [str(tmp_path / name) for name in ("r.html", "r.csv", "r.md")]
    line = [*files, "-o", outputs[0], "--csv", outputs[1], "--markdown", outputs[2]]
    done = CliRunner().invoke(command, line, catch_exceptions=False)
    assert done.exit_code == 0 and done.stdout == "".join(f"Wrote {path}.\n" for path in outputs)
    assert "2 profiles compared" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert (tmp_path / "r.md").read_text(encoding="utf-8").count("# Qwen/") == 2
    assert CliRunner().invoke(command, files).exit_code == 2
