"""Against ExecuTorch's own exporter (``export_llm``), in one run on the same checkpoint and scheme.

    python tests/benchmarks/against_export_llm.py [--layers 6] [--repeats 9]

Both start from the first layers of SmolLM2-135M in float32 (``--layers 30`` is the whole model; their exporter then
takes about a quarter of an hour). The scheme is theirs: 8da4w in groups of 32, an 8-bit embedding, a 4-bit head of its
own (recipe ``w4g32-e8-h4``); the default recipe, one 8-bit table for embedding and head, is shown beside it. Printed as
ratios: CPU time and peak memory of the export process, size of the program, and prefill and decode rates in
ExecuTorch's ``TextLLMRunner`` (128 prompt tokens, 100 new tokens, 2 threads), taken in turns; medians.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from common import in_a_process_of_its_own, measured, save_folder, show

CONTEXT = 2048
RATES = """
import sys
from edgesdk_converters.executorch.native import native_log
from edgesdk_converters.executorch.wheel import load_runtime
runtime = load_runtime()
tokenizer, repeats, programs = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
rows = []
with native_log():
    from executorch.extension.llm.runner import _llm_runner as llm
    runners = [llm.TextLLMRunner(program, tokenizer) for program in programs]
    runtime._unsafe_reset_threadpool(2)
    config = llm.GenerationConfig(echo=False, max_new_tokens=101, temperature=0.0, warming=True)
    for _ in range(repeats + 1):
        for number, runner in enumerate(runners):
            found = []
            runner.reset()
            runner.generate("a" + " hello" * 127, config, None, found.append)
            (stats,) = found
            prefill = stats.num_prompt_tokens / (stats.prompt_eval_end_ms - stats.inference_start_ms)
            decode = stats.num_generated_tokens / (stats.inference_end_ms - stats.prompt_eval_end_ms)
            rows.append((number, stats.num_prompt_tokens, 1000 * prefill, 1000 * decode))
for row in rows[len(runners):]:
    print(*row)
"""


def save_meta(source: Path, folder: Path) -> None:
    """The Hugging Face folder as the checkpoint that export_llm reads."""
    import torch

    import edgesdk
    from edgesdk.model.weights import dense

    model = edgesdk.open_model(str(source))
    spec = model.spec
    names = {
        "q": "attention.wq",
        "k": "attention.wk",
        "v": "attention.wv",
        "o": "attention.wo",
        "gate": "feed_forward.w1",
        "down": "feed_forward.w2",
        "up": "feed_forward.w3",
        "attn_norm": "attention_norm",
        "mlp_norm": "ffn_norm",
    }
    tensors = {
        "tok_embeddings.weight": "embed.weight",
        "output.weight": "embed.weight",
        "norm.weight": "final_norm.weight",
    }
    for index in range(len(spec.layers)):
        prefix = f"layers.{index}."
        tensors |= {f"{prefix}{theirs}.weight": f"{prefix}{ours}.weight" for ours, theirs in names.items()}
    torch.save(
        {theirs: dense(model.weights.get(ours)).clone() for theirs, ours in tensors.items()}, folder / "model.pth"
    )
    attention, mlp = spec.layers[0].attention, spec.layers[0].mlp
    params = {
        "dim": spec.hidden,
        "n_layers": len(spec.layers),
        "n_heads": attention.heads,
        "n_kv_heads": attention.kv_heads,
        "vocab_size": spec.vocab,
        "hidden_dim": mlp.size,
        "norm_eps": spec.norm_eps,
        "rope_theta": attention.rope.theta,
        "use_hf_rope": True,
    }
    (folder / "params.json").write_text(json.dumps(params))


def their_command(folder: Path, program: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "executorch.extension.llm.export.export_llm",
        f"base.checkpoint={folder / 'model.pth'}",
        f"base.params={folder / 'params.json'}",
        'base.metadata="{\\"get_bos_id\\":1,\\"get_eos_ids\\":[2]}"',
        "model.use_kv_cache=True",
        "model.use_sdpa_with_kv_cache=True",
        f"export.max_seq_length={CONTEXT}",
        f"export.max_context_length={CONTEXT}",
        f"export.output_name={program}",
        "quantization.qmode=8da4w",
        "quantization.group_size=32",
        "quantization.embedding_quantize='8,0'",
        "backend.xnnpack.enabled=True",
        "backend.xnnpack.extended_ops=True",
        f"hydra.run.dir={folder}",
    ]


def rates(programs: list[Path], tokenizer: Path, repeats: int) -> list[list[tuple[float, float]]]:
    """Prefill and decode rates of each program, tokens a second, taken in turns; the first round is not counted."""
    command = [sys.executable, "-c", RATES, str(tokenizer), str(repeats), *map(str, programs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [tuple(map(float, line.split())) for line in done.stdout.splitlines()]
    assert all(row[1] == 128 for row in rows), "the prompt is not 128 tokens long"
    return [[(row[2], row[3]) for row in rows if row[0] == number] for number in range(len(programs))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    recipes = {"same scheme": "w4g32-e8-h4", "default recipe": "w4g32"}
    with tempfile.TemporaryDirectory() as scratch:
        source, meta = Path(scratch) / "model", Path(scratch) / "meta"
        source.mkdir()
        meta.mkdir()
        in_a_process_of_its_own(partial(save_folder, layers=options.layers), source)
        in_a_process_of_its_own(partial(save_meta, source), meta)
        theirs = Path(scratch) / "theirs.pte"
        their_cpu, their_peak = measured(their_command(meta, theirs))
        ours, costs = {}, {}
        for name, recipe in recipes.items():
            out = Path(scratch) / recipe
            export = [sys.executable, "-m", "edgesdk", "export", str(source), "-t", "host", "-o", str(out)]
            export += ["--recipe", recipe, "--context", str(CONTEXT), "--skip-checks"]
            costs[name] = measured(export)
            ours[name] = out / "model.pte"
        tokenizer = source / "tokenizer.json"
        *mine, found = rates([*ours.values(), theirs], tokenizer, options.repeats)
        sizes = {name: program.stat().st_size / 1e6 for name, program in ours.items()}
        their_size = theirs.stat().st_size / 1e6
    print(f"first {options.layers} layers; edgesdk / export_llm")
    for (name, recipe), rows in zip(recipes.items(), mine, strict=True):
        print(f"{name} ({recipe})")
        show("  export CPU s", [(costs[name][0], their_cpu)])
        show("  peak memory MB", [(costs[name][1], their_peak)])
        show("  program size MB", [(sizes[name], their_size)])
        for index, what in enumerate(("prefill", "decode")):
            show(f"  {what} tok/s", [(row[index], other[index]) for row, other in zip(rows, found, strict=True)])


if __name__ == "__main__":
    main()
