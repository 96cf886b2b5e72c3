"""What doctor says of Android apps by the rules of Google Play: both compiled forms, days, kinds of devices."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from edgesdk.artifacts import Finding, examine_artifact
from edgesdk.artifacts.compiled import DamagedError
from edgesdk.artifacts.manifests import read_manifest
from edgesdk.cli import run
from edgesdk.errors import EdgeError
from edgesdk.package.android.archives import align_zip

from .android_manifests import Ref, Tree, app, chunked, proto_table, protobuf, table
from .test_artifacts import ARM, elf

TODAY = date(2026, 12, 1)
FLAG, NUMBER = Ref(0x7F020001), Ref(0x7F030000)
WATCH, TV, CAR = "android.hardware.type.watch", "android.software.leanback", "android.hardware.type.automotive"


def apk(folder: Path, tree: Tree, more: Mapping[str, bytes] | None = None) -> Path:
    loose, aligned = folder / "loose.apk", folder / "app.apk"
    with zipfile.ZipFile(loose, "w") as archive:
        for name, data in {"AndroidManifest.xml": chunked(tree), "META-INF/A.RSA": b"x", **(more or {})}.items():
            archive.writestr(name, data)
    align_zip(loose, aligned)
    return aligned


def aab(folder: Path, tree: Tree, more: Mapping[str, bytes] | None = None) -> Path:
    path = folder / "app.aab"
    with zipfile.ZipFile(path, "w") as archive:
        entries = {"BundleConfig.pb": b"", "base/manifest/AndroidManifest.xml": protobuf(tree), "META-INF/A.RSA": b"x"}
        for name, data in {**entries, **(more or {})}.items():
            archive.writestr(name, data)
    return path


def said(path: Path, *levels: str, today: date = TODAY) -> list[str]:
    return [found.text for found in examine_artifact(path, today) if found.level in levels]


@pytest.mark.parametrize("kind", [apk, aab])
def test_an_app_that_three_rules_refuse(tmp_path, kind) -> None:
    tree = app(sdks=[{"minSdkVersion": 23, "targetSdkVersion": 35}], debuggable=True)
    folder = "lib" if kind is apk else "base/lib"
    path = kind(tmp_path, tree, {f"{folder}/arm64-v8a/liba.so": elf(alignment=4096)})
    old, debuggable, pages = said(path, "error")
    assert old.startswith("targetSdk 35: since 2026-08-31 Google Play takes 36 and newer for phones")
    assert debuggable.startswith("debuggable: Google Play refuses it")
    assert "aligned to 4096 bytes" in pages
    assert run(["doctor", str(path)]) == 1


@pytest.mark.parametrize("kind", [apk, aab])
def test_an_app_that_no_rule_refuses(tmp_path, kind) -> None:
    folder = "lib" if kind is apk else "base/lib"
    path = kind(tmp_path, app(), {f"{folder}/arm64-v8a/liba.so": elf()})
    assert said(path, "error", "warning") == []
    assert any("judged by its rules as of 2026-" in text for text in said(path, "note"))
    assert run(["doctor", str(path)]) == 0


@pytest.mark.parametrize(
    ("sdk", "level", "text"),
    [
        ({"minSdkVersion": 24}, "error", "targetSdk 24 (minSdkVersion, as there is no targetSdkVersion)"),
        ({"minSdkVersion": 36}, "good", "targetSdk 36"),
        ({}, "error", "targetSdk 1 (minSdkVersion"),
        ({"minSdkVersion": 23, "targetSdkVersion": 37}, "good", "targetSdk 37"),
        (
            {"minSdkVersion": 23, "targetSdkVersion": "VanillaIceCream"},
            "error",
            "'VanillaIceCream' is the name of a preview",
        ),
        ({"minSdkVersion": "Baklava"}, "error", "'Baklava' is the name of a preview"),
        ({"minSdkVersion": 23, "targetSdkVersion": "36"}, "good", "targetSdk 36"),
        ({"minSdkVersion": 23, "targetSdkVersion": NUMBER}, "error", "targetSdk 34"),
        (
            {"minSdkVersion": 23, "targetSdkVersion": Ref(0x7F090000)},
            "note",
            "targetSdkVersion is a resource that cannot",
        ),
    ],
)
@pytest.mark.parametrize("kind", [apk, aab])
def test_the_sdk_that_an_app_is_for(tmp_path, kind, sdk, level, text) -> None:
    values = {NUMBER.id: [(False, 36), (True, 34)]}
    more = {"resources.arsc": table(values)} if kind is apk else {"base/resources.pb": proto_table(values)}
    path = kind(tmp_path, app(sdks=[sdk]), more)
    assert [found for found in said(path, level) if text in found]


def test_without_uses_sdk_an_app_is_for_the_first(tmp_path) -> None:
    assert any("targetSdk 1 " in text for text in said(apk(tmp_path, app(sdks=[])), "error"))


@pytest.mark.parametrize(("last", "level"), [(36, "good"), (34, "error")])
def test_of_several_the_last_counts(tmp_path, last, level) -> None:
    first = {"minSdkVersion": 23, "targetSdkVersion": 70 - last}
    path = apk(tmp_path, app(sdks=[first, {"minSdkVersion": 23, "targetSdkVersion": last}]))
    assert any(f"targetSdk {last}" in text for text in said(path, level))
    assert any("2 elements uses-sdk" in text for text in said(path, "warning"))


@pytest.mark.parametrize("name", ["debuggable", "testOnly"])
@pytest.mark.parametrize(
    ("value", "refused"), [(True, True), (False, False), (FLAG, True), ("true", True), ("false", False), (1, True)]
)
@pytest.mark.parametrize("kind", [apk, aab])
def test_flags_that_a_store_refuses(tmp_path, kind, name, value, refused) -> None:
    values = {FLAG.id: [(False, False), (True, True)]}
    more = {"resources.arsc": table(values)} if kind is apk else {"base/resources.pb": proto_table(values)}
    found = said(kind(tmp_path, app(**{name: value}), more), "error")
    assert [text.startswith(f"{name}: Google Play refuses it") for text in found] == [True] * refused


def test_a_flag_in_a_resource_that_is_not_there_is_said(tmp_path) -> None:
    path = apk(tmp_path, app(debuggable=FLAG))
    assert any("debuggable is a resource that cannot be read" in text for text in said(path, "note"))
    endless = {FLAG.id: [(True, FLAG)]}
    (tmp_path / "b").mkdir()
    path = apk(tmp_path / "b", app(debuggable=FLAG), {"resources.arsc": table(endless)})
    assert any("debuggable is a resource that cannot be read" in text for text in said(path, "note"))


@pytest.mark.parametrize(
    ("feature", "sdk", "form", "refused"),
    [
        ({"name": WATCH}, 35, "Wear OS", False),
        ({"name": WATCH}, 34, "Wear OS", True),
        ({"name": CAR, "required": True}, 35, "Android Automotive OS", False),
        ({"name": TV}, 34, "Android TV", False),
        ({"name": TV}, 33, "Android TV", True),
        ({"name": TV, "required": False}, 35, "phones and tablets", True),
        ({"name": "android.hardware.camera"}, 35, "phones and tablets", True),
        ({"name": "android.software.xr.api.spatial"}, 34, "Android XR", False),
    ],
)
@pytest.mark.parametrize("kind", [apk, aab])
def test_other_devices_have_other_limits(tmp_path, kind, feature, sdk, form, refused) -> None:
    tree = app(sdks=[{"minSdkVersion": 23, "targetSdkVersion": sdk}], features=[feature])
    path = kind(tmp_path, tree)
    assert any(f"for {form}" in text for text in said(path, "error" if refused else "good"))


def test_an_app_for_watches_and_cars_is_judged_as_one_for_phones(tmp_path) -> None:
    tree = app(sdks=[{"targetSdkVersion": 35}], features=[{"name": WATCH}, {"name": CAR}])
    assert any("for phones" in text for text in said(apk(tmp_path, tree), "error"))


@pytest.mark.parametrize(
    ("today", "level", "text"),
    [
        (date(2026, 8, 30), "warning", "targetSdk 35: from 2026-08-31 on Google Play takes 36"),
        (date(2026, 8, 31), "error", "targetSdk 35: since 2026-08-31 Google Play takes 36"),
        (date(2025, 8, 30), "warning", "targetSdk 35: from 2026-08-31 on"),
    ],
)
def test_a_rule_holds_from_its_day_on(tmp_path, today, level, text) -> None:
    path = apk(tmp_path, app(sdks=[{"minSdkVersion": 23, "targetSdkVersion": 35}]))
    assert any(text in found for found in said(path, level, today=today))


def test_pages_are_asked_of_newer_apps_alone(tmp_path) -> None:
    def levels(sdk: int, features: list[dict[str, Any]], today: date = TODAY) -> list[str]:
        tree = app(sdks=[{"minSdkVersion": 23, "targetSdkVersion": sdk}], features=features)
        path = apk(tmp_path, tree, {"lib/arm64-v8a/liba.so": elf(alignment=4096)})
        return [found.level for found in examine_artifact(path, today) if "aligned to 4096" in found.text]

    assert levels(36, []) == ["error"]
    assert levels(34, []) == ["warning"]
    assert levels(36, [], date(2025, 10, 31)) == ["warning"]
    assert levels(35, [{"name": WATCH}]) == ["error"]
    assert levels(35, [{"name": WATCH}], date(2026, 9, 14)) == ["warning"]


def test_libraries_for_32_bit_alone(tmp_path) -> None:
    def levels(features: list[dict[str, Any]], today: date) -> list[str]:
        path = apk(tmp_path, app(features=features), {"lib/armeabi-v7a/liba.so": elf(ARM, 4096)})
        return [found.level for found in examine_artifact(path, today) if "no libraries for arm64" in found.text]

    assert levels([], TODAY) == ["error"]
    assert levels([{"name": WATCH}], TODAY) == ["error"]
    assert levels([{"name": WATCH}], date(2026, 9, 1)) == ["warning"]


def test_an_app_without_an_icon_is_warned_about(tmp_path) -> None:
    path = apk(tmp_path, app(icon=False))
    assert [text for text in said(path, "warning") if "icon" in text] and said(path, "error") == []


@pytest.mark.parametrize(("days", "level"), [(0, "note"), (183, "note"), (184, "warning"), (-5, "note")])
def test_an_old_table_is_said_and_fails_nothing(tmp_path, days, level) -> None:
    from datetime import timedelta

    from edgesdk.stores import google_play

    today = google_play().checked + timedelta(days=days)
    (found,) = (each for each in examine_artifact(apk(tmp_path, app()), today) if "judged by its rules" in each.text)
    assert found.level == level and f"{max(0, days)} days ago" in found.text


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("ids", [True, False])
def test_forms_in_which_a_manifest_is_compiled(wide, ids) -> None:
    tree = app(sdks=[{"minSdkVersion": 21, "targetSdkVersion": 33}], features=[{"name": WATCH}], debuggable=True)
    found = read_manifest(chunked(tree, wide=wide, ids=ids), None)
    assert (found.target_sdk, found.debuggable, found.required, found.icon) == (33, True, (WATCH,), True)
    assert found == read_manifest(protobuf(tree), None)


def test_an_element_elsewhere_is_another(tmp_path) -> None:
    inside: Tree = ("application", {}, (("uses-sdk", {"targetSdkVersion": 20}, ()), ("manifest", {}, ())))
    tree: Tree = ("manifest", {}, (("uses-sdk", {"targetSdkVersion": 36}, ()), inside))
    for data in (chunked(tree), protobuf(tree)):
        assert read_manifest(data, None).target_sdk == 36


def test_what_is_no_compiled_manifest_is_refused(tmp_path) -> None:
    good = chunked(app()), protobuf(app())
    cut = [data[:size] for data in good for size in (0, 1, 7, 8, 9, 30, len(data) // 2)]
    for data in (
        *cut,
        b"<manifest/>",
        b"x",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        chunked(("resources", {}, ())),
    ):
        try:
            read_manifest(data, None)
        except DamagedError:
            continue
        assert data in cut  # ends after the part that was read
    with zipfile.ZipFile(tmp_path / "a.apk", "w") as archive:
        archive.writestr("AndroidManifest.xml", "<manifest/>")
    assert any("no compiled manifest" in text for text in said(tmp_path / "a.apk", "error"))


def test_changed_bytes_never_end_in_another_error() -> None:
    """Every byte of a manifest and of a table, changed in four ways."""
    values = {FLAG.id: [(True, True)], NUMBER.id: [(True, "36")]}
    tree = app(sdks=[{"targetSdkVersion": NUMBER}], debuggable=FLAG)
    for whole, resources in ((chunked(tree), table(values)), (protobuf(tree), proto_table(values))):
        for which in (0, 1):
            data = bytearray((whole, resources)[which])
            for index in range(len(data)):
                old = data[index]
                for new in (0, 0x7F, 0xFF, old ^ 0x10):
                    data[index] = new
                    given = (bytes(data), resources) if which == 0 else (whole, bytes(data))
                    with suppress(EdgeError):
                        read_manifest(*given)
                data[index] = old


def test_a_manifest_nested_without_end_takes_no_time() -> None:
    tag = (
        struct.pack("<HHI", 0x0102, 16, 36)
        + struct.pack("<IIII", 1, 0, 0, 0)
        + struct.pack("<HHHHHH", 20, 20, 0, 0, 0, 0)
    )
    whole = chunked(("manifest", {}, ()))
    body = whole[8:] + tag * 100_000
    data = struct.pack("<HHI", 3, 8, 8 + len(body)) + body
    assert read_manifest(data, None).target_sdk == 1


def test_a_gradle_project(tmp_path) -> None:
    def project(build: str, manifest: str = '<application android:icon="@a"/>') -> list[Finding]:
        (tmp_path / "settings.gradle.kts").write_text("")
        (tmp_path / "app/src/main").mkdir(parents=True, exist_ok=True)
        (tmp_path / "app/build.gradle.kts").write_text(build)
        (tmp_path / "app/src/main/AndroidManifest.xml").write_text(manifest)
        return [found for found in examine_artifact(tmp_path, TODAY) if found.level in ("error", "warning")]

    defaults = "android {\n    defaultConfig {\n        minSdk = 23\n        %s\n    }\n}"
    whole = 'plugins { id("com.android.application") }\n' + defaults
    assert project(whole % "targetSdk = 36") == []
    (found,) = project(whole % "targetSdk = 35")
    assert found.level == "error" and found.place == "app/build.gradle.kts" and "targetSdk 35" in found.text
    (found,) = project((whole % "targetSdkVersion 34").replace("kts", ""))
    assert "targetSdk 34" in found.text
    (found,) = project(whole % "")
    assert "targetSdk 23 (minSdkVersion" in found.text
    assert (
        project(whole % "targetSdk = 35", f'<uses-feature android:name="{WATCH}" /><application android:icon="@a"/>')
        == []
    )
    (found,) = project(whole % "targetSdk = 36" + "\nbuildTypes { release { isDebuggable = true } }")
    assert "debuggable" in found.text
    assert project('plugins { id("com.android.library") }\nandroid { }') == []
