"""The README's help text and support table are what the program says. EDGESDK_WRITE_README=1 rewrites them."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from click.testing import CliRunner

from edgesdk.cli import edgesdk
from edgesdk.kinds import DECODER
from edgesdk.model.families import FAMILIES
from edgesdk.model.support import RUNTIMES, numbered, support
from edgesdk.targets import open_target, target_names

GGUF_AS = {"mistral": "as llama"}
README = Path(__file__).parents[2] / "README.md"


def help_block() -> str:
    shown = CliRunner().invoke(edgesdk, ["--help"], prog_name="edgesdk", terminal_width=100).output
    return "\n".join(f"    {line}".rstrip() for line in shown.rstrip().splitlines())


def support_table() -> str:
    found, reasons = numbered(family for family in support() if family.kind == DECODER)
    rows = [["family", "GGUF", *RUNTIMES], ["---"] * (2 + len(RUNTIMES))]
    for name in FAMILIES.names():
        gguf = "yes" if FAMILIES.get(name).gguf_architectures else GGUF_AS.get(name, "")
        rows.append([name, gguf, *found[name]])
    targets = [open_target(name) for name in target_names()]
    lines = [f"- `{target.name}`: {target.description} ({target.converter})" for target in targets]
    return "\n\n".join([table(rows), legend(reasons), "\n".join(lines)])


def others_table() -> str:
    runtimes = [runtime for runtime in RUNTIMES if runtime != "tflm"]  # of decoders alone
    others = [family for family in support() if family.kind != DECODER]
    found, reasons = numbered(others, runtimes)
    rows = [["family", "kind", *runtimes], ["---"] * (2 + len(runtimes))]
    rows += [[family.name, family.kind, *found[family.name]] for family in others]
    return table(rows) + "\n\n" + legend(reasons)


def legend(reasons: list[str]) -> str:
    """One paragraph of what is not built."""
    return textwrap.fill(f"Not built: {'; '.join(reasons)}.", 120, break_long_words=False)


def table(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def section(text: str, title: str) -> tuple[int, int]:
    """Where the generated part of a section lies: from its heading to the first blank line followed by prose."""
    start = text.index(f"# {title}\n\n") + len(f"# {title}\n\n")
    ends = {
        "Commands": "\n\nAll commands",
        "Families and targets": "\n\nEach family",
        "Models that are no decoders": "\n\n    $ edgesdk",
    }
    return start, text.index(ends[title], start)


def test_generated_sections_are_current() -> None:
    text = README.read_text(encoding="utf-8")
    sections = {
        "Commands": help_block(),
        "Families and targets": support_table(),
        "Models that are no decoders": others_table(),
    }
    for title, wanted in sections.items():
        start, stop = section(text, title)
        if os.environ.get("EDGESDK_WRITE_README"):
            text = text[:start] + wanted + text[stop:]
            README.write_text(text, encoding="utf-8")
            continue
        assert text[start:stop] == wanted, f"README section '{title}': run with EDGESDK_WRITE_README=1"


def test_families_are_counted() -> None:
    assert f"\n{len(FAMILIES.names())} decoder families" in README.read_text(encoding="utf-8")
