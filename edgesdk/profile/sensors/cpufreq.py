"""Clocks of the cores, and the caps that are put on them.

Format: Documentation/admin-guide/pm/cpufreq.rst of the kernel: kHz.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .base import Files, Sensor
from .listed import folders, number, shown

_CPU = "/sys/devices/system/cpu"
_FILES = ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq")


class Cpufreq:
    """One clock and one cap for each policy, or for each core where there are no policies."""

    name = "cpufreq"
    listing = shown(*(f"{_CPU}/{folder}/{file}" for folder in ("cpufreq/policy*", "cpu*/cpufreq") for file in _FILES))

    def found(self, text: str) -> list[Sensor]:
        policies, cores = {}, {}
        for folder, files in folders(text).items():
            parent, _, name = folder.rpartition("/")
            if name == "cpufreq":
                cores[folder] = (parent.rpartition("/")[2], files)
            else:
                policies[folder] = (name, files)
        chosen = policies or cores
        return [sensor for folder, (name, files) in chosen.items() for sensor in _both(folder, name, files)]

    def values(self, text: str) -> dict[str, float]:
        return {}


def _both(folder: str, name: str, files: Mapping[str, str]) -> Iterator[Sensor]:
    fastest = number(files.get("cpuinfo_max_freq"))
    limit = fastest * 1000 if fastest else None
    for title, file, evidence in (
        (name, "scaling_cur_freq", "cpufreq ABI: scaling_cur_freq is in kHz"),
        (f"{name} cap", "scaling_max_freq", "cpufreq ABI: scaling_max_freq is in kHz, lowered by what holds back"),
    ):
        if number(files.get(file)):
            yield Sensor(
                title, "frequency", "core", "cpufreq", Files((f"{folder}/{file}",), 1e3), evidence, limit=limit
            )


SOURCE = Cpufreq()
