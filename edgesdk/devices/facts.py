"""What a device says about itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..targets import Target, open_target, target_names

PROBE = Path(__file__).with_name("facts.sh").read_text(encoding="utf-8")


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


def parsed(text: str) -> Facts:
    """Facts from what :data:`PROBE` prints; lines of a login banner are passed over."""
    known = ("architecture", "kernel", "os", "release", "model", "soc", "emulated", "ram_kb", "cores", "libc", "home")
    said: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key in (*known, "free_kb") and value.strip():
            said[key] = value.strip()

    def number(key: str, unit: int = 1) -> int | None:
        return int(said[key]) * unit if said.get(key, "").isdigit() else None

    return Facts(
        said.get("model"),
        said.get("os"),
        said.get("release"),
        {"arm64": "aarch64", "amd64": "x86_64"}.get(said.get("architecture", ""), said.get("architecture")),
        number("ram_kb", 1024),
        number("free_kb", 1024),
        number("cores"),
        said.get("libc"),
        said.get("home"),
        said.get("emulated"),
        more={key: said[key] for key in ("kernel", "soc") if key in said},
    )


def matching(facts: Facts) -> list[str]:
    """Names of the targets whose programs this device can hold and run."""
    return [name for name in target_names() if _fits(open_target(name), facts)]


def _fits(target: Target, facts: Facts) -> bool:
    if facts.os == "none":
        from ..boards import open_board

        return facts.board is not None and open_board(facts.board).core in target.cores
    alike = facts.os == target.os and facts.architecture == target.architecture
    return alike and (facts.ram is None or facts.ram >= target.memory_mb * 10**6)
