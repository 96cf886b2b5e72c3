"""The bytes of every program that the matrix's tests make: for changes that must leave programs as they are.

    python -m tests.program_hashes write FILE
    python -m tests.program_hashes compare BEFORE AFTER

Hashes hold on one machine with one set of packages: weights are drawn and rounded there. Write them before a change and
after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FILES = (
    *("families", "families_executorch", "executorch_families", "executorch_states", "tflite_families", "cortex_m"),
    *("encoders", "seq2seq", "vision", "onnx_exact", "executorch_exact", "tflite_exact", "adapters", "family_passes"),
)
_VARIABLE = "EDGESDK_PROGRAM_HASHES"
_test = ""
_numbers: Counter[str] = Counter()


def pytest_configure(config: pytest.Config) -> None:
    """As a plugin: note what every converter writes."""
    from edgesdk.converter import CONVERTERS

    found: dict[type[Any], None] = {}
    for name in CONVERTERS.names():
        converter: Any = CONVERTERS.get(name)
        found |= dict.fromkeys(type(each) for each in (converter, *getattr(converter, "kinds", {}).values()))
    for each in found:
        if "convert" in vars(each):
            each.convert = _noted(each.convert, each.__name__)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Programs are known by the test that asks for them."""
    global _test
    _test = item.nodeid
    return (yield)  # type: ignore[return-value]


def _noted(convert: Any, name: str) -> Any:
    def convert_and_note(self: Any, model: Any, options: Any, folder: Path, *more: Any) -> Any:
        before = _stamps(folder)
        program = convert(self, model, options, folder, *more)
        written = [path for path, stamp in sorted(_stamps(folder).items()) if before.get(path) != stamp]
        files = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in written}
        key = f"{_test} {name}"
        _numbers[key] += 1
        with Path(f"{os.environ[_VARIABLE]}.{os.getpid()}").open("a", encoding="utf-8") as out:
            out.write(json.dumps([f"{key} {_numbers[key]}", files]) + "\n")
        return program

    return convert_and_note


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def write(file: Path) -> int:
    """Run the tests, and write the hashes of what they made; the tests' status."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, _VARIABLE: f"{folder}/hashes", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(name).resolve()) for name in (".", "converters"))
        tests = [f"tests/unit/test_{name}.py" for name in FILES]
        options = ["-q", "-n", "2", "--dist", "loadfile", "-p", "tests.program_hashes"]
        status = subprocess.run([sys.executable, "-m", "pytest", *options, *tests], env=environment, check=False)
        lines = [line for part in Path(folder).iterdir() for line in part.read_text(encoding="utf-8").splitlines()]
    file.write_text(json.dumps(dict(sorted(map(json.loads, lines))), indent=1) + "\n", encoding="utf-8")
    print(f"{len(lines)} programs in {file}")
    return status.returncode


def compare(before: Path, after: Path) -> int:
    """Say which programs differ; 1 where some do."""
    old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (before, after))
    other = [key for key in old.keys() & new.keys() if old[key] != new[key]]
    for key in sorted(other):
        names = sorted(name for name in {*old[key], *new[key]} if old[key].get(name) != new[key].get(name))
        print(f"differs: {key}: {', '.join(names)}")
    for word, keys in (("gone", old.keys() - new.keys()), ("new", new.keys() - old.keys())):
        for key in sorted(keys):
            print(f"{word}: {key}")
    print(f"{len(old.keys() & new.keys()) - len(other)} programs equal, {len(other)} differ")
    return int(old != new)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", name]:
            sys.exit(write(Path(name)))
        case ["compare", first, second]:
            sys.exit(compare(Path(first), Path(second)))
        case _:
            sys.exit(__doc__)
