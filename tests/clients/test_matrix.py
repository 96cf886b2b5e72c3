"""Every client tries all that it has against a real server; the matrix in the server's README is what came of it.

The clients are installed by ``tests/clients/install.sh``, which needs a network; without them there is nothing to try.
EDGESDK_WRITE_README=1 writes the matrix.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import edgesdk

from ..conftest import make_checkpoint
from ..unit.encoder_rows import ROWS, save_encoder
from ..unit.serving import PATIENCE, running

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
INSTALLED = ROOT / "build" / "clients"
README = ROOT / "edgesdk" / "serve" / "README.md"
CASES = (
    "chat",
    "stream",
    "20 turns",
    "max_tokens 32000",
    "n, logprobs",
    "completions",
    "responses",
    "embeddings",
    "tools offered",
)
#: Refused until answers can be held to a schema.
NOT_SERVED = ("structured",)
SHAPES: dict[str, dict[str, Any]] = json.loads((HERE / "shapes.json").read_text())
BEGINS, ENDS = "<!-- clients: made by tests/clients -->\n", "<!-- end of clients -->\n"
_SECONDS = 300


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Two servers: a chat model, and an encoder."""
    folder = tmp_path_factory.mktemp("clients")
    make_checkpoint(folder / "chat", max_position_embeddings=4096)
    save_encoder(next(row for row in ROWS if row.name == "bert-sentences"), folder / "encoder")
    for name, options in (("chat", {"context": 4096}), ("encoder", {"recipe": "none"})):
        edgesdk.export(
            folder / name, "linux-x86_64", folder / f"{name}-bundle", checks=edgesdk.Checks(skip=True), **options
        )
    with running(folder / "chat-bundle", max_tokens=64) as chat, running(folder / "encoder-bundle") as encoder:
        yield f"{chat.address}/v1", f"{encoder.address}/v1"


def program(name: str) -> list[str]:
    """How one language's clients are tried."""
    if name == "python":
        return [str(INSTALLED / "python/bin/python"), "-I", str(HERE / "in_python.py")]
    shutil.copy(HERE / "in_node.mjs", INSTALLED)  # modules are found beside the program
    return ["node", str(INSTALLED / "in_node.mjs")]


@pytest.fixture(scope="module")
def trials(addresses: tuple[str, str]) -> list[dict[str, Any]]:
    """Every trial of every client."""
    if not (INSTALLED / "python").is_dir() or not (INSTALLED / "node_modules").is_dir():
        pytest.skip("no clients here (tests/clients/install.sh)")
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}  # litellm would fetch a list of prices
    found = []
    for name in ("python", "node"):
        done = subprocess.run(
            [*program(name), *addresses],
            env=os.environ | quiet,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found += [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return found


def test_clients_get_what_is_served(trials: list[dict[str, Any]]) -> None:
    failed = [trial for trial in trials if trial["case"] in CASES and not trial["fine"]]
    assert not failed and len(trials) > 50
    assert {trial["case"] for trial in trials} == {*CASES, *NOT_SERVED}


def test_clients_are_told_what_is_not(trials: list[dict[str, Any]]) -> None:
    others = [trial for trial in trials if trial["case"] in NOT_SERVED]
    for trial in others:
        assert not trial["fine"], trial
        assert any(word in trial["said"] for word in ("tool_choice: ", "response_format.type: ")), trial
    assert len(others) >= 5


@pytest.mark.parametrize("name", SHAPES)
def test_requests_of_programs_that_are_not_installed_here(addresses: tuple[str, str], name: str) -> None:
    body = dict(SHAPES[name])
    path = body.pop("path", "/v1/chat/completions")
    connection = http.client.HTTPConnection(urlsplit(addresses[0]).netloc, timeout=PATIENCE)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == 200, text
    assert text.endswith("data: [DONE]\n\n")


def test_the_matrix_in_the_readme(trials: list[dict[str, Any]]) -> None:
    text = README.read_text(encoding="utf-8")
    start, stop = text.index(BEGINS) + len(BEGINS), text.index(ENDS)
    wanted = matrix(trials)
    if os.environ.get("EDGESDK_WRITE_README"):
        README.write_text(text[:start] + wanted + text[stop:], encoding="utf-8")
        return
    assert text[start:stop] == wanted, "run with EDGESDK_WRITE_README=1"


def matrix(trials: list[dict[str, Any]]) -> str:
    """Clients against cases: what worked; nothing where a client has no such call."""
    clients = list(dict.fromkeys(trial["client"] for trial in trials))
    found = {(trial["client"], trial["case"]): "yes" if trial["fine"] else "no" for trial in trials}
    cases = [*CASES, *NOT_SERVED]
    rows = [["client", *cases], ["---"] * (1 + len(cases))]
    rows += [[client, *(found.get((client, case), "") for case in cases)] for client in clients]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
