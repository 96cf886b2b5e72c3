"""Where a firmware's sections lie, from its ELF file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import MissingExtraError

_ALLOCATED = 2  # SHF_ALLOC


@dataclass(frozen=True)
class Region:
    """One section that takes memory.

    Attributes:
        name: the linker's.
        address: where it is when the firmware runs.
        size: bytes.
        memory: ``flash``, ``RAM``, or ``flash and RAM`` for data that is copied at start.
    """

    name: str
    address: int
    size: int
    memory: str


def regions(elf: Path) -> list[Region]:
    """Sections by address; those without bytes are left out.

    Raises:
        MissingExtraError: pyelftools is not installed.
    """
    try:
        from elftools.elf.elffile import ELFFile
    except ModuleNotFoundError:
        raise MissingExtraError("elftools", "package") from None
    with elf.open("rb") as file:
        sections = [dict(section.header) | {"name": section.name} for section in ELFFile(file).iter_sections()]
    taken = [each for each in sections if each["sh_flags"] & _ALLOCATED and each["sh_size"]]
    return sorted(
        (Region(each["name"], each["sh_addr"], each["sh_size"], _memory(each)) for each in taken),
        key=lambda region: region.address,
    )


def _memory(section: dict[str, int | str]) -> str:
    """By what the section is: without content it is RAM; writable content is copied there from flash."""
    if section["sh_type"] == "SHT_NOBITS":
        return "RAM"
    return "flash and RAM" if int(section["sh_flags"]) & 1 else "flash"
