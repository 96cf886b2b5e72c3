"""The kinds of deliverables, built in and of other packages."""

from __future__ import annotations

from typing import Any

from ..registry import Registry
from .base import Deliverable

DELIVERABLES: Registry[Deliverable[Any]] = Registry(
    "deliverable",
    "edgesdk.deliverables",
    {
        "android": "edgesdk.package.android:DELIVERABLE",
        "firmware": "edgesdk.package.firmware:DELIVERABLE",
        "ios": "edgesdk.package.ios:DELIVERABLE",
        "linux-service": "edgesdk.package.linux_service:DELIVERABLE",
    },
)
