"""LoRA adapters: merged, they give what transformers (and PEFT itself) gives; apart, ONNX Runtime switches to them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import edgesdk
from edgesdk import cli
from edgesdk.errors import ModelError
from edgesdk.model.adapter import AdaptedWeights, with_adapter, with_switchable
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceSession

from .adapter_folders import merge_by_hand, save_adapter, write
from .family_rows import CONTEXT, ROWS, Row, save_checkpoint

IDS = np.random.default_rng(7).integers(0, 96, 40).tolist()
_ADAPTED = ("llama", "llama-tied-multihead", "llama-biases", "gpt2", "gpt2-untied-relu", "qwen2", "qwen3", "gemma3")
_ADAPTED += ("phi3", "gpt_neox", "bloom", "falcon", "phi", "opt", "opt-350m", "stablelm-qk-norms")
VARIANTS = {
    "plain": {},
    "rank-stabilized": {"use_rslora": True},
    "patterns": {"rank_pattern": {"layers.0.*": 2, "h.0.*": 2}, "alpha_pattern": {"o_proj": 3, "c_attn": 3}},
}


def row_named(name: str) -> Row:
    (row,) = [row for row in ROWS if row.name == name]
    return row


def logits_of(network) -> np.ndarray:
    with torch.no_grad():
        return network(torch.tensor([IDS])).logits[0].float().numpy()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("row", [row for row in ROWS if row.name in _ADAPTED], ids=lambda row: row.name)
def test_merged_equals_transformers(tmp_path, row, variant) -> None:
    network = save_checkpoint(row, tmp_path / "base")
    plain = logits_of(network)
    folder = save_adapter(tmp_path / "adapter", network, **VARIANTS[variant])
    merge_by_hand(network, folder)
    wanted = logits_of(network)
    found = ReferenceSession(open_model(tmp_path / "base", adapter=folder), CONTEXT).score(IDS)
    assert np.abs(found - wanted).max() < 1e-4
    assert np.abs(plain - wanted).max() > 0.1


@pytest.mark.filterwarnings(
    "ignore::FutureWarning:transformers", "ignore:.*:UserWarning:peft", "ignore:.*:RuntimeWarning:peft"
)
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2", "gemma3"])
def test_merged_equals_peft(tmp_path, name) -> None:
    peft = pytest.importorskip("peft", reason="the oracle needs PEFT: pip install peft")
    network = save_checkpoint(row_named(name), tmp_path / "base")
    config = peft.LoraConfig(
        r=4,
        lora_alpha=7,
        target_modules="all-linear",
        use_rslora=name == "qwen2",
        init_lora_weights=False,
        rank_pattern={"layers.1.self_attn.q_proj": 3},
        alpha_pattern={"down_proj": 5},
        fan_in_fan_out=name == "gpt2",
        task_type="CAUSAL_LM",
    )
    tuned = peft.get_peft_model(network, config)
    tuned.save_pretrained(tmp_path / "adapter")
    wanted = logits_of(tuned.merge_and_unload())
    model = open_model(tmp_path / "base", adapter=tmp_path / "adapter")
    assert np.abs(ReferenceSession(model, CONTEXT).score(IDS) - wanted).max() < 1e-4


@pytest.mark.filterwarnings(
    "ignore::FutureWarning:transformers", "ignore:.*:UserWarning:peft", "ignore:.*:RuntimeWarning:peft"
)
@pytest.mark.parametrize("start", ["pissa", "olora", "gaussian", "orthogonal", "eva"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3", "ernie4_5"])
def test_an_adapter_that_changes_its_base_equals_peft(tmp_path, name, start) -> None:
    """Every way to begin that PEFT loads without anything beside the adapter; the oracle loads it from its folder."""
    peft = pytest.importorskip("peft", reason="the oracle needs PEFT: pip install peft")
    import transformers

    network = save_checkpoint(row_named(name), tmp_path / "base")
    ends = ("q_proj", "v_proj", "down_proj")
    adapter = save_adapter(tmp_path / "adapter", network, *ends, init_lora_weights=start, use_rslora=name == "qwen2")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    wanted = logits_of(peft.PeftModel.from_pretrained(base, adapter).merge_and_unload().eval())
    model = open_model(tmp_path / "base", adapter=adapter)
    assert np.abs(ReferenceSession(model, CONTEXT).score(IDS) - wanted).max() < 2e-4
    plain = ReferenceSession(open_model(tmp_path / "base"), CONTEXT).score(IDS)
    assert np.abs(plain - wanted).max() > 0.1


def test_what_was_taken_out_of_a_fused_matrix_is_refused(tmp_path) -> None:
    network = save_checkpoint(row_named("gpt2"), tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", network, "c_attn", init_lora_weights="pissa")
    with pytest.raises(ModelError, match="fused or transposed") as failure:
        open_model(tmp_path / "base", adapter=adapter)
    assert "merge_and_unload" in str(failure.value.hint)


def test_an_adapter_that_changes_its_base_cannot_be_switched(llama, tmp_path) -> None:
    folder, network = llama
    adapter = save_adapter(tmp_path / "adapter", network, "q_proj", init_lora_weights="pissa")
    with pytest.raises(ModelError, match="cannot be switched"):
        with_switchable(open_model(folder / "base"), {"a": adapter})


@pytest.mark.filterwarnings(
    "ignore::FutureWarning:transformers", "ignore:.*:UserWarning:peft", "ignore:.*:RuntimeWarning:peft"
)
@pytest.mark.parametrize("tied", [False, True])
def test_embedding_and_head_equal_peft_or_are_refused(tmp_path, tied) -> None:
    peft = pytest.importorskip("peft", reason="the oracle needs PEFT: pip install peft")
    network = save_checkpoint(row_named("llama-tied-multihead" if tied else "llama"), tmp_path / "base")
    config = peft.LoraConfig(
        r=4,
        target_modules=["embed_tokens", "q_proj"],
        modules_to_save=[] if tied else ["lm_head", "norm"],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    tuned = peft.get_peft_model(network, config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    tuned.save_pretrained(tmp_path / "adapter")
    wanted = logits_of(tuned.merge_and_unload())
    if tied:
        with pytest.raises(ModelError, match="which in this model is the head as well"):
            open_model(tmp_path / "base", adapter=tmp_path / "adapter")
        return
    model = open_model(tmp_path / "base", adapter=tmp_path / "adapter")
    assert np.abs(ReferenceSession(model, CONTEXT).score(IDS) - wanted).max() < 1e-4


def test_embedding_and_whole_tensors_are_merged(tmp_path) -> None:
    """The same without PEFT: an embedding's update is transposed, ``modules_to_save`` are whole tensors."""
    network = save_checkpoint(row_named("llama"), tmp_path / "base")
    vocab, hidden = network.model.embed_tokens.weight.shape
    a, b = torch.randn(3, vocab), torch.randn(hidden, 3)
    head, norm = torch.randn(vocab, hidden), torch.rand(hidden) + 0.5
    write(
        tmp_path / "adapter",
        {
            "base_model.model.model.embed_tokens.lora_embedding_A": a,
            "base_model.model.model.embed_tokens.lora_embedding_B": b,
            "base_model.model.model.embed_tokens.base_layer.weight": network.model.embed_tokens.weight.detach().clone(),
            "base_model.model.lm_head.weight": head,
            "base_model.model.model.norm.weight": norm,
        },
        r=3,
        lora_alpha=6,
        modules_to_save=["lm_head", "norm"],
    )
    with torch.no_grad():
        network.model.embed_tokens.weight += 2 * (b @ a).T
        network.lm_head.weight.copy_(head)
        network.model.norm.weight.copy_(norm)
    model = open_model(tmp_path / "base", adapter=tmp_path / "adapter")
    assert np.abs(ReferenceSession(model, CONTEXT).score(IDS) - logits_of(network)).max() < 1e-4


