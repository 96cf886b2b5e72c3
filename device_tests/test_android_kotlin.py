"""The Kotlin of the Android project: compiled against ExecuTorch's real classes, run on a JVM over its real runner."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path

import pytest

from edgesdk.bundle import open_bundle
from edgesdk.chat import Chat
from edgesdk.package import package
from edgesdk.package.android.model import write_model
from edgesdk.package.base import PackageError

from .android.chain import SAYINGS, as_a_ring, chain_bundle
from .android.kotlin import JVM, PACKS, App, compiled, double, sources
from .android.packages import KOTLIN, fetched
from .lab.host import run

_LLM = "org.pytorch.executorch.extension.llm"


def everything(project: Path, classpath: list[Path], out: Path, *more: Path) -> None:
    """Compile all of a project, without a warning."""
    assert compiled([*sources(project), *more], classpath, out) == []
    found = {path.stem for path in out.rglob("*.class")}
    assert {"EdgeModel", "ModelPack", "ChatActivity", "BenchmarkActivity"} <= found


def test_everything_compiles_against_the_real_classes(chain: Path, classpath: list[Path], tmp_path: Path) -> None:
    package(chain, "android", tmp_path / "project", options={"pack": "ai-pack"})
    everything(tmp_path / "project", classpath, tmp_path / "classes")


def test_a_model_that_was_damaged_on_the_phone_has_a_way_out(
    chain: Path, classpath: list[Path], tmp_path: Path
) -> None:
    """One that was pushed, and one that Google Play fetched; everything compiles with asset packs too."""
    package(chain, "android", tmp_path / "project")
    everything(tmp_path / "project", classpath, tmp_path / "classes", PACKS)
    path = ":".join(map(str, [*classpath, tmp_path / "classes"]))
    home, model = tmp_path / "phone", tmp_path / "project/modelpack/src/main/assets/edgemodel"
    said = json.loads(run(["java", *JVM, "-cp", path, "dev.edgesdk.edgemodel.PacksKt", home, model]))
    damaged = r"BundleDamagedException: model\.pte has \d+ bytes instead of \d+"
    expected = {
        "before": "BundleMissingException: .*",
        "fetched": "Ready",
        "opened": "pack/edgemodel",
        "pushed is damaged": damaged,
        "pushed is forgotten": r"kotlin\.Unit",
        "the pack counts again": "pack/edgemodel",
        "pack is damaged": damaged,
        "pack stays": "BundleDamagedException: Google Play cannot remove the pack: busy",
        "pack is forgotten": r"kotlin\.Unit",
        "pack is gone": "BundleMissingException: .*",
        "pack is fetched": "Ready",
        "pack is whole": "pack/edgemodel",
        "pack is empty": "BundleDamagedException: .*pack/edgemodel holds no model",
    }
    assert {name: bool(re.fullmatch(pattern, said[name])) for name, pattern in expected.items()} == dict.fromkeys(
        expected, True
    ), said


def test_the_aar_has_the_librarys_classes_where_a_compiler_is_given(
    chain: Path, classpath: list[Path], tmp_path: Path
) -> None:
    kotlin = fetched(KOTLIN)
    compiler = tmp_path / "kotlinc"
    java = f"java {' '.join(JVM)} -cp {':'.join(map(str, kotlin.glob('*.jar')))}"
    compiler.write_text(
        f'#!/bin/sh\nexec {java} org.jetbrains.kotlin.cli.jvm.K2JVMCompiler -no-stdlib -no-reflect "$@"\n'
    )
    compiler.chmod(0o755)
    options = {"kotlinc": str(compiler), "classpath": ":".join(map(str, classpath))}
    made = package(chain, "android", tmp_path / "project", options=options)
    assert not any("kotlinc" in remark for remark in made.written.remarks)
    (aar,) = (tmp_path / "project/maven").rglob("*.aar")
    with zipfile.ZipFile(aar) as archive, zipfile.ZipFile(BytesIO(archive.read("classes.jar"))) as jar:
        assert {f"dev/edgesdk/edgemodel/{name}.class" for name in ("EdgeModel", "Packaged", "ModelPack")} <= set(
            jar.namelist()
        )
    with pytest.raises(PackageError, match="the library does not compile"):
        package(chain, "android", tmp_path / "other", options=options | {"classpath": str(classpath[0])})


def test_a_call_that_executorch_does_not_have_does_not_compile(
    chain: Path, classpath: list[Path], tmp_path: Path
) -> None:
    package(chain, "android", tmp_path / "project")
    model = next((tmp_path / "project/edgemodel").rglob("EdgeModel.kt"))
    text = model.read_text()
    model.write_text(text.replace("module.resetContext()", "module.resetContexts()"))
    assert model.read_text() != text
    with pytest.raises(AssertionError, match="unresolved reference 'resetContexts'"):
        compiled(sources(tmp_path / "project/edgemodel"), classpath, tmp_path / "classes")


def test_the_double_has_the_public_methods_of_the_real_class(classpath: list[Path]) -> None:
    def public(path: Path) -> list[str]:
        text = run(["javap", "-public", "-cp", str(path), f"{_LLM}.LlmModule"])
        return sorted(re.sub(r"^Compiled from.*$", "", text, flags=re.MULTILINE).split("\n"))

    (real,) = (path for path in classpath if path.name == "classes.jar")
    assert public(double()) == public(real)


def test_characters_of_several_tokens_come_whole(android_app: App) -> None:
    said = android_app.run("stream", "A:", 64)
    assert said["pieces"] == ["Gr", "ü", "n", "日", "😀", "!"]  # the emoji is two tokens
    assert (said["prompt"], said["new"], said["end"]) == (2, len(SAYINGS[0]) - 1, "MODEL")
    assert said["position"] == 2 + len(SAYINGS[0]) - 2
    assert said["load"] > 0 and said["first"] > 0 and said["decode"] > 0
    assert said["prefill"] == pytest.approx(2 / said["first"])


def test_half_a_character_at_the_end_is_not_given(android_app: App) -> None:
    said = android_app.run("stream", "A", 4)
    assert said["pieces"] == ["aa", "é", "bb"]
    assert (said["new"], said["end"]) == (4, "LENGTH")


def test_an_answer_of_half_a_character_has_no_time_to_its_first(android_app: App) -> None:
    said = android_app.run("stream", "H", 1)
    assert said["pieces"] == [] and (said["new"], said["end"]) == (1, "LENGTH")
    assert said["first"] is None and said["prefill"] is None and said["decode"] is None


def test_the_limit_is_of_tokens(android_app: App) -> None:
    said = android_app.run("stream", "L", 5)
    assert said["pieces"] == ["la", "lo", "lu", "la", "lo"]
    assert (said["new"], said["end"]) == (5, "LENGTH")


def test_line_ends_are_pieces_like_others(android_app: App) -> None:
    assert android_app.run("stream", "N", 4)["pieces"] == ["x", "\n", "y", "\n"]


def test_an_answer_that_ends_at_once_is_empty(android_app: App) -> None:
    said = android_app.run("stream", "Z", 64)
    assert said["pieces"] == [] and said["end"] == "MODEL" and said["new"] < 6


def test_stop_ends_an_answer(android_app: App) -> None:
    said = android_app.run("stop", "L", 5)
    assert said["end"] == "STOPPED" and 5 <= said["heard"] <= 70 and said["new"] < 100


def test_stop_before_the_first_token_is_not_lost(android_app: App) -> None:
    said = android_app.run("stop_first", "L")
    assert said["end"] == "STOPPED" and said["new"] < 10


def test_who_wants_no_more_stops_the_model(android_app: App) -> None:
    said = android_app.run("cancel", "L", 3)
    assert said["pieces"] == ["la", "lo", "lu"]
    assert said["position"] < 120 and said["again"] == ["la", "lo", "lu", "la"]


def test_a_conversation_goes_on_in_what_the_model_holds(android_app: App, chain: Path) -> None:
    said = android_app.run("chat", 64, "Hi", "Yes")
    assert said["answers"] == ["Grün日😀!"] * 2 and said["turns"] == 2
    with open_bundle(chain) as opened:
        chat = Chat(opened)
        assert [chat.ask("Hi"), chat.ask("Yes")] == said["answers"]
    first = len("user:Hi") + len("assistant:") + 3  # letters and special tokens
    second = len("user:Yes") + len("assistant:") + 4
    answer = len(SAYINGS[0]) - 2  # the token that ends it was not read
    assert said["prompt"] == second and said["positions"] == [first + answer, first + answer + second + answer]


def test_after_an_answer_that_was_cut_off_all_is_read_again(android_app: App) -> None:
    said = android_app.run("chat", 2, "Hi", "Yes")
    assert said["answers"] == ["Grü"] * 2
    assert said["prompt"] > 2 * len("<s>user:Hi")  # of the second question: both, and the first answer


def test_two_conversations_with_one_model_do_not_mix(android_app: App) -> None:
    said = android_app.run("two", "Hi", "something long in between", "Yes")
    answer = len(SAYINGS[0]) - 2  # the token that ends it was not read
    assert said["prompt"] > len("user:Hi") + len("user:Yes") + answer  # all that was said in the first one
    assert said["position"] == said["prompt"] + answer  # and nothing of the other


def test_one_answer_at_a_time(android_app: App) -> None:
    assert android_app.run("busy", "A")["second"] == "BusyException"


@pytest.mark.parametrize("post_processor", [True, False], ids=["by-the-runtime", "by-the-app"])
def test_a_model_without_a_template_continues_plain_text(
    android_app: App, tmp_path: Path, post_processor: bool
) -> None:
    bundle = chain_bundle(tmp_path / "bundle", template=None, prefix=True, post_processor=post_processor)
    model = _tree(bundle, tmp_path)
    said = android_app.run("+chat", 3, "LL", "AL", model=model)
    assert said["answers"] == ["lalolu"] * 2
    assert said["prompt"] == 3  # each prompt by itself, after the BOS that the policy wants
    assert all(position in range(5, 8) for position in said["positions"])  # the model is two tokens ahead (runner.py)


@pytest.fixture(scope="module", params=[False, True], ids=["whole-prompts", "as-a-ring"])
def long_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A context of 2048 tokens, and the same as earlier bundles have it, which ExecuTorch takes for a ring."""
    folder = tmp_path_factory.mktemp("long")
    with as_a_ring() if request.param else nullcontext():
        return _tree(chain_bundle(folder / "bundle", context=2048), folder)


