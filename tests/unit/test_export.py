"""The main job on a tiny model, and everything that can be wrong with its input."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import edgesdk
from edgesdk import cli
from edgesdk.errors import EdgeError, ModelError, QualityError, RecipeError, TargetError

from ..conftest import edgesdk_process, make_checkpoint


def export(model: Path, out: Path, **options: object) -> edgesdk.Manifest:
    return edgesdk.export(model, "linux-x86_64", out, **{"context": 256, **options})


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_bundle_answers_and_its_manifest_is_complete(bundle) -> None:
    with edgesdk.open_bundle(bundle) as opened:
        manifest = opened.manifest
        chat = edgesdk.Chat(opened)
        answer = chat.ask("hello", max_tokens=8)
    assert isinstance(answer, str)
    assert chat.statistics.tokens
    assert [row["prompt"] for row in manifest.parity] == [1, 31, 128]  # 600 does not fit a context of 256
    divergence = manifest.quality.divergence
    assert divergence is not None
    assert 0 < divergence["kl"] < 1
    assert manifest.quality.perplexity is None
    assert manifest.quality.perplexity_reason
    assert manifest.tokenizer.stop == (257,)
    assert {entry.path for entry in manifest.files} >= {"model.onnx", "tokenizer.json", "licences/LICENSE"}


def test_a_conversation_equals_running_it_whole(bundle) -> None:
    """The cache kept between turns gives the answers that a fresh cache gives."""
    with edgesdk.open_bundle(bundle) as opened:
        kept = edgesdk.Chat(opened)
        first = kept.ask("one", max_tokens=6)
        second = kept.ask("two", max_tokens=6)
        fresh = edgesdk.Chat(opened)
        fresh.messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": first}]
        assert fresh.ask("two", max_tokens=6) == second
        assert kept.statistics.prompt_tokens < fresh.statistics.prompt_tokens


def test_parity_is_exact_in_float(checkpoint, tmp_path) -> None:
    manifest = export(checkpoint, tmp_path / "b", recipe="none")
    assert all(row["first_divergence"] is None for row in manifest.parity)
    assert all(row["max_logit_difference"] < 1e-4 for row in manifest.parity)
    assert manifest.quality.divergence["kl"] < 1e-6


def test_perplexity_and_its_gate(checkpoint, tmp_path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 40)
    checks = edgesdk.Checks(eval_text=text, eval_windows=2)
    manifest = export(checkpoint, tmp_path / "b", checks=checks)
    found = manifest.quality.perplexity
    assert found["windows"] == 2
    assert found["window"] == 256
    assert found["before"] > 1
    assert abs(found["after"] / found["before"] - 1) < 0.2
    with pytest.raises(QualityError, match="perplexity rises"):
        export(checkpoint, tmp_path / "c", checks=edgesdk.Checks(text, 2, None, 1e-9), recipe="w4g64-e4")
    assert not (tmp_path / "c").exists()


def test_the_kl_gate_names_the_numbers_and_leaves_nothing(checkpoint, tmp_path) -> None:
    with pytest.raises(QualityError, match=r"KL divergence .* is 0\.\d+, over the limit of 1e-06"):
        export(checkpoint, tmp_path / "b", checks=edgesdk.Checks(max_kl=1e-6))
    assert leftovers(tmp_path) == []


def test_skipped_checks_are_null_with_the_reason(checkpoint, tmp_path) -> None:
    manifest = export(checkpoint, tmp_path / "b", checks=edgesdk.Checks(skip=True))
    assert manifest.parity is None
    assert manifest.quality.divergence is None
    assert "--skip-checks" in manifest.parity_reason
    assert "--skip-checks" in manifest.quality.divergence_reason
    with pytest.raises(EdgeError, match="measures nothing"):
        edgesdk.Checks(skip=True, max_kl=1)


def test_a_gate_without_its_text_is_refused() -> None:
    with pytest.raises(EdgeError, match="--max-ppl-increase needs a text"):
        edgesdk.Checks(max_ppl_increase=5)


def test_an_export_that_does_not_shrink_says_so(tmp_path) -> None:
    folder = make_checkpoint(tmp_path / "half")
    tensors = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    manifest = export(folder, tmp_path / "b", recipe="none")
    assert any("not smaller than the checkpoint" in note for note in manifest.notes)


def test_sharded_checkpoints_open_and_a_missing_shard_is_named(checkpoint, tmp_path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, folder / shard)
    index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    model = edgesdk.open_model(folder)
    assert torch.equal(model.weights.get("layers.1.up.weight"), tensors["model.layers.1.mlp.up_proj.weight"])
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"shard 'model-00002-of-00002\.safetensors' is missing"):
        edgesdk.open_model(folder)


def damaged(checkpoint: Path, folder: Path, kind: str) -> Path:  # noqa: C901 - a list of ways to damage a checkpoint
    shutil.copytree(checkpoint, folder)
    weights, config = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif kind == "truncated header":
        weights.write_bytes(weights.read_bytes()[:50])
    elif kind == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif kind == "no weights":
        weights.unlink()
    elif kind == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif kind == "broken tokenizer":
        (folder / "tokenizer.json").write_text("{}")
    elif kind == "broken config":
        (folder / "config.json").write_text('{"model_type": ')
    elif kind in ("nan", "infinite", "missing tensor", "wrong shape"):
        tensors = load_file(weights)
        name = "model.layers.1.mlp.down_proj.weight"
        if kind == "missing tensor":
            del tensors[name]
        elif kind == "wrong shape":
            tensors[name] = tensors[name][:, :64].contiguous()
        else:
            tensors[name][3, 5] = float("nan") if kind == "nan" else float("inf")
        save_file(tensors, weights)
    else:
        changes = {
            "unknown family": {"model_type": "mamba9"},
            "small embedding": {"vocab_size": 100},
            "missing key": {"hidden_size": None},
            "wrong type": {"num_hidden_layers": "two"},
            "quantized": {"quantization_config": {"quant_method": "gptq"}},
            "heads": {"num_key_value_heads": 3},
            "rope": {"rope_scaling": {"rope_type": "ntk"}},
        }[kind]
        (folder / "config.json").write_text(json.dumps(config | changes))
        if kind == "small embedding":
            tensors = load_file(weights)
            tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:100].contiguous()
            save_file(tensors, weights)
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "not a whole safetensors file"),
        ("truncated header", "not a whole safetensors file"),
        ("pickle", "loading a pickle runs code"),
        ("no weights", "no model.safetensors"),
        ("no tokenizer", "no tokenizer.json"),
        ("broken tokenizer", "tokenizer definition cannot be read"),
        ("broken config", "not valid JSON"),
        ("nan", "'model.layers.1.mlp.down_proj.weight' holds 1 values that are NaN"),
        ("infinite", "NaN or infinite"),
        ("missing tensor", "'model.layers.1.mlp.down_proj.weight' is missing"),
        ("wrong shape", "is 64 x 64, but the configuration asks for 64 x 128"),
        ("unknown family", r"'mamba9' belongs to no family .*gemma3.*llama.*qwen3"),
        ("small embedding", "tokenizer has ids up to 258, but the embedding has 100 rows"),
        ("missing key", "'hidden_size' is null, which LlamaConfig"),
        ("wrong type", "'num_hidden_layers' must be a positive whole number"),
        ("quantized", r"already quantized \(gptq\)"),
        ("heads", "4 attention heads are no multiple of 3"),
        ("rope", "rope type 'ntk' is not supported"),
    ],
)
def test_bad_checkpoints_give_one_clear_error_and_leave_nothing(checkpoint, tmp_path, kind, message) -> None:
    folder = damaged(checkpoint, tmp_path / "model", kind)
    with pytest.raises(ModelError, match=message):
        export(folder, tmp_path / "out" / "b")
    assert not (tmp_path / "out").exists() or leftovers(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"recipe": "w5g32"}, RecipeError, "no recipe 'w5g32'"),
        ({"context": 5000}, ModelError, "longer than the 1024"),
        ({"memory_mb": 20}, TargetError, r"needs about .*KV cache of 256 tokens.* but it may use 20 MB"),
    ],
)
def test_bad_options_give_one_clear_error_and_leave_nothing(checkpoint, tmp_path, options, error, message) -> None:
    with pytest.raises(error, match=message):
        export(checkpoint, tmp_path / "b", **options)
    assert leftovers(tmp_path) == []


def test_an_unknown_target_lists_those_there_are(checkpoint, tmp_path) -> None:
    with pytest.raises(TargetError, match=r"no target 'jetson' .*jetson-orin.*linux-arm64"):
        edgesdk.export(checkpoint, "jetson", tmp_path / "b")


def test_a_folder_that_is_no_bundle_is_never_replaced(checkpoint, tmp_path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(EdgeError, match="not a bundle, so it is not replaced"):
        export(checkpoint, precious)
    assert leftovers(precious) == ["thesis.txt"]


def test_look_alikes_of_a_bundle_are_never_replaced(checkpoint, tmp_path) -> None:
    extension = tmp_path / "extension"
    extension.mkdir()
    (extension / "manifest.json").write_text('{"name": "my browser extension", "schema": 3}')
    precious = tmp_path / "precious.zip"
    precious.write_text("years of work")
    for out in (extension, precious):
        with pytest.raises(EdgeError, match="not a bundle, so it is not replaced"):
            export(checkpoint, out)
    assert leftovers(extension) == ["manifest.json"]
    assert precious.read_text() == "years of work"


def test_a_program_that_overflows_is_refused(checkpoint, tmp_path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"] *= 1e6
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(QualityError, match="NaN or infinite"):
        export(folder, tmp_path / "b", recipe="none", float_type="float16")
    assert leftovers(tmp_path) == ["model"]


def test_a_context_without_room_for_parity_says_so(checkpoint, tmp_path) -> None:
    manifest = export(checkpoint, tmp_path / "b", context=16)
    assert manifest.parity is None
    assert "no room" in manifest.parity_reason


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": ["silu"]},
        {"rms_norm_eps": 10**400},
        {"rms_norm_eps": float("nan")},
        {"rms_norm_eps": -1},
        {"rope_theta": 0},
        {"rope_scaling": {"rope_type": "linear", "factor": 0}},
        {"num_hidden_layers": 10**9},
        {"hidden_size": 10**30},
        {"partial_rotary_factor": 0.2},
        {"eos_token_id": 10**9},
        {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 9, "layer_types": 5},
        {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 9, "max_window_layers": "a"},
    ],
    ids=str,
)
def test_nonsense_in_a_configuration_is_one_clear_error(checkpoint, tmp_path, changes) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ModelError):
        edgesdk.open_model(folder)


def test_a_failed_export_keeps_the_bundle_that_was_there(checkpoint, bundle, tmp_path) -> None:
    shutil.copytree(bundle, tmp_path / "b")
    with pytest.raises(QualityError):
        export(checkpoint, tmp_path / "b", checks=edgesdk.Checks(max_kl=1e-9))
    with edgesdk.open_bundle(tmp_path / "b"):
        pass
    assert leftovers(tmp_path) == ["b"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing(checkpoint, tmp_path, number) -> None:
    out = tmp_path / "out"
    out.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "edgesdk", "export", checkpoint, "-t", "linux-x86_64", "-o", out / "b"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell passes it on as ignored
    )
    deadline = time.monotonic() + 60
    while not leftovers(out) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert leftovers(out) == []


def test_an_interrupt_that_a_native_library_made_another_error_of_is_still_one(monkeypatch, capsys) -> None:
    def native(*arguments, **named) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape of object type") from None

    monkeypatch.setattr(cli.edgesdk, "main", native)
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main([])
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    assert (ended.value.code, capsys.readouterr().err) == (130, "Interrupted.\n")


@pytest.mark.parametrize("size", ["8k", "80k", "120k"])  # full while rounding, while writing, while packing
def test_a_full_disk_is_one_clear_error(checkpoint, tmp_path, size) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    script = (
        f"mount -t tmpfs -o size={size} none {mount} && "
        f"{sys.executable} -m edgesdk export {checkpoint} -t linux-x86_64 -o {mount}/b; "
        f"status=$?; ls -A {mount}; exit $status"
    )
    unshared = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*unshared, "true"], check=False).returncode:
        pytest.skip("this machine cannot make a private mount")
    done = subprocess.run([*unshared, "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""  # nothing left on it


def test_the_command_line_does_the_same(checkpoint, tmp_path) -> None:
    out = tmp_path / "b.zip"
    done = edgesdk_process("export", checkpoint, "-t", "linux-x86_64", "-o", out, "--context", 128, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["context"] == 128
    done = edgesdk_process("verify", out, "--json")
    assert json.loads(done.stdout)["ok"] is True
    done = edgesdk_process("inspect", out)
    assert "linux-x86_64" in done.stdout
    done = edgesdk_process("run", out, "hello", "--max-tokens", 5, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["tokens"]) <= 5
    done = edgesdk_process("run", out, "--max-tokens", 3, COLUMNS="80")
    assert done.returncode == 0, done.stderr


def test_errors_are_one_message_without_a_traceback(tmp_path) -> None:
    for arguments in (["export", "nowhere", "-t", "linux-x86_64", "-o", tmp_path / "b"], ["verify", tmp_path]):
        done = edgesdk_process(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: ")
        assert "Traceback" not in done.stderr
    assert leftovers(tmp_path) == []
