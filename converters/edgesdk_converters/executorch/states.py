"""States that layers carry from position to position, as tensors of a method that keep their content.

Attention's caches are addressed by position, so that what lies behind the newest one does no harm; states hold the
whole past, and hold it for one position only. So a method looks where a call begins: at position 0 its states are
zero; where the last call ended they go on; where the last call of several tokens since position 0 began they are as
they were then; any other beginning fails, as the states of that position are gone. A runner that counts on, or starts
anew at 0, never meets that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .attention import Step
    from .program import Flag, Method, Slot
    from .subgraph import Subgraph, Value

Kept = tuple[tuple[int, ...], torch.dtype]  # shape and type of a state
_END = 2**63 - 1


def fail_where(method: Method, flag: Slot | Flag, position: Slot) -> None:
    """End the call with an error where the flag is true.

    There is no kernel that only fails: this one refuses an index out of the range of ``position``, int64 [1].
    """
    with method.only_if(flag):
        found = method.tensor(torch.int64, (1,))
        beyond = method.constant("beyond", torch.ones(1, dtype=torch.int64))
        method.call("aten::index_select.out", [position, 0, beyond], found)


class States:
    """The states of one method, by name."""

    def __init__(self, step: Step, kept: Mapping[str, Kept]) -> None:
        self._step, method = step, step.method
        self._held, saved = (
            {name: method.state(dtype, shape) for name, (shape, dtype) in kept.items()} for _ in range(2)
        )
        if kept:
            self._begin(method, saved)

    def __getitem__(self, name: str) -> Slot:
        return self._held[name]

    def carry(
        self, carries: Carries, delegate: int, arguments: Sequence[Slot], results: Sequence[Slot], tokens: int
    ) -> None:
        """Call the delegate of a subgraph over at most so many tokens, and carry what it does."""
        step, states = self._step, [self._held[name] for name in carries.longer]
        longer = [step.tensor((1, each.shape[1] + tokens, *each.shape[2:]), each.dtype) for each in states]
        step.method.delegate(delegate, [*arguments, *states, *results, *longer])
        for state, rows in zip(states, longer, strict=True):
            step.method.call("aten::slice_copy.Tensor_out", [rows, 1, -state.shape[1], _END, 1], state)

    def _begin(self, method: Method, saved: dict[str, Slot]) -> None:
        """Bring the states to the position that the call begins at, and save them before several tokens."""
        start = self._step.begin
        reached, remembered = (method.state(torch.int64, (1,)) for _ in range(2))
        fresh, on, back, known, lost = (method.tensor(torch.bool, (1,)) for _ in range(5))
        method.call("aten::eq.Scalar_out", [start, 0], fresh)
        method.call("aten::eq.Tensor_out", [start, reached], on)
        method.call("aten::eq.Tensor_out", [start, remembered], back)
        method.call("aten::logical_or.out", [fresh, on], known)
        method.call("aten::logical_or.out", [known, back], lost)
        method.call("aten::logical_not.out", [lost], lost)
        fail_where(method, lost, start)
        method.call("aten::logical_not.out", [known], known)
        method.call("aten::logical_and.out", [back, known], back)
        with method.only_if(back):
            for name, state in self._held.items():
                _copy(method, saved[name], state)
        with method.only_if(fresh):
            _copy(method, start, remembered)  # what was saved belongs to another text
            for state in self._held.values():
                method.call("aten::full_like.out", [state, 0.0, None], state)
        several = method.flag()
        method.call("executorch_prim::gt.Scalar", [self._step.count, 1], several)
        with method.only_if(several):
            _copy(method, start, remembered)
            for name, state in self._held.items():
                _copy(method, state, saved[name])
        method.call("aten::add.Scalar_out", [start, self._step.count, 1], reached)


class Carries:
    """What one subgraph takes of states and gives to them, beside its other arguments and results.

    Such a state is the last rows of a stream, which a convolution over positions reads before the step's own.

    Attributes:
        longer: by the name of the state: its rows and the step's behind them, [1, rows + tokens, 1, size].
    """

    def __init__(self, graph: Subgraph) -> None:
        self._graph = graph
        self.longer: dict[str, Value] = {}

    def behind(self, name: str, x: Value, rows: int) -> Value:
        """``x`` [1, tokens, size] behind the state's rows."""
        graph, (_, tokens, size) = self._graph, x.shape
        state = graph.input((1, rows, 1, size))
        spread = graph.reshape(x, (1, 0, 1, size), (1, tokens, 1, size))
        self.longer[name] = graph.concatenate(state, spread, 1)
        return self.longer[name]


def _copy(method: Method, source: Slot, target: Slot) -> None:
    method.call("aten::slice_copy.Tensor_out", [source, 0, 0, _END, 1], target)
