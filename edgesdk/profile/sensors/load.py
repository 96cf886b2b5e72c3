"""What else the machine does: the load average of Linux, which says whether a measurement had the device for itself."""

from __future__ import annotations

from .base import Files, Sensor
from .listed import folders, shown

_EVIDENCE = "proc(5): runnable tasks, averaged over the last minute; the runner's own threads are among them"


class Load:
    """The load average of the last minute."""

    name = "load"
    listing = shown("/proc/loadavg")

    def found(self, text: str) -> list[Sensor]:
        return [
            Sensor("load average", "level", "device", self.name, Files((f"{folder}/loadavg",)), _EVIDENCE)
            for folder, files in folders(text).items()
            if "loadavg" in files
        ]

    def values(self, text: str) -> dict[str, float]:
        return {}


SOURCE = Load()
