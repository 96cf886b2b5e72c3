"""What doctor says of iOS apps, libraries and projects by the rules of the App Store: privacy manifests above all."""

from __future__ import annotations

import plistlib
import shutil
import zipfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import edgesdk
from edgesdk.artifacts import examine_artifact
from edgesdk.artifacts.privacy import FILE
from edgesdk.cli import run
from edgesdk.errors import EdgeError
from edgesdk.package import package
from edgesdk.package.icon import icon_png
from edgesdk.stores import app_store

TODAY = date(2026, 12, 1)
FILES, BOOT, DISK = (f"NSPrivacyAccessedAPICategory{name}" for name in ("FileTimestamp", "SystemBootTime", "DiskSpace"))
INFO: dict[str, Any] = {
    "CFBundleExecutable": "App",
    "DTPlatformName": "iphoneos",
    "DTPlatformVersion": "26.0",
    "UILaunchScreen": {},
    "CFBundleIcons": {"CFBundlePrimaryIcon": {"CFBundleIconName": "AppIcon"}},
    "ITSAppUsesNonExemptEncryption": False,
}


def privacy(types: Mapping[str, tuple[str, ...]]) -> bytes:
    items = [
        {"NSPrivacyAccessedAPIType": name, "NSPrivacyAccessedAPITypeReasons": list(reasons)}
        for name, reasons in types.items()
    ]
    return plistlib.dumps({"NSPrivacyTracking": False, "NSPrivacyAccessedAPITypes": items})


def binary(*symbols: str) -> bytes:
    """A Mach-O file's first bytes, and names as its table of strings has them."""
    return b"\xcf\xfa\xed\xfe" + bytes(60) + b"\0" + b"".join(name.encode() + b"\0" for name in symbols)


def app(folder: Path, files: Mapping[str, bytes], info: Mapping[str, Any] | None = None) -> Path:
    shutil.rmtree(folder / "A.app", ignore_errors=True)
    whole = {"Info.plist": plistlib.dumps({**INFO, **(info or {})}), "App": binary("_fstat"), **files}
    for name, data in whole.items():
        path = folder / "A.app" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / "A.app"


def ipa(folder: Path, files: Mapping[str, bytes], info: Mapping[str, Any] | None = None) -> Path:
    source, path = app(folder, files, info), folder / "A.ipa"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (each for each in source.rglob("*") if each.is_file()):
            archive.write(file, f"Payload/A.app/{file.relative_to(source).as_posix()}")
    return path


def said(path: Path, *levels: str, today: date = TODAY) -> list[str]:
    return [f"{found.place}: {found.text}" for found in examine_artifact(path, today) if found.level in levels]


GOOD = {FILE: privacy({FILES: ("C617.1",)})}


@pytest.mark.parametrize("kind", [app, ipa])
def test_an_app_that_declares_what_it_calls(tmp_path, kind) -> None:
    path = kind(tmp_path, GOOD)
    assert said(path, "error", "warning") == []
    assert any(FILES in text and "C617.1" in text for text in said(path, "good"))
    assert run(["doctor", str(path)]) == 0


@pytest.mark.parametrize("kind", [app, ipa])
def test_an_app_without_a_privacy_manifest(tmp_path, kind) -> None:
    path = kind(tmp_path, {})
    missing, undeclared = said(path, "error")
    assert missing == f"A.app: no {FILE}"
    assert "_fstat needs a reason" in undeclared and FILES in undeclared and "since 2024-05-01" in undeclared
    assert run(["doctor", str(path)]) == 1
    assert not [text for text in said(path, "error", today=date(2024, 4, 30)) if FILE in text]
    assert len([text for text in said(path, "warning", today=date(2024, 4, 30)) if FILE in text]) == 2


def test_an_app_that_calls_nothing_listed_is_warned_about(tmp_path) -> None:
    path = app(tmp_path, {"App": binary("_open")})
    assert said(path, "error") == [] and said(path, "warning") == [f"A.app: no {FILE}"]


@pytest.mark.parametrize(
    ("symbol", "category"),
    [
        ("_stat", FILES),
        ("_NSURLContentModificationDateKey", FILES),
        ("_mach_absolute_time", BOOT),
        ("systemUptime", BOOT),
        ("_statfs", DISK),
        ("_OBJC_CLASS_$_NSUserDefaults", "NSPrivacyAccessedAPICategoryUserDefaults"),
        ("activeInputModes", "NSPrivacyAccessedAPICategoryActiveKeyboards"),
    ],
)
def test_each_category_is_found_by_its_names(tmp_path, symbol, category) -> None:
    (found,) = said(app(tmp_path, {**GOOD, "App": binary("_a", symbol, "_fstat", "_b")}), "error") or [None]
    if category == FILES:
        assert found is None
    else:
        assert symbol in found and category in found
    assert said(app(tmp_path, {FILE: privacy({}), "App": binary(f"{symbol}_x", f"my{symbol}")}), "error") == []


