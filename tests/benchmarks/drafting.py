"""What drafting gives on SmolLM2: decode rate with nothing, the text so far and a draft model, in turns of one process.

    python tests/benchmarks/drafting.py [--target T] [--recipe R] [--draft-recipe R] [--turns N]

Two kinds of prompts: questions, whose answers repeat little, and a text to be copied, which repeats everything. Rates
are medians over turns; their ratio is to decoding token by token. The draft model is the model's own first and last
layers (a recipe with ``depth``), which is all that can be had without another model of the same tokens.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import edgesdk
from edgesdk.chat import Chat
from edgesdk.drafting import Drafting
from edgesdk.exporting import Checks

MODES: tuple[Drafting, ...] = ("off", "lookup", "auto")
TEXT = (
    "The board reads its sensor ten times a second, keeps the last hundred values, and sends their mean, their "
    "smallest and their largest value to the gateway every ten seconds; when the gateway does not answer, it keeps "
    "them and tries again a minute later."
)
PROMPTS = {
    "questions": ("Why does a phone get warm when it runs a language model?", "Name three uses of a small computer."),
    "a copy": (f"Repeat this text word for word: {TEXT}",),
}


@dataclass
class Found:
    """Of one mode and kind of prompt."""

    rates: list[float] = field(default_factory=list)
    tokens: int = 0
    steps: int = 0
    drafted: int = 0
    accepted: int = 0


def measured(bundle: edgesdk.Bundle, mode: Drafting, turns: int, threads: int, tokens: int) -> dict[str, Found]:
    chat = Chat(bundle, threads=threads, drafting=mode)
    found = {kind: Found() for kind in PROMPTS}
    for _ in range(turns):
        for kind, prompts in PROMPTS.items():
            count, seconds = 0, 0.0
            for prompt in prompts:
                chat.messages.clear()
                chat.ask(prompt, max_tokens=tokens)
                said = chat.statistics
                count, seconds = count + len(said.tokens) - 1, seconds + said.decode_seconds
                if said.draft is not None:
                    for key in ("tokens", "steps", "drafted", "accepted"):
                        setattr(found[kind], key, getattr(found[kind], key) + said.draft[key])
            found[kind].rates.append(count / seconds)
    return found


def answers(bundle: edgesdk.Bundle, mode: Drafting, threads: int, tokens: int) -> dict[str, list[str]]:
    chat, found = Chat(bundle, threads=threads, drafting=mode), {}
    for kind, prompts in PROMPTS.items():
        found[kind] = []
        for prompt in prompts:
            chat.messages.clear()
            found[kind].append(chat.ask(prompt, max_tokens=tokens))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="linux-x86_64")
    parser.add_argument("--recipe", default="w4g32")
    parser.add_argument("--draft-recipe", default="w4g32-depth50")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=96)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bundle"
        edgesdk.export(
            "smollm2-135m",
            options.target,
            out,
            recipe=options.recipe,
            draft="smollm2-135m",
            draft_recipe=options.draft_recipe,
            checks=Checks(skip=True),
        )
        with edgesdk.open_bundle(out) as bundle:
            found = {m: measured(bundle, m, options.turns, options.threads, options.tokens) for m in MODES}
            said = {m: answers(bundle, m, options.threads, options.tokens) for m in MODES}
    print(f"{'prompts':<12}{'drafts':<10}{'tokens/s':>10}{'ratio':>8}{'taken':>8}{'a step':>8}{'same answer':>13}")
    for kind in PROMPTS:
        plain = statistics.median(found["off"][kind].rates)
        for mode in MODES:
            each = found[mode][kind]
            rate = statistics.median(each.rates)
            taken = f"{each.accepted / each.drafted:.0%}" if each.drafted else "-"
            step = f"{each.tokens / each.steps:.2f}" if each.steps else "1.00"
            same = "yes" if said[mode][kind] == said["off"][kind] else "no"
            print(f"{kind:<12}{mode:<10}{rate:>10.1f}{rate / plain:>8.2f}{taken:>8}{step:>8}{same:>13}")


if __name__ == "__main__":
    main()