def test_a_tensor_is_merged_when_it_is_read(tmp_path) -> None:
    network = save_checkpoint(row_named("llama"), tmp_path / "base")
    model = open_model(tmp_path / "base", adapter=save_adapter(tmp_path / "adapter", network, "q_proj"))
    read: list[str] = []

    class Spy:
        def get(self, name):
            read.append(name)
            return base.get(name)

    base = open_model(tmp_path / "base").weights
    (adapter,) = model.origin.adapters
    AdaptedWeights(Spy(), adapter).get("layers.1.q.weight")
    assert read == ["layers.1.q.weight"]


def refused(tmp_path, network, match, tensors=None, **config) -> None:
    folder = save_adapter(tmp_path / "adapter", network, "q_proj", **config)
    if tensors is not None:
        write(folder, tensors, **config)
    with pytest.raises(ModelError, match=match) as failure:
        open_model(tmp_path / "base", adapter=folder)
    assert failure.value.hint


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    return folder, save_checkpoint(row_named("llama"), folder / "base")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3"}, "an adapter of type 'IA3'; supported: LORA"),
        ({"peft_type": None}, "an adapter of type None"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "trained biases"),
        ({"lora_bias": True}, "a bias in lora_B"),
        ({"layer_replication": [[0, 2]]}, "replicated layers"),
        ({"trainable_token_indices": [1]}, "trained rows of the embedding"),
        ({"alora_invocation_tokens": [1]}, "activated LoRA"),
        ({"init_lora_weights": "mica"}, "MiCA"),
        ({"init_lora_weights": "corda"}, "CorDA takes a part out of the base"),
        ({"init_lora_weights": "loftq"}, "LoftQ quantizes the base"),
        ({"init_lora_weights": "lora_ga"}, "LoRA-GA"),
        ({"init_lora_weights": "pissa_niter_16"}, "random numbers"),
        ({"init_lora_weights": "newest"}, "not a way to begin that is known here"),
        ({"use_newest": True}, "'use_newest' is True"),
        ({"rank_pattern": {"q_proj": 3}, "r": 4, "lora_alpha": 4}, None),
    ],
)
def test_kinds_that_are_not_merged_are_refused(llama, config, words) -> None:
    folder, network = llama
    if words is None:  # not refused: what a pattern says is what the tensors are
        open_model(folder / "base", adapter=save_adapter(folder / "patterned", network, "q_proj", **config))
        return
    refused(folder, network, words, **config)


