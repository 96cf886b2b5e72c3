"""What lies in ExecuTorch's wheel: libraries, schemas and the flatbuffer compiler, without its exporter.

Importing ``executorch.exir`` takes seconds and loads torch's compiler; writing and running a program need none of it.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from edgesdk.errors import EdgeError, MissingExtraError
from edgesdk.partials import scratch_folder

PROGRAM_SCHEMA = "exir/_serialize/program.fbs"
DELEGATE_SCHEMA = "backends/xnnpack/serialization/schema.fbs"
_BARE_INFINITY = re.compile(r'(?<=": )inf\b|(?<=": -)inf\b')  # flatc's spelling, which JSON does not know


def folder() -> Path:
    """Where the wheel is installed.

    Raises:
        MissingExtraError: it is not.
    """
    found = importlib.util.find_spec("executorch")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("executorch", "executorch")
    return Path(found.submodule_search_locations[0])


def version() -> str:
    """The installed version, without a local part."""
    return metadata.version("executorch").partition("+")[0]


def compile_flatbuffers(schema: str, documents: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Turn documents into flatbuffers of a schema of the wheel, in one call of its compiler.

    Raises:
        EdgeError: the compiler refuses, which is a defect of this converter or a changed schema.
    """
    home = folder()
    with scratch_folder() as scratch:
        names = [f"{number}.json" for number in range(len(documents))]
        for name, document in zip(names, documents):  # noqa: B905 - boards with Python 3.8
            (scratch / name).write_text(json.dumps(document), encoding="ascii")
        command = [str(home / "data/bin/flatc"), "--binary", "-o", ".", str(home / schema), *names]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr or done.stdout).strip().splitlines()
            raise EdgeError(f"ExecuTorch {version()}'s flatbuffer compiler refuses the program: {reason[:1]}")
        suffix = _suffix(schema)
        return [(scratch / name).with_suffix(suffix).read_bytes() for name in names]


def decompile_flatbuffer(schema: str, content: bytes) -> dict[str, Any]:
    """Undo :func:`compile_flatbuffers` for one flatbuffer.

    Raises:
        EdgeError: it is none of this schema.
    """
    home = folder()
    with scratch_folder() as scratch:
        (scratch / "0.bin").write_bytes(content)
        flags = ["--json", "--defaults-json", "--strict-json", "--raw-binary", "-o", "."]
        command = [str(home / "data/bin/flatc"), *flags, str(home / schema), "--", "0.bin"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EdgeError(f"not a flatbuffer of {Path(schema).name}: {(done.stderr or done.stdout).strip()[:200]}")
        text = (scratch / "0.json").read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(_BARE_INFINITY.sub("Infinity", text))
        return found


@lru_cache(maxsize=1)
def load_runtime() -> Any:
    """The runtime's binding, with the kernels that programs of language models call.

    Raises:
        MissingExtraError: ExecuTorch or torch is not installed.
    """
    home = folder()
    try:
        import torch
        from executorch.extension.pybindings import _C
    except ModuleNotFoundError as failure:
        raise MissingExtraError((failure.name or "executorch").partition(".")[0], "executorch") from None
    operators: Any = torch.ops
    for library in ("extension/llm/custom_ops/libcustom_ops_aot_lib", "kernels/quantized/libquantized_ops_aot_lib"):
        (path,) = (home / library).parent.glob(f"{Path(library).name}.*")
        operators.load_library(path)
    return _C


def _suffix(schema: str) -> str:
    return ".pte" if schema == PROGRAM_SCHEMA else ".bin"
