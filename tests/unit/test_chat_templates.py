"""Chat templates against transformers' apply_chat_template, and what lint and export say of those that fail."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models
from transformers import PreTrainedTokenizerFast

import edgesdk
from edgesdk.errors import ModelError
from edgesdk.model.chat_template import check_template, render_template
from edgesdk.model.tokenizer import SpecialTokens, Tokenizer

from ..conftest import TEMPLATE, edgesdk_process, make_checkpoint

PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
LOOP = "{% for m in messages %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
#: One small template for each construct that published ones use.
CONSTRUCTS = {
    "plain": PLAIN,
    "generation": LOOP + "{% generation %}{{ m.content }}\n{% endgeneration %}{% endfor %}",
    "generation with marks": LOOP + "\n  {%- generation -%}\n {{ m.content }} {%- endgeneration %}\n{% endfor %}",
    "generation in a branch": LOOP
    + "{% if m.role == 'assistant' %}{% generation %}{% set x = m.content %}{{ x }}{% endgeneration %}{% endif %}"
    "{% endfor %}",
    "tools are none": "{% if tools is none %}none{% endif %}{{ tools is defined }}{{ documents is none }}" + PLAIN,
    "tools are not none": "{% if tools is not none %}{{ tools | length }}{% endif %}" + PLAIN,
    "tools default": "{% set t = tools if tools is defined else [1] %}{{ t }}" + PLAIN,
    "named tokens": "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ image_token }}" + PLAIN,
    "absent tokens": "{{ pad_token is defined }}{{ sep_token }}{{ mask_token or 'M' }}" + PLAIN,
    "an absent token is joined": "{{ pad_token + 'x' }}" + PLAIN,
    "tojson": "{{ messages | tojson }}",
    "tojson keywords": "{{ messages | tojson(ensure_ascii=True, indent=2, separators=(',', ':'), sort_keys=True) }}",
    "tojson indent": "{{ messages | tojson(indent=4) }}{{ '<&>' | tojson }}",
    "tojson positions": "{{ {'b': '\u00e9', 'a': 1} | tojson(false, 1, none, true) }}",
    "loop controls": LOOP + "{% if loop.index > 1 %}{% break %}{% endif %}{% continue %}{% endfor %}" + PLAIN,
    "trimmed blocks": "{% if true %}\n  x\n{% endif %}\n"
    + LOOP
    + "\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\n",
    "refusal": "{{ raise_exception('not today') }}",
    "refuses a system text": "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    + PLAIN,
    "the date": "{{ strftime_now('%Y') | length }}{% if strftime_now is defined %}d{% endif %}" + PLAIN,
    "answer": PLAIN + "{% if add_generation_prompt %}[assistant]{% endif %}",
    "namespaces": "{% set ns = namespace(x=0) %}" + LOOP + "{% set ns.x = ns.x + 1 %}{% endfor %}{{ ns.x }}",
    "macros": "{% macro f(m) %}<{{ m.content }}>{% endmacro %}" + LOOP + "{{ f(m) }}{% endfor %}",
    "Python's methods": LOOP + "{{ m.content.strip().split('a')[0] }}{{ m.get('x', 'y') }}{% endfor %}",
    "slices": "{% for m in messages[1:] %}{{ m['content'][:2] }}{% endfor %}{{ messages[-1].role }}",
    "content is a text": LOOP + "{% if m.content is string %}s{% elif m.content is iterable %}i{% endif %}{% endfor %}",
    "absent keys": LOOP + "{{ m.tool_calls is defined }}{{ 'content' in m }}{% endfor %}",
    "reasoning": LOOP + "{{ m.reasoning_content }}{{ m.thinking }}{% endfor %}",
    "syntax error": "{% for m in messages %}",
    "unknown tag": "{% nothing %}",
    "unknown filter": "{{ messages | shout }}",
    "writes to a list": "{{ messages.append(1) }}",
    "private attributes": "{{ messages.__class__ }}",
}
USER, ANSWER = {"role": "user", "content": ' Was ist\n"1 < 2" \u65e5\u672c? '}, {"role": "assistant", "content": "Ja."}
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [USER],
    [USER, ANSWER, USER],
    [{"role": "system", "content": "Be brief."}, USER],
    [USER, {**ANSWER, "tool_calls": None, "reasoning": "Less."}],
    [USER, {**ANSWER, "thinking": "t", "reasoning_content": None}],
    [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
]
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "image_token": "<image>"}


def tokenizer(template: str) -> tuple[Tokenizer, Any]:
    backend = Backend(models.WordLevel({token: index for index, token in enumerate(NAMES.values())}, "<unk>"))
    theirs = PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **NAMES)
    return Tokenizer(backend.to_str(), SpecialTokens(), template, NAMES), theirs


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_written_as_transformers_writes_it(name: str) -> None:
    ours, theirs = tokenizer(CONSTRUCTS[name])
    for messages in CONVERSATIONS:
        for answering in (True, False):
            try:
                wanted = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=answering)
            except Exception:  # a template may raise anything
                with pytest.raises(ModelError, match="the chat template failed"):
                    ours.render(messages, answering=answering)
            else:
                assert ours.render(messages, answering=answering) == wanted


def test_a_name_cannot_take_the_place_of_the_conversation() -> None:
    assert render_template(PLAIN, [ANSWER], {"messages": "x", "tools": "y"}, answering=True) == "[assistant]Ja."


@pytest.mark.parametrize(
    ("template", "notes"),
    [
        (PLAIN, 0),
        (CONSTRUCTS["refuses a system text"], 1),
        ("{% if messages | length > 1 %}{{ raise_exception('one only') }}{% endif %}" + PLAIN, 2),
    ],
)
def test_what_it_does_not_write_is_noted(template: str, notes: int) -> None:
    found = check_template(tokenizer(template)[0])
    assert len(found) == notes and all("does not write" in note for note in found)


@pytest.mark.parametrize(
    "name", ["refusal", "syntax error", "unknown tag", "unknown filter", "an absent token is joined"]
)
def test_a_template_that_fails_fails_in_lint_and_export(name: str, checkpoint: Path, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": CONSTRUCTS[name]}))
    errors = [remark for remark in edgesdk.lint(folder, "host") if remark.level == "error"]
    assert [remark.about for remark in errors] == ["tokenizer"] and errors[0].way_out
    assert "cannot write a user's question" in errors[0].text
    with pytest.raises(ModelError, match="cannot write a user's question"):
        edgesdk.export(folder, "host", tmp_path / "b", checks=edgesdk.Checks(skip=True))
    assert not (tmp_path / "b").exists()
    ran = edgesdk_process("lint", folder, "--target", "host")
    assert ran.returncode == 1 and "cannot write a user's question" in ran.stdout


def test_tokens_that_the_model_lacks_are_seen_in_the_template(checkpoint: Path, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m")
    definition = json.loads((folder / "tokenizer.json").read_text())
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    definition["added_tokens"].append({**definition["added_tokens"][0], "id": 259, "content": "<spare>"})
    definition["added_tokens"].append({**definition["added_tokens"][0], "id": rows, "content": "<turn>"})
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    (folder / "chat_template.jinja").write_text("<turn>" + TEMPLATE)
    (error,) = (remark for remark in edgesdk.lint(folder, "host") if remark.level == "error")
    assert f"<turn> (id {rows}), which this model does not have" in error.text


def test_a_bundle_has_the_names_of_its_model(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    template = "{{ unk_token }}{{ pad_token is defined }}{{ image_token }}{{ mask_token is defined }}" + TEMPLATE
    config |= {"unk_token": "<s>", "image_token": "<pad>", "chat_template": template}
    del config["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(NO_SYSTEM + template)
    manifest = edgesdk.export(folder, "host", tmp_path / "b", checks=edgesdk.Checks(skip=True))
    assert any("does not write a system text: no system" in note for note in manifest.notes)
    original = edgesdk.open_model(folder).tokenizer
    assert original is not None
    with edgesdk.open_bundle(tmp_path / "b") as bundle:
        again = edgesdk.Chat(bundle).tokenizer
    assert again.render([USER]) == original.render([USER]) and again.render([USER]).startswith("<s>False<pad>False")
    compressed = tmp_path / "c"
    edgesdk.compress_model(folder, compressed, checks=edgesdk.Checks(skip=True))
    carried = edgesdk.open_model(compressed).tokenizer
    assert carried is not None and carried.render([USER]) == original.render([USER])
