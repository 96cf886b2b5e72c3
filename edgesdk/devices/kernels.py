"""Which running kernel answers, by the id that it drew when it started.

Two names of one board (addresses, an mDNS name, an alias of ssh's configuration, two ports) lead to one kernel. Its
boot id tells: any user may read it, and it is random (a UUID of version 4), so that it differs between boards whose
card was copied, which have one /etc/machine-id and the same host keys. What else could tell is worse: a device tree's
serial number is missing, or one for a whole series (github.com/JeffyCN/meta-rockchip/issues/72); DMI's product_uuid is
for root alone; MAC addresses come from boot loaders' defaults; host keys lie on the card, and each server has its own.

Containers of Docker and Podman share their host's kernel, its processors and its memory: they count as one board with
it. Where a container shows an id of its own, as LXC and systemd-nspawn do, it stands apart. Machines that continue one
snapshot have one id and are taken for one. After a restart the id is another.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .shell import ShellDevice

BOOT_ID = "/proc/sys/kernel/random/boot_id"
_DRAWN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def kernel_marks(device: ShellDevice) -> tuple[str, ...]:
    """A mark of the kernel that runs on a device; none where it does not say (it is no Linux, or hides /proc).

    Raises:
        DeviceError: the device cannot be reached.
    """
    lines = {line.strip() for line in device.run(f"cat {BOOT_ID}", timeout=30).text.splitlines()}
    found = [line for line in lines if _DRAWN.fullmatch(line)]
    return (f"kernel {found[0]}",) if len(found) == 1 else ()
