"""The clock regime: what governors, limits and power modes let the clocks do. Profiles compare within one regime."""

from __future__ import annotations

from ..devices.base import DeviceError
from ..devices.facts import sections
from ..devices.shell import ShellDevice

CAP = " cap"  # of the names of those that heat may lower within a run
_SCRIPT = r"""
for folder in /sys/devices/system/cpu/cpufreq/policy* /sys/devices/system/cpu/cpu[0-9]*/cpufreq; do
    [ -r "$folder/scaling_governor" ] || continue
    governor='' low='' high=''
    read -r governor < "$folder/scaling_governor"
    { read -r low < "$folder/scaling_min_freq"; read -r high < "$folder/cpuinfo_max_freq"; } 2> /dev/null
    name=${folder%/cpufreq}
    cap=''
    { read -r cap < "$folder/scaling_max_freq"; } 2> /dev/null
    echo "@clock ${name##*/} $governor $low-$high kHz"
    echo "@cap ${name##*/} $cap kHz"
done
for file in /sys/devices/system/cpu/intel_pstate/no_turbo /sys/devices/system/cpu/cpufreq/boost; do
    [ -r "$file" ] && read -r value < "$file" && echo "@boost ${file##*/} $value"
done
if command -v nvpmodel > /dev/null 2>&1; then echo "@nvpmodel $(nvpmodel -q 2> /dev/null | tr '\n' ' ')"; fi
if command -v cmd > /dev/null 2>&1 && command -v dumpsys > /dev/null 2>&1; then
    echo "@fixed $(dumpsys power 2> /dev/null | grep -i 'fixed.performance.*=' | tr '\n' ' ')"
    echo "@saver $(settings get global low_power 2> /dev/null)"
fi
"""


def regime(device: ShellDevice) -> dict[str, str]:
    """What the device says, by name; empty where it says nothing.

    Raises:
        DeviceError: it does not answer.
    """
    said = sections(device.run("exec sh -s", stdin=_SCRIPT.encode(), timeout=30).text)
    found: dict[str, str] = {}
    for line in said.get("@clock", []):
        name, _, rest = line.partition(" ")
        if name.startswith("policy") or not any(key.startswith("policy") for key in found):
            found[name] = rest.strip()
    for line in said.get("@cap", []):
        name, _, rest = line.partition(" ")
        if name in found:
            found[f"{name}{CAP}"] = rest.strip()
    for line in said.get("@boost", []):
        name, _, value = line.partition(" ")
        found[name] = value
    for key, name in (("@nvpmodel", "power mode"), ("@fixed", "fixed performance"), ("@saver", "battery saver")):
        value = " ".join(said.get(key, [])).strip()
        if value and value != "null":
            found[name] = value
    return found


def regime_or_none(device: ShellDevice) -> dict[str, str] | None:
    """As :func:`regime`; None where the device does not answer any more."""
    try:
        return regime(device)
    except DeviceError:
        return None
