"""The iOS deliverable: its files parse, load, and say what was chosen; what cannot be made is refused first."""

from __future__ import annotations

import dataclasses
import json
import plistlib
import re
import shutil
from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_swift
import yaml

import edgesdk
from edgesdk.bundle import open_bundle, seal
from edgesdk.cli import run
from edgesdk.package import package
from edgesdk.package.base import PackageError
from edgesdk.package.icon import icon_png
from edgesdk.package.ios import DELIVERABLE, IosOptions
from edgesdk.package.packaging import open_record

from .golden import check_golden

RECORDED = {  # ExecuTorchLLM's and ExecuTorch's names, from the Objective-C headers and Swift files of 1.5
    "import": {"ExecuTorchLLM", "ExecuTorch"},
    "TextRunner": {"load", "generate", "stop", "reset"},
    "Config": {"isEchoEnabled", "maximumNewTokens", "temperature", "bosCount"},
}


@pytest.fixture(scope="module")
def phone_bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ios") / "bundle"
    edgesdk.export(checkpoint, "ios-arm64", out, recipe="w8", context=256, checks=edgesdk.Checks(skip=True))
    return out


@pytest.fixture(scope="module", params=["resource", "on-demand", "background"])
def made(request, phone_bundle, tmp_path_factory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("made") / "app"
    package(phone_bundle, "ios", out, options={"delivery": request.param, "bundle_id": "com.acme.chat", "name": "Acme"})
    return request.param, out


def test_every_swift_file_parses(made) -> None:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
    files = sorted(made[1].rglob("*.swift"))
    assert len(files) > 20
    for file in files:
        assert not parser.parse(file.read_bytes()).root_node.has_error, file.name


def test_its_property_lists_and_project_files_load(made) -> None:
    way, folder = made
    for file in folder.rglob("*.entitlements"):
        assert plistlib.loads(file.read_bytes())
    entitlements = plistlib.loads((folder / "App/Support/App.entitlements").read_bytes())
    assert entitlements["com.apple.developer.kernel.increased-memory-limit"] is True
    project = yaml.safe_load((folder / "project.yml").read_text())
    delivery = yaml.safe_load((folder / "delivery.yml").read_text())
    assert project["include"] == ["delivery.yml"]
    assert project["targets"]["App"]["settings"]["PRODUCT_BUNDLE_IDENTIFIER"] == "com.acme.chat"
    sources = [*project["targets"]["App"]["sources"], *project["targets"]["Benchmark"]["sources"]]
    paths = [entry["path"] if isinstance(entry, dict) else entry for entry in sources]
    for source in [*paths, *(entry["path"] for entry in delivery["targets"]["App"].get("sources", ()))]:
        assert (folder / source).exists(), source
    assert {"path": "App/Support/PrivacyInfo.xcprivacy", "buildPhase": "resources"} in sources
    for name in set(project["configFiles"].values()):
        assert "-all_load" in (folder / name).read_text()
    assert ("Downloader" in delivery["targets"]) == (way == "background")
    if way == "background":
        manifest = json.loads((folder / "AssetPack/Manifest.json").read_text())
        assert (folder / "AssetPack" / manifest["fileSelectors"][0]["directory"] / "manifest.json").is_file()


def test_its_privacy_manifests_give_executorchs_reasons(made) -> None:
    """In the app, whose executable ExecuTorch's static libraries become part of, and in the package."""
    _, folder = made
    apps, packages = (folder / name for name in ("App/Support", "EdgeModel/Sources/EdgeModel"))
    text = (apps / "PrivacyInfo.xcprivacy").read_bytes()
    assert (packages / "PrivacyInfo.xcprivacy").read_bytes() == text
    assert 'resources: [.process("PrivacyInfo.xcprivacy")]' in (folder / "EdgeModel/Package.swift").read_text()
    said = plistlib.loads(text)
    assert said["NSPrivacyTracking"] is False and said["NSPrivacyTrackingDomains"] == []
    assert said["NSPrivacyCollectedDataTypes"] == []
    (declared,) = said["NSPrivacyAccessedAPITypes"]
    assert declared == {
        "NSPrivacyAccessedAPIType": "NSPrivacyAccessedAPICategoryFileTimestamp",
        "NSPrivacyAccessedAPITypeReasons": ["C617.1"],
    }


def test_our_swift_calls_nothing_that_needs_a_reason(made) -> None:
    listed = re.compile(
        r"\b(?:UserDefaults|AppStorage|systemUptime|mach_absolute_time|activeInputModes|(?:f|l)?stat(?:v?fs)?"
        r"|(?:content|file)?[mM]odificationDate\w*|creationDate\w*|volume\w+Capacity\w*|systemFreeSize|systemSize)\b"
    )
    for file in made[1].rglob("*.swift"):
        code = re.sub(r'"[^"\n]*"', '""', file.read_text())
        assert not listed.search(code), file


def test_a_program_for_core_ml_links_its_backend_and_gives_its_reasons(phone_bundle, tmp_path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(phone_bundle, copy)
    with open_bundle(phone_bundle) as bundle:
        manifest = bundle.manifest
    (copy / "manifest.json").unlink()
    facts = {**manifest.program.facts, "delegate": "coreml"}
    seal(copy, dataclasses.replace(manifest, files=(), program=dataclasses.replace(manifest.program, facts=facts)))
    package(copy, "ios", tmp_path / "app")
    assert '"executorch", "backend_coreml", "kernels_llm"' in (tmp_path / "app/EdgeModel/Package.swift").read_text()
    said = plistlib.loads((tmp_path / "app/App/Support/PrivacyInfo.xcprivacy").read_bytes())
    assert [each["NSPrivacyAccessedAPITypeReasons"] for each in said["NSPrivacyAccessedAPITypes"]] == [
        ["C617.1"],
        ["35F9.1"],
    ]
    (copy / "manifest.json").unlink()
    program = dataclasses.replace(manifest.program, facts={**facts, "delegate": "vulkan"})
    seal(copy, dataclasses.replace(manifest, files=(), program=program))
    with pytest.raises(PackageError, match="no Swift package for the delegate 'vulkan'"):
        package(copy, "ios", tmp_path / "other")


@pytest.mark.parametrize("points", [1, 2, 17, 120, 1024])
def test_the_icon_is_a_png_of_two_colours(points, tmp_path) -> None:
    from PIL import Image

    (tmp_path / "icon.png").write_bytes(icon_png(points))
    image = Image.open(tmp_path / "icon.png")
    image.load()
    assert image.size == (points, points) and image.mode == "P"
    colours = {colour for _, colour in image.convert("RGB").getcolors()}
    assert colours <= {(0x1B, 0x3A, 0x57), (255, 255, 255)} and (points < 17 or len(colours) == 2)


def test_the_model_in_it_is_the_bundle(made, phone_bundle) -> None:
    way, folder = made
    model = folder / ("AssetPack/Model" if way == "background" else "Model")
    assert json.loads((model / "chat.json").read_text())["answer"] == "</s><s>assistant "
    (model / "chat.json").unlink()
    with open_bundle(model) as inside, open_bundle(phone_bundle) as outside:
        assert inside.manifest == outside.manifest
    record = open_record(folder)
    assert (record.kind, record.options["delivery"]) == ("ios", way)


def test_the_runtime_is_pinned_to_the_one_that_verified_the_bundle(made, phone_bundle) -> None:
    with open_bundle(phone_bundle) as bundle:
        version = bundle.manifest.tools["executorch"]
    package_file = (made[1] / "EdgeModel/Package.swift").read_text()
    assert f'branch: "swiftpm-{version.partition("+")[0]}"' in package_file
    assert "unsafeFlags" not in package_file


def test_names_of_executorch_are_those_recorded(made) -> None:
    engine = (made[1] / "EdgeModel/Sources/EdgeModel/Engine.swift").read_text()
    assert set(re.findall(r"runner\.(\w+)\(", engine)) == RECORDED["TextRunner"]
    assert set(re.findall(r"\$0\.(\w+) = ", engine)) == RECORDED["Config"]
    imports = {
        name for file in made[1].rglob("*.swift") for name in re.findall(r"^import (Exe\w+)", file.read_text(), re.M)
    }
    assert imports == RECORDED["import"]


def test_golden_files(made) -> None:
    way, folder = made
    golden = Path(__file__).with_name("golden_files") / f"ios-{way}.txt"
    model = ("Model", "AssetPack/Model", "deliverable.json", "README.md")  # follow the tools' versions
    check_golden(folder, golden, [*model, "EdgeModel/Package.swift", "scripts/benchmark.sh"])


def test_large_models_are_delivered_apart(phone_bundle) -> None:
    with open_bundle(phone_bundle) as bundle:
        manifest = bundle.manifest

    def chosen(megabytes: int, delivery: str = "auto") -> str:
        entry = dataclasses.replace(manifest.files[0], size=megabytes * 10**6)
        from edgesdk.package.ios import _way

        return _way(dataclasses.replace(manifest, files=(entry,)), IosOptions(delivery=delivery))  # type: ignore[arg-type]

    assert [chosen(size) for size in (100, 300, 8000, 8001)] == ["resource", "on-demand", "on-demand", "background"]
    assert chosen(3900, "resource") == "resource"
    with pytest.raises(PackageError, match="4100 MB, and an app of the App Store takes 4000 MB") as refused:
        chosen(4100, "resource")
    assert refused.value.hint is not None and "delivery=auto" in refused.value.hint
    with pytest.raises(PackageError, match="200001 MB"):
        chosen(200_001)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bundle_id": "chat"}, "bundle_id 'chat'"),
        ({"version": "1.x"}, "version '1.x'"),
        ({"name": "${HOME}"}, "no dollar signs"),
        ({"name": "a\nb"}, "not printable"),
        ({"delivery": "floppy"}, "delivery"),
        ({"bundleid": "com.a"}, "bundle_id"),
    ],
)
def test_wrong_options_are_refused(phone_bundle, tmp_path, options, said) -> None:
    with pytest.raises(PackageError, match=re.escape(said)):
        package(phone_bundle, "ios", tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_a_bundle_for_something_else_is_refused(bundle, tmp_path, capsys) -> None:
    assert run(["package", str(bundle), "--as", "ios", "-o", str(tmp_path / "out")]) == 1
    assert "edgesdk export MODEL --target ios-arm64" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_only_where_it_was_ours(phone_bundle, tmp_path) -> None:
    out = tmp_path / "out"
    package(phone_bundle, "ios", out)
    package(phone_bundle, "ios", out)
    (out / "mine.txt").write_text("from before")
    with pytest.raises(PackageError, match=r"holds 'mine\.txt'"):
        package(phone_bundle, "ios", out)
    assert (out / "mine.txt").read_text() == "from before"
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(PackageError, match="not a deliverable"):
        package(phone_bundle, "ios", other)
    assert (other / "thesis.txt").read_text() == "years of work"


def test_its_options_are_listed(capsys) -> None:
    assert run(["package", "--as", "ios", "--options"]) == 0
    listed = capsys.readouterr().out
    assert all(field.name in listed for field in dataclasses.fields(DELIVERABLE.options))
    assert "asset pack, iOS 26" in listed
