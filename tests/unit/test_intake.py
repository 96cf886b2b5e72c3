"""Which file of a folder wins, which of two keys does, which checkpoints are no generators: as transformers has it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import edgesdk
from edgesdk.errors import EdgeError, ModelError
from edgesdk.model.opening import open_any, open_model
from edgesdk.model.reference import ReferenceModel

from ..conftest import make_checkpoint
from .checkpoint_sweeps import IDS, TOLERANCE, opened
from .family_rows import ROWS, Row, save_tokenizer
from .hub_configurations import CONFIGURATIONS


def named(name: str) -> Row:
    (row,) = [row for row in ROWS if row.name == name]
    return row


def logits(folder: Path) -> torch.Tensor:
    reference = ReferenceModel(open_model(folder))
    return reference.logits(reference.hidden([torch.tensor([IDS])])[0])[0]


def published(folder: Path, **changes: Any) -> torch.Tensor:
    """transformers' logits of a folder as it lies there."""
    import transformers

    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **changes)
    with torch.no_grad():
        return network(torch.tensor([IDS])).logits[0]  # type: ignore[no-any-return]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model")


def changed_config(folder: Path, **values: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


def sharded(folder: Path, tensors: dict[str, torch.Tensor], count: int = 3) -> None:
    """The tensors as shards with an index, beside whatever is there."""
    weight_map = {}
    for number in range(count):
        file = f"model-{number + 1:05}-of-{count:05}.safetensors"
        part = {name: tensor for index, (name, tensor) in enumerate(tensors.items()) if index % count == number}
        save_file(part, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize("shards", ["there", "gone"])
def test_one_file_wins_over_an_old_index(folder: Path, shards: str) -> None:
    wanted = logits(folder)
    old = {name: tensor + 0.1 for name, tensor in load_file(folder / "model.safetensors").items()}
    sharded(folder, old)
    if shards == "gone":
        for path in folder.glob("model-*.safetensors"):
            path.unlink()
    assert torch.equal(logits(folder), wanted)
    assert float((published(folder) - wanted).abs().max()) < TOLERANCE


def test_shards_are_read_where_there_is_no_single_file(folder: Path) -> None:
    wanted = logits(folder)
    sharded(folder, load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    assert torch.equal(logits(folder), wanted)


def test_a_tensor_in_two_shards_is_ambiguous(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    sharded(folder, tensors)
    (folder / "model.safetensors").unlink()
    last = folder / "model-00003-of-00003.safetensors"
    save_file({**load_file(last), "model.norm.weight": tensors["model.norm.weight"]}, last, {"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.norm\.weight.*lies in") as failure:
        open_model(folder)
    assert failure.value.hint


def test_the_configuration_may_name_the_weights(folder: Path) -> None:
    other = {name: 1.01 * tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(other, folder / "later.safetensors", {"format": "pt"})
    changed_config(folder, transformers_weights="later.safetensors")
    assert float((logits(folder) - published(folder)).abs().max()) < TOLERANCE
    changed_config(folder, transformers_weights="../later.safetensors")
    with pytest.raises(ModelError, match="transformers_weights"):
        open_model(folder)


SCALINGS: dict[str, dict[str, Any]] = {
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    "yarn-older-key": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32},
    "yarn-scales": {"rope_type": "yarn", "factor": 4.0, "mscale": 1.3, "mscale_all_dim": 0.8},
    "yarn-factor": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.4, "truncate": False},
    "yarn-betas": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0, "beta_slow": 2.0},
    "linear": {"rope_type": "linear", "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "default": {"rope_type": "default"},
}


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS)
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "smollm3", "gemma3", "phi"])
def test_a_scaling_that_a_user_wrote_stands_in_place_of_the_saved_one(
    tmp_path: Path, name: str, scaling: dict[str, Any]
) -> None:
    checkpoint = opened(named(name), tmp_path)
    values = {**checkpoint.values, "rope_scaling": scaling}
    if name == "smollm3":  # its class's own base, so that none is lost
        values["rope_parameters"] = {**values["rope_parameters"], "rope_theta": 2e6}
    if name == "gemma3":  # transformers looks for it elsewhere in nested sections, so it is refused
        values["rope_scaling"] = {key: value for key, value in scaling.items() if key not in ("truncate", "type")}
        values["rope_scaling"]["rope_type"] = scaling.get("rope_type", scaling.get("type"))
    if name == "phi":
        values["rope_scaling"] = {**scaling, "partial_rotary_factor": 0.5}
    checkpoint.write(values)
    assert checkpoint.difference(values) is None
    open_model(tmp_path)  # read, not refused


@pytest.mark.parametrize("key", ["rope_theta", "partial_rotary_factor"])
def test_a_value_that_would_be_lost_is_ambiguous(folder: Path, key: str) -> None:
    value = {"rope_theta": 1e6, "partial_rotary_factor": 0.5}[key]
    saved = {"rope_type": "default", "rope_theta": 1e6, key: value}
    changed_config(folder, rope_theta=None, rope_parameters=saved, rope_scaling=SCALINGS["yarn"])
    values = json.loads((folder / "config.json").read_text())
    del values["rope_theta"]
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match="stands in place of") as failure:
        open_model(folder)
    assert "write" in str(failure.value.hint)


