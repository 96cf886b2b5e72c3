"""A Maven repository of files with one library: the model, and the classes that run it."""

from __future__ import annotations

import io
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from ...digests import file_digest
from ...partials import scratch_folder
from ..base import PackageError
from .archives import write_zip
from .model import NAME

ARTIFACT = "edgemodel"
NAMESPACE = "dev.edgesdk.edgemodel"
_METADATA = "META-INF/com/android/build/gradle/aar-metadata.properties"


def write_repository(
    repository: Path,
    *,
    group: str,
    version: str,
    model: Path,
    classes: bytes,
    rules: str,
    min_sdk: int,
    compile_sdk: int,
    dependencies: Sequence[str],
) -> Path:
    """Write AAR, POM and their checksums; the path of the AAR.

    Args:
        repository: the folder that becomes the repository.
        group: Maven's group.
        version: of the library.
        model: the model tree, which goes into the assets.
        classes: the content of ``classes.jar``.
        rules: for R8, taken over by apps.
        min_sdk: oldest Android that it runs on.
        compile_sdk: oldest SDK that an app may be compiled with.
        dependencies: coordinates that come along.
    """
    folder = repository / group.replace(".", "/") / ARTIFACT / version
    folder.mkdir(parents=True)
    entries: dict[str, Path | bytes] = {
        "AndroidManifest.xml": _manifest(min_sdk).encode(),
        "R.txt": b"",
        "classes.jar": classes,
        "proguard.txt": rules.encode(),
        _METADATA: f"aarFormatVersion=1.0\naarMetadataVersion=1.0\nminCompileSdk={compile_sdk}\n".encode(),
    }
    for file in (path for path in model.rglob("*") if path.is_file()):
        entries[f"assets/{NAME}/{file.relative_to(model).as_posix()}"] = file
    aar = folder / f"{ARTIFACT}-{version}.aar"
    write_zip(aar, entries)
    pom = folder / f"{ARTIFACT}-{version}.pom"
    pom.write_text(_pom(group, version, dependencies), encoding="utf-8", newline="\n")
    for file in (aar, pom):
        for kind in ("sha1", "sha256"):  # Maven asks for the first; Gradle takes the second too
            file.with_name(f"{file.name}.{kind}").write_text(file_digest(file, kind), encoding="ascii")
    return aar


def empty_jar() -> bytes:
    """A jar without classes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo("META-INF/MANIFEST.MF"), "Manifest-Version: 1.0\n\n")
    return out.getvalue()


def compiled_jar(kotlinc: str, classpath: str, sources: Sequence[Path]) -> bytes:
    """The classes of Kotlin sources as a jar that is the same bytes each time.

    Raises:
        PackageError: the compiler cannot be started, or refuses them.
    """
    with scratch_folder() as scratch:
        command = [kotlinc, "-d", str(scratch), "-classpath", classpath, "-jvm-target", "11", "-module-name", ARTIFACT]
        try:
            done = subprocess.run([*command, *map(str, sources)], capture_output=True, text=True, check=False)
        except OSError as failure:
            why = failure.strerror or failure
            raise PackageError(f"{kotlinc}: {why}", hint="kotlinc=PATH of Kotlin's compiler") from None
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error:" in line] or done.stderr.splitlines()
            raise PackageError(
                f"the library does not compile: {errors[0] if errors else f'{kotlinc} exited with {done.returncode}'}",
                hint="classpath needs android.jar, ExecuTorch's classes.jar and kotlinx-coroutines-core",
            )
        jar = scratch / "classes.jar"
        paths = sorted(path for path in scratch.rglob("*") if path.is_file())
        write_zip(jar, {path.relative_to(scratch).as_posix(): path for path in paths})
        return jar.read_bytes()


def _manifest(min_sdk: int) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="{NAMESPACE}">\n'
        f'    <uses-sdk android:minSdkVersion="{min_sdk}" />\n'
        "</manifest>\n"
    )


def _pom(group: str, version: str, dependencies: Sequence[str]) -> str:
    needed = "".join(map(_dependency, dependencies))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<project xmlns="http://maven.apache.org/POM/4.0.0">\n'
        "  <modelVersion>4.0.0</modelVersion>\n"
        f"  <groupId>{escape(group)}</groupId>\n"
        f"  <artifactId>{ARTIFACT}</artifactId>\n"
        f"  <version>{escape(version)}</version>\n"
        "  <packaging>aar</packaging>\n"
        f"  <dependencies>\n{needed}  </dependencies>\n"
        "</project>\n"
    )


def _dependency(coordinates: str) -> str:
    group, artifact, version = map(escape, coordinates.split(":"))
    return (
        f"    <dependency>\n      <groupId>{group}</groupId>\n      <artifactId>{artifact}</artifactId>\n"
        f"      <version>{version}</version>\n      <scope>compile</scope>\n    </dependency>\n"
    )
