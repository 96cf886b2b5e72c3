"""The main job on SmolLM2-135M (fetched once into the user's cache through the package registry)."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import edgesdk
from edgesdk.compress.base import Setting
from edgesdk.compress.calibration import Calibration
from edgesdk.compress.recipe import open_recipe
from edgesdk.model.reference import ReferenceSession
from edgesdk.progress import SILENT
from edgesdk_converters.executorch.readback import read_packed as read_phone
from edgesdk_converters.onnx.readback import read_packed
from edgesdk_converters.tflite.readback import read_packed as read_tflite

from ..integers import assert_carried

pytestmark = pytest.mark.real
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def model() -> edgesdk.Model:
    return edgesdk.open_model("smollm2-135m")


@pytest.fixture(scope="module")
def bundle(model: edgesdk.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("smollm2") / "bundle.zip"
    edgesdk.export(model, "linux-x86_64", out)
    return out


def test_it_answers_paris_and_carries_the_integers(model, bundle, tmp_path) -> None:
    with edgesdk.open_bundle(bundle) as opened:
        chat = edgesdk.Chat(opened)
        assert "Paris" in chat.ask("What is the capital of France?", max_tokens=40)
        assert "Berlin" in chat.ask("And of Germany?", max_tokens=40)
        assert opened.manifest.quality.divergence["kl"] < 0.6
        assert [row["prompt"] for row in opened.manifest.parity] == [1, 31, 128, 600]
        assert all(row["top1"] > 0.9 for row in opened.manifest.parity)
        packed = read_packed(opened.main)
    compressed, _ = open_recipe("w4g32")(model, Setting(tmp_path, SILENT))
    for name in ("layers.0.o", "layers.29.down", "embed"):
        wanted = compressed.weights.get(f"{name}.weight")
        assert (packed[name].values == wanted.values).all()
        assert (packed[name].scales == wanted.scales).all()


def test_the_memory_estimate_is_close_to_the_truth_and_not_below(bundle) -> None:
    code = (
        "import sys, edgesdk\n"
        "from pathlib import Path\n"
        "with edgesdk.open_bundle(sys.argv[1], check=False) as bundle:\n"
        "    session = edgesdk.open_session(bundle)\n"
        "    session.prefill([5] * session.context)\n"
        "    memory = vars(bundle.manifest.memory)\n"
        "(peak,) = [line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM')]\n"
        "print(int(peak.split()[1]) * 1024, sum(memory.values()) - memory['program'])"
    )
    done = subprocess.run([sys.executable, "-c", code, bundle], capture_output=True, text=True, check=True)
    found, estimated = map(int, done.stdout.split())
    assert 0.75 * estimated < found < 1.1 * estimated, (found, estimated)


def test_the_reference_answers_paris(model) -> None:
    session = ReferenceSession(model, 128)
    logits, tokens = session.prefill(model.tokenizer.chat(QUESTION)), []
    while len(tokens) < 16 and int(logits.argmax()) not in model.tokenizer.special.stop:
        tokens.append(int(logits.argmax()))
        logits = session.decode(tokens[-1])
    assert "Paris" in model.tokenizer.decode(tokens)


def test_the_tokenizer_equals_transformers(model) -> None:
    from transformers import AutoTokenizer

    (path,) = model.origin.files
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for text in ("Hello world", "  two  spaces", "12345 + 678", "naïve café — 東京 🚀", "don't\n\n\tstop", "x=1;y=2"):
        assert model.tokenizer.encode(text) == theirs.encode(text, add_special_tokens=False), text
        assert model.tokenizer.decode(model.tokenizer.encode(text)) == text


def test_one_compressed_checkpoint_serves_a_board_and_a_phone(model, tmp_path) -> None:
    base = open_recipe("w4g32-gptq")
    mixed = replace(base.passes[0], exceptions={"layers.*.v": 8, "layers.29.down": 8})
    text = Calibration(sequences=4, length=64)
    described = edgesdk.compress_model(
        model, tmp_path / "made", recipe=replace(base, passes=(mixed,)), calibration=text
    )
    assert described.quality["own_text"]["kl"] < 0.4  # plain rounding for every target costs 0.5
    made = edgesdk.open_model(tmp_path / "made")
    skip = edgesdk.Checks(skip=True)
    readers = {"linux-x86_64": read_packed, "android-arm64": read_phone, "litert-arm64": read_tflite}
    for target, read in readers.items():
        manifest = edgesdk.export(made, target, tmp_path / target, checks=skip)
        assert_carried(made, read(tmp_path / target / manifest.program.main))
    with edgesdk.open_bundle(tmp_path / "android-arm64") as opened:
        answer = edgesdk.Chat(opened).ask("What is the capital of France?", max_tokens=40)
    assert "France" in answer  # four short sequences calibrate too little for every thread count to say Paris
