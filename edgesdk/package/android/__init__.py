"""Android: a Gradle project with library, chat app and benchmark around a bundle, and a Maven repository of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...bundle import Bundle, Manifest
from ...progress import Progress
from ...signing.pins import check_with
from ...stores import ANDROID, google_play
from ...targets import targets_dir
from ..base import Deliverable, PackageError, Written
from ..templates import fill
from .maven import compiled_jar, empty_jar, write_repository
from .model import NAME, Carried, prompts_text, write_model
from .options import Options, application_id, check_options, check_size, delivery, limits, why_no_aar
from .runtime import executorch

MIN_SDK = 23
VERSIONS = {  # of the Android Gradle plugin, of Kotlin, of coroutines, and of the Gradle that runs them
    "agp": "8.13.2",
    "kotlin": "2.2.21",
    "coroutines": "1.8.0",
    "gradle": "8.14.3",
}
_LIBRARY = "edgemodel/src/main/kotlin"


class Android:
    """Writes the project; see :class:`edgesdk.package.base.Deliverable`."""

    description = "Gradle project with the model in a Play pack, a Kotlin library, a chat app and a benchmark"
    options = Options

    def check(self, manifest: Manifest, options: Options) -> None:
        if manifest.target.os != "android":
            raise PackageError(
                f"the bundle is for {manifest.target.name}", hint="edgesdk export MODEL --target android-arm64"
            )
        if not manifest.tokenizer.file:
            raise PackageError("the bundle has no tokenizer, so an app cannot run text with it")
        executorch(manifest)
        application_id(manifest, options)
        check_options(options)
        check_size(manifest, options)

    def write(self, bundle: Bundle, options: Options, folder: Path, progress: Progress) -> Written:
        manifest, way = bundle.manifest, delivery(options)
        signed = check_with(bundle, options.key) if options.key else None
        home = "modelpack" if way.plugin else "app"
        with progress.stage("Copying the model"):
            carried = write_model(bundle, folder / home / "src/main/assets" / NAME)
        pinned = {"key": signed.key if signed else None, "oldest": signed.version if signed else None}
        values = {**_values(manifest, options, carried), **pinned}
        _project(folder, options, values)
        prompts = folder / "benchmark/src/main/assets/prompts.json"
        prompts.parent.mkdir(parents=True, exist_ok=True)
        prompts.write_text(prompts_text(bundle), encoding="utf-8", newline="\n")
        facts = {
            "application": values["application_id"],
            "delivery": f"{options.delivery}, {options.pack}" if way.plugin else "assets of the base module",
            "runtime": values["executorch"],
        }
        without = why_no_aar(manifest)
        if without is None:
            with progress.stage("Writing the Maven repository"):
                aar = _repository(folder, options, values, carried)
            facts["library"] = f"{aar.relative_to(folder).as_posix()} ({aar.stat().st_size / 1e6:.0f} MB)"
        remarks = _remarks(options, without)
        return Written(facts, remarks, ("cat README.md", "./scripts/benchmark.sh"))


def _values(manifest: Manifest, options: Options, carried: Carried) -> dict[str, Any]:
    way, rules = delivery(options), google_play()
    identity = application_id(manifest, options)
    return {
        "application_id": identity,
        "name": options.name or manifest.model.name,
        "version": options.version,
        "version_code": _code(options.version),
        "model": manifest.model.name,
        "digest": carried.digest,
        "chat_sha256": carried.chat_sha256,
        "pack_name": "modelpack",
        "delivery": way,
        "executorch": executorch(manifest),
        "runtime_versions": manifest.program.runtime_versions,
        "context": manifest.context,
        "megabytes": round(sum(entry.size for entry in manifest.files) / 1e6),
        "min_sdk": MIN_SDK,
        "compile_sdk": rules.build.compile_sdk,
        "target_sdk": rules.newest_target_sdk(),
        "limits": limits(),
        "versions": VERSIONS,
        "notes": manifest.notes,
        "has_classes": bool(options.kotlinc),
        "has_aar": why_no_aar(manifest) is None,
    }


def _project(folder: Path, options: Options, values: dict[str, Any]) -> None:
    """Every file of the project but the model; a module that only a pack needs is left out without one."""
    source = targets_dir() / ANDROID / "app"
    fill(source / "project", folder, values)
    variant = delivery(options).variant
    fill(source / "variants" / variant, folder, values)
    if not delivery(options).plugin:
        (folder / "modelpack/build.gradle.kts").unlink()
        (folder / "modelpack").rmdir()


def _repository(folder: Path, options: Options, values: dict[str, Any], carried: Carried) -> Path:
    """The library for other projects: its model is in its assets, whatever the project here does."""
    classes = empty_jar()
    if options.kotlinc:
        variants = targets_dir() / ANDROID / "app/variants"
        with_assets = sorted((variants / "assets" / _LIBRARY).rglob("*.kt"))
        own = sorted(path for path in (folder / _LIBRARY).rglob("*.kt") if path.name != with_assets[0].name)
        classes = compiled_jar(options.kotlinc, options.classpath, [*own, *with_assets])
    return write_repository(
        folder / "maven",
        group=values["application_id"],
        version=options.version,
        model=carried.folder,
        classes=classes,
        rules=(folder / "edgemodel/consumer-rules.pro").read_text(encoding="utf-8"),
        min_sdk=MIN_SDK,
        compile_sdk=values["compile_sdk"],
        dependencies=(
            values["executorch"],
            f"org.jetbrains.kotlin:kotlin-stdlib:{VERSIONS['kotlin']}",
            f"org.jetbrains.kotlinx:kotlinx-coroutines-core:{VERSIONS['coroutines']}",
        ),
    )


def _remarks(options: Options, no_aar: str | None) -> tuple[str, ...]:
    remarks = ["Neither Gradle nor a phone has run this project here: README.md says what was proven."]
    if not options.application_id:
        remarks.append("Google Play takes no app of com.example: set application_id before the first upload.")
    if no_aar is not None:
        remarks.append(no_aar)
    elif not options.kotlinc:
        remarks.append("Without kotlinc the AAR brings the model alone: take edgemodel's sources, or set kotlinc.")
    if options.delivery == "install-time":
        remarks.append("An install-time pack has no path on the phone: the first start copies it, twice the storage.")
    return tuple(remarks)


def _code(version: str) -> int:
    """A version code that grows with the version."""
    code = 0
    for part in (version.split(".") + ["0"] * 3)[:4]:
        code = code * 100 + int(part)
    return max(code, 1)


DELIVERABLE: Deliverable[Options] = Android()
