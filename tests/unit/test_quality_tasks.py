"""Choice tasks: files of questions, what is wrong with them, and likelihoods through lm-eval's harness."""

from __future__ import annotations

import json
import math

import pytest
import torch

import edgesdk
from edgesdk.errors import EdgeError
from edgesdk.model.reference import ReferenceModel
from edgesdk.quality.choices import read_choices

ARC = {"question": "Which is wet?", "choices": {"text": ["water", "sand"], "label": ["A", "B"]}, "answerKey": "A"}
HELLASWAG = {"ctx_a": "A man sits on a roof.", "ctx_b": "he", "endings": ["sings.", "eats it."], "label": "1"}
PIQA = {"goal": "Open a jar", "sol1": "twist the lid", "sol2": "eat the jar", "label": 0}


def test_files_of_questions_are_told_by_their_fields(tmp_path) -> None:
    path = tmp_path / "q.jsonl"
    ctx = {"ctx": "A man sits. he", "endings": ["sings.", "eats."], "label": 0, "ind": 4}
    for form, record in (("arc", ARC), ("hellaswag", HELLASWAG), ("hellaswag", ctx), ("piqa", PIQA)):
        path.write_text(json.dumps(record) + "\n\n" + json.dumps(record))
        found = read_choices(path)
        assert (found.name, found.form, len(found.questions)) == ("q", form, 2)
    assert found.questions[0] == PIQA


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", "line 2: not valid JSON"),
        ([1], r"a question of no format known here \(no object\)"),
        ({"goal": "x"}, r"no format known here \(goal\)"),
        (PIQA | {"label": 2}, "'label' must be 0 to 1, found 2"),
        (PIQA | {"label": True}, "'label' must be 0 to 1"),
        (PIQA | {"sol1": ""}, "'sol1' must be a text"),
        (HELLASWAG, "hellaswag after piqa"),
        (ARC | {"answerKey": "E"}, "hellaswag|arc after piqa"),
    ],
)
def test_bad_questions_name_file_and_line(tmp_path, record, message) -> None:
    path = tmp_path / "q.jsonl"
    line = record if isinstance(record, str) else json.dumps(record)
    path.write_text(json.dumps(PIQA) + "\n" + line)
    with pytest.raises(EdgeError, match=message):
        read_choices(path)


def test_an_answer_key_must_be_a_label(tmp_path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(ARC | {"answerKey": "E"}))
    with pytest.raises(EdgeError, match="answerKey 'E' is not one of A, B"):
        read_choices(path)
    path.write_text("\n")
    with pytest.raises(EdgeError, match="no question in it"):
        read_choices(path)


def test_choice_tasks_name_the_extra_where_it_is_missing(checkpoint, tmp_path) -> None:
    try:
        import lm_eval  # noqa: F401
    except ModuleNotFoundError:
        path = tmp_path / "q.jsonl"
        path.write_text(json.dumps(PIQA))
        with pytest.raises(EdgeError, match="'lm_eval', which is not installed") as failure:
            edgesdk.compare_quality(checkpoint, checkpoint, tasks=[path])
        assert failure.value.hint == "pip install 'edgesdk[lm-eval]'"
    else:
        pytest.skip("lm-eval is installed here")


def likelihood(model: edgesdk.Model, context: str, continuation: str) -> float:
    """Log likelihood of a continuation, nats, from one pass over the whole text."""
    ids = model.tokenizer.encode(context + continuation)
    start = len(model.tokenizer.encode(context))
    reference = ReferenceModel(model)
    rows = torch.log_softmax(reference.logits(reference.hidden([torch.tensor([ids])])[0][0]).double(), -1)
    return sum(float(rows[at - 1, ids[at]]) for at in range(start, len(ids)))