def test_names_beyond_a_block_are_found(tmp_path) -> None:
    for size in range((1 << 20) - 9, (1 << 20) + 2):
        data = binary("_x" * 4)
        data = data.ljust(size, b"x") + b"\0_statfs\0"
        assert any(DISK in text for text in said(app(tmp_path, {**GOOD, "App": data}), "error"))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (privacy({FILES: ("C617.2",)}), "reason 'C617.2' is none"),
        (privacy({FILES: ()}), "no reason"),
        (privacy({"NSPrivacyAccessedAPICategoryFile": ("C617.1",)}), "is no category of Apple's"),
        (plistlib.dumps({"NSPrivacyAccessedAPITypes": "x"}), "NSPrivacyAccessedAPITypes is no list"),
        (plistlib.dumps(["x"]), "NSPrivacyAccessedAPITypes is no list"),
        (b"<plist", "no property list"),
    ],
)
def test_a_manifest_that_the_store_does_not_read(tmp_path, content, text) -> None:
    found = said(app(tmp_path, {FILE: content}), "error")
    assert any(text in each for each in found)
    assert any(FILES in each and "none is declared" in each for each in found)  # so it does not count


def test_manifests_of_packages_count_for_the_app_and_those_of_frameworks_for_them(tmp_path) -> None:
    inside = {f"EdgeModel_EdgeModel.bundle/{FILE}": privacy({FILES: ("C617.1",)})}
    assert said(app(tmp_path, inside), "error", "warning") == []
    framework = {**GOOD, "Frameworks/X.framework/X": binary("_statfs")}
    (found,) = said(app(tmp_path, framework), "error")
    assert found.startswith("Frameworks/X.framework: _statfs needs a reason")
    with_own = {**framework, f"Frameworks/X.framework/{FILE}": privacy({DISK: ("E174.1",)})}
    assert said(app(tmp_path, with_own), "error") == []
    elsewhere = {**GOOD, "App": binary("_statfs"), f"Frameworks/X.framework/{FILE}": privacy({DISK: ("E174.1",)})}
    assert any(text.startswith("A.app: _statfs") for text in said(app(tmp_path, elsewhere), "error"))


@pytest.mark.parametrize(
    ("info", "today", "level", "text"),
    [
        ({"DTPlatformVersion": "18.5"}, TODAY, "error", "built with the SDK of iOS 18: since 2026-04-28"),
        (
            {"DTPlatformVersion": "18.5"},
            date(2026, 4, 27),
            "warning",
            "from 2026-04-28 on the App Store takes iOS 26's",
        ),
        ({"DTPlatformVersion": "17.0"}, date(2026, 4, 27), "error", "since 2025-04-24"),
        ({"DTPlatformVersion": "27.1"}, TODAY, "good", "built with the SDK of iOS 27"),
        ({"DTPlatformVersion": None, "DTSDKName": "iphoneos18.2"}, TODAY, "error", "the SDK of iOS 18"),
        ({"DTPlatformVersion": None}, TODAY, "note", "which SDK it was built with"),
        ({"DTPlatformName": "iphonesimulator"}, TODAY, "error", "built for the simulator"),
        ({"UILaunchScreen": None}, TODAY, "error", "no launch screen"),
        ({"CFBundleIcons": None}, TODAY, "error", "no icon"),
        ({"ITSAppUsesNonExemptEncryption": None}, TODAY, "warning", "ITSAppUsesNonExemptEncryption"),
        ({"CFBundleExecutable": "Other"}, TODAY, "error", "its executable is missing"),
    ],
)
def test_what_an_app_says_of_itself(tmp_path, info, today, level, text) -> None:
    path = app(tmp_path, GOOD)
    whole = {key: value for key, value in {**INFO, **info}.items() if value is not None}
    (path / "Info.plist").write_bytes(plistlib.dumps(whole, fmt=plistlib.FMT_BINARY))
    assert any(text in each for each in said(path, level, today=today))


def test_a_development_build_is_refused(tmp_path) -> None:
    def profile(allowed: bool) -> dict[str, bytes]:
        return {
            "embedded.mobileprovision": b"0\x82" + plistlib.dumps({"Entitlements": {"get-task-allow": allowed}}) + b"0"
        }

    assert any("a development build" in text for text in said(app(tmp_path, {**GOOD, **profile(True)}), "error"))
    assert said(app(tmp_path, {**GOOD, **profile(False)}), "error", "warning") == []
    broken = {**GOOD, "embedded.mobileprovision": b"x"}
    assert any("cannot be read" in text for text in said(app(tmp_path, broken), "warning"))


@pytest.mark.parametrize("plist", [b"", b"x", plistlib.dumps(["x"])])
def test_an_app_that_cannot_be_read_is_one_error(tmp_path, plist) -> None:
    path = app(tmp_path, {"Info.plist": plist})
    with pytest.raises(EdgeError, match=r"Info\.plist"):
        examine_artifact(path, TODAY)
    (path / "Info.plist").unlink()
    assert said(path, "error") == ["A.app: no Info.plist, so no app"]


