"""The trade-off: points of two figures, and which of them nothing beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Point:
    """One combination in a panel.

    Attributes:
        x: size, rate or energy.
        y: quality; lower is better.
        name: of the recipe.
        kind: class of the colour.
        text: what it says when pointed at.
        sure: whether its figures are to be believed; others are shown, and not on the front.
    """

    x: float
    y: float
    name: str
    kind: str
    text: str
    sure: bool = True


def front(points: Sequence[Point], better: Better) -> list[Point]:
    """Points that no other is at least as good as in both figures and better than in one, from left to right.

    Only those that are sure are among them, and beat others.

    Args:
        points: lower ``y`` is better.
        better: which ``x`` is.
    """
    sign = 1 if better == "lower" else -1

    def beats(a: Point, b: Point) -> bool:
        no_worse = sign * a.x <= sign * b.x and a.y <= b.y
        return no_worse and (a.x != b.x or a.y != b.y)

    sure = [point for point in points if point.sure]
    return sorted((one for one in sure if not any(beats(it, one) for it in sure)), key=lambda it: (it.x, it.y))