@pytest.mark.filterwarnings("ignore")  # of the harness and its libraries
def test_choice_tasks_through_the_harness(checkpoint, bundle, compressed, tmp_path) -> None:
    """Accuracy is that of likelihoods computed here on the harness's published prompts."""
    pytest.importorskip("lm_eval", reason="the extra 'lm-eval' is not installed")
    model = edgesdk.open_model(checkpoint)
    nouns = ["jar", "door", "bottle of milk", "very heavy box", "tin", "letter"]
    piqa = [PIQA | {"goal": f"Open a {noun}", "label": index % 2} for index, noun in enumerate(nouns)]
    arc = [ARC | {"question": f"Which goes with a {noun}?"} for noun in nouns]
    hellaswag = [
        HELLASWAG | {"ctx_a": f"A man sits on a {noun}.", "label": index % 2} for index, noun in enumerate(nouns)
    ]
    files = []
    for name, records in (("arc", arc), ("hellaswag", hellaswag), ("piqa", piqa)):
        files.append(tmp_path / f"my_{name}.jsonl")
        files[-1].write_text("".join(json.dumps(record) + "\n" for record in records))

    def right(side: edgesdk.Model, context: str, choices: list[str], label: int) -> tuple[bool, bool]:
        found = [likelihood(side, context, f" {choice}") for choice in choices]
        norm = [value / len(choice) for value, choice in zip(found, choices, strict=True)]
        return found.index(max(found)) == label, norm.index(max(norm)) == label

    def expected(side: edgesdk.Model) -> dict[str, list[tuple[bool, bool]]]:
        return {
            "arc": [right(side, f"Question: {each['question']}\nAnswer:", each["choices"]["text"], 0) for each in arc],
            "hellaswag": [right(side, f"{e['ctx_a']} He", e["endings"], e["label"]) for e in hellaswag],
            "piqa": [right(side, f"Question: {e['goal']}\nAnswer:", [e["sol1"], e["sol2"]], e["label"]) for e in piqa],
        }

    found = edgesdk.compare_quality(checkpoint, compressed, tasks=files, samples=0)
    assert [(task.name, task.form, task.questions, task.cut) for task in found.tasks] == [
        (f"my_{form}", form, 6, 0) for form in ("arc", "hellaswag", "piqa")
    ]
    before, after = expected(model), expected(compressed)
    assert len({row for rows in before.values() for row in rows}) > 1  # not all right, not all wrong
    for task in found.tasks:
        for side, rows in ((task.a, before[task.form]), (task.b, after[task.form])):
            acc = [each[0] for each in rows]
            assert side.acc == pytest.approx(sum(acc) / 6, rel=1e-3)
            assert side.acc_norm == pytest.approx(sum(each[1] for each in rows) / 6, rel=1e-3)
            assert side.acc_stderr == pytest.approx(math.sqrt(side.acc * (1 - side.acc) / 5), rel=1e-3)
        assert task.difference.acc == pytest.approx(task.b.acc - task.a.acc, abs=1e-3)
        assert task.only_b - task.only_a == round(6 * task.difference.acc)

    run = edgesdk.compare_quality(bundle, checkpoint, tasks=files[2:], samples=0)
    assert run.tasks[0].b == found.tasks[2].a
    files[2].write_text(json.dumps(PIQA))
    single = edgesdk.compare_quality(checkpoint, checkpoint, tasks=files[2:], samples=0).tasks[0]
    assert single.a.acc_stderr is None
    assert (single.difference.acc, single.only_a, single.only_b) == (0, 0, 0)


@pytest.mark.filterwarnings("ignore")
def test_questions_longer_than_the_context_are_counted(checkpoint, tmp_path) -> None:
    pytest.importorskip("lm_eval", reason="the extra 'lm-eval' is not installed")
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(PIQA | {"goal": "open " * 300}) + "\n" + json.dumps(PIQA))
    (task,) = edgesdk.compare_quality(checkpoint, checkpoint, tasks=[path], samples=0).tasks
    assert (task.questions, task.cut) == (2, 4)  # two choices of one question, on both sides
    path.write_text(json.dumps(PIQA | {"sol1": "twist " * 300}))
    with pytest.raises(EdgeError, match="does not fit the context of 1024"):
        edgesdk.compare_quality(checkpoint, checkpoint, tasks=[path], samples=0)
