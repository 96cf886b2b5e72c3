"""hwmon chips: temperatures, voltages, currents, powers and energies, and the INA3221 of Jetson modules.

Format: Documentation/hwmon/sysfs-interface.rst and ina3221.rst of the kernel. ``hwmon3`` is another chip after the next
boot, so that names come from chip and label.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from .base import Files, Quantity, Scope, Sensor
from .boards import connected, with_total
from .listed import counted, folders, number, numbered, shown, warm

_CLASS = "/sys/class/hwmon/hwmon*"
_ONE_CHANNEL = re.compile(r"ina2\d\d[a-z]?|isl28022|sy24655|sq52206")  # drivers ina2xx and ina238 of the kernel
_INA3221_CHANNELS = (1, 2, 3)  # 4 to 6 are the shunts' voltages, 7 their sum


@dataclass(frozen=True)
class _Kind:
    files: str
    quantity: Quantity
    scope: Scope
    scale: float
    evidence: str


_KINDS = (
    _Kind("temp{}_input", "temperature", "zone", 1e-3, "hwmon ABI: temp*_input is in millidegree Celsius"),
    _Kind("power{}_input", "power", "rail", 1e-6, "hwmon ABI: power*_input is in microwatt"),
    _Kind("power{}_average", "power", "rail", 1e-6, "hwmon ABI: power*_average is in microwatt, averaged by the chip"),
    _Kind("in{}_input", "voltage", "rail", 1e-3, "hwmon ABI: in*_input is in millivolt"),
    _Kind("curr{}_input", "current", "rail", 1e-3, "hwmon ABI: curr*_input is in milliampere"),
    _Kind("energy{}_input", "energy", "rail", 1e-6, "hwmon ABI: energy*_input is in microjoule, cumulative"),
)


class Hwmon:
    """Chips of the hwmon class."""

    name = "hwmon"
    listing = (
        shown(
            *(f"{_CLASS}/{part}" for part in ("name", "temp*_input", "temp*_label", "temp*_crit")),
            *(f"{_CLASS}/{part}" for part in ("power*_input", "power*_average", "power*_label")),
            *(f"{_CLASS}/{part}" for part in ("in*_input", "in*_label", "energy*_input", "energy*_label")),
            *(f"{_CLASS}/{part}" for part in ("curr*_input", "curr*_label", "curr*_crit_alarm", "device/capacity")),
        )
        + f"for folder in ${{root-}}{_CLASS}; do\n"
        '    cd -P "$folder/device" && echo "$folder/parent=${PWD##*/}"\n'
        "done\n"
    )

    def found(self, text: str) -> list[Sensor]:
        chips = folders(text)
        sensors: list[tuple[Sensor, str, str]] = []
        for folder, files in chips.items():
            # the kernel shows a battery as a chip too: power_supply knows it better
            if "name" in files and "capacity" not in chips.get(f"{folder}/device", {}):
                chip = files["name"]
                one = _ina3221(folder, files) if chip == "ina3221" else _generic(folder, files)
                sensors += [(sensor, chip, files.get("parent", "")) for sensor in one]
        return with_total(_apart(sensors), self.name)

    def values(self, text: str) -> dict[str, float]:
        return {}


def _generic(folder: str, files: Mapping[str, str]) -> Iterator[Sensor]:
    for kind in _KINDS:
        numbers = numbered(files, kind.files.format(r"(\d{1,4})"))
        for index in numbers:
            file = kind.files.format(index)
            value = number(files[file])
            if value is None or (kind.quantity == "temperature" and not warm(value * kind.scale)):
                continue
            if file.endswith("_average") and f"power{index}_input" in files:
                continue
            label = files.get(f"{file.rpartition('_')[0]}_label") or _of_channel(files, kind, index)
            alone = files["name"] if len(numbers) == 1 else f"{files['name']} {file.rpartition('_')[0]}"
            sensor = Sensor(
                label or alone,
                kind.quantity,
                kind.scope,
                "hwmon",
                Files((f"{folder}/{file}",), kind.scale),
                kind.evidence,
            )
            yield replace(sensor, critical=_critical(files, index)) if kind.quantity == "temperature" else sensor


def _of_channel(files: Mapping[str, str], kind: _Kind, index: int) -> str | None:
    """The label of a power or a current whose chip has one channel: that of the voltage at its bus."""
    if kind.quantity not in ("power", "current") or not _ONE_CHANNEL.fullmatch(files["name"]):
        return None
    return files.get(f"in{index}_label")


def _critical(files: Mapping[str, str], index: int) -> float | None:
    raw = number(files.get(f"temp{index}_crit"))
    return raw / 1000 if raw is not None and 0 < raw < 200_000 else None


def _ina3221(folder: str, files: Mapping[str, str]) -> Iterator[Sensor]:
    for index in _INA3221_CHANNELS:
        label = files.get(f"in{index}_label", "")
        volts, amperes = f"in{index}_input", f"curr{index}_input"
        if not connected(label) or number(files.get(volts)) is None or number(files.get(amperes)) is None:
            continue
        yield Sensor(
            label,
            "power",
            "rail",
            "hwmon",
            Files((f"{folder}/{volts}", f"{folder}/{amperes}"), 1e-6),
            "hwmon ABI: millivolt times milliampere of one INA3221 channel",
        )
        alarm = f"curr{index}_crit_alarm"
        if alarm in files:
            evidence = "hwmon ABI: 1 while the channel's current is above its critical limit"
            yield Sensor(f"{label} over-current", "flag", "rail", "hwmon", Files((f"{folder}/{alarm}",)), evidence)


def _apart(sensors: list[tuple[Sensor, str, str]]) -> list[Sensor]:
    """Names that several have get their chip, and then the device that it sits on; never the moving number."""
    for place in (0, 1):
        count = Counter((sensor.quantity, sensor.name) for sensor, _, _ in sensors)
        renamed = []
        for sensor, chip, parent in sensors:
            extra = (chip, parent)[place]
            if count[sensor.quantity, sensor.name] > 1 and extra and not sensor.name.startswith(extra):
                sensor = replace(sensor, name=f"{sensor.name} {extra}")
            renamed.append((sensor, chip, parent))
        sensors = renamed
    return counted(sensor for sensor, _, _ in sensors)


SOURCE = Hwmon()