def test_adapters_of_another_base_are_refused(llama, tmp_path) -> None:
    folder, _ = llama
    other = save_checkpoint(Row("x", "LlamaConfig", {"hidden_size": 32, "num_hidden_layers": 4}), tmp_path / "other")
    with pytest.raises(ModelError, match=r"changes 'model\.layers\.3\.self_attn\.q_proj', which") as failure:
        open_model(folder / "base", adapter=save_adapter(tmp_path / "far", other, "q_proj"))
    assert "base" in str(failure.value.hint)
    with pytest.raises(ModelError, match=r"'model\.layers\.0\.self_attn\.q_proj' is 64 x 64 in this model with rank 4"):
        other = save_checkpoint(Row("x", "LlamaConfig", {"hidden_size": 32}), tmp_path / "narrow")
        open_model(folder / "base", adapter=save_adapter(tmp_path / "near", other, "q_proj"))
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    half = {f"{name}.lora_A.weight": torch.zeros(4, 64)}
    write(tmp_path / "half", half)
    with pytest.raises(ModelError, match="one half of its update only"):
        open_model(folder / "base", adapter=tmp_path / "half")
    write(tmp_path / "dora", half | {f"{name}.lora_magnitude_vector": torch.zeros(64)})
    with pytest.raises(ModelError, match="belongs to no LoRA that is known here"):
        open_model(folder / "base", adapter=tmp_path / "dora")
    write(tmp_path / "nan", half | {f"{name}.lora_B.weight": torch.full((64, 4), torch.nan)})
    with pytest.raises(ModelError, match="NaN or infinite"):
        open_model(folder / "base", adapter=tmp_path / "nan").weights.get("layers.0.q.weight")


def test_folders_that_are_none_are_refused(llama, tmp_path) -> None:
    folder, network = llama
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        open_model(folder / "base", adapter=tmp_path)
    pickled = save_adapter(tmp_path / "pickled", network, "q_proj")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(ModelError, match="a pickle; loading one runs code") as failure:
        open_model(folder / "base", adapter=pickled)
    assert "safetensors" in str(failure.value.hint)
    (pickled / "adapter_model.bin").unlink()
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        open_model(folder / "base", adapter=pickled)


