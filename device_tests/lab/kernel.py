"""The board's kernel: Debian's own, with sensor drivers that Debian leaves out, and a device tree that names them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from edgesdk.errors import EdgeError

from .host import KBUILD, KERNEL_SERIES, LabUnavailableError, run, tool
from .packages import ForeignApt

MACHINE = ("-M", "virt,gic-version=3", "-cpu", "cortex-a76", "-smp", "2", "-m", "2048")
SENSORS = Path(__file__).with_name("files") / "board" / "sensors.dts"
_DRIVERS = ("drivers/hwmon/ina3221.c", "drivers/i2c/i2c-stub.c")
_MODULES = {  # in this order, each after those it needs, with its options
    "virtio_mmio": "",
    "virtio_blk": "",
    "virtio_net": "",
    "crc32c_generic": "",
    "ext4": "",
    "i2c-dev": "",
    "lm75": "",
    "ina3221": "",
    "i2c-stub": "chip_addr=0x40,0x48,0x49,0x4a",
}
# i2c-stub takes its children from the device tree once it knows its node there
_BUS = {
    r"(#include <linux/i2c.h>)": r"\1\n#include <linux/of.h>",
    r"(ret = i2c_add_adapter\(&stub_adapter\);)": (
        r'stub_adapter.dev.of_node = of_find_compatible_node(NULL, NULL, "edgesdk,i2c-stub");\n\t\1'
    ),
}


def kernel_packages(apt: ForeignApt) -> list[str]:
    """The release's kernel, its headers and its source.

    Raises:
        LabUnavailableError: the release has another kernel than the lab knows.
    """
    image = apt.depends("linux-image-arm64")
    if not image.startswith(f"linux-image-{KERNEL_SERIES}."):
        raise LabUnavailableError(f"this release's kernel is {image}", hint=f"use a Debian with Linux {KERNEL_SERIES}")
    headers = image.replace("image", "headers")
    return [image, headers, f"{headers.removesuffix('arm64')}common", f"linux-source-{KERNEL_SERIES}"]


def build(packages: Iterable[Path], work: Path) -> tuple[Path, list[tuple[Path, str]]]:
    """The kernel, and modules in the order of loading with their options, from downloaded packages."""
    tree = work / "kernel"
    tree.mkdir()
    for path in packages:
        if path.name.startswith("linux-source"):
            _drivers(path, work / "drivers")
        else:
            run(["dpkg-deb", "--extract", path, tree])
    (kernel,) = tree.glob("boot/vmlinuz-*")
    release = kernel.name.removeprefix("vmlinuz-")
    _compile(tree, release, work / "drivers")
    modules = tree / "lib" / "modules" / release
    for built in (work / "drivers").glob("*.ko"):
        run([_cross("strip"), "--strip-debug", "-o", modules / built.name, built])
    run(["depmod", "-b", tree, release])
    return kernel, [(modules / path, options) for path, options in _ordered(modules)]


def device_tree(out: Path) -> None:
    """The emulated machine's own device tree with the sensors in it."""
    plain = out.with_suffix(".plain")
    machine, name = MACHINE[1], plain.as_posix()
    run(["qemu-system-aarch64", "-M", f"{machine},dumpdtb={name}", *MACHINE[2:], "-nodefaults", "-display", "none"])
    source = run(["dtc", "-q", "-I", "dtb", "-O", "dts", plain]) + SENSORS.read_text(encoding="utf-8")
    run(["dtc", "-q", "-I", "dts", "-O", "dtb", "-o", out, "-"], text=source)
    plain.unlink()


def _cross(name: str) -> str:
    return f"aarch64-linux-gnu-{name}"


def _drivers(package: Path, folder: Path) -> None:
    """The drivers' sources, from the archive inside the package; nothing else of it is written."""
    folder.mkdir()
    inner = f"./usr/src/linux-source-{KERNEL_SERIES}.tar.xz"
    wanted = [f"linux-source-{KERNEL_SERIES}/{name}" for name in _DRIVERS]
    steps: list[list[str | Path]] = [
        [tool("dpkg-deb") or "dpkg-deb", "--fsys-tarfile", package],
        ["tar", "-xO", inner],
        ["xz", "-dcT0"],
        ["tar", "-x", "-C", folder, "--transform", "s,.*/,,", *wanted],
    ]
    running: list[subprocess.Popen[bytes]] = []
    for step in steps:
        source = running[-1].stdout if running else subprocess.DEVNULL
        running.append(subprocess.Popen(step, stdin=source, stdout=subprocess.PIPE))
        if len(running) > 1 and running[-2].stdout is not None:
            running[-2].stdout.close()  # so that an early end of this step ends the one before
    with running[-1]:
        pass
    for each in running:
        each.wait()
    stub = folder / "i2c-stub.c"
    if not stub.is_file() or not (folder / "ina3221.c").is_file():
        raise EdgeError(f"{package.name} does not have {', '.join(_DRIVERS)}")
    text = stub.read_text(encoding="utf-8")
    for pattern, better in _BUS.items():
        text, count = re.subn(pattern, better, text)
        if count != 1:
            raise EdgeError(f"i2c-stub.c is not what the lab expects: {count} times {pattern}")
    stub.write_text(text, encoding="utf-8")


def _compile(tree: Path, release: str, drivers: Path) -> None:
    headers = tree / "usr/src" / f"linux-headers-{release}"
    makefile = headers / "Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src/", f"{tree}/usr/src/"), encoding="utf-8")
    (tree / "usr/lib" / KBUILD.name).symlink_to(KBUILD)
    names = " ".join(f"{path.stem}.o" for path in drivers.glob("*.c"))
    (drivers / "Makefile").write_text(f"obj-m := {names}\n", encoding="utf-8")
    architecture = run(["dpkg", "--print-architecture"]).strip()
    command: list[str | Path] = ["make", "-C", headers, f"M={drivers}", "modules", f"DEB_BUILD_ARCH={architecture}"]
    run([*command, "DEB_HOST_ARCH=arm64", "DEB_HOST_GNU_TYPE=aarch64-linux-gnu", f"CC={_cross('gcc')}"])


def _ordered(modules: Path) -> list[tuple[str, str]]:
    """The wanted modules after those they need, as paths in their folder."""
    needs = {}
    for line in (modules / "modules.dep").read_text(encoding="utf-8").splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name = {Path(path).stem.replace("_", "-"): path for path in needs}
    order: dict[str, str] = {}
    for name, options in _MODULES.items():
        wanted = by_name[name.replace("_", "-")]
        for path in (*reversed(needs[wanted]), wanted):
            order.setdefault(path, options if path == wanted else "")
    return list(order.items())
