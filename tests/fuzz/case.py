"""What a target of the fuzzer is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeAlias

#: An input: contents by file name. A file that a target has and an input has not is as it was in the sample.
Files: TypeAlias = Mapping[str, bytes]


@dataclass(frozen=True)
class Case:
    """A target that is ready.

    Attributes:
        make: an input from random numbers; the same numbers make the same input.
        run: does with an input what a user would; raises what edgesdk raises.
    """

    make: Callable[[Random], Files]
    run: Callable[[Files], object]


#: Makes a case ready in an empty folder of its own.
Opener: TypeAlias = Callable[[Path], Case]


def placed(folder: Path, samples: Files) -> Callable[[Files], None]:
    """A function that gives a folder's files the contents of an input, or those of the sample again."""
    written: dict[str, bytes] = {}

    def place(files: Files) -> None:
        for name in {*samples, *files, *written}:
            content = files.get(name, samples.get(name))
            if content is None:
                (folder / name).unlink(missing_ok=True)
                del written[name]
            elif written.get(name) != content:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
                written[name] = content

    return place
