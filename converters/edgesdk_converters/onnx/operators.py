"""Time of every kind of operator, from ONNX Runtime's own profiler, in a session of its own: profiling slows it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .session import OnnxSession

_MICROSECONDS = 1e-6


def operator_times(
    model: Path, context: int, threads: int | None, ids: Sequence[int], tokens: int
) -> list[dict[str, Any]]:
    """Rows of ``operator phase calls seconds``: for the whole prompt, and for one decoded token on the average.

    Raises:
        EdgeError: ONNX Runtime fails.
    """
    with tempfile.TemporaryDirectory(prefix="edgesdk-") as scratch:
        session = OnnxSession(model, context, threads, profile=Path(scratch) / "profile")
        token = int(session.prefill(ids).argmax())
        prompts = session.runs
        for _ in range(tokens):
            token = int(session.decode(token).argmax())
        events = json.loads(Path(session.end_profile()).read_text(encoding="utf-8"))
    runs = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e.get("name") == "model_run")
    decoding = runs[prompts][0] if len(runs) > prompts else float("inf")
    found: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            phase = "prefill" if event["ts"] < decoding else "decode"
            found.setdefault((phase, event["args"]["op_name"]), []).append(event["dur"] * _MICROSECONDS)
    return [
        {"operator": name, "phase": phase, "calls": len(each) / by, "seconds": sum(each) / by}
        for (phase, name), each in sorted(found.items(), key=lambda item: (item[0][0], -sum(item[1])))
        for by in [1 if phase == "prefill" else max(tokens, 1)]
    ]
