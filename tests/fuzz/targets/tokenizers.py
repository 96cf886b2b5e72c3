"""Tokenizers' files and chat templates."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from ...conftest import TEMPLATE, make_checkpoint
from ..case import Case, Files, Opener, placed
from ..odd import VALUES, changed_bytes, changed_text
from ..trees import changed_json

_MESSAGES = [{"role": "user", "content": "Hi </s> \u00e9\n"}]
_TEMPLATES = (
    TEMPLATE,
    "{%- if messages[0]['role'] == 'system' -%}{{ messages[0].content | trim }}{%- endif -%}"
    "{%- for m in messages -%}{{ bos_token }}{{ m['content'] | tojson(indent=2) }}{{ eos_token }}{%- endfor -%}",
    "{% macro a(x) %}{{ x ~ loop }}{% endmacro %}{% set ns = namespace(n=0) %}{% for m in messages %}"
    "{% set ns.n = ns.n + 1 %}{{ a(m.content[:ns.n]) }}{{ raise_exception('no') if ns.n > 3 }}{% endfor %}"
    "{{ strftime_now('%d %B %Y') if strftime_now is defined }}{% generation %}{{ x }}{% endgeneration %}",
)
_PIECES = (
    *("{{ ", "{% ", " %}", " }}", "for x in range(99999)", "endfor", "messages", ".__class__", "['content']", "| join"),
    *(
        "* 9999999",
        "** 99",
        "loop.index0",
        "is defined",
        "%s",
        "\ud800",
        "~",
        "if",
        "else",
        "endif",
        "self",
        "cycler()",
    ),
)


def _definition(folder: Path) -> Case:
    from edgesdk.model.tokenizer import open_tokenizer

    model = make_checkpoint(folder / "model")
    names = ("tokenizer.json", "tokenizer_config.json")
    trees = {name: json.loads((model / name).read_text()) for name in names}
    trees |= {
        "special_tokens_map.json": {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}},
        "added_tokens.json": {"<s>": 256, "<new>": 259},
        "generation_config.json": {"eos_token_id": [257, 258], "pad_token_id": 0},
    }
    place = placed(model, {name: (model / name).read_bytes() for name in names})

    def make(random: Random) -> Files:
        chosen = random.sample(tuple(trees), random.choice((1, 1, 2)))
        return {name: changed_json(random, trees[name]) for name in chosen}

    def run(files: Files) -> None:
        place(files)
        tokenizer = open_tokenizer(model)
        tokenizer.decode(tokenizer.encode("Hello </s> w\n")[:64])
        tokenizer.config_text()
        tokenizer.written_prefix()
        if tokenizer.chat_template is not None:
            tokenizer.chat(_MESSAGES)

    return Case(make, run)


def _sentencepiece(folder: Path) -> Case:
    """``tokenizer.model`` beside no ``tokenizer.json``: refused in words, whatever it holds."""
    from edgesdk.model.tokenizer import open_tokenizer

    model = make_checkpoint(folder / "model")
    (model / "tokenizer.json").unlink()
    pieces = [b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02", b"\n\x0b\n\x02ab\x15\0\0\x80\xbf"]

    def run(files: Files) -> None:
        (model / "tokenizer.model").write_bytes(files["tokenizer.model"])
        open_tokenizer(model)

    return Case(lambda random: {"tokenizer.model": changed_bytes(random, b"".join(pieces) * 9)}, run)


def _template(folder: Path) -> Case:
    from edgesdk.model.chat_template import render_template

    names = {"bos_token": "<s>", "eos_token": "</s>"}

    def make(random: Random) -> Files:
        text = random.choice(_TEMPLATES)
        for _ in range(random.choice((0, 1, 1, 2, 4))):
            at = random.randrange(len(text))
            text = (
                text[:at]
                + random.choice((*_PIECES, *map(str, VALUES[:60])))
                + text[at + random.choice((0, 0, 3, 12)) :]
            )
        data = text.encode("utf-8", "surrogatepass") if random.random() < 0.8 else changed_text(random, text)
        return {"chat_template.jinja": data}

    def run(files: Files) -> None:
        source = files["chat_template.jinja"].decode("utf-8", "surrogatepass" if b"\xed" in files else "replace")
        render_template(source, _MESSAGES, names, answering=True)

    return Case(make, run)


TARGETS: dict[str, Opener] = {
    "tokenizer": _definition,
    "tokenizer-model": _sentencepiece,
    "chat-template": _template,
}
