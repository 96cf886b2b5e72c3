"""External meters, opened by URL: ``joulescope``, ``otii://host:port``, ``ina228:/dev/ttyACM0``, ``ppk2:COMMAND``,
``csv:COMMAND``, ``ios:UDID``.
"""

from __future__ import annotations

from collections.abc import Callable

from ....registry import Registry
from ..base import Meter

#: From what stands behind the scheme to a meter that was not started yet.
METERS: Registry[Callable[[str], Meter]] = Registry(
    "meter",
    "edgesdk.meters",
    {
        "csv": "edgesdk.profile.sensors.meters.lines:open_csv",
        "ina228": "edgesdk.profile.sensors.meters.lines:open_ina228",
        "ios": "edgesdk.profile.sensors.ios:open_ios",
        "joulescope": "edgesdk.profile.sensors.meters.joulescope:open_joulescope",
        "otii": "edgesdk.profile.sensors.meters.otii:open_otii",
        "ppk2": "edgesdk.profile.sensors.meters.lines:open_ppk2",
    },
)

#: How the URL of each is written, and what it needs.
USAGE = {
    "csv": "csv:PROGRAM, which prints seconds,volts,amperes",
    "ina228": "ina228:/dev/ttyACM0[@BAUD], a board that prints seconds,volts,amperes",
    "ios": "ios:UDID, the battery through go-ios or pymobiledevice3",
    "joulescope": "joulescope[:SERIAL], with pyjoulescope_driver installed",
    "otii": "otii://HOST:PORT, an Otii server",
    "ppk2": "ppk2:PROGRAM, which drives the PPK2 and prints seconds,volts,amperes",
}

#: URLs of meters that are programs begin so: whoever names one has it run.
PROGRAM_METERS = ("csv:", "ppk2:")


def open_meter(url: str) -> Meter:
    """The meter that a URL names; it measures from its ``start()`` on.

    Raises:
        EdgeError: no such kind of meter, or the URL lacks what that kind needs.
    """
    scheme, _, rest = url.strip().partition(":")
    return METERS.get(scheme)(rest.removeprefix("//"))
