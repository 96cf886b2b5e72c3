"""Options of the commands that compress."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ..compress.calibration import Calibration

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--size",
        help="Choose bits for every matrix so that the result has this size, like 90MB or 4.5bpw (bits/weight).",
    ),
    click.option(
        "--calibration",
        default="self",
        show_default=True,
        metavar="FILE|self",
        help="Text for passes that look at activations: a text file, chats as .jsonl, or from the model itself.",
    ),
    click.option(
        "--calibration-sequences",
        "sequences",
        type=click.IntRange(min=1),
        default=64,
        show_default=True,
        help="Sequences of calibration text.",
    ),
    click.option(
        "--calibration-length",
        "length",
        type=click.IntRange(min=2),
        default=256,
        show_default=True,
        help="Tokens of each.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**63 - 1),
        default=0,
        show_default=True,
        help="Of the sampling of calibration text.",
    ),
)

_CHECKS = (
    click.option("--eval-text", type=click.Path(path_type=Path), help="Text file to measure perplexity on."),
    click.option(
        "--eval-windows",
        type=click.IntRange(min=1),
        default=6,
        show_default=True,
        help="Windows of 512 tokens, or documents.",
    ),
    click.option("--max-kl", type=click.FloatRange(min=0), help="Fail above this mean KL divergence (nats a token)."),
    click.option(
        "--max-ppl-increase", type=click.FloatRange(min=0), help="Fail above this rise of perplexity (percent)."
    ),
    click.option("--skip-checks", is_flag=True, help="Measure nothing; the result says so."),
)


def adapter_option(function: F) -> F:
    """Add ``--adapter``."""
    return click.option(
        "--adapter",
        type=click.Path(path_type=Path),
        help="LoRA adapter to merge into MODEL's weights first: a folder that PEFT wrote.",
    )(function)


def oracle_option(function: F) -> F:
    """Add ``--oracle``."""
    return click.option(
        "--oracle",
        type=click.Choice(["auto", "off", "required"]),
        default="auto",
        show_default=True,
        help="Compare what is read of MODEL with transformers (extra: oracle); auto: where it is installed.",
    )(function)


def prefix_space_option(function: F) -> F:
    """Add ``--no-prefix-space``."""
    return click.option(
        "--no-prefix-space",
        "prefix_space",
        flag_value=False,
        default=None,
        help="llama2.c files, which do not say it: put no space in front of a text.",
    )(function)


def check_options(function: F) -> F:
    """Add what is measured, and the limits that make a command fail."""
    for option in reversed(_CHECKS):
        function = option(function)
    return function


def calibration_options(function: F) -> F:
    """Add ``--size`` and the options of calibration text to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def calibration_of(text: str, sequences: int, length: int, seed: int) -> Calibration:
    """The calibration that the options ask for."""
    from ..compress.calibration import SELF, Calibration

    return Calibration(None if text == SELF else Path(text), sequences, length, seed)
