"""App bundles and APKs of a packaged project, made by Google's own bundletool and aapt2; nothing is dexed."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from edgesdk.package.android.archives import write_zip
from edgesdk.stores import google_play

from ..lab.host import run
from .kotlin import JVM
from .packages import EXECUTORCH, FRAMEWORK, OLD_REACT, PACKERS, debian, fetched

_DIST = "http://schemas.android.com/apk/distribution"
_ANDROID = "http://schemas.android.com/apk/res/android"
_PASSWORD = "edgesdk-test"
_CONFIG = {
    "compression": {"uncompressedGlob": ["**.pte"]},  # what the project's noCompress makes the Gradle plugin write
    "optimizations": {"uncompressNativeLibraries": {"enabled": True, "alignment": "PAGE_ALIGNMENT_16K"}},
}


@dataclass(frozen=True)
class Tools:
    """Programs that Gradle would call.

    Attributes:
        bundletool: a jar.
        aapt2: a program.
    """

    bundletool: Path
    aapt2: Path

    def bundle(self, command: str, *options: str) -> str:
        """What bundletool says.

        Raises:
            EdgeError: it refuses.
        """
        return run(["java", "-Xmx500m", *JVM, "-jar", self.bundletool, command, *options])


def tools() -> Tools:
    """The programs.

    Raises:
        LabUnavailableError: one of them cannot be had.
    """
    debian(FRAMEWORK, tools=("java", "keytool", "apksigner"))
    folder = fetched(PACKERS)
    return Tools(folder / "bundletool.jar", folder / "aapt2")


def library_of_16_kb() -> Path:
    """A native library for arm64 whose segments lie at 16 KB.

    Raises:
        LabUnavailableError: the registry did not give it.
    """
    return fetched(EXECUTORCH) / "libcpuinfo.so"


def library_of_4_kb() -> Path:
    """A native library for arm64 whose segments lie at 4 KB: it does not load on phones with pages of 16 KB.

    Raises:
        LabUnavailableError: the registry did not give it.
    """
    (aar,) = fetched(OLD_REACT).glob("*.aar")
    library = aar.with_name("libfbjni.so")
    with zipfile.ZipFile(aar) as archive:
        library.write_bytes(archive.read("jni/arm64-v8a/libfbjni.so"))
    return library


def keystore(folder: Path) -> Path:
    """A key to sign with."""
    path = folder / "test.keystore"
    command = ["keytool", "-genkeypair", "-keystore", str(path), "-storepass", _PASSWORD, "-keypass", _PASSWORD]
    run(
        [
            *command,
            "-alias",
            "test",
            "-keyalg",
            "RSA",
            "-keysize",
            "2048",
            "-dname",
            "CN=edgesdk tests",
            "-storetype",
            "PKCS12",
        ]
    )
    return path


def sign(apk: Path, key: Path) -> None:
    """Sign an APK in place.

    Raises:
        EdgeError: apksigner refuses it.
    """
    run(["apksigner", "sign", "--ks", str(key), "--ks-pass", f"pass:{_PASSWORD}", "--min-sdk-version", "24", str(apk)])


def app_bundle(found: Tools, project: Path, library: Path, folder: Path, *, kind: str = "asset-pack") -> Path:
    """Build an AAB out of a project's manifest, resources and pack.

    Args:
        found: what builds it.
        project: written by ``edgesdk package``, with a pack.
        library: a native library for the base module.
        folder: an empty one.
        kind: of the pack.

    Raises:
        EdgeError: aapt2 or bundletool refuses something.
    """
    identity = _value(project / "app/build.gradle.kts", "applicationId")
    delivery = _value(project / "modelpack/build.gradle.kts", "deliveryType")
    name = _value(project / "modelpack/build.gradle.kts", "packName")
    manifest = (project / "app/src/main/AndroidManifest.xml").read_text(encoding="utf-8")
    manifest = manifest.replace("<manifest ", f'<manifest package="{identity}" android:versionCode="1" ', 1)
    manifest = manifest.replace("<application", '<application android:hasCode="false"', 1)
    target = int(_value(project / "app/build.gradle.kts", "targetSdk"))
    base = _linked(found, folder / "base", manifest, _sdks(target), project / "app/src/main/res")
    # bundletool takes no such element in a pack's manifest
    pack = _linked(found, folder / "pack", _pack_manifest(identity, name, kind, delivery), [])
    model = project / "modelpack/src/main/assets"
    files = {f"assets/{path.relative_to(model).as_posix()}": path for path in model.rglob("*") if path.is_file()}
    write_zip(folder / "base.zip", {**_module(base), f"lib/arm64-v8a/{library.name}": library})
    write_zip(folder / f"{name}.zip", {"manifest/AndroidManifest.xml": pack / "AndroidManifest.xml", **files})
    config = folder / "config.json"
    config.write_text(json.dumps(_CONFIG), encoding="utf-8")
    out = folder / "app.aab"
    modules = f"{folder / 'base.zip'},{folder / f'{name}.zip'}"
    found.bundle("build-bundle", f"--modules={modules}", f"--config={config}", f"--output={out}")
    return out


def apks(found: Tools, bundle: Path, key: Path, folder: Path) -> dict[str, Path]:
    """The APKs that a phone would get, signed, by name."""
    archive = folder / "app.apks"
    signing = [f"--ks={key}", f"--ks-pass=pass:{_PASSWORD}", "--ks-key-alias=test", f"--key-pass=pass:{_PASSWORD}"]
    found.bundle("build-apks", f"--bundle={bundle}", f"--output={archive}", f"--aapt2={found.aapt2}", *signing)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder / "apks")
    return {path.name: path for path in (folder / "apks").rglob("*.apk")}


def plain_apk(found: Tools, library: Path, folder: Path) -> Path:
    """An APK that holds a native library, not aligned and not signed."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = f'<manifest xmlns:android="{_ANDROID}" package="com.example.aligned"><application/></manifest>'
    (folder / "AndroidManifest.xml").write_text(manifest, encoding="utf-8")
    out = folder / "plain.apk"
    sdks = _sdks(google_play().newest_target_sdk())
    command = [str(found.aapt2), "link", "-I", str(FRAMEWORK), *sdks, "-o", str(out)]
    run([*command, "--manifest", str(folder / "AndroidManifest.xml")])
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:
        archive.write(library, f"lib/arm64-v8a/{library.name}")
    return out