TASKS = (
    *("LlamaForSequenceClassification", "LlamaForTokenClassification", "LlamaForQuestionAnswering"),
    *("LlamaForRewardModel", "InternLM2ForRewardModel", "Qwen2ForProcessRewardModel", "LlamaForMultipleChoice"),
    *("LlamaForEmbedding", "Qwen2ForImageClassification"),
)


@pytest.mark.parametrize("task", TASKS)
def test_other_tasks_are_refused_by_name(folder: Path, task: str) -> None:
    changed_config(folder, architectures=[task])
    with pytest.raises(ModelError, match=task) as failure:
        open_any(folder)
    assert failure.value.hint


@pytest.mark.parametrize("head", ["score.weight", "v_head.summary.weight", "classifier.weight", "qa_outputs.weight"])
def test_other_heads_are_refused_whatever_the_configuration_says(folder: Path, head: str) -> None:
    path = folder / "model.safetensors"
    save_file({**load_file(path), head: torch.ones(2, 64)}, path, {"format": "pt"})
    with pytest.raises(ModelError, match="no generator"):
        open_any(folder)


def test_embedders_are_refused(folder: Path) -> None:
    (folder / "modules.json").write_text("[]")
    with pytest.raises(ModelError, match="an embedder"):
        open_any(folder)


def test_an_adapter_beside_a_model_is_ambiguous(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="LoRA adapter") as failure:
        open_any(folder)
    assert "--adapter" in str(failure.value.hint)


@pytest.mark.parametrize(
    "values",
    [
        {"architectures": ["LlamaBidirectionalModel"]},
        {"architectures": ["LlamaEncoderModel"]},
        {"auto_map": {"AutoModelForSequenceClassification": "modeling.M"}},
    ],
    ids=str,
)
def test_embedders_by_their_own_code_are_refused(folder: Path, values: dict[str, object]) -> None:
    changed_config(folder, **values)
    with pytest.raises(ModelError, match=r"an embedder|no generator") as failure:
        open_any(folder)
    assert failure.value.hint


@pytest.mark.parametrize("name", ["modules.json", "1_Pooling", "config_sentence_transformers.json"])
def test_files_of_sentence_transformers_make_an_embedder(folder: Path, name: str) -> None:
    (folder / name).mkdir() if name == "1_Pooling" else (folder / name).write_text("{}")
    with pytest.raises(ModelError, match="an embedder"):
        open_any(folder)


@pytest.mark.parametrize("kind", ["gemma3", "qwen2_5_vl", "llava", "mistral3"])
def test_shells_that_see_are_refused_as_what_they_are(folder: Path, kind: str) -> None:
    changed_config(folder, model_type=kind)
    with pytest.raises(ModelError, match="sees or hears"):
        open_any(folder)


@pytest.mark.parametrize(
    "values",
    [{"rope_scaling": [4.0]}, {"rope_parameters": 5}, {"rope_theta": None}, {"rope_scaling": {"rope_type": "mrope"}}],
    ids=str,
)
def test_rotary_positions_of_another_shape_are_one_error(folder: Path, values: dict[str, object]) -> None:
    changed_config(folder, **values)
    with pytest.raises(ModelError) as failure:
        open_any(folder)
    assert failure.value.hint


