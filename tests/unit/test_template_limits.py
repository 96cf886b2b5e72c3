"""No chat template hangs a process or fills its memory, whatever one expression of it does."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import edgesdk
from edgesdk.errors import ModelError
from edgesdk.model.chat_template import check_template, render_template
from edgesdk.model.template_runner import RUNNER, SECONDS, TemplateRunner, TemplateStuckError
from edgesdk.model.tokenizer import SpecialTokens, Tokenizer

from ..conftest import edgesdk_process, make_checkpoint

USER = [{"role": "user", "content": "hi"}]
PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"
DOUBLED = "{% set n = namespace(x=['a']) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
STUCK = {
    "loops": ENDLESS,
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a power": "{{ (10 ** 9) ** (10 ** 6) }}",
    "a list of itself": DOUBLED + "{{ n.x | tojson }}",
    "a long text": "{{ 'a' * 10 ** 9 }}",
    "a long text that is not written": "{{ ('a' * 2 * 10 ** 9) | length }}",
    "a filter": "{{ 'a' | center(10 ** 9) }}",
    "a format": "{{ '{:>2000000000}'.format(1) }}",
    "an old format": "{{ '%2000000000d' % 1 }}",
    "doubling": "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "replacing": "{% set n = namespace(x='a') %}"
    "{% for i in range(60) %}{% set n.x = n.x.replace('a', 'a' ~ n.x) %}{% endfor %}",
    "batches": "{{ [1] | batch(10 ** 9, 1) | list }}",
}
REFUSED = {
    "an endless macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a large range": "{{ range(10 ** 12) | list | length }}",
    "a long conversation": "{% for a in range(90000) %}{{ 'a' * 100 }}{% endfor %}",
    "chance": "{{ [1, 2] | random }}",
    "chance in words": "{{ lipsum() }}",
    "a deep expression": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
}


@pytest.mark.parametrize("name", STUCK)
def test_what_never_ends_is_ended_and_the_next_is_written(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TemplateStuckError, match=r"did not end within|of memory"):
        render_template(STUCK[name], USER, {}, answering=True)
    assert render_template(PLAIN, USER, {}, answering=True) == "hi"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_too_much_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="the chat template failed"):
        render_template(REFUSED[name], USER, {}, answering=True)


def test_the_process_keeps_nothing_of_other_templates() -> None:
    """Also not a template under the key of one that failed."""
    with pytest.raises(ModelError):
        render_template("{{ raise_exception('no') }}", USER, {}, answering=True)
    for number in range(70):
        assert render_template(f"{number}{PLAIN}", USER, {}, answering=True) == f"{number}hi"
        assert render_template(PLAIN, USER, {}, answering=True) == "hi"


def test_messages_are_what_json_holds() -> None:
    with pytest.raises(ModelError, match="what JSON can hold"):
        render_template(PLAIN, [{"role": "user", "content": object()}], {}, answering=True)
    assert (
        render_template(PLAIN, [{"role": "user", "content": "\ud800\0\u2028"}], {}, answering=True) == "\ud800\0\u2028"
    )


def test_the_process_sees_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESDK_TOKEN", "secret")
    runner = TemplateRunner()
    runner.start()
    assert runner._process is not None
    assert b"secret" not in Path(f"/proc/{runner._process.pid}/environ").read_bytes()
    runner.close()


def test_whoever_waits_is_told_when_the_process_is_ended() -> None:
    runner, found = TemplateRunner(), []

    def wait() -> None:
        with pytest.raises(TemplateStuckError) as failure:
            runner.render(ENDLESS, {"messages": []}, {})
        found.append(failure.value)

    runner.start()
    waiting = threading.Thread(target=wait)
    waiting.start()
    while not runner._sent:
        time.sleep(0.001)
    runner.kill()
    waiting.join(SECONDS * 5)
    assert len(found) == 1
    assert runner.render(PLAIN, {"messages": USER}, {}) == "hi"
    runner.close()


def test_a_template_that_never_ends_fails_in_lint_and_export(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m")
    (folder / "chat_template.jinja").write_text(ENDLESS)
    with pytest.raises(ModelError, match="did not end within 2 seconds"):
        edgesdk.export(folder, "host", tmp_path / "b", checks=edgesdk.Checks(skip=True))
    assert not (tmp_path / "b").exists()
    ran = edgesdk_process("lint", folder, "--target", "host")
    assert ran.returncode == 1 and "did not end within 2 seconds" in ran.stdout + ran.stderr


def test_one_that_hangs_later_fails_too() -> None:
    tokenizer = Tokenizer(
        '{"model": {}}', SpecialTokens(), "{% if messages | length > 1 %}" + ENDLESS + "{% endif %}x", {}
    )
    tokenizer.__dict__["backend"] = None
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TemplateStuckError):
        patch.setattr(Tokenizer, "encode", lambda *_, **__: [])
        check_template(tokenizer)


def test_the_process_ends_with_the_one_that_started_it() -> None:
    code = "from edgesdk.model.template_runner import RUNNER; RUNNER.start(); print(RUNNER._process.pid)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert not Path(f"/proc/{done.stdout.strip()}").exists()


def test_ordinary_conversations_are_quick() -> None:
    conversation = [{"role": role, "content": "word " * 40} for role in ("user", "assistant")] * 50
    render_template(PLAIN, conversation, {}, answering=True)
    process = RUNNER._process
    assert process is not None
    for _ in range(200):
        render_template(PLAIN, conversation, {}, answering=True)
    assert RUNNER._process is process
    used = float(Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11])
    assert used / 100 < SECONDS  # its processor time, in hundredths of a second, for all of them
