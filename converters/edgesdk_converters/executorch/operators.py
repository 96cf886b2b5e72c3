"""Time of every kind of operator, from ExecuTorch's event tracer (ETDump), with XNNPACK's own operators inside."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from edgesdk.errors import EdgeError

from .native import native_log
from .wheel import decompile_flatbuffer, load_runtime

_SCHEMA = "devtools/etdump/etdump_schema_flatcc.fbs"
_PREFIX = 4  # its size stands before it
_NANOSECONDS = 1e-9
_AROUND = ("Method::", "Program::", "DELEGATE_CALL", "OPERATOR_CALL")  # hold other events
_NUMBER = re.compile(r" #\d+$")  # XNNPACK numbers operators of one kind


def operator_times(
    program: Path, context: int, threads: int | None, ids: Sequence[int], tokens: int
) -> list[dict[str, Any]]:
    """Rows of ``operator phase calls seconds``: for the whole prompt, and for one decoded token on the average.

    Raises:
        EdgeError: the wheel was built without the tracer, or the runtime fails.
    """
    runtime = load_runtime()
    with native_log() as log, tempfile.TemporaryDirectory(prefix="edgesdk-") as scratch:
        if threads is not None:
            runtime._unsafe_reset_threadpool(threads)
        try:
            module = runtime._load_for_executorch(str(program), enable_etdump=True)
            if not module.has_etdump():
                raise EdgeError("this build of ExecuTorch traces no events")
            prompts = _run(module, ids, tokens)
            module.write_etdump_result_to_file(str(Path(scratch) / "etdump"))
        except RuntimeError as failure:
            raise EdgeError(f"ExecuTorch cannot trace the program: {str(failure).splitlines()[0]} {log()}") from None
        traced = decompile_flatbuffer(_SCHEMA, (Path(scratch) / "etdump").read_bytes()[_PREFIX:])
    runs = [run for run in traced["run_data"] if run.get("name") == "Execute"]
    return [
        {"operator": name, "phase": phase, "calls": calls / by, "seconds": seconds / by}
        for phase, part, by in (("prefill", runs[:prompts], 1), ("decode", runs[prompts:], max(tokens, 1)))
        for name, (calls, seconds) in sorted(_summed(part).items(), key=lambda item: -item[1][1])
    ]


def _run(module: Any, ids: Sequence[int], tokens: int) -> int:
    """The prompt and so many tokens after it; how many steps the prompt took."""
    chunk = module.method_meta("forward").input_tensor_meta(0).sizes()[1]
    steps = [list(ids[at : at + chunk]) for at in range(0, len(ids), chunk)]
    at, best = 0, 0
    for step in [*steps, *([None] * tokens)]:
        fed = [best] if step is None else step
        (logits,) = module.run_method("forward", [torch.tensor([fed]), torch.tensor([at])])
        best, at = int(logits[0, -1].argmax()), at + len(fed)
    return len(steps)


def _summed(runs: Sequence[dict[str, Any]]) -> dict[str, tuple[int, float]]:
    """Calls and seconds by kind of operator; events that hold others are left out."""
    found: dict[str, tuple[int, float]] = {}
    for run in runs:
        for event in run.get("events") or []:
            traced = event.get("profile_event")
            name = traced and (traced.get("name") or traced.get("delegate_debug_id_str"))
            if name and not name.startswith(_AROUND):
                kind = _NUMBER.sub("", name)
                calls, seconds = found.get(kind, (0, 0.0))
                found[kind] = calls + 1, seconds + (traced["end_time"] - traced["start_time"]) * _NANOSECONDS
    return found
