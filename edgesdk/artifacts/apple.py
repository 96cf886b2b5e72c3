"""An XCFramework: what its Info.plist promises, and whether an iPhone's part is there."""

from __future__ import annotations

import plistlib
from collections.abc import Iterator
from pathlib import Path
from xml.parsers.expat import ExpatError

from .entries import ArtifactError
from .findings import Finding

_MACHO = (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"!<arch>\n")  # 64-bit, universal, static library


def check_xcframework(folder: Path) -> Iterator[Finding]:
    """Each library of an ``.xcframework``.

    Raises:
        ArtifactError: there is no readable Info.plist.
    """
    try:
        with (folder / "Info.plist").open("rb") as file:
            libraries = plistlib.load(file)["AvailableLibraries"]
        described = [(entry["LibraryIdentifier"], entry["LibraryPath"], entry) for entry in libraries]
    except (OSError, ExpatError, plistlib.InvalidFileException, ValueError, KeyError, TypeError) as failure:
        raise ArtifactError(f"{folder}: no readable Info.plist of an XCFramework ({failure})") from None
    phone = False
    for identifier, name, entry in described:
        place, path = f"{identifier}/{name}", folder / identifier / name
        binary = path / path.stem if path.suffix == ".framework" else path
        if not binary.is_file():
            yield Finding("error", place, "named in Info.plist, and not there")
            continue
        with binary.open("rb") as file:
            if not file.read(8).startswith(_MACHO):
                yield Finding("error", place, "not a Mach-O file or static library")
                continue
        platform, variant = entry.get("SupportedPlatform"), entry.get("SupportedPlatformVariant")
        processors = ", ".join(entry.get("SupportedArchitectures", []))
        phone |= platform == "ios" and variant is None and "arm64" in processors
        yield Finding("good", place, f"{platform}{f' {variant}' if variant else ''}, {processors}")
    if not phone:
        yield Finding("error", folder.name, "nothing for iPhones (platform ios, arm64)")
    if not (folder / "_CodeSignature").is_dir():
        yield Finding(
            "warning", folder.name, "not signed: Xcode asks before it trusts a change", "codesign --timestamp"
        )
