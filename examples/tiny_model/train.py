"""Train a language model of 250,000 parameters for a microcontroller, in minutes, on text that the script makes.

    python examples/tiny_model/train.py --out build/tiny

The folder is one that edgesdk opens like any other Hugging Face checkpoint, with held-out stories in eval.txt:

    edgesdk lint build/tiny --target linux-x86_64

The same computer, torch and number of threads give the same bytes on every run. Needs the packages torch, tokenizers
and safetensors (pip install 'edgesdk[model]').
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from llama import CONFIG, Llama
from safetensors.torch import save_file
from stories import stories
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor

END = "<|endoftext|>"  # starts a text, and ends one
CONTEXT = CONFIG["max_position_embeddings"]
STORY = 144  # tokens


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE: all 256 bytes, so that no text is lost, and merges for what the stories say."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    return tokenizer


def train(model: Llama, texts: list[list[int]], steps: int, batch: int) -> None:
    """AdamW with a warm-up and a cosine. Each row of a batch starts with a story.

    Most steps see about one story, which is quick; every fourth goes on through the whole context.
    """
    starts = torch.tensor([0, *(len(text) for text in texts)]).cumsum(0)[:-1]
    stream = torch.tensor([index for text in texts for index in text])
    starts = starts[starts + CONTEXT < len(stream)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 50, 0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))
    )
    began = time.monotonic()
    for step in range(1, steps + 1):
        length = CONTEXT if step % 4 == 0 else STORY
        rows = starts[torch.randint(len(starts), (batch, 1))] + torch.arange(length + 1)
        ids = stream[rows]
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            print(f"step {step} of {steps}: loss {loss.item():.3f}, {time.monotonic() - began:.0f} s", flush=True)


@torch.inference_mode()
def tell(model: Llama, ids: list[int], length: int) -> list[int]:
    """Sample at temperature 0.8 until the story ends."""
    ids = list(ids)
    while len(ids) < length and (len(ids) == 1 or ids[-1] != 0):
        logits = model(torch.tensor([ids]))[0, -1] / 0.8
        ids.append(int(torch.multinomial(logits.softmax(-1), 1)))
    return ids


def save(folder: Path, model: Llama, tokenizer: Tokenizer, held_out: list[str]) -> None:
    """A Hugging Face folder; config.json comes last, so that a folder without it is not whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)
    tensors: dict[str, Tensor] = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": END, "eos_token": END, "tokenizer_class": "PreTrainedTokenizerFast"}
    _write_json(folder / "tokenizer_config.json", special | {"model_max_length": CONTEXT})
    _write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 0})
    (folder / "eval.txt").write_text(f"\n{END}\n".join(held_out) + "\n", encoding="utf-8")
    _write_json(folder / "config.json", CONFIG)


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--quick", action="store_true", help="a few steps only: a test of the script, not a model")
    parser.add_argument("--threads", type=int, default=1, help="more are faster, and give other bytes")
    options = parser.parse_args()
    count, steps, batch = (400, 12, 4) if options.quick else (20_000, 1_150, 8)

    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    texts = stories(count, seed=1)
    held_out = stories(40, seed=2, without=frozenset(texts))
    tokenizer = train_tokenizer(texts)
    model = Llama()
    print(f"{sum(weight.numel() for weight in model.parameters())} parameters, {len(texts)} stories", flush=True)
    train(model, [encoding.ids for encoding in tokenizer.encode_batch(texts)], steps, batch)
    save(options.out, model, tokenizer, held_out)
    print(tokenizer.decode(tell(model, [0], 40 if options.quick else CONTEXT)))
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
