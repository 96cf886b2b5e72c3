"""Configurations are read as transformers' own classes read them: a sweep over every key of every architecture."""

from __future__ import annotations

import pytest

from edgesdk.model.families.base import ACTIVATIONS
from edgesdk.model.published import FILE, inert_keys, published_types

from ..published_classes import text
from .checkpoint_sweeps import ARCHITECTURES, UNREADABLE, Checkpoint, opened, without_each


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=lambda row: row.name)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return opened(request.param, tmp_path_factory.mktemp(request.param.name))


def test_the_file_is_what_the_installed_classes_say() -> None:
    assert FILE.read_text() == text(), "python -m tests.published_classes writes it again"


def test_a_key_left_out_has_the_published_default(checkpoint: Checkpoint) -> None:
    differences = {
        path: words
        for path, values in without_each(checkpoint.values)
        if (words := checkpoint.difference(values)) is not None
    }
    differences.pop("pad_token_id", None)  # a default past a tiny vocabulary, which only transformers needs
    assert not differences


def test_a_key_with_another_value_is_read_as_published_or_refused(checkpoint: Checkpoint) -> None:
    kind = checkpoint.values["model_type"]
    known = {**published_types()[kind].defaults, **checkpoint.values}
    differences = {
        key: words
        for key, value in known.items()
        if key not in inert_keys() | _LOADED_OTHERWISE.get(kind, set()) | {"tie_word_embeddings"}
        and (other := another(value)) is not None
        and (words := checkpoint.difference({**checkpoint.values, key: other})) is not None
    }
    assert not differences


#: Keys that the sweep's own way to load a network reads otherwise than ``from_pretrained``: eager ALiBi is added twice
#: in transformers 5.23, and a tied network takes one matrix (``test_unread`` and ``test_oracle`` have that case).
_LOADED_OTHERWISE = {"falcon": {"alibi"}}


def another(value: object) -> object:
    """Another value of the same type, or None."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 1.5 * value + 0.1 if value > 1e-3 else 0.03
    named = isinstance(value, str) and value in ACTIVATIONS
    return ("gelu" if value != "gelu" else "relu") if named else None


def test_a_key_that_is_null_is_read_as_published_or_refused(checkpoint: Checkpoint) -> None:
    differences = {
        key: words
        for key in checkpoint.values
        if (words := checkpoint.difference({**checkpoint.values, key: None})) not in (None, UNREADABLE)
    }
    assert not differences
