"""Names that another format would read as more than text: each deliverable, read back by its format's own parser."""

from __future__ import annotations

import itertools
import plistlib
import re
import shutil
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_kotlin
import tree_sitter_swift
import yaml
from markdown_it import MarkdownIt

import edgesdk
from edgesdk.bundle import open_bundle
from edgesdk.cli import run
from edgesdk.errors import BundleError, ModelError, RecipeError
from edgesdk.lines import check_lines, shown, shown_line
from edgesdk.package import package
from edgesdk.package.base import PackageError
from edgesdk.package.escaping import FORMATS, shell

from ..conftest import make_checkpoint
from ..hostile import LINES, NOT_LINES, renamed, resealed

TARGETS = ("android-arm64", "ios-arm64", "linux-x86_64", "cortex-m4f")


@pytest.fixture(scope="module")
def bundles(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("hostile")
    for target in TARGETS:
        skip = edgesdk.Checks(skip=True)
        edgesdk.export(checkpoint, target, home / target, recipe="w8", context=128, checks=skip)
    return {target: home / target for target in TARGETS}


def headings(text: str) -> list[str]:
    """Texts of the headings of a Markdown document, as CommonMark has them; nothing in it may be HTML or a link."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child for token in tokens if token.type == "inline" for child in token.children or ()]
    assert not [token for token in (*tokens, *inline) if token.type in ("html_block", "html_inline", "image")]
    assert not [token for token in inline if token.type == "link_open" and "javascript" in str(token.attrGet("href"))]
    titles = [after for before, after in itertools.pairwise(tokens) if before.type == "heading_open"]
    return ["".join(child.content for child in title.children or ()) for title in titles]


def parses(language: object, files: list[Path]) -> None:
    parser = tree_sitter.Parser(tree_sitter.Language(language))
    assert files and not [file for file in files if parser.parse(file.read_bytes()).root_node.has_error]


@pytest.mark.parametrize("name", LINES)
def test_android(name: str, bundles: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    hostile = renamed(bundles["android-arm64"], tmp_path / "bundle", name=name, licence=name)
    package(hostile, "android", out, options={"application_id": "com.example.chat"})
    strings = out / "app/src/main/res/values/strings.xml"
    assert compiled_string(strings, tmp_path) == name
    for file in out.rglob("*.xml"):
        ET.parse(file)
    for file in out.rglob("*.toml"):
        tomllib.loads(file.read_text(encoding="utf-8"))
    parses(tree_sitter_kotlin.language(), [*out.rglob("*.kts"), *out.rglob("*.kt")])
    for script in out.rglob("*.sh"):
        subprocess.run(["sh", "-n", script], check=True)
    assert headings((out / "README.md").read_text(encoding="utf-8"))[0] == f"{name} on Android"


def compiled_string(strings: Path, scratch: Path) -> str:
    """What ``app_name`` says in an app that Google's own resource compiler made."""
    if shutil.which("aapt2") is None:
        pytest.skip("no aapt2 here (Debian's package aapt)")
    manifest = scratch / "AndroidManifest.xml"
    manifest.write_text('<manifest package="a.b"><application/></manifest>')
    (scratch / "res/values").mkdir(parents=True)
    shutil.copy(strings, scratch / "res/values")
    subprocess.run(["aapt2", "compile", "--dir", scratch / "res", "-o", scratch / "c.zip"], check=True)
    linked = ["aapt2", "link", "-o", scratch / "a.apk", "--manifest", manifest, scratch / "c.zip"]
    subprocess.run(linked, check=True, capture_output=True)
    done = subprocess.run(["aapt2", "dump", "strings", scratch / "a.apk"], check=True, capture_output=True)
    said = done.stdout.decode("utf-8", "surrogatepass")  # Java's modified UTF-8
    return said.encode("utf-16", "surrogatepass").decode("utf-16").split("String #0 : ", 1)[1].rstrip("\n")


@pytest.mark.parametrize("name", [each for each in LINES if "$" not in each])
def test_ios(name: str, bundles: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    package(renamed(bundles["ios-arm64"], tmp_path / "bundle", name=name, licence=name), "ios", out)
    project = yaml.safe_load((out / "project.yml").read_text(encoding="utf-8"))
    assert project["targets"]["App"]["info"]["properties"]["CFBundleDisplayName"] == name
    assert project["targets"]["App"].keys() == yaml.safe_load(untouched(out))["targets"]["App"].keys()
    for file in out.rglob("*.entitlements"):
        plistlib.loads(file.read_bytes())
    parses(tree_sitter_swift.language(), list(out.rglob("*.swift")))
    assert headings((out / "README.md").read_text(encoding="utf-8"))[0] == f"{name} for iOS"


def untouched(out: Path) -> str:
    text = (out / "project.yml").read_text(encoding="utf-8")
    return re.sub(r"CFBundleDisplayName: .*", "CFBundleDisplayName: x", text)


def test_a_dollar_in_an_ios_name_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    """XcodeGen would put a variable of its environment there, which may be a secret of CI's."""
    hostile = renamed(bundles["ios-arm64"], tmp_path / "bundle", name="${GITHUB_TOKEN}")
    with pytest.raises(PackageError, match="no dollar signs"):
        package(hostile, "ios", tmp_path / "out")
    package(hostile, "ios", tmp_path / "out", options={"name": "Chat"})


@pytest.mark.parametrize("name", LINES)
def test_linux_service(name: str, bundles: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    hostile = renamed(bundles["linux-x86_64"], tmp_path / "bundle", name=name, licence=name)
    package(hostile, "linux-service", out, options={"wheels": "no"})
    unit = out / "root/usr/lib/systemd/system/edgesdk.service"
    plain = tmp_path / "plain"
    package(bundles["linux-x86_64"], "linux-service", plain, options={"wheels": "no"})
    before = (plain / unit.relative_to(out)).read_text(encoding="utf-8").splitlines()
    after = unit.read_text(encoding="utf-8").splitlines()
    assert [line for line in after if not line.startswith("Description=")] == [
        line for line in before if not line.startswith("Description=")
    ]
    assert description(unit, tmp_path) == f"Language model {name} behind OpenAI's chat API"
    tomllib.loads((out / "root/etc/edgesdk/server.toml").read_text(encoding="utf-8"))
    for script in (out / "root/usr/bin").iterdir():
        subprocess.run(["sh", "-n", script], check=True)
    (deb,) = out.glob("*.deb")
    if shutil.which("dpkg-deb"):
        field = subprocess.run(["dpkg-deb", "-f", deb, "Description", "Package"], check=True, capture_output=True)
        said = field.stdout.decode()
        assert f"language model {name} as a service" in said and "Package: edgesdk-service" in said
        assert len(re.findall(r"^\S", said, re.MULTILINE)) == 2
    assert headings((out / "README.md").read_text(encoding="utf-8"))[0] == f"{name} as a service of a Linux board"


def description(unit: Path, scratch: Path) -> str:
    """A unit's description as systemd's own tools read it, with its specifiers filled in."""
    text = unit.read_text(encoding="utf-8")
    assert not re.search(r"\\$", text, re.MULTILINE)
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
        )
        assert not re.search(r"edgesdk\.service:\d+", done.stderr), done.stderr
    (line,) = re.findall(r"^Description=(.*)$", text, re.MULTILINE)
    assert not re.search(r"(?<!%)(%%)*%(?!%)", str(line))
    return str(line).replace("%%", "%")


@pytest.mark.parametrize(
    ("old", "new"),
    [("onnxruntime", "evil-package"), ("onnxruntime", "--index-url=http://x"), (">=1.23,<2", "; import os"),
     (">=1.23,<2", " @ http://evil.example/x.whl")],
)  # fmt: skip
def test_a_bundle_does_not_choose_what_pip_fetches(
    old: str, new: str, bundles: dict[str, Path], tmp_path: Path
) -> None:
    hostile = resealed(bundles["linux-x86_64"], tmp_path / "bundle", old, new)
    with pytest.raises(PackageError, match=r"not in|no range"):
        package(hostile, "linux-service", tmp_path / "out", options={"wheels": "no"})


@pytest.mark.parametrize("name", LINES)
def test_firmware(name: str, bundles: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    package(renamed(bundles["cortex-m4f"], tmp_path / "bundle", name=name), "firmware", out)
    assert headings((out / "README.md").read_text(encoding="utf-8"))[0] == f"Firmware of {name}"
    assert headings((out / "MEMORY.md").read_text(encoding="utf-8"))[0] == f"Memory of {name}"


@pytest.mark.parametrize("text", NOT_LINES)
def test_what_is_no_line_is_refused_where_it_enters(text: str, bundle: Path, tmp_path: Path) -> None:
    for place, old in (("name", "tiny"), ("target", "linux-x86_64"), ("version", ">=1.23,<2")):
        with pytest.raises(BundleError, match=r"not printable|one printable line|damaged|200"):
            open_bundle(resealed(bundle, tmp_path / place, old, text)).__enter__()
    with pytest.raises(ModelError, match="the model's name"):
        edgesdk.model.Origin(text)
    with pytest.raises(ModelError, match="the licence of x"):
        edgesdk.model.Origin("x", licence=text)
    with pytest.raises(RecipeError, match="the recipe's name"):
        edgesdk.Recipe(text)
    card = make_checkpoint(tmp_path / "model") / "README.md"
    card.write_text(f"---\nlicense: {text}\n---\n", encoding="utf-8")
    if len(text.splitlines()) == 1:
        with pytest.raises(ModelError, match="the licence of model"):
            edgesdk.open_model(tmp_path / "model")


def test_a_manifest_has_lines_everywhere() -> None:
    for data in ({"a": [{"b": "x\ny"}]}, {"x\ny": 1}, ["\x1b"], {"notes": ["n" * 4001]}):
        with pytest.raises(BundleError, match=r"^m: key"):
            check_lines(data, "m", BundleError)
    check_lines({"a": ["é 日本語 🙂", {"b": 1.5}], "c": None}, "m")


def test_the_terminal_gets_no_escape_sequence(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    title = "\x1b]0;pwned\x07"
    for arguments in (["inspect", title], ["lint", title, "-t", title], ["run", str(bundle), "x", "--device", title],
                      ["export", str(bundle), "-t", "x", f"--{title}"], [title]):  # fmt: skip
        assert run(arguments) != 0
        said = capsys.readouterr()
        assert "\x1b" not in said.out + said.err and "\x07" not in said.out + said.err
    assert shown("a\tb\n\x1b[31m\x9b\u202e\u2066é\u200d🙂") == "a\tb\n\\x1b[31m\\x9b\\u202e\\u2066é\u200d🙂"
    assert shown_line("a\n\x1b", 10) == "a\\x0a\\x1b" and shown_line("n" * 300) == "n" * 197 + "..."


def test_an_answer_cannot_act_on_the_terminal(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgesdk.chat import Chat

    monkeypatch.setattr(Chat, "stream", lambda self, *rest, **more: iter(["ok \x1b[2J", "\x9b", "\n"]), raising=False)
    run(["run", str(bundle), "hi", "--max-tokens", "2"])
    said = capsys.readouterr()
    assert "\x1b" not in said.out and "\x9b" not in said.out


def test_every_template_has_a_format() -> None:
    from edgesdk.targets import targets_dir

    for template in targets_dir().rglob("*.j2"):
        name = template.with_suffix("")
        assert (name.suffix or name.name) in FORMATS, template


@pytest.mark.parametrize("text", (*LINES, "", "-rf", "a b"))
def test_a_word_of_a_shell(text: str) -> None:
    done = subprocess.run(["sh", "-c", f"printf %s {shell(text)}"], capture_output=True, check=True)
    assert done.stdout.decode() == text


def test_commands_print_through_one_function() -> None:
    """``click.echo`` and ``print`` would print what a file says as it is."""
    folder = Path(edgesdk.__file__).parent / "cli"
    for file in folder.glob("*.py"):
        code = file.read_text(encoding="utf-8")
        assert file.name == "terminal.py" or not re.search(r"\bclick\.s?echo\(|(?<![\w.])print\(", code), file.name
