"""Changed checkpoints, as transformers reads them and as edgesdk does: for sweeps over keys and tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from edgesdk.errors import ModelError
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceModel

from .family_rows import ROWS, Row, save_checkpoint

#: One row of each architecture that transformers has: the sweeps go through all its keys.
ARCHITECTURES = list({row.config: row for row in reversed(ROWS) if row.disguise is None}.values())
UNREADABLE = "edgesdk opens what transformers cannot load"
IDS = [5, 9, 33, 7, 60, 61, 62, 20, 11, 40, 41, 3, 80, 79, 78, 50, 49, 48, 10, 12]
TOLERANCE = 5e-5


@dataclass
class Checkpoint:
    """A saved tiny checkpoint, whose ``config.json`` is changed in place."""

    row: Row
    folder: Path
    network: Any
    values: dict[str, Any]

    def write(self, values: dict[str, Any]) -> None:
        """Put another ``config.json`` in the place of the checkpoint's own."""
        (self.folder / "config.json").write_text(json.dumps(values))

    def wanted(self, values: dict[str, Any]) -> torch.Tensor | None:
        """transformers' logits [tokens, vocab] with these values; None where it cannot load the weights."""
        try:
            config = type(self.network.config).from_dict(_plain(values))
            if _of_the_network(config) == _of_the_network(self.network.config):
                return self.logits
            stored = self.network.state_dict()
            with torch.device("meta"):
                shapes = self._built(config).state_dict()
            if {name: t.shape for name, t in shapes.items()} != {name: t.shape for name, t in stored.items()}:
                return None
            network = self._built(config)
            network.load_state_dict(stored)
            return logits_of(network)
        except Exception:  # whatever a configuration's validation, or a network built of it, raises
            return None

    def _built(self, config: Any) -> Any:
        import transformers

        build = transformers.AutoModelForCausalLM.from_config
        return build(config, attn_implementation=self.row.attention, dtype=torch.float32).eval()

    @cached_property
    def logits(self) -> torch.Tensor:
        """transformers' logits of the checkpoint as it was saved."""
        return logits_of(self.network)

    def difference(self, values: dict[str, Any]) -> str | None:
        """What edgesdk computes otherwise than transformers with these values, in words; a refusal is no difference."""
        self.write(values)
        try:
            model = open_model(self.folder)
        except ModelError:
            return None
        wanted = self.wanted(values)
        if wanted is None:
            return UNREADABLE
        reference = ReferenceModel(model)
        found = reference.logits(reference.hidden([torch.tensor([IDS])])[0])[0]
        apart = float((found - wanted).abs().max())
        return None if apart < TOLERANCE else f"logits differ by {apart:.3g}"


def logits_of(network: Any) -> torch.Tensor:
    """Logits [tokens, vocab] of :data:`IDS`."""
    with torch.no_grad():
        return network(torch.tensor([IDS])).logits[0].float()  # type: ignore[no-any-return]


def _of_the_network(config: Any) -> dict[str, Any]:
    """What of a configuration a network is built of."""
    tokens = ("bos_token_id", "eos_token_id", "architectures", "dtype", "transformers_version")
    return {key: value for key, value in config.to_dict().items() if key not in tokens}


def _plain(value: Any) -> Any:
    """A configuration's values as transformers reads them: it writes infinity in words of its own."""
    if isinstance(value, dict):
        return float(value["__float__"]) if "__float__" in value else {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def opened(row: Row, folder: Path) -> Checkpoint:
    """The checkpoint of a row."""
    network = save_checkpoint(row, folder)
    return Checkpoint(row, folder, network, json.loads((folder / "config.json").read_text()))


def without_each(values: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key, those inside of sections too, with the values that are left without it."""
    for key, value in values.items():
        yield path + key, {name: kept for name, kept in values.items() if name != key}
        if isinstance(value, dict):
            for inner, left in without_each(value, f"{path}{key}."):
                yield inner, {**values, key: left}
