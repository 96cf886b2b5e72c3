"""Nothing leaves the machine: libraries that report home by default are told not to, before they are imported.

A value that is set already stays, so that whoever wants a library's telemetry can have it.
"""

from __future__ import annotations

import os

#: Variables of the environment, their values, and whose habit each ends.
SILENT = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime from 1.29 on: events to Microsoft, and a device id in the cache
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, under transformers and lm-eval
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray: statistics of its use
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",  # pip: asks the index for its own newest version
    "DO_NOT_TRACK": "1",  # what other tools agreed on (consoledonottrack.com)
}


def keep_silent() -> None:
    """Set what is not set."""
    for name, value in SILENT.items():
        if not os.environ.get(name):
            os.environ[name] = value