def _sdks(target: int) -> list[str]:
    return ["--min-sdk-version", "24", "--target-sdk-version", str(target)]


def linked_app(found: Tools, folder: Path, manifest: str, resources: Path, *, proto: bool = False) -> Path:
    """An APK of a manifest as it stands and resources, compiled in one form or in the other.

    Raises:
        EdgeError: aapt2 refuses them.
    """
    folder.mkdir(parents=True)
    (folder / "AndroidManifest.xml").write_text(manifest, encoding="utf-8")
    run([str(found.aapt2), "compile", "--dir", str(resources), "-o", str(folder / "res.zip")])
    out = folder / "app.apk"
    command = [str(found.aapt2), "link", "-I", str(FRAMEWORK), *(["--proto-format"] if proto else []), "-o", str(out)]
    run([*command, "--manifest", str(folder / "AndroidManifest.xml"), str(folder / "res.zip")])
    return out


def _linked(found: Tools, folder: Path, manifest: str, sdks: list[str], resources: Path | None = None) -> Path:
    """A manifest and resources as bundletool reads them, unpacked."""
    folder.mkdir()
    (folder / "AndroidManifest.xml").write_text(manifest, encoding="utf-8")
    compiled: list[str] = []
    if resources is not None:
        run([str(found.aapt2), "compile", "--dir", str(resources), "-o", str(folder / "res.zip")])
        compiled = [str(folder / "res.zip")]
    linked = folder / "linked.apk"
    command = [str(found.aapt2), "link", "--proto-format", "-I", str(FRAMEWORK), "-o", str(linked)]
    run([*command, *sdks, "--manifest", str(folder / "AndroidManifest.xml"), *compiled])
    with zipfile.ZipFile(linked) as archive:
        archive.extractall(folder / "module")
    return folder / "module"


def _module(linked: Path) -> dict[str, Path | bytes]:
    """The files of a module, where a bundle has them."""
    found: dict[str, Path | bytes] = {}
    for path in (path for path in linked.rglob("*") if path.is_file()):
        name = path.relative_to(linked).as_posix()
        found[f"manifest/{name}" if name == "AndroidManifest.xml" else name] = path
    return found


def _pack_manifest(identity: str, name: str, kind: str, delivery: str) -> str:
    """What the Gradle plugin makes for a pack."""
    return (
        f'<manifest xmlns:android="{_ANDROID}" xmlns:dist="{_DIST}" package="{identity}" split="{name}">'
        f'<dist:module dist:type="{kind}"><dist:fusing dist:include="true"/>'
        f"<dist:delivery><dist:{delivery}/></dist:delivery></dist:module></manifest>"
    )


def _value(file: Path, name: str) -> str:
    """A string or a number that a Gradle file sets."""
    found = re.search(rf'{name}(?: = |\.set\()"?([^")\n]+)', file.read_text(encoding="utf-8"))
    assert found is not None, (file, name)
    return found[1]
