"""Programs for android-arm64 give the same greedy tokens on aarch64 as on this machine.

Runtimes round differently from processor to processor, so only answers that are clear of rounding are compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgesdk
from edgesdk.devices.runner.native import RunnerUnavailableError
from edgesdk.model.config import Config
from edgesdk.model.families import FAMILIES

from .executorch_arm64.lab import Lab, prepare
from .models import Case, answered, clear_case

pytest.importorskip("torch", reason="needs torch: pip install 'edgesdk[executorch]'")
pytest.importorskip("executorch", reason="needs ExecuTorch: pip install 'edgesdk[executorch]'")

COUNT = 12
#: XNNPACK chooses kernels by processor. Scalable matrices stay off: QEMU 7.2 computes them wrongly.
CPUS = {"dot-product": "cortex-a76", "int8-matrix": "max,sme=off"}
#: How far the best logit must lead. Between processors, logits of the tiny models differ by 2e-6; those of SmolLM2 by
#: 0.5 (root mean square): of its many int8 activations some round the other way, and that changes all that follow.
TINY_MARGIN, REAL_MARGIN = 0.02, 1.5


@dataclass(frozen=True)
class Tiny:
    """A random model: what differs from the common tiny configuration, its recipe, and tokens of the prompt."""

    family: str
    recipe: str
    prompt: int = 20
    changes: dict[str, Any] = field(default_factory=dict)


_COMMON: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 640,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
_GEMMA: dict[str, Any] = {
    "sliding_window": 9,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "query_pre_attn_scalar": 24,
    "attn_logit_softcapping": 3.0,
    "final_logit_softcapping": 5.0,
}
_MAMBA: dict[str, Any] = {"state_size": 16, "conv_kernel": 4, "expand": 2}
_WRAPS = 560  # three steps, and more than a ring of a window of 9 holds
TINY = {
    "llama": Tiny("llama", "w4g32"),
    "llama-int8-cache": Tiny("llama", "w4g32-kv8"),
    "qwen2-w8": Tiny("qwen2", "w8"),
    "qwen3-w4-embedding": Tiny("qwen3", "w4g32-e4"),
    "mistral-ring": Tiny("mistral", "w4g32", _WRAPS, {"sliding_window": 9}),
    "gemma3-rings-caps-float": Tiny("gemma3", "none", _WRAPS, _GEMMA),
    "mamba-w8": Tiny("mamba", "w8", _WRAPS, _MAMBA | {"intermediate_size": 128, "time_step_rank": 4}),
    "mamba2": Tiny("mamba2", "w4g32", _WRAPS, _MAMBA | {"num_heads": 8, "head_dim": 16, "n_groups": 2}),
    "rwkv-float": Tiny("rwkv", "none", _WRAPS, {"context_length": 640}),
}


@pytest.fixture(scope="module")
def lab() -> Lab:
    """The emulator and the runner, or a skip that says what is missing."""
    try:
        return prepare()
    except RunnerUnavailableError as failure:
        pytest.skip(f"{failure.message} ({failure.hint})")


@pytest.fixture(scope="module", params=list(TINY.values()), ids=list(TINY))
def tiny(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The first random model of a kind whose answer is varied and clear of rounding."""
    kind: Tiny = request.param
    values = _COMMON | kind.changes
    spec = FAMILIES.get(kind.family).spec(Config(values, kind.family))
    prompt = np.random.default_rng(7).integers(0, spec.vocab, kind.prompt).tolist()
    folder = tmp_path_factory.mktemp("tiny")
    return clear_case(spec, "android-arm64", kind.recipe, prompt, folder, count=COUNT, margin=TINY_MARGIN)


@pytest.mark.parametrize("cpu", list(CPUS.values()), ids=list(CPUS))
def test_a_tiny_model_gives_the_same_tokens(lab: Lab, tiny: Case, cpu: str) -> None:
    """Quantized layers, caches and rings that wrap, over several steps of prefill."""
    assert lab.greedy(tiny.program, tiny.prompt, COUNT, cpu) == tiny.tokens


@pytest.fixture(scope="module")
def smollm2(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """SmolLM2-135M with the default recipe, counting on: an answer that it is sure of."""
    model = edgesdk.open_model("smollm2-135m")
    assert model.tokenizer is not None
    prompt = model.tokenizer.encode("1, 2, 3, 4, 5, 6, 7, 8, 9,")
    case = answered(model, "android-arm64", "w4g32", 256, prompt, tmp_path_factory.mktemp("smollm2") / "bundle", COUNT)
    assert model.tokenizer.decode(case.tokens).startswith(" 10, 11, 12")
    assert case.margin > REAL_MARGIN
    return case


@pytest.mark.real
@pytest.mark.parametrize("cpu", list(CPUS.values()), ids=list(CPUS))
def test_smollm2_gives_the_same_tokens(lab: Lab, smollm2: Case, cpu: str) -> None:
    """The real model, packed and computed by the kernels of an Arm processor."""
    assert lab.greedy(smollm2.program, smollm2.prompt, COUNT, cpu) == smollm2.tokens


@pytest.mark.parametrize("tiny", [TINY["llama"]], ids=["llama"], indirect=True)
def test_the_runner_refuses_what_it_cannot_run(lab: Lab, tiny: Case, tmp_path: Path) -> None:
    """A failure has a status and a reason; it is never an empty answer."""
    damaged = tmp_path / "damaged.pte"
    damaged.write_bytes(tiny.program.read_bytes()[:1000])
    for program, prompt, reason in (
        (damaged, [1], "damaged.pte"),
        (tiny.program, [96], "no token 96"),
        (tiny.program, [1] * 641, "more tokens than the context"),
    ):
        with pytest.raises(edgesdk.EdgeError, match=reason):
            lab.greedy(program, prompt, 1, CPUS["dot-product"])


@pytest.mark.parametrize("tiny", [TINY["llama"], TINY["mistral-ring"]], ids=["llama", "ring"], indirect=True)
def test_an_answer_ends_at_the_context(lab: Lab, tiny: Case) -> None:
    """The last token of a full context is still chosen, and nothing fails."""
    context = _COMMON["max_position_embeddings"]
    for room in (0, 1, 2, 7):
        tokens = lab.greedy(tiny.program, [1] * (context - room), 20, CPUS["dot-product"])
        assert len(tokens) == room + 1
