"""The Android project as files: what is filled in, what parses, what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import tomllib
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import edgesdk
from edgesdk.bundle import Manifest, open_bundle
from edgesdk.files import FileEntry
from edgesdk.package import package
from edgesdk.package.android import DELIVERABLE
from edgesdk.package.android.archives import PAGE, align_zip, data_offset, write_zip
from edgesdk.package.android.model import LENGTHS
from edgesdk.package.android.options import Options
from edgesdk.package.base import PackageError
from edgesdk.profile.app_result import read_result
from edgesdk.profile.schema import ProfileError
from edgesdk.runner_lines import event_line

GOLDEN = Path(__file__).with_name("package_android.txt")
WAYS = [
    ("fast-follow", "asset-pack"),
    ("on-demand", "ai-pack"),
    ("install-time", "asset-pack"),
    ("assets", "asset-pack"),
]


@pytest.fixture(scope="module")
def phone_bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phone") / "bundle"
    edgesdk.export(checkpoint, "android-arm64", out, context=256, checks=edgesdk.Checks(skip=True))
    return out


@pytest.fixture(scope="module")
def manifest(phone_bundle: Path) -> Manifest:
    with open_bundle(phone_bundle) as opened:
        return opened.manifest


@pytest.fixture(scope="module")
def project(phone_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("android") / "project"
    package(phone_bundle, "android", out, options={"application_id": "org.example.tiny", "name": "Tiny's chat"})
    return out


def test_the_project_is_the_one_on_record(project: Path, manifest: Manifest) -> None:
    """EDGESDK_WRITE_GOLDEN=1 writes it anew."""
    found = "".join(_shown(project, manifest))
    if os.environ.get("EDGESDK_WRITE_GOLDEN"):
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8")


def _shown(project: Path, manifest: Manifest) -> Iterator[str]:
    """All paths, and every file that was filled in; what hangs on the versions of torch and ExecuTorch is left out."""
    paths = [path for path in sorted(project.rglob("*")) if path.is_file()]
    yield "".join(f"{path.relative_to(project).as_posix()}\n" for path in paths)
    chat = hashlib.sha256((project / "modelpack/src/main/assets/edgemodel/chat.json").read_bytes()).hexdigest()
    runtime = _runtime(project)
    for path in paths:
        name = path.relative_to(project)
        if name.name in {"README.md", "deliverable.json"} or name.parts[0] == "maven" or "assets" in name.parts:
            continue
        if not _is_filled(name):
            continue
        text = path.read_text(encoding="utf-8")
        for value, said in ((manifest.digest, "DIGEST"), (chat, "CHAT"), (runtime, "EXECUTORCH")):
            text = text.replace(value, said)
        yield f"\n=== {name.as_posix()}\n{text}"


def _runtime(project: Path) -> str:
    version: str = tomllib.loads((project / "gradle/libs.versions.toml").read_text())["versions"]["executorch"]
    return version


def _is_filled(name: Path) -> bool:
    from edgesdk.targets import targets_dir

    return (targets_dir() / "android-arm64/app/project" / f"{name}.j2").is_file()


@pytest.mark.parametrize(("delivery", "pack"), WAYS)
def test_gradle_and_kotlin_files_parse(delivery: str, pack: str, phone_bundle: Path, tmp_path: Path) -> None:
    kotlin = pytest.importorskip("tree_sitter_kotlin")
    from tree_sitter import Language, Parser

    parser = Parser(Language(kotlin.language()))
    package(phone_bundle, "android", tmp_path / "p", options={"delivery": delivery, "pack": pack})
    files = [*(tmp_path / "p").rglob("*.kt"), *(tmp_path / "p").rglob("*.kts")]
    assert len(files) >= 20
    assert [file.name for file in files if parser.parse(file.read_bytes()).root_node.has_error] == []
    broken = (tmp_path / "p/app/build.gradle.kts").read_bytes().replace(b"dependencies {", b"dependencies {{", 1)
    assert parser.parse(broken).root_node.has_error
    for file in (tmp_path / "p").rglob("*.xml"):
        ET.parse(file)


@pytest.mark.parametrize(
    ("delivery", "pack", "plugin", "library"),
    [
        ("fast-follow", "asset-pack", "com.android.asset-pack", "com.google.android.play:asset-delivery:2.3.0"),
        ("on-demand", "ai-pack", "com.android.ai-pack", "com.google.android.play:ai-delivery:0.1.1-alpha01"),
        ("install-time", "asset-pack", "com.android.asset-pack", None),
        ("assets", "asset-pack", None, None),
    ],
)
def test_coordinates_are_exact(
    delivery: str,
    pack: str,
    plugin: str | None,
    library: str | None,
    phone_bundle: Path,
    manifest: Manifest,
    tmp_path: Path,
) -> None:
    package(phone_bundle, "android", tmp_path / "p", options={"delivery": delivery, "pack": pack})
    catalogue = tomllib.loads((tmp_path / "p/gradle/libs.versions.toml").read_text())
    versions, libraries = catalogue["versions"], catalogue["libraries"]
    found = {name: f"{each['module']}:{versions[each['version']['ref']]}" for name, each in libraries.items()}
    assert found["executorch"] == f"org.pytorch:executorch-android:{manifest.tools['executorch'].partition('+')[0]}"
    assert found["coroutines-core"] == "org.jetbrains.kotlinx:kotlinx-coroutines-core:1.8.0"
    assert found.get("pack") == library
    wanted = "androidx.activity:activity:1.10.1" if pack == "ai-pack" else None
    assert found.get("activity") == wanted
    assert ("libs.activity" in (tmp_path / "p/edgemodel/build.gradle.kts").read_text()) == (wanted is not None)
    assert catalogue["plugins"].get("pack", {}).get("id") == plugin
    settings = (tmp_path / "p/settings.gradle.kts").read_text()
    app = (tmp_path / "p/app/build.gradle.kts").read_text()
    assert ('include(":modelpack")' in settings) is (plugin is not None) is ('assetPacks += ":modelpack"' in app)
    assert (tmp_path / "p/modelpack").exists() is (plugin is not None)
    if plugin is not None:
        pack_file = (tmp_path / "p/modelpack/build.gradle.kts").read_text()
        assert "alias(libs.plugins.pack)" in pack_file and f'deliveryType.set("{delivery}")' in pack_file
    assert 'abiFilters += "arm64-v8a"' in app and "minSdk = 23" in app
    used = {
        line for file in (tmp_path / "p").rglob("*.kts") for line in re.findall(r"libs\.([a-z.]+)", file.read_text())
    }
    known = {name.replace("-", ".") for name in libraries} | {
        f"plugins.{n.replace('-', '.')}" for n in catalogue["plugins"]
    }
    assert used <= known | {"versions.agp"}


def test_only_what_was_packaged_is_loaded(project: Path, manifest: Manifest) -> None:
    packaged = (project / "edgemodel/src/main/kotlin/dev/edgesdk/edgemodel/Packaged.kt").read_text()
    chat = (project / "modelpack/src/main/assets/edgemodel/chat.json").read_bytes()
    assert f'DIGEST = "{manifest.digest}"' in packaged
    assert f'CHAT_SHA256 = "{hashlib.sha256(chat).hexdigest()}"' in packaged
    with open_bundle(project / "modelpack/src/main/assets/edgemodel/bundle") as opened:
        assert opened.manifest.digest == manifest.digest


def test_the_name_of_the_app_is_a_resource(project: Path) -> None:
    text = (project / "app/src/main/res/values/strings.xml").read_text()
    assert "Tiny\\'s chat" in text


def test_prompts_to_measure_with_have_their_lengths(project: Path, phone_bundle: Path) -> None:
    from edgesdk.chat import bundle_tokenizer

    found = json.loads((project / "benchmark/src/main/assets/prompts.json").read_text())
    with open_bundle(phone_bundle) as opened:
        tokenizer = bundle_tokenizer(opened)
    assert {int(length): len(tokenizer.encode(text)) for length, text in found.items()} == {32: 32, 128: 128}
    assert LENGTHS[-1] > 256  # the third has no room in this context


def test_the_library_for_other_projects(project: Path, manifest: Manifest) -> None:
    folder = project / "maven/org/example/tiny/edgemodel/1.0.0"
    aar, pom = folder / "edgemodel-1.0.0.aar", folder / "edgemodel-1.0.0.pom"
    for file in (aar, pom):
        for kind in ("sha1", "sha256"):
            said = file.with_name(f"{file.name}.{kind}").read_text()
            assert hashlib.new(kind, file.read_bytes()).hexdigest() == said
    name = "{http://maven.apache.org/POM/4.0.0}"
    root = ET.parse(pom).getroot()
    assert [root.findtext(f"{name}{key}") for key in ("groupId", "artifactId", "version", "packaging")] == [
        "org.example.tiny",
        "edgemodel",
        "1.0.0",
        "aar",
    ]
    needed = [each.text for each in root.iter(f"{name}artifactId")][1:]
    assert needed == ["executorch-android", "kotlin-stdlib", "kotlinx-coroutines-core"]
    with zipfile.ZipFile(aar) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {"AndroidManifest.xml", "R.txt", "classes.jar", "proguard.txt"} <= set(archive.namelist())
        for entry in manifest.files:
            content = archive.read(f"assets/edgemodel/bundle/{entry.path}")
            assert hashlib.sha256(content).hexdigest() == entry.sha256


def test_the_same_bundle_gives_the_same_bytes(project: Path, phone_bundle: Path, tmp_path: Path) -> None:
    options = {"application_id": "org.example.tiny", "name": "Tiny's chat"}
    package(phone_bundle, "android", tmp_path / "again", options=options)
    files = sorted(path.relative_to(project) for path in project.rglob("*") if path.is_file())
    assert [name for name in files if (project / name).read_bytes() != (tmp_path / "again" / name).read_bytes()] == []


def test_the_script_says_what_is_missing(project: Path) -> None:
    script = project / "scripts/benchmark.sh"
    assert script.stat().st_mode & stat.S_IXUSR
    done = subprocess.run([script], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "gradle wrapper" in done.stderr
    unknown = subprocess.run([script, "--fast", "1"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2 and "--sustained" in unknown.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"application_id": "Chat"}, "is none of Android's"),
        ({"version": "1.0-rc1"}, "is not up to four numbers"),
        ({"name": "a\nb"}, "not printable"),
        ({"kotlinc": "kotlinc"}, "go together"),
        ({"delivery": "by-post"}, "delivery"),
        ({"colour": "red"}, "unknown key 'colour'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, str], message: str, phone_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=message):
        package(phone_bundle, "android", tmp_path / "p", options=options)
    assert not (tmp_path / "p").exists()


def test_a_bundle_of_another_target_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="the bundle is for linux-x86_64") as refused:
        package(bundle, "android", tmp_path / "p")
    assert refused.value.hint is not None and "android-arm64" in refused.value.hint


@pytest.mark.parametrize(
    ("megabytes", "delivery", "limit", "way_out"),
    [
        (201, "assets", "200 MB", "delivery=fast-follow"),
        (1501, "fast-follow", "1500 MB", "export it smaller"),
        (1501, "install-time", "1500 MB", "split it"),
        (1600, "assets", "200 MB", "download the bundle"),
    ],
)
def test_what_google_play_would_not_deliver_is_refused(
    megabytes: int, delivery: str, limit: str, way_out: str, manifest: Manifest
) -> None:
    def sized(size: int) -> Manifest:
        return replace(manifest, files=(FileEntry("model.pte", size, "0" * 64),))

    options = Options(delivery=delivery)  # type: ignore[arg-type]
    with pytest.raises(PackageError, match=limit) as refused:
        DELIVERABLE.check(sized(megabytes * 10**6), options)
    assert refused.value.hint is not None and way_out in refused.value.hint
    DELIVERABLE.check(sized(int(limit.split()[0]) * 10**6), options)


def test_a_model_too_large_for_a_base_module_comes_without_an_aar(
    phone_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgesdk.package.android import options

    monkeypatch.setattr(options, "_limit", lambda way: 0.1 if way == options._BASE else 1500)
    made = package(phone_bundle, "android", tmp_path / "p")
    assert not (tmp_path / "p/maven").exists() and "library" not in made.written.facts
    [said] = [remark for remark in made.written.remarks if remark.startswith("No AAR: ")]
    assert "asset pack or AI pack" in said and (tmp_path / "p/modelpack/build.gradle.kts").is_file()
    readme = (tmp_path / "p/README.md").read_text()
    assert "There is no AAR" in readme and "maven" not in readme


def test_a_delegate_without_a_published_library_is_refused(manifest: Manifest) -> None:
    program = replace(manifest.program, facts=manifest.program.facts | {"delegate": "mediatek"})
    with pytest.raises(PackageError, match="mediatek"):
        DELIVERABLE.check(replace(manifest, program=program), Options())


def test_a_compiler_that_is_not_there_is_said(phone_bundle: Path, tmp_path: Path) -> None:
    options = {"kotlinc": str(tmp_path / "kotlinc"), "classpath": "android.jar"}
    with pytest.raises(PackageError, match="No such file"):
        package(phone_bundle, "android", tmp_path / "p", options=options)


def test_a_result_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "result.jsonl"
    lines = [
        event_line("hello", protocol=1, ticks_per_second=1000, manufacturer="A", model="B", runtime="executorch >=1.5"),
        event_line("load", ticks=500, ticks_per_second=1000),
    ]
    for kind, first in (("warmup", 900), ("repeat", 200), ("repeat", 300), ("repeat", 400)):
        lines += [
            event_line("sensors", at=0, battery_celsius=25.0),
            event_line("run", kind=kind, index=0, at=1),
            event_line("prefill", tokens=32, ticks=first, at=first),
            event_line("token", ticks=50, at=first + 50),
            event_line("token", ticks=None, at=first + 50),
            event_line("done", prompt_tokens=32, new_tokens=2, stop="length", text="", decode_ticks=50),
            event_line("sensors", at=2000, battery_celsius=26.0),
        ]
    file.write_bytes(b"".join(lines))
    found = read_result(file)
    assert found.load_seconds == 0.5 and not found.complete and len(found.runs) == 4
    assert [each["battery_celsius"] for each in found.runs[0].sensors] == [25.0, 26.0]
    assert "32 tokens: first token after 0.300 s, 20.0 tokens/s, 3 repeats\ncut off" in found.summary()
    file.write_bytes(b"".join([*lines, event_line("error", code="X", message="too hot")]))
    assert read_result(file).summary().endswith("failed: too hot")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the benchmark did not begin"),
        (event_line("error", code="E", message="no model"), "did not begin: no model"),
        (event_line("hello", protocol=2, ticks_per_second=1), "protocol 2, this edgesdk reads 1"),
        (event_line("hello", protocol=1).replace(b"1", b"3", 1), "line 1 was changed"),
        (None, "No such file"),
    ],
)
def test_what_is_no_result_is_said(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "r").write_bytes(content)
    with pytest.raises(ProfileError, match=message):
        read_result(tmp_path / "r")


def test_zips_are_aligned_and_hold_the_same(tmp_path: Path) -> None:
    plain, aligned = tmp_path / "plain.zip", tmp_path / "aligned.zip"
    contents = {"a.txt": b"x" * 7, "lib/arm64-v8a/liba.so": b"a" * 50, "lib/arm64-v8a/libb.so": b"b" * 30000, "z": b"z"}
    write_zip(plain, contents)
    with zipfile.ZipFile(plain, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("packed.so", b"c" * 1000)
    align_zip(plain, aligned)
    with zipfile.ZipFile(aligned) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in contents} == contents
        assert archive.getinfo("packed.so").compress_type == zipfile.ZIP_DEFLATED
    assert [data_offset(aligned, f"lib/arm64-v8a/lib{each}.so") % PAGE for each in "ab"] == [0, 0]
    assert data_offset(plain, "lib/arm64-v8a/libb.so") % PAGE
    assert data_offset(aligned, "z") % 4 == 0