@pytest.mark.parametrize(("length", "most", "given"), [(2031, 100, 17), (2031, 5, 5), (2046, 64, 2), (500, 5, 5)])
def test_an_answer_ends_at_its_limit_and_at_the_context(
    android_app: App, long_model: Path, length: int, most: int, given: int
) -> None:
    said = android_app.run("+stream", "L" * length, most, model=long_model)
    assert len(said["pieces"]) in (given, min(most, given + 1))  # a ring takes one more token than other programs
    assert said["pieces"][:3] == ["la", "lo", "lu"][: len(said["pieces"])]
    assert said["end"] == "LENGTH" and said["prompt"] == length
    assert said["new"] == len(said["pieces"])
    assert length + said["new"] - 1 == said["position"] <= 2048


@pytest.mark.parametrize("length", [2048, 2049, 5000])
def test_a_prompt_beyond_the_context_is_said_before_any_text(android_app: App, long_model: Path, length: int) -> None:
    said = android_app.run("+stream", "L" * length, 64, model=long_model)
    assert said["error"] == "ContextFullException" and "2048 tokens" in said["message"]


def test_a_conversation_that_fills_the_context_ends_there(android_app: App, long_model: Path) -> None:
    """And can begin anew: the question that had no room is forgotten with its answer."""
    said = android_app.run("+fill", "L" * 1900, model=long_model)
    assert said["ends"] == ["LENGTH"] and said["then"] == "ContextFullException"
    assert said["anew"] == ["la", "lo"]


