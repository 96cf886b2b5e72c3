"""Compiling Kotlin and Java, and running it on the JVM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edgesdk.cache import alone_in, made_once
from edgesdk.package import package

from ..lab.host import lab_dir, run
from .packages import EXECUTORCH, JSON, KOTLIN, debian, fetched

JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")  # runs of seconds are over before optimizing pays
LANGUAGE = "2.2"  # of the Kotlin plugin that the project's version catalogue names
_OWN = Path(__file__).parent
PACKS = _OWN / "packs/Packs.kt"  # a main class over a stand-in for Google Play, for projects with an asset pack
_SCENARIOS = "dev.edgesdk.edgemodel.ScenariosKt"


def libraries() -> list[Path]:
    """What every compilation sees: Kotlin, coroutines, ExecuTorch's real classes, Android's JSON.

    Raises:
        LabUnavailableError: one of them cannot be had.
    """
    debian(JSON, tools=("java", "javac", "javap"))
    kotlin = fetched(KOTLIN)
    return [
        kotlin / "kotlin-stdlib.jar",
        kotlin / "kotlinx-coroutines-core-jvm.jar",
        fetched(EXECUTORCH) / "classes.jar",
        JSON,
    ]


def stubs() -> Path:
    """Classes of Android and Google Play as far as the sources name them, compiled from ``stubs``."""
    return _java("stubs", [])


def double() -> Path:
    """The double of ``LlmModule``, compiled from ``double``."""
    return _java("double", libraries())


def _java(name: str, classpath: Sequence[Path]) -> Path:
    files = sorted((_OWN / name).rglob("*.java"))
    text = "".join(f"{file.relative_to(_OWN)}\n{file.read_text(encoding='utf-8')}" for file in files)
    home = lab_dir().parent / "android"
    with alone_in(home):
        return made_once(home, f"classes-{name}", text, partial(_javac, files, classpath))


def _javac(files: Iterable[Path], classpath: Sequence[Path], out: Path) -> None:
    path = os.pathsep.join(map(str, classpath)) or "."
    run(["javac", "-nowarn", "--release", "17", "-cp", path, "-d", out, *files])


def compiled(sources: Iterable[Path], classpath: Sequence[Path], out: Path) -> list[str]:
    """Compile Kotlin into a folder; what the compiler warns of.

    Raises:
        EdgeError: it does not compile.
    """
    kotlin = fetched(KOTLIN)
    command = ["java", "-Xmx700m", *JVM, "-cp", os.pathsep.join(map(str, sorted(kotlin.glob("*.jar"))))]
    command += ["org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-no-stdlib", "-no-reflect", "-jvm-target", "11"]
    command += ["-language-version", LANGUAGE, "-api-version", LANGUAGE, "-d", str(out)]
    command += ["-classpath", os.pathsep.join(map(str, classpath)), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return [line for line in done.stderr.splitlines() if "warning:" in line]


def sources(folder: Path) -> list[Path]:
    """The Kotlin files of a folder."""
    return sorted(folder.rglob("*.kt"))


class App:
    """A packaged project whose library and benchmark were compiled, with the double in front, and what runs them.

    Attributes:
        project: what ``edgesdk package`` wrote.
        model: its model tree.
    """

    def __init__(self, bundle: Path, home: Path, classpath: Sequence[Path], **options: str) -> None:
        self.project, self._log = home / "project", home / "log"
        package(bundle, "android", self.project, options={"delivery": "assets", **options})
        self.model = self.project / "app/src/main/assets/edgemodel"
        modules = [path for name in ("edgemodel", "benchmark") for path in sources(self.project / name)]
        assert compiled([*modules, *sources(_OWN / "jvm")], classpath, home / "classes") == []
        self._classpath = [double(), *classpath, home / "classes"]

    def run(self, scenario: str, *arguments: object, model: Path | None = None) -> Any:
        """What a scenario of ``Scenarios.kt`` says of a model."""
        return json.loads(self.main(_SCENARIOS, scenario, model or self.model, *arguments))

    def main(self, name: str, *arguments: object) -> str:
        """What a main class prints."""
        command = ["java", "-Xmx300m", *JVM, "-cp", os.pathsep.join(map(str, self._classpath))]
        properties = {"python": sys.executable, "runner": _OWN / "runner.py", "log": self._log}
        command += [f"-Dedgesdk.{key}={value}" for key, value in properties.items()]
        command += [name, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout
