"""The lab: ExecuTorch's aarch64 wheel, a runner built over it, and qemu's user mode to run both on this machine.

The custom operators of language models come in the wheel as a library for Python that links to torch. The runner
registers its kernels by loading it, so torch's own aarch64 libraries are fetched too; what those link to beyond need
(CUDA, Python) is replaced by empty libraries, of which nothing is ever called.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgesdk.errors import EdgeError
from edgesdk.files import replacing_folder, sha256
from edgesdk.model.catalogue import Wheel, cache_dir

EMULATOR = "qemu-aarch64-static"
COMPILER = "aarch64-linux-gnu-g++"
_RUNNER = Path(__file__).with_name("runner.cpp")
_TIMEOUT = 1800  # seconds: an emulator that hangs

_EXECUTORCH = Wheel("executorch", "1.5.1", "8ee02348a3ea80ddf770822911ebf78da616b73afce0fbaaa79f23311c88c66a")
_TORCH = Wheel("torch", "2.13.0", "092790c696a760c729fd5722835f50b9d81fd7c8f141571f3f3cf4081a8f664c")
_LINKED = (
    "libexecutorch.so",
    "libexecutorch_threadpool.so",
    "libexecutorch_kernels_optimized.so",
    "libexecutorch_kernels_quantized.so",
    "libexecutorch_backend_xnnpack.so",
    "libcustom_ops_aot_lib.so",
)
_KEPT = {
    _EXECUTORCH: re.compile(
        rf"executorch/(include/.*\.h|lib/({'|'.join(_LINKED)})|extension/llm/custom_ops/libcustom_ops_aot_lib\.so)"
    ),
    _TORCH: re.compile(r"torch/lib/(libc10|libtorch_cpu|libarm_compute(_graph)?|libnvpl_\w+|libgomp)\.so[.\d]*"),
}
_EMPTY = (
    "_C.cpython-311-aarch64-linux-gnu.so",
    "libtorch.so",
    "libcudart.so.13",
    "libcupti.so.13",
)


class LabUnavailableError(EdgeError):
    """The lab cannot be set up on this machine, for want of a tool or of the network."""


@dataclass(frozen=True)
class Answer:
    """What the runner printed: token ids, and the most memory that it and the emulator held."""

    tokens: list[int]
    max_rss_kb: int


@dataclass(frozen=True)
class Lab:
    """A runner for aarch64 and what it needs to run here."""

    emulator: str
    sysroot: Path
    libraries: Path
    runner: Path

    def greedy(self, program: Path, prompt: Sequence[int], count: int, cpu: str) -> Answer:
        """The ``count`` best tokens after ``prompt``, on one of qemu's CPU models.

        Raises:
            EdgeError: the runner failed; the message holds what it said.
        """
        command = [self.emulator, "-cpu", cpu, "-L", self.sysroot, "-E", f"LD_LIBRARY_PATH={self.libraries}"]
        command += [self.runner, program, count, *prompt]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=_TIMEOUT)
        if done.returncode:
            raise EdgeError(f"{program.name} on {cpu}: status {done.returncode}\n{done.stderr[-2000:]}")
        *tokens, memory = done.stdout.splitlines()
        return Answer([int(token) for token in tokens], int(memory.removeprefix("max_rss_kb ")))


def prepare() -> Lab:
    """The lab, downloaded and built first if need be; what is ready is used again.

    Raises:
        LabUnavailableError: a tool is missing, or the package registry did not give a wheel.
        EdgeError: a wheel is not the pinned one, or the runner does not build.
    """
    emulator = _tool(EMULATOR, "qemu-user-static")
    compiler = _tool(COMPILER, "g++-aarch64-linux-gnu")
    home = cache_dir() / "device-tests" / "executorch-arm64"
    with _alone(home):
        contents = repr([(wheel, kept.pattern) for wheel, kept in _KEPT.items()] + [_EMPTY])
        wheels = _ready(home, "wheels", contents, partial(_unpack, compiler))
        sources = "".join(path.read_text(encoding="utf-8") for path in (Path(__file__), _RUNNER))
        built = _ready(home, "runner", f"{wheels.name} {sources}", partial(_build, compiler, wheels))
    loader = _run([compiler, "-print-file-name=ld-linux-aarch64.so.1"]).strip()
    return Lab(emulator, Path(loader).resolve().parents[1], wheels / "lib", built / "runner")


def _tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise LabUnavailableError(f"{name} is not installed", hint=f"apt-get install {package}")
    return found


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keep other processes out of ``home`` meanwhile."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ready(home: Path, name: str, inputs: str, fill: Callable[[Path], None]) -> Path:
    """The folder made from ``inputs``: it has its name only when whole; others, and what was cut off, go."""
    folder = home / f"{name}-{hashlib.sha256(inputs.encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        with replacing_folder(folder) as partly:
            fill(partly)
        for other in (*home.glob(f"{name}-*"), *home.glob(f".{name}-*")):
            if other != folder:
                shutil.rmtree(other)
    return folder


def _unpack(compiler: str, folder: Path) -> None:
    """Headers into ``include``, libraries into ``lib``, with empty ones for what is linked but never called."""
    library = folder / "lib"
    library.mkdir()
    for wheel, kept in _KEPT.items():
        with tempfile.TemporaryDirectory(dir=folder) as scratch, zipfile.ZipFile(_fetch(wheel, scratch)) as archive:
            for name in filter(kept.fullmatch, archive.namelist()):
                inside = Path(name).relative_to(wheel.name)
                path = folder / inside if inside.parts[0] == "include" else library / inside.name
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, path.open("wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
    for name in _EMPTY:
        made = ["-o", str(library / name), f"-Wl,-soname,{name}", "-Wl,--default-symver"]
        _run([compiler, "-shared", "-nostdlib", "-x", "c++", os.devnull, *made])


def _fetch(wheel: Wheel, folder: str) -> Path:
    """Download one wheel for aarch64, never installed."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir", "--dest", folder]
    command += ["--only-binary", ":all:", "--python-version", "3.11", "--platform", "manylinux_2_28_aarch64"]
    done = subprocess.run([*command, f"{wheel.name}=={wheel.version}"], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise LabUnavailableError(
            f"the package registry did not give {wheel.name} {wheel.version} for aarch64: {reason[-1]}",
            hint="connect to a registry that has it",
        )
    (path,) = Path(folder).glob("*.whl")
    if sha256(path) != wheel.sha256:
        raise EdgeError(f"{path.name} has sha256 {sha256(path)}, not {wheel.sha256}")
    return path


def _build(compiler: str, wheels: Path, folder: Path) -> None:
    include = wheels / "include"
    headers = [include, include / "executorch/runtime/core/portable_type/c10"]
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-DC10_USING_CUSTOM_GENERATED_MACROS"]
    command += [part for path in headers for part in ("-isystem", str(path))]
    command += [str(_RUNNER), "-o", str(folder / "runner"), "-Wl,--no-as-needed,--allow-shlib-undefined"]
    _run([*command, *(str(wheels / "lib" / name) for name in _LINKED)])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EdgeError(f"{Path(command[0]).name} failed: {done.stderr[-2000:]}")
    return done.stdout