def test_an_archive_without_an_app(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "a.ipa", "w") as archive:
        archive.writestr("Payload/x", b"")
    assert said(tmp_path / "a.ipa", "error") == ["a.ipa: 0 apps in Payload, and there must be one"]


def test_an_xcframework_says_what_its_app_has_to_declare(tmp_path) -> None:
    folder = tmp_path / "a.xcframework"
    library = {"LibraryIdentifier": "ios-arm64", "SupportedPlatform": "ios", "SupportedArchitectures": ["arm64"]}
    (folder / "ios-arm64/X.framework").mkdir(parents=True)
    (folder / "_CodeSignature").mkdir()
    (folder / "ios-arm64/liba.a").write_bytes(b"!<arch>\n" + binary("_fstat"))
    (folder / "ios-arm64/X.framework/X").write_bytes(binary("_fstat"))
    for path in ("liba.a", "X.framework"):
        data = plistlib.dumps({"AvailableLibraries": [{**library, "LibraryPath": path}]})
        (folder / "Info.plist").write_bytes(data)
        (found,) = said(folder, "warning")
        assert found.startswith(f"ios-arm64/{path}: _fstat needs a reason") and "unless the app" in found
        assert said(folder, "error") == []
    (folder / f"ios-arm64/X.framework/{FILE}").write_bytes(privacy({FILES: ("C617.1",)}))
    assert said(folder, "error", "warning") == []


@pytest.fixture(scope="module")
def project(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("project")
    edgesdk.export(checkpoint, "ios-arm64", home / "bundle", recipe="w8", context=256, checks=edgesdk.Checks(skip=True))
    package(home / "bundle", "ios", home / "app")
    return home / "app"


def test_the_project_that_is_written_has_no_finding(project) -> None:
    assert said(project, "error", "warning") == []
    assert run(["doctor", str(project)]) == 0


def test_a_project_without_its_manifests(project, tmp_path) -> None:
    copy = tmp_path / "App"
    shutil.copytree(project, copy)
    (copy / "deliverable.json").unlink()  # somebody's own project by now
    assert said(copy, "error", "warning") == []
    for file in copy.rglob(FILE):
        file.unlink()
    missing, undeclared = said(copy, "error")
    assert missing == f"App: no {FILE}" and "ExecuTorch (executorch) needs a reason" in undeclared
    package_alone = tmp_path / "EdgeModel"
    shutil.copytree(copy / "EdgeModel", package_alone)
    assert len(said(package_alone, "error")) == 2


@pytest.mark.parametrize(
    ("change", "level", "text"),
    [
        (lambda root: shutil.rmtree(root / "App/Assets.xcassets"), "error", "no icon of 1024 points"),
        (lambda root: next(root.rglob("icon.png")).write_bytes(icon_png(512)), "error", "no icon of 1024 points"),
        (lambda root: _replace(root / "project.yml", "UILaunchScreen", "Other"), "error", "no launch screen"),
        (
            lambda root: _replace(root / "project.yml", "ITSAppUses", "Other"),
            "warning",
            "ITSAppUsesNonExemptEncryption",
        ),
    ],
)
def test_what_a_project_lacks(project, tmp_path, change, level, text) -> None:
    copy = tmp_path / "App"
    shutil.copytree(project, copy)
    (copy / "deliverable.json").unlink()
    change(copy)
    assert any(text in each for each in said(copy, level))


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_an_icon_with_an_alpha_channel_is_refused(project, tmp_path) -> None:
    copy = tmp_path / "App"
    shutil.copytree(project, copy)
    image = next(copy.rglob("icon.png"))
    data = bytearray(image.read_bytes())
    data[25] = 6  # red, green, blue and alpha
    image.write_bytes(data)
    assert any("alpha channel" in text for text in said(copy, "error"))


def test_the_bundle_in_an_app_is_looked_at_and_needs_executorchs_reasons(project, tmp_path) -> None:
    model = {
        f"Model/{path.relative_to(project / 'Model').as_posix()}": path.read_bytes()
        for path in (project / "Model").rglob("*")
        if path.is_file()
    }
    stripped = binary("_open")
    assert said(app(tmp_path, {**model, **GOOD, "App": stripped}), "error") == []
    found = said(app(tmp_path, {**model, FILE: privacy({}), "App": stripped}), "error")
    assert any(text.startswith("A.app: ExecuTorch needs a reason") for text in found)
    assert any(
        "missing" in text
        for text in said(app(tmp_path, {**GOOD, "Model/manifest.json": model["Model/manifest.json"]}), "error")
    )


def test_the_table_holds_apples_categories_and_executorchs_calls() -> None:
    rules = app_store()
    known = {category.name: category for category in rules.category}
    assert len(known) == 5
    for call in rules.call:
        assert call.reason in known[call.category].reasons and call.symbol in known[call.category].symbols
    assert rules.reasons(["executorch"]) == {FILES: ("C617.1",)}
    assert rules.reasons(["executorch", "backend_coreml"]) == {FILES: ("C617.1",), BOOT: ("35F9.1",)}
