"""The decoder spec's mixers that carry states from position to position: see :mod:`~edgesdk.model.spec`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

#: Names of states and their shapes for one sequence.
States: TypeAlias = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class ShortConv:
    """LFM2's gated short convolution: ``out(c * conv(b * x))`` with b, c, x from one matrix (arXiv 2511.23404).

    ``kernel`` counts positions, the newest included.
    """

    kernel: int
    bias: bool = False
    kind: Literal["short_conv"] = "short_conv"

    def states(self, hidden: int) -> States:
        return {"conv": (self.kernel - 1, hidden)}


@dataclass(frozen=True)
class Mamba:
    """A selective state space (arXiv 2312.00752).

    Attributes:
        inner: channels.
        state: state of each.
        kernel: positions that the convolution sees.
        rank: of the step sizes.
        bias: the outer matrices have biases.
        conv_bias: the convolution has one.
        normed: RMS norms on the step sizes, B and C (Jamba).
        eps: epsilon of these norms (Falcon-Mamba), or None: that of all others.
        heads: parts of the channels that have step sizes, B and C of their own (Zamba, arXiv 2405.16712).
    """

    inner: int
    state: int
    kernel: int
    rank: int
    bias: bool = False
    conv_bias: bool = True
    normed: bool = False
    eps: float | None = None
    heads: int = 1
    kind: Literal["mamba"] = "mamba"

    def states(self, hidden: int) -> States:
        return {"conv": (self.kernel - 1, self.inner), "ssm": (self.inner, self.state, 1)}


@dataclass(frozen=True)
class Mamba2:
    """A state space with one decay a head (arXiv 2405.21060); ``groups`` share B and C. Otherwise as :class:`Mamba`.

    Step sizes are held to ``least_step`` and ``most_step`` (None: no limit).
    """

    inner: int
    state: int
    kernel: int
    heads: int
    groups: int
    bias: bool = False
    conv_bias: bool = True
    least_step: float = 0.0
    most_step: float | None = None
    kind: Literal["mamba2"] = "mamba2"

    @property
    def limited(self) -> bool:
        return self.least_step > 0 or self.most_step is not None

    @property
    def head_dim(self) -> int:
        return self.inner // self.heads

    @property
    def conv_size(self) -> int:
        """Channels of the convolution: x, B and C."""
        return self.inner + 2 * self.groups * self.state

    def states(self, hidden: int) -> States:
        return {"conv": (self.kernel - 1, self.conv_size), "ssm": (self.heads, self.state, self.head_dim)}


@dataclass(frozen=True)
class Rwkv:
    """RWKV-4's time mixing, over ``size`` channels (arXiv 2305.13048)."""

    size: int
    kind: Literal["rwkv"] = "rwkv"

    def states(self, hidden: int) -> States:
        return {"shift": (1, hidden), "wkv": (3, self.size)}


@dataclass(frozen=True)
class GatedDelta:
    """A gated delta network (arXiv 2412.06464): a state that forgets, and takes in what it does not yet give for a key.

    Attributes:
        heads: of values, each with a state; a head of queries and keys serves several in a row.
        key_heads: of queries and keys.
        key_dim: size of each.
        value_dim: size of a head of values.
        kernel: positions that the convolution over queries, keys and values sees.
    """

    heads: int
    key_heads: int
    key_dim: int
    value_dim: int
    kernel: int
    kind: Literal["gated_delta"] = "gated_delta"

    @property
    def key_size(self) -> int:
        return self.key_heads * self.key_dim

    @property
    def inner(self) -> int:
        """Channels of the values."""
        return self.heads * self.value_dim

    @property
    def conv_size(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return 2 * self.key_size + self.inner

    def states(self, hidden: int) -> States:
        return {"conv": (self.kernel - 1, self.conv_size), "delta": (self.heads, self.value_dim, self.key_dim)}


Recurrent = ShortConv | Mamba | Mamba2 | GatedDelta | Rwkv
