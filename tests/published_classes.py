"""What transformers' own configuration classes say, as the data that edgesdk reads checkpoints with.

    python -m tests.published_classes    # writes edgesdk/model/published.json from the installed transformers

A test compares the file with the installed version.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

import torch

from edgesdk.model.encoders import ENCODERS
from edgesdk.model.families import FAMILIES
from edgesdk.model.published import FILE
from edgesdk.model.seq2seq import SEQ2SEQS
from edgesdk.model.vision import VISIONS


def published() -> dict[str, Any]:
    """The file's content: for each model type its class, network, defaults and further keys."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    types: dict[str, Any] = {}
    waiting = sorted(
        kind
        for table in (FAMILIES, ENCODERS, SEQ2SEQS, VISIONS)
        for name in table.names()
        for kind in table.get(name).model_types
    )
    while waiting:
        kind = waiting.pop()
        if kind in types or kind not in CONFIG_MAPPING:
            continue
        types[kind] = _described(kind, CONFIG_MAPPING[kind])
        waiting += filter(None, types[kind].get("sections", {}).values())
    return {"transformers": transformers.__version__, "types": dict(sorted(types.items()))}


def _described(kind: str, config: type[Any]) -> dict[str, Any]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    hints = typing.get_type_hints(config, localns={"torch": torch})
    fields = {field.name: field for field in dataclasses.fields(config)}
    sections = {
        name: getattr(inner.config_class, "model_type", "") for name, inner in config.sub_configs_defaults.items()
    }
    sections = {name: inner for name, inner in sections.items() if inner != kind}
    renamed = config.attribute_map
    defaults = {renamed.get(name, name): _default(field) for name, field in fields.items() if name not in sections}
    values = {name: value for name, value in defaults.items() if value is not None} | _assumed(config)
    null = (name for name in fields if name not in sections and type(None) in typing.get_args(hints[name]))
    nullable = sorted(renamed.get(name, name) for name in null)
    theta = config.default_theta
    record = {
        "name": config.__name__,
        "network": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind),
        "defaults": values,
        "nullable": nullable,
        "renamed": dict(renamed),
        "further": sorted(_further(config, "rope_parameters" in fields) - {*defaults, *renamed, *values}),
        "theta": theta if "rope_parameters" in fields else None,
        "whole_heads": "rope_parameters" in fields and not _turns_parts(config),
        "ignored": _ignored(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)),
        "sections": sections,
    }
    return {name: value for name, value in record.items() if value not in ({}, [], None, False)}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    if field.default is dataclasses.MISSING:
        return None
    return list(field.default) if isinstance(field.default, tuple) else field.default


def _assumed(config: type[Any]) -> dict[str, Any]:
    """What a class gives keys that are no fields: ``kwargs.setdefault(key, constant)``."""
    return {
        call.args[0].value: call.args[1].value
        for owner in _owners(config)
        if "__post_init__" in owner.__dict__
        for call in _calls(owner.__dict__["__post_init__"], "kwargs", "setdefault")
        if isinstance(call.args[0], ast.Constant) and isinstance(call.args[1], ast.Constant)
    }


def _owners(config: type[Any]) -> list[type[Any]]:
    """The classes of a configuration that belong to one architecture."""
    return [owner for owner in config.__mro__ if owner.__module__.startswith("transformers.models.")]


def _further(config: type[Any], turns: bool) -> set[str]:
    """Keys of config.json that are no fields: those that the class takes from older files, or its network asks for."""
    from transformers.modeling_rope_utils import RotaryEmbeddingConfigMixin

    converts = "convert_rope_params_to_dict"
    functions = [
        owner.__dict__[name]
        for owner in _owners(config)
        for name in ("__post_init__", converts)
        if name in owner.__dict__
    ]
    if turns and not any(converts in owner.__dict__ for owner in _owners(config)):
        functions.append(getattr(RotaryEmbeddingConfigMixin, converts))
    keys = {
        str(call.args[0].value)
        for function in functions
        for call in _calls(function, "kwargs", "pop", "get")
        if isinstance(call.args[0], ast.Constant)
    }
    keys |= {
        name
        for owner in _owners(config)
        if "__post_init__" in owner.__dict__
        for name in _assigned(owner.__dict__["__post_init__"])
    }
    return keys | _asked_for(_network_module(config)) | {"is_causal"}  # which every mask asks for


def _assigned(function: Any) -> Iterator[str]:
    """Attributes that a method gives values to: a file's own value overrules them."""
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self" and target.attr[0] != "_":
                yield target.attr


def _ignored(network: str | None) -> list[str]:
    """Patterns of tensors that a network passes over when it is loaded."""
    import transformers

    return [] if network is None else getattr(transformers, network)._keys_to_ignore_on_load_unexpected or []


def _turns_parts(config: type[Any]) -> bool:
    """Whether the network's own rotary embedding can turn a part of a head."""
    source = inspect.getsource(_network_module(config))
    return "partial_rotary_factor" in source or "rotary_ndims" in source


def _network_module(config: type[Any]) -> Any:
    return importlib.import_module(config.__module__.replace("configuration_", "modeling_"))


def _calls(function: Any, name: str, *methods: str) -> list[ast.Call]:
    """Calls of methods of the variable ``name``."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [
        call
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr in methods and ast.unparse(call.func.value) == name
    ]


def _asked_for(module: Any) -> set[str]:
    """The constants that ``getattr(config, ...)`` is called with in a network's module."""
    calls = (node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call))
    return {
        str(call.args[1].value)
        for call in calls
        if isinstance(call.func, ast.Name)
        and call.func.id == "getattr"
        and len(call.args) > 1
        and ast.unparse(call.args[0]) in ("config", "self.config", "text_config")
        and isinstance(call.args[1], ast.Constant)
    }


def text() -> str:
    """The file's text: a line for each model type."""
    data = published()
    lines = (f"  {json.dumps(kind)}: {json.dumps(record, sort_keys=True)}" for kind, record in data["types"].items())
    return f'{{\n "transformers": "{data["transformers"]}",\n "types": {{\n' + ",\n".join(lines) + "\n }\n}\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
