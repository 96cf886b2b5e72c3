"""Nothing leaves the machine: libraries that report home by default are told not to, before they are imported.

A value that is set already stays, so that whoever wants a library's telemetry can have it.
"""

from __future__ import annotations

import os

#: Variables of the environment, their values, and whose habit each ends.
SILENT = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime from 1.29 on: events to mobile.events.data.microsoft.com
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, under transformers and lm-eval
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray: statistics to usage-stats.ray.io
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",  # pip: asks the index for its own newest version
    "DO_NOT_TRACK": "1",  # what other tools agreed on (consoledonottrack.com)
}

#: Hosts that libraries report to, as binaries name them, and how each is ended; ``edgesdk doctor`` looks for them.
ENDPOINTS = {
    "events.data.microsoft.com": "ORT_DISABLE_TELEMETRY=1 before ONNX Runtime is loaded ends it",
    "vortex.data.microsoft.com": "ORT_DISABLE_TELEMETRY=1 before ONNX Runtime is loaded ends it",
    "usage-stats.ray.io": "RAY_USAGE_STATS_ENABLED=0 ends it",
    "play.googleapis.com/log": "Google Play services report what apps use of them",
    "firebaselogging": "Google's data transport; leave out the library that brings it",
    "app-measurement.com": "Google Analytics; leave out the library that brings it",
    "crashlytics": "leave out Crashlytics, or switch its collection off",
    "in.applicationinsights.azure.com": "Azure Application Insights; leave out the library that brings it",
    "dc.services.visualstudio.com": "Azure Application Insights; leave out the library that brings it",
    "ingest.sentry.io": "leave out Sentry, or give it no DSN",
    "api.segment.io": "leave out Segment",
    "api.mixpanel.com": "leave out Mixpanel",
    "app.posthog.com": "leave out PostHog",
    "api2.amplitude.com": "leave out Amplitude",
    "browser-intake-datadoghq": "leave out Datadog",
}


def keep_silent() -> None:
    """Set what is not set."""
    for name, value in SILENT.items():
        if not os.environ.get(name):
            os.environ[name] = value
