"""Targets: device classes and their runtime, as data in ``targets/<name>/target.toml``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .documents import read_toml
from .errors import TargetError
from .registry import unknown
from .schema import load

FloatType = Literal["float32", "float16"]
FILE = "target.toml"
STORES = "stores.toml"  # beside it: the rules of an app store (see :mod:`edgesdk.stores`)


@dataclass(frozen=True)
class RuntimeRange:
    """The runtime that a target's programs need.

    Attributes:
        name: the package that runs them.
        versions: the supported range, as in PEP 440.
    """

    name: str
    versions: str


@dataclass(frozen=True)
class Delivery:
    """One way to bring a bundle to users.

    Attributes:
        way: its name.
        max_mb: the largest bundle that it takes, 10^6 bytes.
        source: where that is written.
    """

    way: str
    max_mb: int
    source: str = ""


Gain = Literal["speed", "memory", "storage", "download"]


@dataclass(frozen=True)
class Gains:
    """What of speed, memory, storage and download gets better on a device.

    Attributes:
        zeros: with weights that are zero here and there.
        runs: with zeros in a fixed pattern, such as 2:4.
        smaller: with fewer layers, heads, neurons, channels or tokens.
        why: how far that was tried, for people.
    """

    zeros: tuple[Gain, ...] = ("download",)
    runs: tuple[Gain, ...] = ("download",)
    smaller: tuple[Gain, ...] = ("speed", "memory", "storage", "download")
    why: str = ""


@dataclass(frozen=True)
class Target:
    """A device class.

    Attributes:
        name: the folder's name.
        description: one line for people.
        converter: the converter that makes its programs.
        runtime: the runtime and its version range.
        os: operating system.
        architecture: as ``uname -m`` prints it.
        memory_mb: memory (10^6 bytes) that a program may use there.
        page_size: bytes.
        schemes: weight schemes that its kernels hold exactly, without their group.
        activations: bits of activations that its kernels prefer with packed weights.
        float_type: float type that its kernels prefer.
        delegates: hardware paths that its programs may take, the default first; () where a runtime has only one.
        delivery: ways to bring a bundle to users, and their limits, as its store has them; () where there is none.
        recipes: decodable names of the recipes ``fast``, ``balanced`` and ``best``.
        gains: what a device sees of weights that were taken away: see :class:`Gains`.
        cores: microcontroller cores whose boards it serves (:mod:`edgesdk.boards`); () elsewhere.
        providers: what a service tries to run programs with, the first choice first; () where there is one way.
    """

    name: str
    description: str
    converter: str
    runtime: RuntimeRange
    os: str
    architecture: str
    memory_mb: int
    page_size: int
    schemes: tuple[str, ...]
    activations: Literal[8, 16, 32]
    float_type: FloatType
    recipes: Mapping[str, str] = field(default_factory=dict)
    delegates: tuple[str, ...] = ()
    delivery: tuple[Delivery, ...] = ()
    gains: Gains = Gains()
    cores: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()


def targets_dir() -> Path:
    """The folder of targets: EDGESDK_TARGETS, the installed copy, or the checkout's."""
    named = os.environ.get("EDGESDK_TARGETS")
    if named:
        return Path(named)
    here = Path(__file__).resolve().parent
    installed = here / "_targets"
    return installed if installed.is_dir() else here.parent / "targets"


def target_names() -> list[str]:
    """Names of all targets."""
    return sorted(path.parent.name for path in targets_dir().glob(f"*/{FILE}"))


def open_target(name: str) -> Target:
    """Load one target.

    Raises:
        TargetError: no such target, or its file has a wrong key or value.
    """
    path = targets_dir() / name / FILE
    if not path.is_file():
        raise TargetError(unknown("target", name, target_names()))
    stores = path.with_name(STORES)
    delivery = read_toml(stores, TargetError).get("delivery", []) if stores.is_file() else []
    return load(Target, {"name": name, "delivery": delivery, **read_toml(path, TargetError)}, str(path), TargetError)
