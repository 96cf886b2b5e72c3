"""Files that users write: recipes, devices, sweeps, servers' settings, targets; and the records of deliverables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..case import Case, Files, Opener
from ..trees import changed_json, changed_toml


def _toml(name: str, tree: Mapping[str, Any], read: Callable[[Path], object]) -> Opener:
    def opener(folder: Path) -> Case:
        def run(files: Files) -> None:
            (folder / name).write_bytes(files[name])
            read(folder / name)

        return Case(lambda random: {name: changed_toml(random, tree)}, run)

    return opener


def _recipe(path: Path) -> object:
    from edgesdk.compress.recipe import open_recipe

    return open_recipe(str(path)).describe()


def _devices(path: Path) -> object:
    from edgesdk.devices.address import read_fleet

    return read_fleet(path)


def _sweep(path: Path) -> object:
    from edgesdk.sweep.plan import read_sweep

    return read_sweep(path)


def _serve(path: Path) -> object:
    from edgesdk.serve.settings import open_settings

    return open_settings(path)


def _deliverable(folder: Path) -> Case:
    from edgesdk.package.packaging import open_record

    tree = {
        "schema": 1,
        "kind": "firmware",
        "edgesdk": "0.1.0",
        "bundle": "a" * 64,
        "runtime": "x",
        "runtime_versions": ">=1",
        "options": {"board": "mps2"},
        "facts": {"size": "1"},
        "files": [{"path": "README.md", "size": 1, "sha256": "a" * 64}],
    }

    def run(files: Files) -> None:
        (folder / "deliverable.json").write_bytes(files["deliverable.json"])
        open_record(folder)

    return Case(lambda random: {"deliverable.json": changed_json(random, tree)}, run)


def _choices(folder: Path) -> Case:
    """Questions of choice tasks, a line each."""
    from edgesdk.quality.choices import read_choices

    trees = (
        {"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A", "id": "1"},
        {"ctx": "c", "endings": ["a", "b"], "label": "1", "activity_label": "x", "ind": 1},
        {"goal": "g", "sol1": "a", "sol2": "b", "label": 0},
    )

    def run(files: Files) -> None:
        (folder / "choices.jsonl").write_bytes(files["choices.jsonl"])
        read_choices(folder / "choices.jsonl")

    return Case(lambda random: {"choices.jsonl": changed_json(random, random.choice(trees)) + b"\n"}, run)


_SWEEP = {
    "models": ["smollm2-135m"],
    "recipes": ["w4g32", "none"],
    "targets": ["linux-x86_64"],
    "context": 256,
    "devices": ["pi"],
    "calibration": {"file": "text.txt"},
    "checks": {"max_kl": 0.1, "eval_text": "text.txt"},
    "profile": {"prompt_tokens": [128], "repeats": 3},
    "executor": "process",
    "workers": 2,
}
TARGETS: dict[str, Opener] = {
    "recipe": _toml(
        "recipe.toml",
        {
            "name": "x",
            "activations": 8,
            "kv_bits": 8,
            "size": "4bpw",
            "pass": [{"use": "rtn", "bits": 4, "group": 32, "exceptions": {"head": 8}}, {"use": "smoothquant"}],
        },
        _recipe,
    ),
    "devices": _toml(
        "devices.toml",
        {
            "pi": {"address": "ssh:pi@pi.local:22", "key": "k", "store": "/x"},
            "mcu": {"address": "serial:/dev/x"},
        },
        _devices,
    ),
    "sweep": _toml("sweep.toml", _SWEEP, _sweep),
    "serve-settings": _toml("serve.toml", {"host": "127.0.0.1", "port": 8080, "max_tokens": 64, "threads": 2}, _serve),
    "deliverable": _deliverable,
    "choices": _choices,
}
