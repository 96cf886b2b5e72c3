"""What a GGUF file's keys mean: logits of transformers' own networks, built here key by key, and refusals by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgesdk.errors import ModelError
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceModel
from edgesdk.model.spec import PairRopeScaling

from .test_gguf import llama_gguf

IDS = np.random.default_rng(7).integers(0, 256, 40).tolist()


def logits(path: Path) -> torch.Tensor:
    reference = ReferenceModel(open_model(path))
    return reference.logits(reference.hidden([torch.tensor([IDS])])[0])[0]


def published(checkpoint: Path, **changes: Any) -> torch.Tensor:
    """transformers' logits of the checkpoint that the GGUF file holds, with other values in its configuration."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(checkpoint)
    config = type(config).from_dict({**config.to_dict(), **changes})
    load = transformers.AutoModelForCausalLM.from_pretrained
    with torch.no_grad():
        return load(checkpoint, config=config, dtype=torch.float32)(torch.tensor([IDS])).logits[0]  # type: ignore[no-any-return]


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def test_frequencies_of_llama_3_are_read(checkpoint: Path, tmp_path: Path) -> None:
    """``rope_freqs.weight`` holds what each pair's frequency is divided by, as llama.cpp's converter writes it."""
    import transformers
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.AutoConfig.from_pretrained(checkpoint)
    config = type(config).from_dict({**config.to_dict(), "rope_parameters": LLAMA3})
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config)
    plain = 1.0 / 10000.0 ** (torch.arange(0, 16, 2) / 16)
    divisors = (plain / scaled).numpy().astype(np.float32)
    assert divisors.max() == pytest.approx(8.0)
    llama_gguf(tmp_path / "one.gguf", checkpoint, extra={"rope_freqs.weight": divisors})
    wanted = published(checkpoint, rope_parameters=LLAMA3)
    assert float((logits(tmp_path / "one.gguf") - wanted).abs().max()) < 1e-4
    assert float((published(checkpoint) - wanted).abs().max()) > 1e-2


def test_long_and_short_factors_are_read(checkpoint: Path, tmp_path: Path) -> None:
    short, long = np.linspace(1, 2, 8, dtype=np.float32), np.linspace(1, 8, 8, dtype=np.float32)
    llama_gguf(
        tmp_path / "one.gguf",
        checkpoint,
        extra={"rope_factors_short.weight": short, "rope_factors_long.weight": long},
        rope__scaling__type="longrope",
        rope__scaling__original_context_length=512,
        rope__scaling__attn_factor=1.2,
    )
    rope = open_model(tmp_path / "one.gguf").spec.layers[0].attention.rope
    assert rope is not None
    assert isinstance(rope.scaling, PairRopeScaling)
    assert rope.scaling.factors == tuple(short.tolist())
    assert rope.scaling.long_factors == tuple(long.tolist())
    assert (rope.scaling.original_context, rope.scaling.magnitude) == (512, pytest.approx(1.2))


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ({"rope__scale_linear": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"rope__scaling__factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        (
            {
                "rope__scaling__type": "yarn",
                "rope__scaling__factor": 4.0,
                "rope__scaling__original_context_length": 128,
                "rope__scaling__yarn_beta_fast": 20.0,
                "rope__scaling__yarn_beta_slow": 2.0,
            },
            {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 128,
                "beta_fast": 20.0,
                "beta_slow": 2.0,
            },
        ),
    ],
)
def test_scaled_positions_equal_transformers(checkpoint: Path, tmp_path: Path, fields: Any, changes: Any) -> None:
    llama_gguf(tmp_path / "one.gguf", checkpoint, **fields)
    wanted = published(checkpoint, rope_parameters={"rope_theta": 10000.0, **changes})
    assert float((logits(tmp_path / "one.gguf") - wanted).abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rope__dimension_count": 8}, "rope.dimension_count"),
        ({"attention__value_length": 32}, "attention.value_length"),
        ({"expert_count": 4}, "mixture of experts"),
        ({"pooling_type": 1}, "an embedder"),
        ({"use_parallel_residual": True}, "side by side"),
        ({"rope__scaling__type": "newest"}, "rope type 'newest' is not supported"),
        ({"rope__scaling__yarn_ext_factor": 0.5}, "yarn_ext_factor"),
        ({"attention__layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon' is missing"),
        ({"attention__clamp_kqv": 8.0}, "attention.clamp_kqv"),
        ({"logit_scale": 0.5}, "llama.logit_scale' is 0.5"),
        ({"attention__max_alibi_bias": 8.0}, "max_alibi_bias"),
        ({"residual_scale": 0.2}, "residual_scale"),
        ({"attention__sliding_window": 256}, "attention.sliding_window"),
        ({"attn_logit_softcapping": 30.0}, "attn_logit_softcapping"),
    ],
)
def test_keys_that_are_not_built_are_refused(checkpoint: Path, tmp_path: Path, fields: Any, words: str) -> None:
    llama_gguf(tmp_path / "one.gguf", checkpoint, **fields)
    with pytest.raises(ModelError, match=words):
        open_model(tmp_path / "one.gguf")


@pytest.mark.parametrize(
    "fields",
    [
        {"expert_count": 0, "expert_used_count": 0},
        {"rope__scaling__finetuned": True},
        {"vocab_size": 260, "tensor_data_layout": "Meta AI original pth"},
        {"attention__sliding_window": 4096},
        {"attention__layer_norm_epsilon": 1e-5},
    ],
)
def test_keys_that_change_nothing_pass(checkpoint: Path, tmp_path: Path, fields: Any) -> None:
    llama_gguf(tmp_path / "one.gguf", checkpoint, **fields)
    assert not open_model(tmp_path / "one.gguf").origin.notes


def test_keys_that_gguf_does_not_define_are_noted(checkpoint: Path, tmp_path: Path) -> None:
    llama_gguf(tmp_path / "one.gguf", checkpoint, my_own_key=1.5)
    (note,) = open_model(tmp_path / "one.gguf").origin.notes
    assert "llama.my_own_key" in note


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("general.type", "adapter", "a LoRA adapter"),
        ("general.type", "mmproj", "sees or hears"),
        ("general.type", "imatrix", "importance matrix"),
        ("split.count", 3, "part 1 of 3"),
    ],
)
def test_files_that_hold_no_whole_model_are_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: object, words: str
) -> None:
    from edgesdk.model.gguf_file import GgufFile

    llama_gguf(tmp_path / "one.gguf", checkpoint)
    start = GgufFile.__init__

    def changed(self: GgufFile, path: Path) -> None:
        start(self, path)
        self.metadata[key] = value

    monkeypatch.setattr(GgufFile, "__init__", changed)
    with pytest.raises(ModelError, match=words) as failure:
        open_model(tmp_path / "one.gguf")
    assert failure.value.hint
