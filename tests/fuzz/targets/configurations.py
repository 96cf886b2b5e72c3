"""``config.json`` of published models: decoders of every family, encoders, encoder-decoders, vision-language models."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from ...conftest import make_checkpoint
from ..case import Case, Files, Opener
from ..trees import changed_json
from .models import opened

_FILE = "config.json"


def _published(folder: Path) -> Case:
    """Configurations alone: the folder has the weights of another model, which most of them notice at their end."""
    from ...unit.hub_configurations import CONFIGURATIONS

    model = make_checkpoint(folder / "model")
    configs = [config for config, _ in CONFIGURATIONS.values()] + [json.loads((model / _FILE).read_text())]

    def make(random: Random) -> Files:
        config = dict(random.choice(configs))
        if random.random() < 0.2:
            config["model_type"] = random.choice(configs)["model_type"]
        return {_FILE: changed_json(random, config)}

    def run(files: Files) -> None:
        (model / _FILE).write_bytes(files[_FILE])
        opened(model)

    return Case(make, run)


def _whole(rows: Callable[[], Mapping[str, Callable[[Path], object]]]) -> Opener:
    """Whole folders of other kinds of models, with another configuration."""

    def opener(folder: Path) -> Case:
        samples: dict[str, dict[str, Any]] = {}
        for name, save in rows().items():
            save(folder / name)
            paths = (folder / name).rglob("*.json")
            kept = {path.relative_to(folder / name).as_posix(): path for path in paths if path.stat().st_size < 20_000}
            samples[name] = {file: json.loads(path.read_text()) for file, path in kept.items()}

        def make(random: Random) -> Files:
            name = random.choice(tuple(samples))
            file = _FILE if random.random() < 0.7 else random.choice(tuple(samples[name]))
            return {f"{name}/{file}": changed_json(random, samples[name][file])}

        def run(files: Files) -> None:
            for path, content in files.items():
                name, _, file = path.partition("/")
                (folder / path).write_bytes(content)
                try:
                    opened(folder / name)
                finally:
                    (folder / path).write_text(json.dumps(samples[name][file]))

        return Case(make, run)

    return opener


def _encoders() -> Mapping[str, Callable[[Path], object]]:
    from ...unit.encoder_rows import ROWS, save_encoder

    return {row.name: lambda folder, row=row: save_encoder(row, folder) for row in ROWS}  # type: ignore[misc]


def _seq2seq() -> Mapping[str, Callable[[Path], object]]:
    from ...unit.seq2seq_rows import ROWS, save_seq2seq

    return {row.name: lambda folder, row=row: save_seq2seq(row, folder) for row in ROWS}  # type: ignore[misc]


def _vision() -> Mapping[str, Callable[[Path], object]]:
    from ...unit.vision_rows import ROWS, save_vision

    return {row.name: lambda folder, row=row: save_vision(row, folder) for row in ROWS}  # type: ignore[misc]


TARGETS: dict[str, Opener] = {
    "config": _published,
    "encoder-config": _whole(_encoders),
    "seq2seq-config": _whole(_seq2seq),
    "vision-config": _whole(_vision),
}
