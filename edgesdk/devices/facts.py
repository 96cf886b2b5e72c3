"""What a device says about itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..documents import whole
from ..lines import shown_line
from ..targets import Target, open_target, target_names

#: What scripts for devices have of programs, and what a device says about itself.
PROGRAMS, _FACTS = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("programs.sh", "facts.sh"))
PROBE = PROGRAMS + _FACTS


@dataclass(frozen=True)
class Facts:
    """A device in a few words; None where it does not say.

    Attributes:
        model: maker and model.
        os: ``android``, ``linux``, ``darwin``, ``ios`` or ``none`` (a microcontroller).
        release: of the operating system, or of the firmware.
        architecture: as ``uname -m`` prints it.
        ram: bytes of memory in all.
        free: bytes free where bundles go.
        cores: processors that run now.
        libc: ``glibc``, ``musl`` or ``bionic``.
        home: the folder that bundles go under.
        emulated: what shows that this is an emulator; None is no proof of hardware.
        board: the microcontroller board that the firmware was built for.
    """

    model: str | None = None
    os: str | None = None
    release: str | None = None
    architecture: str | None = None
    ram: int | None = None
    free: int | None = None
    cores: int | None = None
    libc: str | None = None
    home: str | None = None
    emulated: str | None = None
    board: str | None = None
    more: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """What a device says is shown, recorded and compared as one printable line."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, str):
                object.__setattr__(self, each.name, shown_line(value))
        object.__setattr__(self, "more", {shown_line(key): shown_line(value) for key, value in self.more.items()})


def parsed(text: str) -> Facts:
    """Facts from what ``facts`` of :data:`PROBE` prints; other lines, such as a login's banner, are passed over."""
    said = sections(text)
    system, release, architecture = [*_first(said, "@uname").split(), None, None, None][:3]
    properties = dict(re.findall(r"@property \[(.*?)\]: \[(.*?)\]", text))
    files = tailed("\n".join(said.get("@files", [])))
    described = _phone(properties) if properties else _board(files)
    memory = re.search(r"MemTotal: *(\d+) kB", files.get("/proc/meminfo", ""))
    more = {"kernel": release, "soc": properties.get("ro.soc.model")}
    return Facts(
        **described,
        os="android" if properties else system and system.lower(),
        architecture={"arm64": "aarch64", "amd64": "x86_64"}.get(architecture or "", architecture),
        ram=_kilobytes(memory[1]) if memory else None,
        free=_kilobytes(_free(said.get("@df", []))),
        cores=len(re.findall(r"^processor", files.get("/proc/cpuinfo", ""), re.MULTILINE)) or None,
        libc=_libc(_first(said, "@libraries").split()),
        home=_first(said, "@home") or None,
        more={key: value for key, value in more.items() if value},
    )


def sections(text: str) -> dict[str, list[str]]:
    """Lines that follow each ``@key``, what stands behind the key as the first of them."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("@"):
            key, _, value = line.partition(" ")
            lines = found.setdefault(key, [])
            if value:
                lines.append(value)
        else:
            lines.append(line)
    return found


def _first(said: dict[str, list[str]], key: str) -> str:
    return next(iter(said.get(key, [])), "")


def _free(table: list[str]) -> str | None:
    """The third column from the end of what ``df`` prints; a long name of the device breaks its line before."""
    columns = next((line.split() for line in reversed(table) if "%" in line), [])
    return columns[-3] if len(columns) >= 3 else None


def _kilobytes(text: str | None) -> int | None:
    count = whole(text)
    return None if count is None else count * 1024


def tailed(text: str) -> dict[str, str]:
    """Contents by path, of what ``tail -n +1 FILE FILE ...`` prints."""
    parts = re.split(r"^==> (.*) <==$\n?", text, flags=re.MULTILINE)
    return {path: content.rstrip("\n") for path, content in zip(parts[1::2], parts[2::2], strict=True)}


def _phone(properties: dict[str, str]) -> dict[str, str | None]:
    maker, model = properties.get("ro.product.manufacturer", ""), properties.get("ro.product.model", "")
    emulated = next((key for key in ("ro.boot.qemu", "ro.kernel.qemu") if properties.get(key) == "1"), None)
    release = properties.get("ro.build.version.release")
    return {"model": f"{maker} {model}".strip() or None, "release": release, "emulated": emulated}


def _board(files: dict[str, str]) -> dict[str, str | None]:
    model = files.get("/proc/device-tree/model", "").strip("\0 \n")
    compatible = files.get("/proc/device-tree/compatible", "").split("\0")
    product = files.get("/sys/class/dmi/id/product_name", "").strip()
    release = re.search(r'^PRETTY_NAME="?(.*?)"?$', files.get("/etc/os-release", ""), re.MULTILINE)
    virtual = any("dummy-virt" in name or "qemu" in name for name in compatible) or "QEMU" in product
    return {
        "model": model or product or None,
        "release": release[1] if release else None,
        "emulated": "its device tree or firmware" if virtual else None,
    }


def _libc(libraries: list[str]) -> str | None:
    """The C library, by the loader that is there; a pattern that matched nothing still has its star."""
    names = [name.rpartition("/")[2] for name in libraries if "*" not in name]
    kinds = {"ld-linux": "glibc", "ld-musl": "musl", "linker": "bionic"}
    return next((libc for start, libc in kinds.items() if any(name.startswith(start) for name in names)), None)


def matching(facts: Facts) -> list[str]:
    """Names of the targets whose programs this device can hold and run."""
    return [name for name in target_names() if _fits(open_target(name), facts)]


def _fits(target: Target, facts: Facts) -> bool:
    if facts.os == "none":
        from ..boards import open_board

        return facts.board is not None and open_board(facts.board).core in target.cores
    alike = facts.os == target.os and facts.architecture == target.architecture
    return alike and (facts.ram is None or facts.ram >= target.memory_mb * 10**6)
