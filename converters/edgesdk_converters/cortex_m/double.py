"""The Python double of the C99 runtime: the same integer and float arithmetic, so the same logits bit for bit.

It is the session of a bundle for microcontrollers: quality, parity and ``edgesdk run`` on this computer say what the
firmware will say. See ``targets/cortex-m/runtime/lm.c``; sums of integers are exact in any order, so they are done in
floats that hold them (float32 below 2^24, float64 below 2^53).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgesdk.errors import EdgeError
from edgesdk.session import refuse_rewind, refuse_tokens

from .arithmetic import F, Floats, activate, cos_sin, exp, lanes_sum, norm, quantize, round_up_bfloat16, tanh
from .image import Matrix
from .image_file import ImageFile, LayerRecord

_EXACT_FLOAT32 = (1 << 24) // (127 * 128)  # longest int8 dot product that float32 holds exactly


class _Product:
    """A matrix of the image, ready to multiply."""

    def __init__(self, image: ImageFile, record: Matrix) -> None:
        values, self._scales = image.matrix(record)
        self._groups = record.columns // record.group
        self._bias = image.floats(record.bias, record.rows) if record.bias else None
        self._bits, self._group = record.bits, record.group
        kind = F if record.group <= _EXACT_FLOAT32 else np.float64
        grouped = values.astype(kind).reshape(record.rows, self._groups, record.group)
        self._values = np.ascontiguousarray(grouped.transpose(1, 0, 2))  # [groups, rows, group]

    def __call__(self, x: Floats) -> Floats:
        whole, scale = quantize(x)
        parts = whole.astype(self._values.dtype).reshape(self._groups, self._group, 1)
        sums = np.matmul(self._values, parts)[..., 0].T.astype(F)  # [rows, groups]
        if self._bits == 8:
            y = sums[:, 0] * (self._scales[:, 0] * scale)
        else:
            y = np.cumsum(sums * self._scales, axis=1, dtype=F)[:, -1] * scale
        found: Floats = y if self._bias is None else y + self._bias
        return found


class _Layer:
    """One decoder layer with its cache."""

    def __init__(self, image: ImageFile, record: LayerRecord) -> None:
        self.record, self._eps = record, image.norm_eps
        self._products = {name: _Product(image, matrix) for name, matrix in record.matrices.items() if matrix.bits}
        self._norms = {name: image.norm(offset, size) for name, (offset, size) in record.norms.items()}
        shape = (record.capacity, record.kv_heads, record.head_dim)
        self._keys, self._values = np.zeros(shape, F), np.zeros(shape, np.float64)
        self._key_scales, self._value_scales = np.zeros(record.capacity, F), np.zeros(record.capacity, F)

    def __call__(self, x: Floats, position: int, turns: Floats, sink_turns: Floats) -> Floats:
        x = x + self._after(self._attend(self._norm("attn_norm", x), position, turns, sink_turns), "post_attn_norm")
        return x + self._after(self._feed(self._norm("mlp_norm", x)), "post_mlp_norm")

    def _norm(self, name: str, x: Floats) -> Floats:
        weight, bias = self._norms[name]
        return norm(x, weight, bias, self._eps)

    def _after(self, x: Floats, name: str) -> Floats:
        return self._norm(name, x) if name in self._norms else x

    def _heads(self, part: str, x: Floats) -> Floats:
        heads = self._products[part](x).reshape(-1, self.record.head_dim)
        return self._norm(f"{part}_norm", heads) if f"{part}_norm" in self._norms else heads

    def _attend(self, x: Floats, position: int, turns: Floats, sink_turns: Floats) -> Floats:
        record = self.record
        q, k, v = self._heads("q", x), self._heads("k", x), self._products["v"](x)
        slot, count = record.slot(position), min(position + 1, record.capacity)
        sinks = 0 if position < record.capacity else record.sinks
        self._keys[slot], self._key_scales[slot] = self._stored(_rotate(k, turns).reshape(-1))
        self._values[slot], self._value_scales[slot] = self._stored(v)
        scores = self._scores(_rotate(q, turns), slice(sinks, count))
        if sinks:
            scores = np.concatenate((self._scores(_rotate(q, sink_turns), slice(0, sinks)), scores), axis=1)
        if record.softcap:
            scores = record.softcap * tanh(scores / record.softcap)
        return self._products["o"](self._gathered(scores, count).reshape(-1))

    def _stored(self, x: Floats) -> tuple[Floats, np.float32]:
        scale = round_up_bfloat16(np.abs(x).max() / F(127))
        inverse = F(1) / scale if scale > 0 else F(0)
        return np.rint(x * inverse).reshape(self.record.kv_heads, -1), scale

    def _scores(self, q: Floats, slots: slice) -> Floats:
        """Scores [heads, slots]."""
        groups = self.record.heads // self.record.kv_heads
        whole, scales = quantize(q)
        factors = scales * self.record.scale
        grouped = whole.reshape(-1, groups, self.record.head_dim)  # [kv_heads, groups, head_dim]
        sums = np.matmul(grouped, self._keys[slots].transpose(1, 2, 0)).reshape(len(q), -1)
        found: Floats = sums * (self._key_scales[slots] * factors[:, None])
        return found

    def _gathered(self, scores: Floats, count: int) -> Floats:
        """Outputs [heads, head_dim] of scores [heads, count]."""
        groups = self.record.heads // self.record.kv_heads
        weights = exp(scores - scores.max(axis=1, keepdims=True))
        totals = lanes_sum(weights)
        weights = weights * self._value_scales[:count]
        heaviest = weights.max(axis=1)
        limit = F(min(32767, 0x7FFFFFFF // 128 // count))
        inverse = np.divide(limit, heaviest, out=np.zeros_like(heaviest), where=heaviest > 0)
        whole = np.rint(weights * inverse[:, None]).astype(np.float64).reshape(-1, groups, count)
        sums = np.matmul(whole, self._values[:count].transpose(1, 0, 2)).astype(F).reshape(len(scores), -1)
        found: Floats = sums * (heaviest / (limit * totals))[:, None]
        return found

    def _feed(self, x: Floats) -> Floats:
        up = self._products["up"](x)
        if "gate" in self._products:
            up = activate(self.record.activation, self._products["gate"](x)) * up
        else:
            up = activate(self.record.activation, up)
        return self._products["down"](up)


class DoubleSession:
    """Runs an image as the firmware does; see :class:`edgesdk.session.Session` for the contract.

    Attributes:
        slides: a full context keeps its first tokens and the latest ones instead of refusing more.
    """

    def __init__(self, path: Path) -> None:
        """Read the image.

        Raises:
            BundleError: it is damaged, or of another version.
        """
        image = ImageFile(path)
        self.vocab, self.context, self.slides = image.vocab, image.context, False
        self._may_slide = image.may_slide
        self._embedding, self._positions = image.embedding(), image.positions
        self._frequencies = image.frequencies
        self._layers = [_Layer(image, record) for record in image.layers]
        self._final_norm, self._eps = image.norm(image.final_norm, image.hidden), image.norm_eps
        self._head, self._softcap = _Product(image, image.head), image.logit_softcap
        self._tokens: list[int] = []
        self._least_rewind = min((record.capacity for record in image.layers), default=image.context)

    @property
    def position(self) -> int:
        return len(self._tokens)

    def reset(self) -> None:
        self._tokens = []

    def rewind(self, count: int) -> None:
        refuse_rewind(self, count)
        kept = self._tokens[: self.position - count]
        if self.position <= self._least_rewind:
            self._tokens = kept
            return
        self.reset()  # a ring has overwritten what came before: run what is kept again
        for token in kept:
            self._advance(token)

    def prefill(self, ids: Sequence[int]) -> NDArray[np.float32]:
        self._refuse(ids)
        for token in ids:
            x = self._advance(token)
        return self._logits(x)

    def decode(self, token: int) -> NDArray[np.float32]:
        return self.prefill([token])

    def score(self, ids: Sequence[int]) -> NDArray[np.float32]:
        self._refuse(ids)
        return np.stack([self._logits(self._advance(token)) for token in ids])

    def _refuse(self, ids: Sequence[int]) -> None:
        if self.slides and self._may_slide and ids and self.position + len(ids) > self.context:
            if min(ids) < 0 or max(ids) >= self.vocab:
                raise EdgeError(f"token ids must lie in 0 to {self.vocab - 1}")
            return
        refuse_tokens(self, ids)

    def _advance(self, token: int) -> Floats:
        """Final hidden state of the next token, before the last norm."""
        position = self.position
        x = self._embedding.row(token)
        if self._positions is not None:
            x = x + self._positions[position]
        turns, sink_turns = self._turns(position), self._turns(min(position, self.context - 1))
        for layer in self._layers:
            span = layer.record.turns
            x = layer(x, position, turns[:, span], sink_turns[:, span])
        self._tokens.append(token)
        return x

    def _turns(self, position: int) -> Floats:
        """Cosines and sines [2, rotations] of a position."""
        return np.stack(cos_sin(self._frequencies * np.uint32(position & 0xFFFFFFFF)))

    def _logits(self, x: Floats) -> Floats:
        weight, bias = self._final_norm
        logits = self._head(norm(x, weight, bias, self._eps))
        return self._softcap * tanh(logits / self._softcap) if self._softcap else logits


def _rotate(heads: Floats, turns: Floats) -> Floats:
    """Half-split rotation of heads [n, head_dim] by cosines and sines [2, head_dim / 2]; none where there are none."""
    if not turns.shape[1]:
        return heads
    half = heads.shape[1] // 2
    a, b = heads[:, :half], heads[:, half:]
    cosine, sine = turns
    return np.concatenate((a * cosine - b * sine, b * cosine + a * sine), axis=1)
