"""A manifest whose hashes are right and whose plain parts are odd: one error where it is read, whatever the command."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgesdk.bundle import FILE
from edgesdk.cli import run

ODD: list[tuple[str, Any]] = [
    ("program.facts.kind", "nonsense"),
    ("program.facts.kind", {}),
    ("program.facts.kind", ["decoder"]),
    ("program.facts.kind", "encoder"),
    ("program.facts.kind", "vision-language"),
    ("program.facts.boards", {"x": {}}),
    ("program.facts.adapters", [1]),
    ("model.spec", {}),
    ("model.spec.vocab", "x"),
    ("model.spec.vocab", True),
    ("model.spec.vocab", -1),
    ("model.spec.vocab", 10**9),
    ("quality.divergence", {}),
    ("quality.divergence.kl", "x"),
    ("quality.perplexity", {"before": 1}),
    ("parity", [{}]),
    ("parity.0.top1", None),
    ("parity.0.first_divergence", "x"),
]


def odd(bundle: Path, folder: Path, key: str, value: Any) -> Path:
    shutil.copytree(bundle, folder)
    data = json.loads((folder / FILE).read_text(encoding="utf-8"))
    *way, last = (int(part) if part.isdigit() else part for part in key.split("."))
    inner = data
    for part in way:
        inner = inner[part]
    inner[last] = value

    def text() -> str:
        return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    data["digest"] = ""
    data["digest"] = hashlib.sha256(text().encode()).hexdigest()
    (folder / FILE).write_text(text(), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("key", "value"), ODD)
def test_odd_parts_are_refused(
    key: str, value: Any, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(odd(bundle, tmp_path / "odd", key, value))
    for command in (["inspect", folder], ["verify", folder], ["run", folder, "hi"], ["doctor", folder]):
        assert run(command) == 1, command
        assert "manifest.json" in capsys.readouterr().err


def test_the_change_itself_does_not_refuse(bundle: Path, tmp_path: Path) -> None:
    data = json.loads((bundle / FILE).read_text(encoding="utf-8"))
    same = odd(bundle, tmp_path / "same", "context", data["context"])
    assert run(["inspect", str(same)]) == 0
