"""The C++ runner of ExecuTorch programs for 64-bit Arm with glibc, built over the libraries of ExecuTorch's wheel.

The custom operators of language models come in the wheel as a library for Python that links to torch. The runner
registers its kernels by loading it, so torch's own aarch64 libraries go along; what those link to beyond need (CUDA,
Python) is replaced by empty libraries, of which nothing is ever called.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ...bundle import Manifest
from ...cache import alone_in, made_once
from ...digests import file_digest
from ...errors import EdgeError
from ...files import file_entry
from ...model.catalogue import cache_dir
from ...progress import SILENT, Progress
from ...targets import targets_dir
from ...wheels import Wheel, download
from ..base import DeviceError
from ..facts import Facts
from ..store import Parcel, Pushed, Store

COMPILER = "aarch64-linux-gnu-g++"
NAME = "runner"

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
_PLATFORM = ("--python-version", "3.11", "--platform", "manylinux_2_28_aarch64", "--no-cache-dir")
_EMPTY = (
    "_C.cpython-311-aarch64-linux-gnu.so",
    "libtorch.so",
    "libcudart.so.13",
    "libcupti.so.13",
)


class RunnerUnavailableError(EdgeError):
    """The runner cannot be built here, for want of the compiler or of the network."""


def native_command(store: Store, facts: Facts, pushed: Pushed, threads: int | None, progress: Progress) -> str:
    """The command line that runs a pushed bundle on a device; the runner and its libraries are pushed first.

    Raises:
        DeviceError: this runner is none for that device.
        RunnerUnavailableError: it cannot be built here.
    """
    device = store.device
    if facts.architecture != "aarch64" or facts.libc not in (None, "glibc"):
        what = f"{facts.architecture} with {facts.libc}"
        raise DeviceError(
            f"{device.name}: the runner for ExecuTorch programs is for aarch64 with glibc, not {what}",
            hint="on Android and iOS an app runs them; on other boards an interpreter that has executorch: "
            "python = '...' in devices.toml",
        )
    folder = native_runner(progress)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = tuple(file_entry(path, path.relative_to(folder).as_posix()) for path in paths)
    name = f"runner.{file_digest(folder / NAME)[:12]}"
    runner = store.push(Parcel(name, folder, entries), activate=False, progress=progress)
    text = device.run(f"cat {shlex.quote(pushed.path)}/manifest.json", check=True).text
    manifest = Manifest.parse(text, f"{device.name}: {pushed.path}/manifest.json")
    stop = ",".join(map(str, manifest.tokenizer.stop)) or "-"
    program = f"{pushed.path}/{manifest.program.main}"
    words = shlex.join([f"{runner.path}/{NAME}", program, manifest.digest, stop, str(threads or 0)])
    path = shlex.quote(runner.path)
    return f"chmod 755 {path}/{NAME} && LD_LIBRARY_PATH={path}/lib exec {words}"


def native_runner(progress: Progress = SILENT) -> Path:
    """A folder with the runner and, in ``lib``, what it needs; downloaded and built first if need be.

    Raises:
        RunnerUnavailableError: the compiler is missing, or the package registry did not give a wheel.
        EdgeError: a wheel is not the pinned one, or the runner does not build.
    """
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise RunnerUnavailableError(
            f"the runner for the device is built here, and {COMPILER} is not installed",
            hint="apt-get install g++-aarch64-linux-gnu",
        )
    home, source = cache_dir() / "runners" / "executorch-aarch64", targets_dir() / "posix" / "executorch" / "runner.cpp"
    with alone_in(home):
        contents = repr([(wheel, kept.pattern) for wheel, kept in _KEPT.items()] + [_EMPTY])
        wheels = made_once(home, "wheels", contents, partial(_unpack, compiler, progress))
        text = source.read_text(encoding="utf-8") + Path(__file__).read_text(encoding="utf-8")
        return made_once(home, "runner", f"{wheels.name} {text}", partial(_build, compiler, source, wheels))


def _unpack(compiler: str, progress: Progress, folder: Path) -> None:
    """Headers into ``include``, libraries into ``lib``, with empty ones for what is linked but never called."""
    library = folder / "lib"
    library.mkdir()
    progress.note("fetching ExecuTorch's and torch's libraries for aarch64, once: 445 MB, of which 300 MB are kept")
    for wheel, kept in _KEPT.items():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            with progress.stage(f"Downloading {wheel.name} for aarch64"):
                failure = download((wheel,), Path(scratch), _PLATFORM)
            if failure is not None:
                raise RunnerUnavailableError(
                    f"the package registry did not give {wheel.name} {wheel.version} for aarch64: {failure}",
                    hint="connect to a registry that has it",
                )
            (path,) = Path(scratch).glob("*.whl")
            _keep(path, wheel, kept, folder)
    for name in _EMPTY:
        made = ["-o", str(library / name), f"-Wl,-soname,{name}", "-Wl,--default-symver"]
        _run([compiler, "-shared", "-nostdlib", "-x", "c++", os.devnull, *made])


def _keep(path: Path, wheel: Wheel, kept: re.Pattern[str], folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in filter(kept.fullmatch, archive.namelist()):
            inside = Path(name).relative_to(wheel.name)
            target = folder / inside if inside.parts[0] == "include" else folder / "lib" / inside.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)


def _build(compiler: str, source: Path, wheels: Path, folder: Path) -> None:
    include = wheels / "include"
    headers = [include, include / "executorch/runtime/core/portable_type/c10"]
    command = [compiler, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-DC10_USING_CUSTOM_GENERATED_MACROS"]
    command += [f'-DEXECUTORCH_VERSION="{_EXECUTORCH.version}"']
    command += [part for path in headers for part in ("-isystem", str(path))]
    command += [str(source), "-o", str(folder / NAME), "-Wl,--no-as-needed,--allow-shlib-undefined"]
    _run([*command, *(str(wheels / "lib" / name) for name in _LINKED)])
    (folder / "lib").mkdir()
    for library in (wheels / "lib").iterdir():
        os.link(library, folder / "lib" / library.name)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EdgeError(f"{Path(command[0]).name} failed: {done.stderr[-2000:]}")
