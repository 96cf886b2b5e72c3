"""Harnesses of libFuzzer for the C that runs on microcontrollers, with the sanitizers of addresses and of undefined
behaviour. They are built and run here; a harness is one file beside this one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgesdk.boards import microcontroller_dir

from ..supervisor import Outcome

_SANITIZED = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
_FLAGS = (
    "-std=c99",
    "-fwrapv",  # products of weights that are garbage
    "-D_POSIX_C_SOURCE=200809L",
    "-O2",
    "-g",
    *_SANITIZED,
)
_LIMITS = ("-timeout=5", "-rss_limit_mb=1024", "-print_final_stats=1")
_FLASH = {"FLASH_ORIGIN": 0, "FLASH_BYTES": 24576, "RAM_ORIGIN": 0x20000000, "RAM_BYTES": 16384}
_BOARD = (
    'BOARD_NAME="fuzz"',
    *(f"{name}={value}u" for name, value in _FLASH.items()),
    *("PAGE_BYTES=1024u", "BLOCK_BYTES=2048u"),
)
_PLACE = re.compile(r"SUMMARY: \S+ (.+)|==\d+==ERROR: (.+)|runtime error: (.+)")


@dataclass(frozen=True)
class Harness:
    """One fuzzed part of the C.

    Attributes:
        sources: product files that are compiled in, below the folder of microcontrollers.
        folders: of headers, likewise.
        longest: bytes of an input; short ones are many.
        definitions: of the preprocessor.
    """

    sources: tuple[str, ...]
    folders: tuple[str, ...]
    longest: int
    definitions: tuple[str, ...] = ()


def compiler() -> str | None:
    """A clang that has libFuzzer; None where there is none."""
    names = ("clang", *(f"clang-{version}" for version in range(25, 13, -1)))
    for path in filter(None, map(shutil.which, names)):
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / "probe.c"
            source.write_text(
                "#include <stddef.h>\n#include <stdint.h>\n"
                "int LLVMFuzzerTestOneInput(const uint8_t *d, size_t n) { (void)d; (void)n; return 0; }\n"
            )
            command = [path, *_SANITIZED, str(source), "-o", f"{scratch}/probe"]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return path
    return None


def fuzz(name: str, seconds: float, seed: int, out: Path) -> Outcome:
    """Build one harness and run it for a while; a crash ends it, and its input is kept in ``out``."""
    clang = compiler()
    if clang is None:
        raise RuntimeError("no clang with libFuzzer here (apt-get install clang libclang-rt-dev)")
    with tempfile.TemporaryDirectory(prefix="edgesdk-fuzz-") as scratch:
        corpus = Path(scratch) / "corpus"
        corpus.mkdir()
        subprocess.run([sys.executable, "-m", "tests.fuzz.native.seeds", name, scratch], check=True)
        program = built(clang, HARNESSES[name], name, Path(scratch))
        findings = (out / "findings" / f"c-{name}").resolve()
        findings.mkdir(parents=True, exist_ok=True)
        limits = [
            *_LIMITS,
            f"-max_len={HARNESSES[name].longest}",
            f"-max_total_time={max(1, round(seconds))}",
            f"-seed={seed}",
        ]
        # forked by a shell: libFuzzer's figure for memory begins with the largest that its parent ever was
        command = ["/bin/sh", "-c", '"$0" "$@"; exit $?', str(program), str(corpus), *limits]
        command += [f"-artifact_prefix={findings}/"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    outcome = Outcome(f"c-{name}", seed, seconds=seconds)
    outcome.inputs = _number(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    outcome.growth = _number(r"stat::peak_rss_mb:\s*(\d+)", done.stderr) << 10
    if done.returncode:
        found = _PLACE.search(done.stderr)
        outcome.findings["crash"] = [found[0] if found else done.stderr[-300:]]
        (findings / "report.txt").write_text(done.stderr[-20_000:])
    return outcome


def built(clang: str, harness: Harness, name: str, folder: Path) -> Path:
    """The compiled harness."""
    home, here = microcontroller_dir(), Path(__file__).parent
    includes = [f"-I{home / part}" for part in harness.folders] + [f"-I{folder}"]
    sources = [str(here / f"{name}.c"), *(str(home / part) for part in harness.sources)]
    definitions = [f"-D{each}" for each in harness.definitions]
    program = folder / f"fuzz-{name}"
    subprocess.run([clang, *_FLAGS, *includes, *definitions, *sources, "-lm", "-o", str(program)], check=True)
    return program


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


HARNESSES: dict[str, Harness] = {
    "model": Harness(("runtime/lm.c", "runtime/lm_sample.c"), ("runtime",), 24_576),
    "tokenizer": Harness(("runtime/lm_tokenizer.c",), ("runtime",), 16_384),
    "runner": Harness(
        ("firmware/line.c", "runtime/lm.c", "runtime/lm_sample.c", "runtime/lm_tokenizer.c"),
        ("runtime", "firmware"),
        512,
        ('BOARD_NAME="fuzz"', "BOARD_EMULATED=1"),
    ),
    "loader": Harness(("loader/loader.c", "loader/frame.c"), ("loader",), 1024, _BOARD),
    "keyed": Harness(
        ("loader/loader.c", "loader/frame.c", "loader/blake2s.c"), ("loader",), 1024, (*_BOARD, "LOADER_KEYED")
    ),
}
