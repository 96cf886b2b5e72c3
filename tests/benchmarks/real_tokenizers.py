"""Published chat templates and vocabularies against ``transformers`` and llama.cpp's expected ids.

    python tests/benchmarks/real_tokenizers.py FOLDER

FOLDER is the unpacked source distribution of llama-cpp-python (0.3.36 here): its ``vendor/llama.cpp/models`` holds
``templates/*.jinja`` and ``ggml-vocab-*.gguf`` with texts (``.inp``) and ids (``.out``).
"""

from __future__ import annotations

import datetime
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import models
from transformers import PreTrainedTokenizerFast

from edgesdk.errors import EdgeError, ModelError
from edgesdk.model.chat_template import check_template
from edgesdk.model.gguf_file import GgufFile
from edgesdk.model.gguf_tokenizer import tokenizer_from_gguf
from edgesdk.model.tokenizer import SpecialTokens, Tokenizer

NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
SYSTEM, USER, ANSWER = "Be brief.", 'What is "1 < 2" in\n\tJapanese: \u65e5\u672c?  ', " <b>Yes</b>. "
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "a question": [{"role": "user", "content": USER}],
    "a second question": [
        {"role": "user", "content": USER},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "Why?"},
    ],
    "a system text": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}],
    "a system text and a second question": [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": USER},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "Why?"},
    ],
    "reasoning": [
        {"role": "user", "content": USER},
        {"role": "assistant", "content": ANSWER, "reasoning_content": "One is less."},
        {"role": "user", "content": "Why?"},
    ],
    "parts": [{"role": "user", "content": [{"type": "text", "text": USER}]}],
}


def templates(folder: Path) -> Iterator[tuple[str, str, str]]:
    """For each template: its name, the verdict, and in which words it is refused."""
    definition = Backend(models.WordLevel({token: index for index, token in enumerate(NAMES.values())}, "<unk>"))
    for path in sorted(folder.glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        ours = Tokenizer(definition.to_str(), SpecialTokens(), source, NAMES)
        theirs = PreTrainedTokenizerFast(tokenizer_object=definition, chat_template=source, **NAMES)
        verdicts = Counter[str]()
        words = []
        for what, messages in CONVERSATIONS.items():
            for answering in (True, False):
                wanted, given = _theirs(theirs, messages, answering), _ours(ours, messages, answering)
                if isinstance(given, ModelError) and isinstance(wanted, Exception):
                    verdicts["both refuse"] += 1
                    words += [f"{what}: {given.message}"] if answering else []
                elif given == wanted:
                    verdicts["same"] += 1
                else:
                    verdicts["differ"] += 1
                    words.append(f"{what}: {given!r} instead of {wanted!r}")
        try:
            check_template(ours)
        except ModelError as failure:
            words.append(f"lint refuses it: {failure.message}")
            verdicts["refused by lint"] += 1
        yield (
            path.name,
            ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())),
            "; ".join(words),
        )


def _theirs(tokenizer: Any, messages: list[dict[str, Any]], answering: bool) -> str | Exception:
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answering)
    except Exception as failure:  # templates raise anything
        return failure
    return str(text)


def _ours(tokenizer: Tokenizer, messages: list[dict[str, Any]], answering: bool) -> str | ModelError:
    try:
        return tokenizer.render(messages, answering=answering)
    except ModelError as failure:
        return failure


def vocabularies(folder: Path) -> Iterator[tuple[str, str]]:
    """For each vocabulary: its name, and how many texts get the expected ids, or in which words it is refused."""
    for path in sorted(folder.glob("ggml-vocab-*.gguf")):
        name = path.stem.removeprefix("ggml-vocab-")
        try:
            tokenizer = tokenizer_from_gguf(GgufFile(path).metadata, path.name)
        except EdgeError as failure:
            yield name, f"refused: {failure.message}"
            continue
        note = "".join(f" ({note})" for note in tokenizer.notes)
        expected = path.with_name(path.name + ".out")
        if not expected.is_file():
            yield name, f"opens; no expected ids{note}"
            continue
        texts = path.with_name(path.name + ".inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
        ids = [[int(word) for word in line.split()] for line in expected.read_text().split("\n")]
        same = sum(tokenizer.encode(text) == wanted for text, wanted in zip(texts, ids, strict=False))
        yield name, f"{same} of {len(texts)} texts have the expected ids{note}"


def main() -> None:
    """Print both tables."""
    folder = Path(sys.argv[1]) / "vendor" / "llama.cpp" / "models"
    print(f"{datetime.date.today()}: templates, {2 * len(CONVERSATIONS)} renderings each")
    total = Counter[str]()
    for name, verdict, words in templates(folder / "templates"):
        total["differ" if "differ" in verdict else "both refuse some" if "refuse" in verdict else "same"] += 1
        print(f"  {name}: {verdict}" + (f"\n    {words}" if words else ""))
    print(", ".join(f"{count} templates {what}" for what, count in total.items()))
    print("vocabularies")
    for name, verdict in vocabularies(folder):
        print(f"  {name}: {verdict}")


if __name__ == "__main__":
    main()