def test_the_model_in_assets_is_copied_once(android_app: App, tmp_path: Path) -> None:
    said = android_app.run("copy", tmp_path, model=android_app.model.parent)
    assert said["folder"].startswith(str(tmp_path)) and said["folder"].endswith(said["digest"])
    assert said["again"] and said["untouched"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("bundle/model.pte", "flip", "model.pte: its SHA-256 is not the one in the manifest"),
        ("bundle/model.pte", "cut", "model.pte has"),
        ("bundle/tokenizer.json", "remove", "tokenizer.json is missing"),
        ("bundle/manifest.json", "flip", "manifest.json is not the one that this app was packaged with"),
        ("chat.json", "flip", "chat.json is not the one that this app was packaged with"),
    ],
)
def test_a_damaged_model_is_refused_before_it_is_loaded(
    android_app: App, tmp_path: Path, name: str, change: str, message: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(android_app.model, model)
    _damage(model / name, change)
    said = android_app.run("stream", "A", 4, model=model)
    assert said["error"] == "BundleDamagedException" and message in said["message"]


def test_no_model_is_said(android_app: App, tmp_path: Path) -> None:
    assert android_app.run("stream", "A", 4, model=tmp_path)["error"] == "BundleMissingException"


def test_a_program_that_executorch_refuses_is_said(chain: Path, android_app: App, tmp_path: Path) -> None:
    """Whose hashes fit: as a bundle of another release would."""
    said = android_app.run("+stream", "A", 4, model=_resealed(android_app.model, tmp_path))
    assert said["error"] == "LoadFailedException" and "ExecuTorch refuses the model" in said["message"]


def _tree(chain: Path, folder: Path) -> Path:
    with open_bundle(chain) as opened:
        return write_model(opened, folder / "model").folder


def _damage(path: Path, change: str) -> None:
    if change == "remove":
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    if change == "cut":
        del data[-1:]
    else:
        data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _resealed(model: Path, folder: Path) -> Path:
    from dataclasses import replace

    from edgesdk.bundle import seal

    shutil.copytree(model, folder / "model")
    with open_bundle(model / "bundle") as opened:
        manifest = opened.manifest
    changed = folder / "model" / "bundle"
    (changed / "manifest.json").unlink()
    data = bytearray((changed / "model.pte").read_bytes())
    data[8:4000] = bytes(3992)
    (changed / "model.pte").write_bytes(data)
    seal(changed, replace(manifest, files=()))
    return folder / "model"
