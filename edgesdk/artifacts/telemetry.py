"""Hosts that libraries report to on their own, found by name in the files of an artifact."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from typing import IO

from ..bounds.zips import opened_zip
from ..errors import EdgeError
from ..partials import scratch_folder
from .entries import Entry, zip_entries
from .findings import Finding

_BLOCK = 1 << 20
_ORT = "ORT_DISABLE_TELEMETRY=1 before ONNX Runtime is loaded ends it; edgesdk, its runners and its service set that"
_RAY = "RAY_USAGE_STATS_ENABLED=0 ends it; edgesdk sets that"
_AZURE = "leave out the library that brings Azure Application Insights"
#: The parts of each host's name, and the way out. (Whole names would be found in this file too.)
_HOSTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("events", "data", "microsoft", "com"), _ORT),
    (("vortex", "data", "microsoft", "com"), _ORT),
    (("in", "applicationinsights", "azure", "com"), _AZURE),
    (("dc", "services", "visualstudio", "com"), _AZURE),
    (("usage-stats", "ray", "io"), _RAY),
    (("firebaselogging", "googleapis", "com"), "leave out the library that brings Google's data transport"),
    (("app-measurement", "com"), "leave out Google Analytics"),
    (("crashlyticsreports-pa", "googleapis", "com"), "leave out Crashlytics, or switch its collection off"),
    (("ingest", "sentry", "io"), "leave out Sentry"),
    (("api", "segment", "io"), "leave out Segment"),
    (("api", "mixpanel", "com"), "leave out Mixpanel"),
    (("i", "posthog", "com"), "leave out PostHog, or the tool that brings it"),
    (("app", "posthog", "com"), "leave out PostHog, or the tool that brings it"),
    (("api2", "amplitude", "com"), "leave out Amplitude"),
    (("datadoghq", "com"), "leave out Datadog"),
    (("wandb", "ai"), "WANDB_MODE=offline ends it"),
    (("telemetry", "elastic", "co"), "leave out the library that brings it"),
    (("telemetry", "huggingface", "co"), "HF_HUB_DISABLE_TELEMETRY=1 ends it; edgesdk sets that"),
)
_WAYS_OUT = {".".join(parts).encode(): hint for parts, hint in _HOSTS}
_NAMES = re.compile(rb"(?<![A-Za-z0-9-])(" + b"|".join(map(re.escape, _WAYS_OUT)) + rb")(?![A-Za-z0-9.-])")
_LONGEST = max(map(len, _WAYS_OUT))
_NESTED = (".jar", ".whl", ".aar")


def telemetry_findings(entries: Iterable[Entry]) -> Iterator[Finding]:
    """A warning for each host and file; archives inside of the artifact are looked into once.

    A name in a binary does not prove that anything is sent, and an address that is put together at run time is not
    found: what is silent is shown by looking at its network.
    """
    found = False
    for entry in entries:
        for place, host in _searched(entry):
            found = True
            hint = _WAYS_OUT[host]
            yield Finding("warning", place, f"names {host.decode()}, which takes telemetry", hint)
    if not found:
        yield Finding("note", "telemetry", f"none of {len(_WAYS_OUT)} known hosts of telemetry is named in its files")


def _searched(entry: Entry) -> Iterator[tuple[str, bytes]]:
    with entry.open() as file:
        if entry.name.endswith(_NESTED):
            yield from _inside(entry.name, file)
        else:
            yield from ((entry.name, host) for host in _hosts(file))


def _inside(name: str, file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """An archive in the artifact: its files, or its bytes where it is no whole archive."""
    with scratch_folder() as scratch:
        copy = scratch / "nested.zip"
        with copy.open("wb") as out:
            shutil.copyfileobj(file, out, _BLOCK)  # no more than the artifact's directory says
        try:
            with copy.open("rb") as content, opened_zip(copy) as archive:
                for entry in zip_entries(archive, content).values():
                    with entry.open() as inner:
                        yield from ((f"{name}!{entry.name}", host) for host in _hosts(inner))
        except EdgeError:
            with copy.open("rb") as content:
                yield from ((name, host) for host in _hosts(content))


def _hosts(file: IO[bytes]) -> list[bytes]:
    """The hosts that a file names, each once; read as a stream."""
    found: dict[bytes, None] = {}
    rest = b""
    while block := file.read(_BLOCK):
        text = rest + block
        found |= dict.fromkeys(match[1] for match in _NAMES.finditer(text))
        rest = text[-_LONGEST - 1 :]
    return list(found)
