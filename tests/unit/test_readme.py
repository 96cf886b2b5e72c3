"""READMEs: generated parts are what the program says (EDGESDK_WRITE_README=1 rewrites them); commands and links."""

from __future__ import annotations

import os
import re
import shlex
import textwrap
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgesdk.cli import edgesdk
from edgesdk.kinds import DECODER
from edgesdk.model.families import FAMILIES
from edgesdk.model.support import RUNTIMES, numbered, support
from edgesdk.targets import open_target, target_names

GGUF_AS = {"mistral": "as llama"}
ROOT = Path(__file__).parents[2]
FOLDERS = ("edgesdk", "converters", "targets", "tests", "device_tests", "examples")
READMES = [ROOT / "README.md", *sorted(path for name in FOLDERS for path in (ROOT / name).rglob("README.md"))]
MOST = 10_000  # bytes of the first one
MODELS, COMMANDS = ROOT / "edgesdk" / "model" / "README.md", ROOT / "edgesdk" / "cli" / "README.md"


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


def section(text: str, title: str, end: str) -> tuple[int, int]:
    """Where the generated part of a section lies: from its heading to what comes behind it."""
    start = text.index(f"# {title}\n\n") + len(f"# {title}\n\n")
    return start, text.index(end, start)


@pytest.mark.parametrize(
    ("file", "title", "end", "made"),
    [
        (COMMANDS, "All of them", "\n\nAll commands", help_block),
        (MODELS, "Families and targets", "\n\nEach family", support_table),
        (MODELS, "Models that are no decoders", "\n\n    $ edgesdk", others_table),
    ],
)
def test_generated_sections_are_current(file: Path, title: str, end: str, made: Callable[[], str]) -> None:
    text = file.read_text(encoding="utf-8")
    start, stop = section(text, title, end)
    if os.environ.get("EDGESDK_WRITE_README"):
        file.write_text(text[:start] + made() + text[stop:], encoding="utf-8")
        return
    assert text[start:stop] == made(), f"section '{title}': run with EDGESDK_WRITE_README=1"


def test_the_first_one_is_short_and_counts_families() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= MOST
    assert f"\n{len(FAMILIES.names())} decoder families" in text


def commands(text: str) -> list[str]:
    """The lines of a text that a reader would type, whole where they go on in the next."""
    joined = text.replace("\\\n", " ")
    return re.findall(r"^    \$ (edgesdk .*)$", joined, re.MULTILINE)


@pytest.mark.parametrize("file", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist_with_their_options(file: Path) -> None:
    for line in commands(file.read_text(encoding="utf-8")):
        words = shlex.split(line.partition("  #")[0].partition(" | ")[0])[1:]
        command: click.Command = edgesdk
        context = click.Context(edgesdk, info_name="edgesdk")
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            name = words.pop(0)
            found = command.get_command(context, name)
            assert found is not None, line
            command, context = found, click.Context(found, parent=context, info_name=name)
        try:
            command.make_parser(context).parse_args(words)
        except click.UsageError as failure:
            raise AssertionError(f"{line}: {failure.message}") from None


@pytest.mark.parametrize("file", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]*(?:#[^)]*)?)\)", text):
        place, _, anchor = link.partition("#")
        there = (file.parent / place).resolve() if place else file
        assert there.is_file(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}, link
