"""The integers of a program file against those of the checkpoint that it was made from."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from edgesdk.model import Model
from edgesdk.model.spec import is_linear
from edgesdk.model.tensors import QuantizedTensor
from edgesdk.model.weights import stack_rows


def assert_carried(model: Model, packed: Mapping[str, QuantizedTensor]) -> None:
    """Every matrix of the layers is in the program with the model's own integers and scales.

    Programs may stack ``q``, ``k`` and ``v``, or ``gate`` and ``up``, and repeat one scale a row for every group.
    """
    names = {name for name in model.spec.tensors() if is_linear(name)}
    checked = set()
    for stowed, tensor in packed.items():
        prefix, _, last = stowed.removesuffix(".weight").rpartition(".")
        stacked = {
            "qkv": ["q", "k", "v"],
            "qk": ["q", "k"],
            "gateup": ["gate", "up"],
            "cross_kcross_v": ["cross_k", "cross_v"],
        }
        parts = stacked.get(last, [last])
        members = [f"{prefix}.{part}.weight" for part in parts]
        if not names.issuperset(members):
            continue
        wanted = stack_rows([model.weights.get(name) for name in members])
        assert isinstance(wanted, QuantizedTensor)
        assert torch.equal(tensor.values, wanted.values), stowed
        blocks = tensor.scales.shape[1] // wanted.scales.shape[1]
        assert torch.equal(tensor.scales, wanted.scales.repeat_interleave(blocks, dim=1)), stowed
        checked.update(members)
    assert checked == names
