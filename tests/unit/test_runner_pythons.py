"""The runner that boards get is Python 3.8 to every letter: JetPack 5 has that, and Debian 11 has 3.9."""

from __future__ import annotations

import ast
import io
import sys
import zipfile
from collections.abc import Iterator

import pytest

from edgesdk.converter import CONVERTERS
from edgesdk.devices.runner.archive import runner_archive

vermin = pytest.importorskip("vermin", reason="vermin is not installed")
OLDEST = (3, 8)
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
    config = vermin.Config()
    config.set_eval_annotations(False)
    visitor = vermin.visit(text, config=config)
    assert (visitor.minimum_versions()[1] or OLDEST) <= OLDEST, visitor.output_text()
    assert newer(text) == []


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
    assert sys.version_info >= (3, 11)