def test_a_shell_with_other_pictures_opens_as_its_decoder(tmp_path: Path) -> None:
    checkpoint = opened(named("qwen3_5-inside"), tmp_path)
    plain = open_model(tmp_path).spec
    vision = {"model_type": "qwen3_5", "depth": 3, "hidden_size": 48}
    checkpoint.write({**checkpoint.values, "vision_config": vision})
    assert open_model(tmp_path).spec == plain


@pytest.mark.parametrize("tie", [True, False])
def test_a_trained_head_of_t5_is_kept(tmp_path: Path, tie: bool) -> None:
    import transformers

    from edgesdk.model.seq2seq.reference import Seq2SeqReference

    from .seq2seq_rows import ROWS as T5_ROWS
    from .seq2seq_rows import save_seq2seq

    (row,) = [row for row in T5_ROWS if row.name == "t5"]
    save_seq2seq(row, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    head = torch.randn_like(tensors["shared.weight"])
    save_file({**tensors, "lm_head.weight": head}, path, {"format": "pt"})
    changed_config(tmp_path, tie_word_embeddings=tie)
    model = open_any(tmp_path)
    assert not model.spec.tied  # type: ignore[union-attr]
    network = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids, started = [5, 9, 33, 7], [0, 4, 8]
    with torch.no_grad():
        wanted = network(input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([started])).logits[0]
    reference = Seq2SeqReference(model, 32)  # type: ignore[arg-type]
    reference.encode(ids)
    found = torch.from_numpy(reference.decode(started))
    assert float((found - wanted).abs().max()) < 1e-4


@pytest.mark.parametrize("value", ["LlamaForCausalLM", 5, [3]])
def test_architectures_of_another_shape_are_one_error(folder: Path, value: object) -> None:
    changed_config(folder, architectures=value)
    with pytest.raises(ModelError, match="'architectures' must be a list of names"):
        open_any(folder)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("llama", "is_causal", False),
        ("qwen2", "is_causal", False),
        ("qwen3", "is_causal", False),
        ("phi", "is_causal", False),
        ("gemma3", "use_bidirectional_attention", True),
    ],
)
def test_attention_in_both_directions_is_computed_and_not_exported(
    tmp_path: Path, name: str, key: str, value: bool
) -> None:
    checkpoint = opened(named(name), tmp_path)
    values = {**checkpoint.values, key: value}
    assert checkpoint.difference(values) is None
    model = open_model(tmp_path)
    assert not model.spec.causal
    checks = edgesdk.Checks(skip=True)
    for target in ("linux-x86_64", "android-arm64", "cortex-m4f"):
        with pytest.raises(EdgeError, match=r"both directions|does not build"):
            edgesdk.export(replace(model, tokenizer=None), target, tmp_path / "bundle", recipe="w8", checks=checks)
    with pytest.raises(ModelError, match="an embedder"):
        ReferenceModel(model).caches(1, 8)
    assert not (tmp_path / "bundle").exists()


def test_notes_on_what_was_passed_over_reach_the_manifest(folder: Path, tmp_path: Path) -> None:
    changed_config(
        folder, my_own_key=1, auto_map={"AutoModelForCausalLM": "x.Y"}, use_cache=False, attention_dropout=0.1
    )
    code, note = open_model(folder).origin.notes
    assert "auto_map" in code
    assert "my_own_key" in note
    assert "use_cache" not in note
    checks = edgesdk.Checks(skip=True)
    manifest = edgesdk.export(folder, "linux-x86_64", tmp_path / "bundle", recipe="w8", checks=checks)
    assert note in manifest.notes
    assert note in [remark.text for remark in edgesdk.lint(folder)]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_published_configurations_open_as_transformers_reads_them(tmp_path: Path, name: str) -> None:
    import transformers

    values, noted = CONFIGURATIONS[name]
    config = transformers.AutoConfig.for_model(**values)
    torch.manual_seed(1)
    network = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4.0) if parameter.dim() > 1 else parameter.add_(0.2 * torch.randn_like(parameter))
    network.save_pretrained(tmp_path)
    save_tokenizer(tmp_path, 96)
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert float((logits(tmp_path) - published(tmp_path)).abs().max()) < 5e-5
    notes = open_model(tmp_path).origin.notes
    assert bool(notes) == noted, notes