def test_gguf_takes_the_same_adapter(llama, tmp_path) -> None:
    """PEFT's names stand for the same matrices in a GGUF file, whose rows of q and k are in another order."""
    import gguf

    folder, network = llama
    path = tmp_path / "model.gguf"
    _write_gguf(gguf, path, network)
    adapter = save_adapter(tmp_path / "adapter", network)
    found = ReferenceSession(with_adapter(open_model(path), adapter), CONTEXT).score(IDS)
    wanted = ReferenceSession(open_model(folder / "base", adapter=adapter), CONTEXT).score(IDS)
    assert np.abs(found - wanted).max() < 1e-4
    quantized = tmp_path / "q8.gguf"
    _write_gguf(gguf, quantized, network, gguf.GGMLQuantizationType.Q8_0)
    manifest = edgesdk.export(
        quantized, "linux-x86_64", tmp_path / "bundle", recipe="none", context=64, adapter=adapter
    )
    assert any("21 matrices were quantized in the checkpoint" in note for note in manifest.notes)


def _write_gguf(gguf, path, network, kind=None) -> None:
    config = network.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{index}>" for index in range(config.vocab_size)])
    writer.add_token_scores([0.0] * config.vocab_size)
    writer.add_token_types([1] * config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in network.state_dict().items():
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name:
                tensor = tensor.view(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
        array = np.ascontiguousarray(tensor.numpy())
        stowed = names.get_name(name, try_suffixes=(".weight",))
        if kind is not None and "proj" in name:
            writer.add_tensor(stowed, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(stowed, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_export_merges_and_the_manifest_names_the_adapter(llama, tmp_path, capsys) -> None:
    folder, network = llama
    adapter = save_adapter(tmp_path / "polite", network, r=3)
    for name in ("once", "twice"):
        arguments = ["export", str(folder / "base"), "-t", "linux-x86_64", "-r", "none", "--context", "64"]
        assert cli.run([*arguments, "--adapter", str(adapter), "-o", str(tmp_path / name)]) == 0
    assert "adapter polite (LoRA, rank 3) is merged into 21 matrices" in capsys.readouterr().out
    text = (tmp_path / "once" / "manifest.json").read_text()
    assert text == (tmp_path / "twice" / "manifest.json").read_text()
    (record,) = json.loads(text)["adapters"]
    assert (record["name"], record["rank"], record["matrices"], record["file"]) == ("polite", 3, 21, None)
    assert [entry["path"] for entry in record["source"]] == ["adapter_config.json", "adapter_model.safetensors"]
    assert all(len(entry["sha256"]) == 64 for entry in record["source"])
    wanted = ReferenceSession(open_model(folder / "base", adapter=adapter), CONTEXT).score(IDS)
    with edgesdk.open_bundle(tmp_path / "once") as bundle:
        assert np.abs(edgesdk.open_session(bundle).score(IDS) - wanted).max() < 1e-3


def test_compress_merges_first_and_refuses_afterwards(llama, tmp_path) -> None:
    folder, network = llama
    adapter = save_adapter(tmp_path / "polite", network)
    arguments = ["compress", str(folder / "base"), "-r", "w8", "--adapter", str(adapter), "-o", str(tmp_path / "small")]
    assert cli.run(arguments) == 0
    made = ReferenceSession(open_model(tmp_path / "small"), CONTEXT).score(IDS)
    wanted = ReferenceSession(open_model(folder / "base", adapter=adapter), CONTEXT).score(IDS)
    assert np.abs(made - wanted).max() < 0.5 * np.abs(wanted).max()
    described = json.loads((tmp_path / "small" / "checkpoint.json").read_text())
    assert "adapter_model.safetensors" in [entry["path"] for entry in described["sources"]]
    assert any("adapter polite" in note for note in described["notes"])
    with pytest.raises(ModelError, match="this checkpoint's were changed") as failure:
        open_model(tmp_path / "small", adapter=adapter)
    assert "edgesdk compress MODEL --adapter" in str(failure.value.hint)


def test_quality_measures_what_an_adapter_changes(llama, tmp_path, capsys) -> None:
    folder, network = llama
    adapter = save_adapter(tmp_path / "polite", network)
    model = str(folder / "base")
    assert cli.run(["quality", model, model, "--adapter", str(adapter), "--samples", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["own_text"]["summary"]["kl"] > 0.01


@pytest.fixture(scope="module")
def switching(llama, tmp_path_factory):
    """A float bundle with two adapters apart: one for all matrices, one for some, of other ranks."""
    folder, network = llama
    out = tmp_path_factory.mktemp("switching")
    whole = save_adapter(out / "whole", network, r=3, seed=1)
    some = save_adapter(out / "some", network, "v_proj", "down_proj", r=5, seed=2, use_rslora=True)
    arguments = ["export", str(folder / "base"), "-t", "linux-x86_64", "-r", "none", "--context", "64"]
    arguments += ["--switchable", f"polite={whole}", "--switchable", f"terse={some}"]
    for name in ("bundle", "again"):
        assert cli.run([*arguments, "-o", str(out / name)]) == 0
    return out


def test_onnx_switches_and_stays_the_base_without(llama, switching) -> None:
    folder, _ = llama
    with edgesdk.open_bundle(switching / "bundle") as bundle:
        for name, adapter in ((None, None), ("polite", switching / "whole"), ("terse", switching / "some")):
            wanted = ReferenceSession(open_model(folder / "base", adapter=adapter), CONTEXT).score(IDS)
            session = edgesdk.open_session(bundle, adapter=name)
            found = np.concatenate([session.score(IDS[:25]), *(session.decode(token)[None] for token in IDS[25:])])
            assert np.abs(found - wanted).max() < 1e-3
        records = {record.name: record for record in bundle.manifest.adapters}
        assert (records["polite"].rank, records["polite"].matrices) == (3, 21)
        assert (records["terse"].rank, records["terse"].matrices) == (5, 6)
        assert all(record.parity["top1"] == 1 for record in records.values())
        listed = {entry.path for entry in bundle.manifest.files}
        assert {"adapters/polite.onnx_adapter", "adapters/terse.onnx_adapter"} <= listed
        with pytest.raises(edgesdk.EdgeError, match=r"no adapter of this bundle 'rude'.*polite, terse"):
            edgesdk.open_session(bundle, adapter="rude")
        chat = edgesdk.Chat(bundle, adapter="terse")
        assert chat.ask("w3 w5", max_tokens=4) != edgesdk.Chat(bundle).ask("w3 w5", max_tokens=4)


def test_switching_bundles_are_the_same_twice(switching) -> None:
    assert (switching / "bundle/manifest.json").read_bytes() == (switching / "again/manifest.json").read_bytes()


def test_run_answers_with_an_adapter(switching, capsys) -> None:
    answers = []
    for more in ([], ["--adapter", "polite"]):
        assert cli.run(["run", str(switching / "bundle"), "w3 w5 w7", "--max-tokens", "6", *more]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] != answers[1]
    assert cli.run(["run", str(switching / "bundle"), "w3", "--adapter", "polite", "--runner"]) == 1


def test_genai_switches_too(llama, switching) -> None:
    og = pytest.importorskip("onnxruntime_genai")
    folder, _ = llama
    model = og.Model(str(switching / "bundle"))
    adapters = og.Adapters(model)
    for name in ("polite", "terse"):
        adapters.load(str(switching / f"bundle/adapters/{name}.onnx_adapter"), name)
    for name, adapter in ((None, None), ("polite", switching / "whole"), ("terse", switching / "some")):
        session = ReferenceSession(open_model(folder / "base", adapter=adapter), CONTEXT)
        logits, wanted = session.prefill(IDS[:9]), []
        for _ in range(12):
            wanted.append(int(logits.argmax()))
            logits = session.decode(wanted[-1])
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=21, min_length=21, do_sample=False)
        generator = og.Generator(model, parameters)
        if name is not None:
            generator.set_active_adapter(adapters, name)
        generator.append_tokens(np.array(IDS[:9], dtype=np.int32))
        found = []
        while len(found) < 12 and not generator.is_done():
            generator.generate_next_token()
            found.append(int(generator.get_next_tokens()[0]))
        stop = next((index for index, token in enumerate(wanted) if token == 2), 12)  # min_length bars the stop token
        assert found[:stop] == wanted[:stop]
        assert stop > 3


@pytest.mark.parametrize(
    ("recipe", "float_type"), [("w4g32", None), ("w8", None), ("w4g32-a32", None), ("none", "float16")]
)
def test_adapters_beside_rounded_weights(llama, switching, tmp_path, recipe, float_type) -> None:
    folder, _ = llama
    manifest = edgesdk.export(
        folder / "base",
        "linux-x86_64",
        tmp_path / "bundle",
        recipe=recipe,
        context=64,
        float_type=float_type,
        switchable={"polite": switching / "whole"},
    )
    (record,) = manifest.adapters
    assert record.parity["max_logit_difference"] < (1e-3 if recipe.endswith("a32") else 0.5)


def test_fused_and_split_projections_are_switched(tmp_path) -> None:
    """Heads with norms split what the program stacks; biases come before the update is added, limits behind it."""
    for name in ("qwen3", "llama-biases", "olmo-clip"):
        network = save_checkpoint(row_named(name), tmp_path / name)
        adapter = save_adapter(tmp_path / f"{name}-adapter", network)
        manifest = edgesdk.export(
            tmp_path / name, "linux-x86_64", tmp_path / f"{name}-bundle", recipe="none", context=64,
            switchable={"a": adapter}, oracle="off",
        )  # fmt: skip
        assert manifest.adapters[0].parity["max_logit_difference"] < 1e-3


def test_matrices_of_a_delta_network_cannot_switch(tmp_path) -> None:
    """The program stacks them with others; the way out that the error names works."""
    network = save_checkpoint(row_named("qwen3_5"), tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", network, "in_proj_qkv", "in_proj_z", "o_proj")
    with pytest.raises(ModelError, match=r"no place for an update of layers\.0\.delta\.k\.weight") as failure:
        edgesdk.export(
            tmp_path / "base", "linux-x86_64", tmp_path / "out", context=64, switchable={"a": adapter}, oracle="off"
        )
    assert "--adapter" in str(failure.value.hint)
    assert not (tmp_path / "out").exists()
    merge_by_hand(network, adapter)
    merged = ReferenceSession(open_model(tmp_path / "base", adapter=adapter), CONTEXT).score(IDS)
    assert np.abs(merged - logits_of(network)).max() < 1e-4


def test_what_cannot_switch_is_refused_before_any_work(llama, switching, tmp_path, capsys) -> None:
    folder, network = llama
    given = {"polite": switching / "whole"}
    for target in ("host", "litert-arm64", "cortex-m4f"):
        with pytest.raises(edgesdk.EdgeError, match="cannot switch adapters") as failure:
            edgesdk.export(tmp_path / "nothing", target, tmp_path / "out", switchable=given)
        assert "--adapter" in str(failure.value.hint)
    with pytest.raises(edgesdk.EdgeError, match="'awq' in recipe w4g32-awq changes what the matrices compute"):
        edgesdk.export(folder / "base", "linux-x86_64", tmp_path / "out", recipe="w4g32-awq", switchable=given)
    head = tmp_path / "head"
    shape = network.lm_head.weight.shape
    write(head, {
        "base_model.model.lm_head.lora_A.weight": torch.zeros(4, shape[1]),
        "base_model.model.lm_head.lora_B.weight": torch.zeros(shape[0], 4),
    })  # fmt: skip
    with pytest.raises(ModelError, match="only matrices of layers can be switched"):
        edgesdk.export(folder / "base", "linux-x86_64", tmp_path / "out", switchable={"head": head})
    with pytest.raises(ModelError, match="an adapter's name is of letters"):
        edgesdk.export(folder / "base", "linux-x86_64", tmp_path / "out", switchable={"../x": switching / "whole"})
    assert not (tmp_path / "out").exists()
    assert cli.run(["export", "m", "-t", "linux-x86_64", "-o", str(tmp_path / "out"), "--switchable", "polite"]) == 1
    assert "NAME=FOLDER" in capsys.readouterr().err
    with edgesdk.open_bundle(switching / "bundle") as bundle:
        assert bundle.manifest.adapters
