"""What ``edgesdk doctor`` is given: libraries, archives of apps and packages, frameworks."""

from __future__ import annotations

import io
import plistlib
import zipfile
from pathlib import Path
from random import Random

from ..case import Case, Files, Opener
from ..containers import changed_deb, changed_zip, deb
from ..odd import changed_bytes
from ..trees import changed_tree

_MODULE = b'{"formatVersion": "1.1", "component": {"group": "x", "module": "y"}, "variants": [{"files": []}]}'
_CONTROL = {
    "control": b"Package: edgesdk-x\nVersion: 1.0\nArchitecture: arm64\nMaintainer: x\nDescription: y\n z\n",
    "md5sums": b"d41d8cd98f00b204e9800998ecf8427e  usr/lib/x\n",
    "conffiles": b"/etc/x\n",
}


def _archives() -> dict[str, bytes]:
    from ...unit.test_artifacts import elf

    library = elf()
    apk = {
        "AndroidManifest.xml": b"\x03\0\x08\0" + bytes(40),
        "lib/arm64-v8a/libx.so": library,
        "assets/m": b"{}",
    }
    aab = {f"base/{name}": content for name, content in apk.items()} | {"BundleConfig.pb": b"\n\x00"}
    aar = {
        "AndroidManifest.xml": b"<manifest/>",
        "jni/arm64-v8a/libx.so": library,
        "x.module": _MODULE,
    }
    return {"x.so": library, "x.apk": _zipped(apk), "x.aab": _zipped(aab), "x.aar": _zipped(aar), "x.zip": _zipped(apk)}


def _zipped(files: Files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def _doctor(folder: Path) -> Case:
    from edgesdk.artifacts import examine_artifact

    archives = _archives()
    data = {"usr/lib/x": b"", "usr/lib/libx.so": archives["x.so"], "lib/systemd/system/x.service": b"[Service]\n"}
    names = (*archives, "x.deb")

    def make(random: Random) -> Files:
        name = random.choice(names)
        if name == "x.deb":
            return {name: changed_deb(random, _CONTROL, data) if random.random() < 0.9 else deb(_CONTROL, data)}
        change = changed_zip if name != "x.so" and random.random() < 0.8 else changed_bytes
        return {name: change(random, archives[name])}

    def run(files: Files) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)
            try:
                examine_artifact(folder / name)
            finally:
                (folder / name).unlink()

    return Case(make, run)


def _framework(folder: Path) -> Case:
    from edgesdk.artifacts import examine_artifact

    framework = folder / "x.xcframework"
    (framework / "ios-arm64").mkdir(parents=True)
    (framework / "ios-arm64" / "libx.a").write_bytes(b"!<arch>\nx")
    library = {
        "LibraryIdentifier": "ios-arm64",
        "LibraryPath": "libx.a",
        "SupportedPlatform": "ios",
        "SupportedArchitectures": ["arm64"],
    }
    tree = {"AvailableLibraries": [library], "CFBundlePackageType": "XFWK", "XCFrameworkFormatVersion": "1.0"}

    def make(random: Random) -> Files:
        form = random.choice((plistlib.FMT_XML, plistlib.FMT_BINARY))
        changed = changed_tree(random, tree) if random.random() < 0.7 else tree
        try:
            data = plistlib.dumps(changed, fmt=form, skipkeys=True)
        except (TypeError, OverflowError, ValueError, RecursionError):
            data = plistlib.dumps(tree, fmt=form)
        return {"Info.plist": changed_bytes(random, data) if random.random() < 0.5 else data}

    def run(files: Files) -> None:
        (framework / "Info.plist").write_bytes(files["Info.plist"])
        examine_artifact(framework)

    return Case(make, run)


TARGETS: dict[str, Opener] = {"doctor": _doctor, "xcframework": _framework}
