"""Zeros in storage: a bitmask with the values that are left, against a general compressor alone, on a checkpoint.

    python tests/benchmarks/storage.py CHECKPOINT ...        (pip install zstandard)

For every matrix of the layers in a compressed checkpoint: its bytes as they are stored, behind zstd (level 3 and 19)
and deflate (zip), and as bitmask plus the packed values that are not zero, again alone and behind zstd. Prints sums.
"""

from __future__ import annotations

import argparse
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import zstandard

import edgesdk
from edgesdk.model.spec import is_linear
from edgesdk.model.tensors import QuantizedTensor, pack_bits, scale_storage


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def forms(stored: torch.Tensor | QuantizedTensor) -> tuple[bytes, bytes, bytes]:
    """A matrix as stored; its zeros as a mask; the values that are left."""
    if isinstance(stored, QuantizedTensor):
        left = stored.values[stored.values != 0]
        left = torch.cat((left, left.new_zeros(-len(left) % 8)))
        packed = pack_bits(left.view(1, -1), stored.bits)
        return bytes_of(pack_bits(stored.values, stored.bits)), mask(stored.values), bytes_of(packed)
    short = stored.to(scale_storage(stored.float()))
    return bytes_of(short), mask(stored), bytes_of(short[short != 0])


def mask(values: torch.Tensor) -> bytes:
    return np.packbits((values != 0).numpy()).tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    for checkpoint in parser.parse_args().checkpoints:
        model, sums, zero, total = edgesdk.open_model(checkpoint), Counter[str](), 0, 0
        fast, best = zstandard.ZstdCompressor(3), zstandard.ZstdCompressor(19)
        for name in filter(is_linear, model.spec.tensors()):
            stored = model.weights.get(name)
            values = stored.values if isinstance(stored, QuantizedTensor) else stored
            zero, total = zero + int((values == 0).sum()), total + values.numel()
            dense, zeros, left = forms(stored)
            sums["as stored"] += len(dense)
            sums["deflate 9"] += len(zlib.compress(dense, 9))
            sums["zstd 3"] += len(fast.compress(dense))
            sums["zstd 19"] += len(best.compress(dense))
            sums["mask and values"] += len(zeros) + len(left)
            sums["mask and values, zstd 3"] += len(fast.compress(zeros)) + len(fast.compress(left))
            sums["mask and values, zstd 19"] += len(best.compress(zeros)) + len(best.compress(left))
        print(
            f"{checkpoint.name}: {zero / total:.1%} zeros; " + ", ".join(f"{k} {v / 1e6:.1f}" for k, v in sums.items())
        )


if __name__ == "__main__":
    main()
