"""Pythons of boards: their runner is Python 3.8 to every letter (JetPack 5 has that, and Debian 11 has 3.9), and the
service is made of edgesdk's own modules, which are Python 3.10 (JetPack 6)."""

from __future__ import annotations

import ast
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgesdk
import edgesdk_converters
from edgesdk.converter import CONVERTERS
from edgesdk.devices.runner.archive import runner_archive

vermin = pytest.importorskip("vermin", reason="vermin is not installed")
OLDEST = (3, 8)
OF_THE_SERVICE = (3, 10)
_BUILT_IN = {"list", "dict", "tuple", "set", "frozenset", "type"}


def modules() -> dict[str, str]:
    """Every module that any runner takes along."""
    found = {}
    for name in CONVERTERS.names():
        on_device = CONVERTERS.get(name).on_device
        if on_device is not None:
            with zipfile.ZipFile(io.BytesIO(runner_archive(on_device))) as archive:
                found |= {path: archive.read(path).decode() for path in archive.namelist() if path.endswith(".py")}
    return found


MODULES = modules()


def own_modules() -> list[Path]:
    """All modules that a service's package takes along."""
    return [path for root in (edgesdk, edgesdk_converters) for path in sorted(Path(root.__path__[0]).rglob("*.py"))]


def oldest(text: str) -> tuple[int, ...]:
    """The Python that a module needs, by what it uses of the language and its library."""
    config = vermin.Config()
    config.set_eval_annotations(False)
    config.add_exclusion("long")  # a name of ours; Python 2 had a type of that name
    config.add_exclusion("tomllib")  # `edgesdk.toml` takes another where there is none
    found: tuple[int, ...] | None = vermin.visit(text, config=config).minimum_versions()[1]
    return found or OLDEST


def at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run: no annotations, and nothing that is for type checkers alone."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            if isinstance(node, ast.AST):
                yield node
                yield from at_run_time(node)


def newer(text: str) -> list[str]:
    """What a module does at run time that Python 3.8 cannot and vermin does not see: generics, unions of classes."""
    tree = ast.parse(text)
    abstract = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("collections")
        for alias in node.names
    }
    found = []
    for node in at_run_time(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            if node.value.id in abstract | _BUILT_IN:
                found.append(ast.unparse(node))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            names = [side.id for side in (node.left, node.right) if isinstance(side, ast.Name)]
            if len(names) == 2 and all(name[:1].isupper() for name in names):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", MODULES)
def test_a_module_of_the_runner_runs_in_python_3_8(path: str) -> None:
    text = MODULES[path]
    ast.parse(text, feature_version=OLDEST)
    assert "from __future__ import annotations" in text or not ast.parse(text).body
    assert oldest(text) <= OLDEST
    assert newer(text) == []


def test_the_modules_of_the_service_run_in_python_3_10() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in own_modules()}
    assert len(texts) > 300
    for text in texts.values():
        ast.parse(text, feature_version=OF_THE_SERVICE)
    assert {path: found for path, text in texts.items() if (found := oldest(text)) > OF_THE_SERVICE} == {}
    assert [path.name for path, text in texts.items() if "import tomllib" in text] == ["toml.py"]


def test_the_check_sees_what_is_newer() -> None:
    head = "from __future__ import annotations\nfrom collections.abc import Callable\n"
    assert newer(head + "A = Callable[[int], int]\nB = list[int]\nC = Some | Other\n") == [
        "Callable[[int], int]",
        "list[int]",
        "Some | Other",
    ]
    assert newer(head + "def f(a: list[int] | None) -> dict[str, int]: ...\nx: list[int] = []\ny = {1} | {2}\n") == []
    with pytest.raises(SyntaxError):
        ast.parse("with (open(a) as b, open(c) as d): pass", feature_version=OLDEST)
    assert oldest("import asyncio\nasync def f(): \n    async with asyncio.timeout(1): ...") > OF_THE_SERVICE
    assert oldest("from datetime import UTC\n") > OF_THE_SERVICE and oldest("from typing import Self\n") > (3, 10)
    assert sys.version_info >= (3, 11)
