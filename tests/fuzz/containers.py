"""Archives with other entries, names and sizes: zip, tar in ar (.deb)."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from random import Random

from .odd import changed_bytes

_NAMES = ("", "/", "../x", "a/../../x", "C:\\x", "x\0y", "\u202e", "a" * 5000, "META-INF/", "./.", "\u00e9")


def changed_zip(random: Random, data: bytes) -> bytes:
    """A zip with entries gone, doubled, renamed or damaged inside, or with other words in its directory."""
    directory = data.rfind(b"PK\x01\x02", 0, data.find(b"PK\x01\x02") + 1)
    if random.random() < 0.5:
        return changed_bytes(random, data, directory if random.random() < 0.8 else 0)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in _changed_entries(random, entries):
            archive.writestr(zipfile.ZipInfo(name or "x"), content)
    return out.getvalue()


def deb(members: dict[str, bytes], files: dict[str, bytes]) -> bytes:
    """A Debian package of a control archive and one of data."""
    control, data = _tar(list(members.items())), _tar(list(files.items()))
    return _ar([("debian-binary", b"2.0\n"), ("control.tar.gz", control), ("data.tar.gz", data)])


def changed_deb(random: Random, members: dict[str, bytes], files: dict[str, bytes]) -> bytes:
    """A Debian package with other members, headers or contents."""
    control, data = list(members.items()), list(files.items())
    if random.random() < 0.5:
        control = _changed_entries(random, control)
    else:
        data = _changed_entries(random, data)
    suffix = random.choice((".gz", ".gz", ".xz", ".zst", ""))
    parts = [("debian-binary", b"2.0\n"), (f"control.tar{suffix}", _tar(control)), (f"data.tar{suffix}", _tar(data))]
    if random.random() < 0.2:
        parts = _changed_entries(random, parts)
    packed = _ar(parts)
    return changed_bytes(random, packed) if random.random() < 0.4 else packed


def _changed_entries(random: Random, entries: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    changed = list(entries)
    for _ in range(random.choice((1, 1, 2))):
        at = random.randrange(len(changed))
        name, content = changed[at]
        match random.randrange(5):
            case 0 if len(changed) > 1:
                del changed[at]
            case 1:
                changed.append((f"{name}x", content))
            case 2:
                changed[at] = (random.choice(_NAMES), content)
            case _:
                changed[at] = (name, changed_bytes(random, content))
    return changed


def _tar(entries: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _ar(parts: list[tuple[str, bytes]]) -> bytes:
    packed = b"!<arch>\n"
    for name, content in parts:
        head = f"{name[:16]:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
        packed += head.encode("latin-1", "replace")[:60] + content + b"\n" * (len(content) % 2)
    return packed


def changed_words(random: Random, data: bytes) -> bytes:
    """A FlatBuffer whose offsets, sizes and enumerations are other small or large numbers."""
    changed = bytearray(data)
    words = len(changed) // 4
    for _ in range(random.choice((1, 1, 2, 4, 10))):
        place = 4 * min(random.randrange(words), random.choice((random.randrange(words), words)))
        value = struct.unpack_from("<I", changed, place)[0]
        flipped = value ^ 1 << random.randrange(32)
        other = random.choice((0, 1, 4, flipped, value + 4, value - 4, 2**31, 2**32 - 1, len(data)))
        struct.pack_into("<I", changed, place, other % 2**32)
    return bytes(changed) if random.random() < 0.8 else changed_bytes(random, data)
