"""A Debian package without Debian's tools: the same bytes each time, written in one pass."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from ...digests import file_digest
from ..base import PackageError

_MAGIC = b"!<arch>\n"
_LARGEST = 9_999_999_999  # ten digits of a size in the archive's format


def write_deb(path: Path, control: Path, root: Path) -> None:
    """Write a package; owners are root, times are 1970, and modes are 755 and 644 by the executable bit.

    Args:
        path: the ``.deb``.
        control: folder with ``control`` and the maintainer scripts; ``md5sums`` is added.
        root: the tree that the package installs.

    Raises:
        PackageError: it is too large for the format.
    """
    with path.open("wb") as out:
        out.write(_MAGIC)
        _member(out, "debian-binary", b"2.0\n")
        controls = [(f"./{file.name}", file) for file in sorted(control.iterdir())]
        sums = "".join(f"{_md5(file)}  {file.relative_to(root).as_posix()}\n" for file in _files(root)).encode()
        _tar_member(out, "control.tar.gz", [(".", control), *controls], {"./md5sums": sums})
        tree = [(f"./{each.relative_to(root).as_posix()}".rstrip("/."), each) for each in sorted(root.rglob("*"))]
        _tar_member(out, "data.tar.gz", [(".", root), *tree], {})


def _files(root: Path) -> Iterable[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def _member(out: BinaryIO, name: str, data: bytes) -> None:
    out.write(_header(name, len(data)) + data + b"\n" * (len(data) % 2))


def _header(name: str, size: int) -> bytes:
    if size > _LARGEST:
        raise PackageError(f"{name}: {size} bytes do not fit into a .deb", hint="install the folder root/ instead")
    return f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{size:<10}`\n".encode()


def _tar_member(out: BinaryIO, name: str, entries: list[tuple[str, Path]], extra: dict[str, bytes]) -> None:
    at = out.tell()
    out.write(_header(name, 0))
    with (
        gzip.GzipFile("", "wb", 6, out, mtime=0) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for path, file in entries:
            if file.is_dir():
                archive.addfile(_info(path, 0o755, tarfile.DIRTYPE))
                continue
            info = _info(path, 0o755 if file.stat().st_mode & 0o111 else 0o644)
            info.size = file.stat().st_size
            with file.open("rb") as source:
                archive.addfile(info, source)
        for path, data in sorted(extra.items()):
            info = _info(path, 0o644)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    end = out.tell()
    size = end - at - len(_header(name, 0))
    out.seek(at)
    out.write(_header(name, size))
    out.seek(end)
    out.write(b"\n" * (size % 2))


def _info(path: str, mode: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.mode, info.type, info.uname, info.gname = mode, kind, "root", "root"
    return info


def _md5(path: Path) -> str:
    return file_digest(path, "md5")  # what dpkg --verify reads; the service goes by SHA-256
