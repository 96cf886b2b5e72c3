"""Chat templates as fixed strings: the same text as the template's own, or a refusal."""

from __future__ import annotations

import json

import pytest

import edgesdk
from edgesdk.errors import EdgeError
from edgesdk.model.tokenizer import Message, SpecialTokens, Tokenizer
from edgesdk.package.base import PackageError
from edgesdk.package.prompts import chat_format

from ..conftest import make_checkpoint

CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<s>system\nBe kind</s>\n{% endif %}"
    "<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
GEMMA = (  # a system text goes in front of the first user's, and texts are trimmed
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}<s>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ first if loop.first }}"
    "{{ m.content | trim }}</s>\n{% endfor %}{% if add_generation_prompt %}<s>model\n{% endif %}"
)
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ '[INST] ' + m.content + ' [/INST]' if m.role == 'user' else m.content + '</s>' }}{% endfor %}"
)
FORGETS = (  # as models that think do: earlier answers are cut
    "{% for m in messages %}<s>{{ m.role }}\n{{ m.content.split('Q')[-1] if m.role == 'assistant' else m.content }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
COUNTS = "{% for m in messages %}{{ loop.index }}{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"


@pytest.fixture(scope="module")
def definition(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = make_checkpoint(tmp_path_factory.mktemp("prompts") / "tiny")
    return (folder / "tokenizer.json").read_text(encoding="utf-8")


def formatted(definition: str, template: str | None, monkeypatch: pytest.MonkeyPatch):
    tokenizer = Tokenizer(definition, SpecialTokens(256, (257,), 258, (256,)), template)
    monkeypatch.setattr("edgesdk.package.prompts.bundle_tokenizer", lambda bundle: tokenizer)
    return chat_format(None), tokenizer


def turns(*texts: str, system: str | None = None) -> list[Message]:
    said: list[Message] = [{"role": "system", "content": system}] if system is not None else []
    return [
        *said,
        *({"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)),
    ]


@pytest.mark.parametrize("template", [CHATML, GEMMA, STRICT], ids=["chatml", "gemma", "strict"])
def test_the_strings_say_what_the_template_says(definition, template, monkeypatch) -> None:
    found, tokenizer = formatted(definition, template, monkeypatch)
    for texts in (["Hi"], ["a", "b", "c"], ["ü", "{{x}}", "日本", "x" * 50, "last\nline"]):
        assert found.render(turns(*texts)) == tokenizer.render(turns(*texts))
        if found.system_start is not None:
            asked = turns(*texts, system="Be brief.")
            assert found.render(asked) == tokenizer.render(asked)
    assert (found.system_start is None) == (template == STRICT)
    assert found.stop == ("</s>",)


def test_a_template_that_trims_some_texts_only_is_refused(definition, monkeypatch) -> None:
    only_users = GEMMA.replace("{{ m.content | trim }}", "{{ m.content | trim if m.role == 'user' else m.content }}")
    with pytest.raises(PackageError, match="fixed strings"):
        formatted(definition, only_users, monkeypatch)


@pytest.mark.parametrize("template", [FORGETS, COUNTS, "no content"], ids=["forgets", "counts", "silent"])
def test_what_fixed_strings_cannot_say_is_refused(definition, template, monkeypatch) -> None:
    with pytest.raises(PackageError, match="fixed strings") as refused:
        formatted(definition, template, monkeypatch)
    assert "chat_template.jinja" in str(refused.value.hint)


def with_post_processor(definition: str) -> str:
    start, text = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    tokens = {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}
    step = {"type": "TemplateProcessing", "single": [start, text], "pair": [start, text], "special_tokens": tokens}
    return json.dumps(json.loads(definition) | {"post_processor": step})


def test_a_model_without_a_template_takes_plain_text(definition, monkeypatch) -> None:
    """After a BOS: of the tokenizer's post-processor, or as text where it has none."""
    found, _ = formatted(with_post_processor(definition), None, monkeypatch)
    assert (found.templated, found.bos_tokens, found.start) == (False, 1, "")
    found, tokenizer = formatted(definition, None, monkeypatch)
    assert (found.templated, found.bos_tokens, found.start) == (False, 0, "<s>")
    assert tokenizer.encode(found.start + "Once") == tokenizer.encode("Once", prefix=True)


def test_a_prefix_that_cannot_be_written_is_refused(definition, monkeypatch) -> None:
    plain = json.loads(definition)
    plain["added_tokens"] = [token for token in plain["added_tokens"] if token["content"] != "<s>"]
    plain["model"]["vocab"]["<s>"] = 256  # a word like any other, which no text becomes
    with pytest.raises(EdgeError, match="neither from its post-processor nor as text") as refused:
        formatted(json.dumps(plain), None, monkeypatch)
    assert "post_processor" in str(refused.value.hint)


def test_it_comes_from_a_real_bundle(bundle) -> None:
    with edgesdk.open_bundle(bundle) as opened:
        assert chat_format(opened).answer == "</s><s>assistant "
