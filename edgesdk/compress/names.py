"""Decodable names of recipes: see :data:`GRAMMAR`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .awq import Awq
from .base import WHOLE
from .distill import Distillation
from .gptq import Gptq
from .hqq import Hqq
from .keys import KeySmoothing
from .reconstruct import Reconstruction
from .rotation import Rotation
from .rtn import RoundToNearest
from .smoothquant import SmoothQuant

if TYPE_CHECKING:
    from .base import Pass

GRAMMAR = """\
Names decode: w4g32-e8-a8 is 4-bit weights in groups of 32, 8-bit embedding, int8 activations.

  none                    weights as they are
  w{bits}[g{group}]       bits of linear weights (2, 3, 4 or 8); without a group, one scale a row
  w8t                     8 bits with one scale for each whole matrix, embedding and head included
    -rot, -rotv           weights rotated first: all (a tied head becomes a matrix of its own), or only values
    -awq, -smooth         channels scaled first: AWQ, or SmoothQuant for int8 activations
    -keys                 channels of the keys evened out first, for an int8 cache
    -gptq, -hqq           rounded by GPTQ on calibration text, or with the scales of HQQ, instead of to nearest
    -rec                  rounding and clipping learned layer by layer afterwards
    -qat                  scales and norms learned by distillation from the float model afterwards
    -e{bits}              bits of the embedding (4, 8 or 16; default 8)
    -h{bits}              bits of the head (default: as the embedding); a tied one becomes a matrix of its own
    -a{bits}              activations: 8 (int8), 16 (int16, microcontrollers) or 32 (float); default: what the target
                          prefers. int8 has scales of its own for every token, on microcontrollers measured ones
    -kv8                  key-value cache in int8, one scale a token and head (microcontrollers: one a layer);
                          default: the float type (microcontrollers: the type of the activations)
    -percentile, -mse     static scales of activations hold less than the whole range (--delegate tflm)
    @{size}               bits chosen for every matrix so that the result has this size: 90MB, or 4.5bpw (bits a
                          parameter)
"""
_NAME = re.compile(
    r"(?:w(?P<bits>2|3|4|8)(?:g(?P<group>32|64|128))?|(?P<whole>w8t))"
    r"(?:-(?P<turn>rotv?))?(?:-(?P<channels>awq|smooth))?(?P<keys>-keys)?"
    r"(?:-(?P<rounding>gptq|hqq))?(?P<rec>-rec)?(?P<qat>-qat)?"
    r"(?:-e(?P<e>4|8|16))?(?:-h(?P<h>4|8|16))?(?:-a(?P<a>8|16|32))?(?:-kv(?P<kv>8))?(?:-(?P<observer>percentile|mse))?"
    r"(?:@(?P<size>[\d.]+\w+))?"
)
_NONE = re.compile(r"none(?:-a(?P<a>32))?(?:-kv(?P<kv>8))?")
#: Passes that prepare rounding, and so come before it; and those that learn what was rounded, and so come after.
PREPARING, LEARNING = (Awq, KeySmoothing, Rotation, SmoothQuant), (Distillation, Reconstruction)
_ROUNDING: dict[str | None, type[RoundToNearest]] = {None: RoundToNearest, "gptq": Gptq, "hqq": Hqq}


def decode(name: str) -> dict[str, Any] | None:
    """Fields of the recipe that a decodable name stands for, or None when it is none."""
    if match := _NONE.fullmatch(name):
        return {"activations": _optional(match["a"]), "kv_bits": _optional(match["kv"])}
    match = _NAME.fullmatch(name)
    if match is None or (match["whole"] and match["rounding"]):
        return None
    return {
        "passes": tuple(_passes(match)),
        "activations": _optional(match["a"]),
        "kv_bits": _optional(match["kv"]),
        "size": match["size"],
        "observer": match["observer"] or "minmax",
    }


def _passes(match: re.Match[str]) -> list[Pass]:
    bits, embedding = int(match["bits"] or 8), int(match["e"] or 8)
    group = WHOLE if match["whole"] else int(match["group"] or 0)
    passes: list[Pass] = []
    if match["turn"]:
        passes.append(Rotation(hidden=match["turn"] == "rot"))
    if match["channels"] == "awq":
        passes.append(Awq(clip=match["rounding"] is None))
    elif match["channels"]:
        passes.append(SmoothQuant())
    if match["keys"]:
        passes.append(KeySmoothing())
    kind = _ROUNDING[match["rounding"]]
    passes.append(kind(bits=bits, group=group, embedding_bits=embedding, head_bits=int(match["h"] or embedding)))
    if match["rec"]:
        passes.append(Reconstruction())
    if match["qat"]:
        passes.append(Distillation(activations=8 if match["a"] in (None, "8") else 32))
    return passes


def _optional(digits: str | None) -> int | None:
    return None if digits is None else int(digits)
