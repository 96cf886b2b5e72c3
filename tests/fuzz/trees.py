"""Changes of JSON documents, and the texts that they are written as."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from .odd import VALUES, changed_bytes

_ENDLESS = b"[" * 100_000
_WIDE = 24  # of a long list, so many entries are changed


def changed_tree(random: Random, tree: Any) -> Any:
    """A document with a few of its values replaced, moved, doubled, renamed or gone."""
    try:
        return _changed(random, tree)
    except RecursionError:  # what was nested already was nested again
        return [[[]]]


def _changed(random: Random, tree: Any) -> Any:
    root = {"": copy.deepcopy(tree)}
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        places = list(_places(root))
        holder, key = random.choice(places)
        match random.randrange(8):
            case 0 | 1 | 2:
                holder[key] = copy.deepcopy(random.choice(VALUES))
            case 3:
                other, where = random.choice(places)
                holder[key] = copy.deepcopy(other[where])
            case 4:
                if holder is not root:
                    del holder[key]
            case 5:
                _added(random, holder, key)
            case 6:
                holder[key] = _near(random, holder[key])
            case _:
                holder[key] = _deep(random, holder[key])
    return root.get("")


def written_json(random: Random, tree: Any) -> bytes:
    """The text of a document; sometimes with an escape, a cut or a byte that no writer would make."""
    try:
        text = json.dumps(tree, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(tree).encode()
    except RecursionError:
        text = _ENDLESS
    if random.random() < 0.01:
        return _ENDLESS
    return changed_bytes(random, text) if random.random() < 0.06 else text


def changed_json(random: Random, tree: Any) -> bytes:
    """The text of a changed document."""
    return written_json(random, changed_tree(random, tree))


def changed_toml(random: Random, tree: Mapping[str, Any]) -> bytes:
    """The text of changed tables; what TOML has no form for is left out."""
    changed = changed_tree(random, tree)
    try:
        text = _tables(changed if isinstance(changed, dict) else {"x": changed}, ())
    except RecursionError:
        text = "x = " + _ENDLESS.decode()
    data = text.encode("utf-8", "surrogatepass")
    return changed_bytes(random, data) if random.random() < 0.1 else data


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(holder) if isinstance(holder, dict) else range(min(len(holder), _WIDE))
    for key in keys:
        yield holder, key
        if isinstance(holder[key], (dict, list)):
            yield from _places(holder[key])


def _added(random: Random, holder: Any, key: Any) -> None:
    value = copy.deepcopy(random.choice(VALUES))
    if isinstance(holder, dict):
        holder[random.choice(("", "x", f"{key}_", "name", "\u00e9", "__class__"))] = value
    else:
        holder.insert(key, value)


def _near(random: Random, value: Any) -> Any:
    """A value of the same type that lies beside it."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, (int, float)):
        return random.choice((value + 1, value - 1, -value, value * 2, value * 1000, str(value), float(value)))
    if isinstance(value, str):
        cut = random.randrange(len(value) + 1)
        return value[:cut] + random.choice(("", "\0", "..", "/", "\ud83d", "{", "'", "\n")) + value[cut:]
    if isinstance(value, list):
        return value * random.choice((0, 2, 3))
    pairs = [list(pair) for pair in value.items()]
    return pairs if random.random() < 0.5 else dict(list(value.items())[:1])


def _deep(random: Random, value: Any) -> Any:
    for _ in range(random.choice((1, 2, 40, 150))):
        value = [value] if random.random() < 0.5 else {"x": value}
    return value


def _tables(tables: Mapping[str, Any], path: tuple[str, ...]) -> str:
    lines, after = [f"[{'.'.join(map(_key, path))}]"] if path else [], []
    for key, value in tables.items():
        if isinstance(value, dict) and value and len(path) < 3:
            after.append(_tables(value, (*path, str(key))))
        else:
            lines.append(f"{_key(key)} = {_toml(value)}")
    return "\n".join([*lines, *after])


def _key(key: object) -> str:
    text = str(key)
    return text if text.replace("_", "").replace("-", "").isalnum() and text.isascii() else json.dumps(text)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if value is None:
        return "1979-05-27T07:32:00Z"
    return str(value) if isinstance(value, float) else json.dumps(value)
