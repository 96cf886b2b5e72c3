"""What a pass found out: made once, and read again by a run that goes on where it was interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ..files import replacing

if TYPE_CHECKING:
    from pathlib import Path

    import torch

T = TypeVar("T")


def kept_json(path: Path, make: Callable[[], T]) -> T:
    """Plain data (lists, numbers, texts) from a file, or made and written there."""
    if not path.is_file():
        made = make()
        with replacing(path) as partial:
            partial.write_text(json.dumps(made), encoding="utf-8")
    found: T = json.loads(path.read_text(encoding="utf-8"))
    return found


def kept_tensor(path: Path, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """A tensor from a file, or made and written there."""
    import torch

    if not path.is_file():
        made = make()
        with replacing(path) as partial:
            torch.save(made, partial)
    found: torch.Tensor = torch.load(path, weights_only=True)
    return found
