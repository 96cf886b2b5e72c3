"""Prompts by their number of tokens."""

from __future__ import annotations

_MULTIPLIER, _INCREMENT = 1664525, 1013904223  # Numerical Recipes' linear congruential generator


def prompt(tokens: int, vocab: int, seed: int) -> list[int]:
    """Token ids drawn evenly from a vocabulary, the same for the same seed on every machine.

    A dense decoder's work does not depend on which tokens these are; llama-bench measures in the same way.
    """
    state, found = seed & 0xFFFFFFFF, []
    for _ in range(tokens):
        state = (_MULTIPLIER * state + _INCREMENT) & 0xFFFFFFFF
        found.append((state >> 8) % vocab)
    return found
