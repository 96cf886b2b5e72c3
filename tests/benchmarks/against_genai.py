"""Against onnxruntime-genai's own model builder, in one run on the same checkpoint.

    python tests/benchmarks/against_genai.py [--recipe w4g32-e4] [--threads 2] [--repeats 5] [--llama-cpp PYTHON]

Both start from the same Hugging Face folder (SmolLM2-135M in float32, written from the catalogue's model). The builder
runs with int4, block 32, accuracy level 4. Printed as ratios: CPU time and peak memory of the export process, size of
the program's files, and prefill and decode rates (128 prompt tokens, 100 new tokens), taken in turns; medians.

With ``--llama-cpp``, an interpreter that has llama-cpp-python (build it for this processor, or it measures a baseline:
``pip install --no-binary llama-cpp-python llama-cpp-python``), llama.cpp takes turns too: the catalogue's GGUF with
every matrix in Q4_0, written by llama.cpp's own quantizer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common import in_a_process_of_its_own, measured, save_folder, show

PROMPT, NEW = 128, 100

RATES = {
    "genai": """
import sys, time, numpy as np, onnxruntime_genai as og
folder, repeats, prompt, new = sys.argv[1], *map(int, sys.argv[2:])
model = og.Model(folder)
for _ in range(repeats + 1):
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=prompt + new + 1, min_length=prompt + new + 1, do_sample=False)
    generator = og.Generator(model, parameters)
    t0 = time.perf_counter()
    generator.append_tokens(np.arange(100, 100 + prompt, dtype=np.int32))
    generator.generate_next_token()
    t1 = time.perf_counter()
    for _ in range(new):
        generator.generate_next_token()
    print(prompt / (t1 - t0), new / (time.perf_counter() - t1))
""",
    "edgesdk": """
import sys, time, edgesdk
folder, repeats, prompt, new, threads = sys.argv[1], *map(int, sys.argv[2:])
with edgesdk.open_bundle(folder, check=False) as bundle:
    session = edgesdk.open_session(bundle, threads)
    for _ in range(repeats + 1):
        session.reset()
        t0 = time.perf_counter()
        token = int(session.prefill(list(range(100, 100 + prompt))).argmax())
        t1 = time.perf_counter()
        for _ in range(new):
            token = int(session.decode(token).argmax())
        print(prompt / (t1 - t0), new / (time.perf_counter() - t1))
""",
    "llama.cpp": """
import sys, time, numpy as np, llama_cpp
file, repeats, prompt, new, threads = sys.argv[1], *map(int, sys.argv[2:])
llama = llama_cpp.Llama(file, n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
def likeliest():
    logits = llama_cpp.llama_get_logits_ith(llama.ctx, -1)
    return int(np.ctypeslib.as_array(logits, shape=(llama.n_vocab(),)).argmax())
for _ in range(repeats + 1):
    llama.reset()
    t0 = time.perf_counter()
    llama.eval(list(range(100, 100 + prompt)))
    token = likeliest()
    t1 = time.perf_counter()
    for _ in range(new):
        llama.eval([token])
        token = likeliest()
    print(prompt / (t1 - t0), new / (time.perf_counter() - t1))
""",
}

#: Writes sys.argv[1] as sys.argv[2], every matrix in Q4_0.
Q4_0 = """
import ctypes, sys, llama_cpp
wanted = llama_cpp.llama_model_quantize_default_params()
wanted.ftype, wanted.allow_requantize, wanted.pure = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, True, True
source, out = (name.encode() for name in sys.argv[1:])
sys.exit(llama_cpp.llama_model_quantize(source, out, ctypes.byref(wanted)))
"""


@dataclass(frozen=True)
class Peer:
    """Who takes turns: a program of :data:`RATES`, the interpreter that runs it, what it loads, threads if it asks."""

    kind: str
    path: Path
    threads: tuple[int, ...] = ()
    python: str = sys.executable

    def rates(self, repeats: int) -> tuple[float, float]:
        """Median prefill and decode rates, tokens a second; the first round is not counted."""
        command = [self.python, "-c", RATES[self.kind], str(self.path)]
        command += [str(number) for number in (repeats, PROMPT, NEW, *self.threads)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{self.kind} failed ({done.returncode}):\n{done.stderr[-2000:]}")
        rows = [tuple(map(float, line.split())) for line in done.stdout.splitlines()][1:]
        return statistics.median(row[0] for row in rows), statistics.median(row[1] for row in rows)


def program_size(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in ("model.onnx", "model.onnx.data"))


def llama_cpp(python: str, scratch: Path, threads: int) -> Peer:
    """llama.cpp with the catalogue's model."""
    from edgesdk.model import catalogue

    source, made = catalogue.fetch(catalogue.load()["smollm2-135m"]), scratch / "q4_0.gguf"
    done = subprocess.run([python, "-c", Q4_0, str(source), str(made)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"llama.cpp's quantizer failed:\n{done.stderr[-2000:]}")
    return Peer("llama.cpp", made, (threads,), python)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="w4g32-e4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3, help="turns of the peers")
    parser.add_argument("--llama-cpp", metavar="PYTHON", help="an interpreter with llama-cpp-python: one more peer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source, theirs, ours = (Path(scratch) / name for name in ("model", "genai", "edgesdk"))
        source.mkdir()
        in_a_process_of_its_own(save_folder, source)
        builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(theirs)]
        builder += ["-p", "int4", "-e", "cpu", "-c", scratch]
        builder += ["--extra_options", "int4_block_size=32", "int4_accuracy_level=4"]
        export = [sys.executable, "-m", "edgesdk", "export", str(source), "-t", "linux-x86_64", "-o", str(ours)]
        export += ["--recipe", options.recipe]
        their_cpu, their_peak = measured(builder)
        plain_cpu, plain_peak = measured([*export, "--skip-checks"])
        full_cpu, full_peak = measured(export)
        tuned = Path(scratch) / "genai-threads"
        shutil.copytree(theirs, tuned)
        config = json.loads((tuned / "genai_config.json").read_text())
        config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = options.threads
        (tuned / "genai_config.json").write_text(json.dumps(config))
        mine = Peer("edgesdk", ours, (options.threads,))
        peers = {"genai as built": Peer("genai", theirs), f"genai, {options.threads} threads": Peer("genai", tuned)}
        if options.llama_cpp:
            peers["llama.cpp Q4_0"] = llama_cpp(options.llama_cpp, Path(scratch), options.threads)
        rounds = [
            (mine.rates(options.repeats), {name: peer.rates(options.repeats) for name, peer in peers.items()})
            for _ in range(options.rounds)
        ]
        their_size, our_size = program_size(theirs), program_size(ours)
    print(f"recipe {options.recipe}, {options.threads} threads; edgesdk / peer (exports: onnxruntime-genai)")
    show("export CPU s, conversion alone", [(plain_cpu, their_cpu)])
    show("export CPU s, with all checks", [(full_cpu, their_cpu)])
    show("peak memory MB, conversion alone", [(plain_peak, their_peak)])
    show("peak memory MB, with all checks", [(full_peak, their_peak)])
    show("program size MB", [(our_size / 1e6, their_size / 1e6)])
    for name in peers:
        for index, what in enumerate(("prefill", "decode")):
            show(f"{what} tok/s, {name}", [(own[index], found[name][index]) for own, found in rounds])


if __name__ == "__main__":
    main()
