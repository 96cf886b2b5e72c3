"""What transformers' own classes say of a ``config.json``: the defaults of its keys, and which keys mean anything.

A key that a checkpoint leaves out has the default of its family's own configuration class, and no other. Those defaults
are data (``published.json``), made from an installed transformers by ``python -m tests.published_classes``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..toml import toml_tables
from .config import Config, short

FILE = Path(__file__).with_name("published.json")
_INERT_FILE = Path(__file__).with_name("inert.toml")
#: Keys that count whatever a class knows: what a checkpoint is, and how long a text it was trained for.
_ALWAYS = frozenset(
    {"model_type", "architectures", "quantization_config", "seq_length", "original_max_position_embeddings"}
)


@dataclass(frozen=True)
class Published:
    """One ``model_type`` of transformers.

    Attributes:
        name: of the configuration class.
        network: the class that generates text, or None: there is none.
        defaults: what keys have that a checkpoint leaves out (null ones are left out here).
        nullable: keys that may be null.
        renamed: other names of keys, which mean the same.
        further: keys that are no fields of the class but that it, or its network, asks for.
        theta: base of the rotary positions where nothing says one; by layer type where those differ.
        whole_heads: its network has rotary positions, and turns whole heads whatever ``partial_rotary_factor`` says.
        ignored: patterns of tensors that its network passes over.
        sections: the ``model_type`` of parts with a configuration of their own.
    """

    name: str
    network: str | None = None
    defaults: dict[str, Any] = field(default_factory=dict)
    nullable: Sequence[str] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    further: Sequence[str] = ()
    theta: float | dict[str, float] | None = None
    whole_heads: bool = False
    ignored: Sequence[str] = ()
    sections: dict[str, str] = field(default_factory=dict)

    def knows(self, key: str) -> bool:
        """Whether a key means something to the class or its network."""
        return key in self.defaults or key in self.nullable or key in self.further or key in self.sections


@cache
def published_types() -> dict[str, Published]:
    """Every ``model_type`` of the families here that transformers has."""
    data = json.loads(FILE.read_text(encoding="utf-8"))
    return {kind: Published(**record) for kind, record in data["types"].items()}


@cache
def inert_keys() -> frozenset[str]:
    """Keys that change no logits of a generator (``inert.toml``)."""
    return frozenset(key for keys in toml_tables(_INERT_FILE.read_text("utf-8")).values() for key in keys)


def published_ignored(kind: str) -> Sequence[str]:
    """Patterns of tensors that the published network of a ``model_type`` passes over."""
    record = published_types().get(kind)
    return () if record is None else record.ignored


def completed(config: Config) -> Config:
    """A checkpoint's configuration with its class's defaults, without the keys that its class does not know.

    A ``model_type`` that transformers does not have stays as it is.

    Raises:
        ModelError: a key that cannot be null is, or one value stands under two names with two values.
    """
    record = published_types().get(str(config.values.get("model_type")))
    if record is None:
        return config
    theta = record.theta if isinstance(record.theta, float) else None
    return Config(
        _merged(record, config.values, config.where), config.where, theta=theta, whole_heads=record.whole_heads
    )


def _merged(record: Published, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    merged = dict(record.defaults)
    for key, value in values.items():
        name = record.renamed.get(key, key)
        if name != key and name in values and values[name] != value:
            raise ModelError(
                f"{where}: '{key}' is {value!r} and '{name}' is {values[name]!r}, which are two names of the same",
                hint="remove the one that does not belong to the weights",
            )
        if value is None and name in record.defaults and name not in record.nullable:
            raise ModelError(
                f"{where}: '{key}' is null, which {record.name} of transformers does not take",
                hint=f"give its value, or remove the key: it then is {record.defaults[name]!r}",
            )
        if value is None and name == "rope_theta":
            raise ModelError(f"{where}: 'rope_theta' is null", hint="give the base of the rotary positions")
        if name in _ALWAYS or record.knows(name):
            merged[name] = value
    for name, kind in record.sections.items():
        section = values.get(name)
        section = section if isinstance(section, Mapping) else {}
        inner = published_types().get(str(section.get("model_type", kind)))
        merged[name] = section if inner is None else _merged(inner, section, f"{where}: {name}")
    return merged


def passed_over(given: Config, read: Config) -> list[str]:
    """Notes on keys of a checkpoint that nothing here looked at, and that may have a meaning all the same.

    Args:
        given: the file as it is.
        read: what :func:`completed` made of it, after a family read it.

    Raises:
        ModelError: one of them means something to the network that transformers builds, and differs from the default.
    """
    kind = str(given.values.get("model_type"))
    unknown: list[str] = []
    for path, value in _leaves(given.values):
        record, name = _owner(published_types().get(kind), path, given.values)
        parent, _, key = name.rpartition(".")
        if value is None or {key, name, path} & inert_keys() or read.looked_at(name):
            continue
        if parent and not read.looked_into(parent):
            continue  # a network without rotary positions, or a part that is left out as a whole
        if record is None or "rope_" in name or not record.knows(key):
            unknown += [path] if value or record is None else []
        elif record.defaults.get(key) != value:
            default = record.defaults.get(key)
            raise ModelError(
                f"{given.where}: '{path}' is {short(value)}, and edgesdk builds {record.name} with {short(default)} "
                "alone",
                hint="remove the key if the model was trained without it; edgesdk does not build this variant",
            )
    notes = []
    if "auto_map" in given.values and kind in published_types():
        notes.append("config.json names code of its own ('auto_map'), which is not run: transformers' class is read")
    if unknown:
        what = f"the {kind} of transformers does not look at" if kind in published_types() else "nothing here looks at"
        notes.append(f"config.json has keys that {what}: {', '.join(unknown)}")
    return notes


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its value; of sections and of rotary parameters, those inside."""
    for key, value in values.items():
        nested = isinstance(value, Mapping) and key not in inert_keys()
        if nested and (key.startswith("rope_") or key in ("text_config", "vision_config") or path.startswith("rope_")):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield path + key, value


def _owner(record: Published | None, path: str, values: Mapping[str, Any]) -> tuple[Published | None, str]:
    """The class that a key belongs to, and the key's path under the names that families read."""
    first, _, rest = path.partition(".")
    if record is None or not rest:
        return record, record.renamed.get(path, path) if record else path
    if first in record.sections:
        section = values[first] if isinstance(values.get(first), Mapping) else {}
        kind = str(section.get("model_type", record.sections[first]))
        inner, name = _owner(published_types().get(kind), rest, section)
        return inner, f"{first}.{name}"
    return record, path
