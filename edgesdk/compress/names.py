"""Decodable names of recipes: see :data:`GRAMMAR`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from .awq import Awq
from .base import WHOLE
from .distill import Distillation
from .gptq import Gptq
from .hqq import Hqq
from .keys import KeySmoothing
from .pruning.depth import Depth
from .pruning.hidden import Hidden
from .pruning.sparsegpt import SparseGpt
from .pruning.vocabulary import Vocabulary
from .pruning.width import Width
from .pruning.zeros import ADMM_STEPS, Zeros
from .reconstruct import Reconstruction
from .recovery import Recovery
from .rotation import Rotation
from .rtn import RoundToNearest
from .smoothquant import SmoothQuant

if TYPE_CHECKING:
    from .base import Pass

GRAMMAR = """\
Names decode: w4g32-e8-a8 is 4-bit weights in groups of 32, 8-bit embedding, int8 activations.

  none                    weights as they are
  w{bits}[g{group}]       bits of linear weights (2, 3, 4 or 8); without a group, one scale a row
  w16                     linear weights are not rounded; embedding and head as -e and -h say (default 16)
  w8t                     8 bits with one scale for each whole matrix, embedding and head included
    -vocab, -vocab{n}     only the tokens that the calibration text needs, or the most frequent n
    -depth{p}, -width{p}  layers, or heads and neurons, dropped until p percent of the parameters are left
    -hidden{p}            channels cut until p percent are left
    -heal, -heal{m}       trained on the calibration text against the original for m minutes (default 25)
    -rot, -rotv           weights rotated first: all (a tied head becomes a matrix of its own), or only values
    -awq, -smooth         channels scaled first: AWQ, or SmoothQuant for int8 activations
    -keys                 channels of the keys evened out first, for an int8 cache
    -sparsegpt{p}         p percent of the weights become zero while they are rounded; or -sparsegpt2:4
    -wanda{p}, -admm{p}   the same before rounding, by weight and input; admm also solves for the rest
    -magnitude{p}         the same by weight alone
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
    r"(?:w(?P<bits>2|3|4|8|16)(?:g(?P<group>32|64|128))?|(?P<whole>w8t))"
    r"(?:-(?P<vocab>vocab)(?P<tokens>\d+)?)?(?:-(?P<shape>depth|width|hidden)(?P<keep>\d+(?:\.\d+)?))?"
    r"(?:-(?P<heal>heal)(?P<minutes>\d+)?)?"
    r"(?:-(?P<turn>rotv?))?(?:-(?P<channels>awq|smooth))?(?P<keys>-keys)?"
    r"(?:-(?P<zeros>sparsegpt|wanda|admm|magnitude)(?P<pattern>\d+:\d+|\d+(?:\.\d+)?))?"
    r"(?:-(?P<rounding>gptq|hqq))?(?P<rec>-rec)?(?P<qat>-qat)?"
    r"(?:-e(?P<e>4|8|16))?(?:-h(?P<h>4|8|16))?(?:-a(?P<a>8|16|32))?(?:-kv(?P<kv>8))?(?:-(?P<observer>percentile|mse))?"
    r"(?:@(?P<size>[\d.]+\w+))?"
)
_NONE = re.compile(r"none(?:-a(?P<a>32))?(?:-kv(?P<kv>8))?")
#: Passes that prepare rounding, and so come before it; and those that learn what was rounded, and so come after.
PREPARING, LEARNING = (Awq, KeySmoothing, Rotation, SmoothQuant), (Distillation, Reconstruction)
#: Passes that make weights zero.
PRUNING = (SparseGpt, Zeros)
_SHAPES: dict[str, type[Depth] | type[Hidden] | type[Width]] = {"depth": Depth, "hidden": Hidden, "width": Width}
_ROUNDING: dict[str | None, type[RoundToNearest]] = {None: RoundToNearest, "gptq": Gptq, "hqq": Hqq}


def decode(name: str) -> dict[str, Any] | None:
    """Fields of the recipe that a decodable name stands for, or None when it is none."""
    if match := _NONE.fullmatch(name):
        return {"activations": _optional(match["a"]), "kv_bits": _optional(match["kv"])}
    match = _NAME.fullmatch(name)
    if match is None or _contradicts(match):
        return None
    return {
        "passes": tuple(_passes(match)),
        "activations": _optional(match["a"]),
        "kv_bits": _optional(match["kv"]),
        "size": match["size"],
        "observer": match["observer"] or "minmax",
    }


def _contradicts(match: re.Match[str]) -> bool:
    """Whether parts of a name cannot go together."""
    rounds = match["rounding"] or match["rec"] or match["qat"]
    if match["whole"]:
        return bool(match["rounding"] or match["zeros"] == "sparsegpt")
    if match["bits"] == "16":
        return bool(rounds or match["group"] or match["channels"] or match["size"])
    return match["zeros"] == "sparsegpt" and bool(match["rounding"])


def _passes(match: re.Match[str]) -> list[Pass]:
    passes = [*_shaping(match), *_preparing(match)]
    bits, pattern = int(match["bits"] or 8), match["pattern"] or ""
    if ":" not in pattern:
        pattern += "%"
    embedding = int(match["e"] or (16 if bits == 16 else 8))
    grid: dict[str, Any] = {
        "bits": bits,
        "group": WHOLE if match["whole"] else int(match["group"] or 0),
        "embedding_bits": embedding,
        "head_bits": int(match["h"] or embedding),
    }
    if match["zeros"] == "sparsegpt":
        passes.append(SparseGpt(**grid, pattern=pattern))
    else:
        if match["zeros"]:
            method: Literal["magnitude", "wanda"] = "magnitude" if match["zeros"] == "magnitude" else "wanda"
            passes.append(Zeros(pattern, method, ADMM_STEPS if match["zeros"] == "admm" else 0))
        if min(bits, embedding, grid["head_bits"]) < 16:
            passes.append(_ROUNDING[match["rounding"]](**grid))
    if match["rec"]:
        passes.append(Reconstruction())
    if match["qat"]:
        passes.append(Distillation(activations=8 if match["a"] in (None, "8") else 32))
    return passes


def _shaping(match: re.Match[str]) -> list[Pass]:
    passes: list[Pass] = []
    if match["vocab"]:
        passes.append(Vocabulary(_optional(match["tokens"])))
    if match["shape"]:
        passes.append(_SHAPES[match["shape"]](keep=float(match["keep"]) / 100))
    if match["heal"]:
        passes.append(Recovery(minutes=float(match["minutes"])) if match["minutes"] else Recovery())
    return passes


def _preparing(match: re.Match[str]) -> list[Pass]:
    passes: list[Pass] = []
    if match["turn"]:
        passes.append(Rotation(hidden=match["turn"] == "rot"))
    if match["channels"] == "awq":
        passes.append(Awq(clip=match["rounding"] is None))
    elif match["channels"]:
        passes.append(SmoothQuant())
    if match["keys"]:
        passes.append(KeySmoothing())
    return passes


def _optional(digits: str | None) -> int | None:
    return None if digits is None else int(digits)
