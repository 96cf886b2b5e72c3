"""Multiple-choice questions in a local JSONL file: one JSON object a line, in one of three published formats.

- ARC (arXiv 1803.05457): ``question``, ``choices`` with ``text`` and ``label``, ``answerKey``.
- HellaSwag (arXiv 1905.07830): ``ctx_a`` and ``ctx_b``, or ``ctx``; ``endings``, ``label``; perhaps ``activity_label``.
- PIQA (arXiv 1911.11641): ``goal``, ``sol1``, ``sol2``, ``label``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..documents import parse_json, whole
from ..errors import EdgeError
from ..passages.cutting import read_text


@dataclass(frozen=True)
class ChoiceFile:
    """A checked file.

    Attributes:
        name: of the file.
        form: ``arc``, ``hellaswag`` or ``piqa``.
        questions: records with exactly the fields that the harness's definition of the task reads.
    """

    name: str
    form: str
    questions: tuple[dict[str, Any], ...]


class _WrongError(Exception):
    """What is wrong with a record."""


def read_choices(path: Path) -> ChoiceFile:
    """Read and check a file; the format is told by its fields.

    Raises:
        EdgeError: the file, the line and what is wrong there.
    """
    form, questions = None, []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        record = parse_json(line, where)
        found = _form(record)
        if found is None:
            keys = ", ".join(sorted(record)) if isinstance(record, dict) else "no object"
            known = "; ".join(f"{name}: {', '.join(sorted(fields))}" for name, fields in _FIELDS)
            raise EdgeError(f"{where}: a question of no format known here ({keys})", hint=f"the formats are {known}")
        if form not in (None, found):
            raise EdgeError(f"{where}: {found} after {form}; a file holds one format")
        form = found
        try:
            questions.append(_READERS[found](record))
        except _WrongError as failure:
            raise EdgeError(f"{where}: {failure}") from None
    if form is None:
        raise EdgeError(f"{path}: no question in it")
    return ChoiceFile(path.stem, form, tuple(questions))


#: Formats by the fields that tell them.
_FIELDS = (
    ("arc", {"question", "choices", "answerKey"}),
    ("hellaswag", {"ctx", "endings", "label"}),
    ("hellaswag", {"ctx_a", "ctx_b", "endings", "label"}),
    ("piqa", {"goal", "sol1", "sol2", "label"}),
)


def _form(record: object) -> str | None:
    if not isinstance(record, dict):
        return None
    return next((name for name, fields in _FIELDS if fields <= record.keys()), None)


def _arc(record: Mapping[str, Any]) -> dict[str, Any]:
    choices = record["choices"]
    if not isinstance(choices, dict) or not {"text", "label"} <= choices.keys():
        raise _WrongError("'choices' must hold 'text' and 'label'")
    texts, labels = _strings(choices["text"], "choices.text"), _strings(choices["label"], "choices.label")
    key = _string(record["answerKey"], "answerKey")
    if len(labels) != len(texts):
        raise _WrongError(f"{len(texts)} choices with {len(labels)} labels")
    if labels.count(key) != 1:
        raise _WrongError(f"answerKey '{key}' is not one of {', '.join(labels)}")
    question = _string(record["question"], "question")
    return {"question": question, "choices": {"text": texts, "label": labels}, "answerKey": key}


def _hellaswag(record: Mapping[str, Any]) -> dict[str, Any]:
    endings = _strings(record["endings"], "endings")
    if "ctx_a" in record:
        start, rest = _string(record["ctx_a"], "ctx_a"), _string(record.get("ctx_b"), "ctx_b", empty=True)
    else:
        start, rest = _string(record["ctx"], "ctx"), ""
    activity = _string(record.get("activity_label", ""), "activity_label", empty=True)
    label = _label(record["label"], len(endings))
    return {"activity_label": activity, "ctx_a": start, "ctx_b": rest, "endings": endings, "label": str(label)}


def _piqa(record: Mapping[str, Any]) -> dict[str, Any]:
    texts = {key: _string(record[key], key) for key in ("goal", "sol1", "sol2")}
    return {**texts, "label": _label(record["label"], 2)}


_READERS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "arc": _arc,
    "hellaswag": _hellaswag,
    "piqa": _piqa,
}


def _string(value: object, key: str, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (empty or value.strip()):
        raise _WrongError(f"'{key}' must be a text, found {value!r}")
    return value


def _strings(value: object, key: str) -> list[str]:
    if not isinstance(value, list) or len(value) < 2:
        raise _WrongError(f"'{key}' must be a list of two texts or more")
    return [_string(item, key) for item in value]


def _label(value: object, choices: int) -> int:
    """An index from 0, which the published files hold as a number or as a text."""
    if isinstance(value, str):
        value = whole(value.strip())
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < choices:
        raise _WrongError(f"'label' must be 0 to {choices - 1}, found {value!r}")
    return value
