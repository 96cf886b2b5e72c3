"""Float functions of the C99 runtime in numpy, step for step (``targets/cortex-m/runtime/lm_math.h``).

Every operation is one float32 operation of IEEE 754, in the order of the C code; results are equal bit for bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
F = np.float32


def lanes_sum(x: Floats) -> Floats:
    """Sums over the last axis in four lanes, element i in lane i % 4, then (0 + 1) + (2 + 3)."""
    missing = -x.shape[-1] % 4
    if missing:
        x = np.concatenate((x, np.zeros((*x.shape[:-1], missing), F)), axis=-1)
    lanes = np.cumsum(x.reshape(*x.shape[:-1], -1, 4), axis=-2, dtype=F)[..., -1, :]
    total: Floats = (lanes[..., 0] + lanes[..., 1]) + (lanes[..., 2] + lanes[..., 3])
    return total


def exp(x: Floats) -> Floats:
    """``lm_exp``."""
    x = np.clip(x, F(-87), F(88))
    count = np.rint(x * F(1.44269504))
    f = (x - count * F(0.693359375)) - count * F(-2.12194440e-4)
    p = np.full_like(f, F(1.9875691500e-4))
    for term in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = p * f + F(term)
    power = ((count.astype(np.int32) + 127) << 23).view(F)
    found: Floats = (((p * f) * f + f) + F(1)) * power
    return found


def tanh(x: Floats) -> Floats:
    """``lm_tanh``."""
    found: Floats = F(1) - F(2) / (exp(F(2) * x) + F(1))
    return found


def erf(x: Floats) -> Floats:
    """``lm_erf``."""
    a = np.abs(x)
    t = F(1) / (F(1) + F(0.3275911) * a)
    p = np.full_like(t, F(1.061405429))
    for term in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        p = p * t + F(term)
    y = F(1) - (p * t) * exp(-(a * a))
    found: Floats = np.where(x < 0, -y, y)
    return found


def cos_sin(phase: NDArray[np.uint32]) -> tuple[Floats, Floats]:
    """``lm_cos_sin`` of phases in turns * 2^32."""
    quadrant = (phase + np.uint32(0x20000000)) >> np.uint32(30)
    x = (phase - (quadrant << np.uint32(30))).view(np.int32).astype(F) * F(1.46291808e-9)
    z = x * x
    s = ((F(-1.9515295891e-4) * z + F(8.3321608736e-3)) * z - F(1.6666654611e-1)) * z * x + x
    c = (
        ((F(2.443315711809948e-5) * z - F(1.388731625493765e-3)) * z + F(4.166664568298827e-2)) * (z * z)
        - F(0.5) * z
        + F(1)
    )
    odd = (quadrant & 1).astype(bool)
    cosine, sine = np.where(odd, s, c), np.where(odd, c, s)
    cosine = np.where((quadrant == 1) | (quadrant == 2), -cosine, cosine)
    return cosine, np.where(quadrant >= 2, -sine, sine)


def norm(x: Floats, weight: Floats, bias: Floats | None, eps: np.float32) -> Floats:
    """RMS norm over the last axis, or a layer norm where there is a bias."""
    size = F(x.shape[-1])
    if bias is not None:
        x = x - (lanes_sum(x) / size)[..., None]
    factor = F(1) / np.sqrt(lanes_sum(x * x) / size + eps)
    scaled: Floats = (x * factor[..., None]) * weight
    return scaled if bias is None else np.add(scaled, bias)


def activate(kind: str, x: Floats) -> Floats:
    """The activation of an MLP."""
    if kind == "silu":
        return x / (F(1) + exp(-x))
    if kind == "gelu":
        return F(0.5) * x * (F(1) + erf(x * F(0.70710678)))
    if kind == "gelu_tanh":
        return x / (F(1) + exp(F(-1.59576912) * (x + F(0.044715) * (x * x * x))))
    return np.maximum(x, F(0))


def quantize(x: Floats) -> tuple[Floats, Floats]:
    """Vectors over the last axis as whole numbers in [-127, 127] (kept as floats), and their scales."""
    peak = np.abs(x).max(axis=-1)
    inverse = np.divide(F(127), peak, out=np.zeros_like(peak), where=peak > 0)
    return np.rint(x * inverse[..., None]), peak / F(127)


def round_up_bfloat16(value: np.float32) -> np.float32:
    """The next bfloat16 that is not below a positive value."""
    bits = (np.array(value, F).view(np.uint32) + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)
    return F(bits.view(F))
