"""Energy of x86 packages.

Format: Documentation/power/powercap/powercap.rst of the kernel: microjoule, cumulative, from 0 again after
``max_energy_range_uj``. Current kernels let only root read it.
"""

from __future__ import annotations

from .base import Files, Remark, Sensor, Sum
from .listed import counted, folders, number, shown

_CLASS = "/sys/class/powercap/intel-rapl:*"
_EVIDENCE = "powercap ABI: energy_uj is in microjoule, cumulative"


class Rapl:
    """Packages and what is inside and around them."""

    name = "rapl"
    listing = shown(*(f"{_CLASS}/{file}" for file in ("name", "energy_uj", "max_energy_range_uj")))

    def found(self, text: str) -> list[Sensor]:
        zones = {
            folder: files
            for folder, files in folders(text).items()
            if "name" in files and number(files.get("energy_uj")) is not None
        }
        packages = [files["name"] for files in zones.values() if files["name"].startswith("package-")]
        sensors = counted(
            Sensor(
                files["name"],
                "energy",
                "package",
                self.name,
                Files((f"{folder}/energy_uj",), 1e-6),
                _EVIDENCE,
                total=packages == [files["name"]],
                wraps_at=_range(files),
            )
            for folder, files in zones.items()
        )
        if len(packages) < 2:
            return sensors
        names = tuple(sensor.name for sensor in sensors if sensor.name.startswith("package-"))
        evidence = f"{_EVIDENCE}; the sum of all packages, each to be unwrapped before it is added"
        return [*sensors, Sensor("packages", "energy", "package", self.name, Sum(names), evidence, total=True)]

    def remarks(self, text: str) -> list[Remark]:
        """Zones that have a name, and whose counter this user may not read."""
        closed = [folder for folder, files in folders(text).items() if "name" in files and "energy_uj" not in files]
        if not closed:
            return []
        way = (
            f"RAPL is there, and this user may not read it: chmod a+r {closed[0]}/energy_uj as root (until the next "
            "boot), or a udev rule for the subsystem powercap that does"
        )
        return [Remark("not-permitted", way)]

    def values(self, text: str) -> dict[str, float]:
        return {}


def _range(files: dict[str, str]) -> float | None:
    raw = number(files.get("max_energy_range_uj"))
    return raw * 1e-6 if raw and raw > 0 else None


SOURCE = Rapl()
