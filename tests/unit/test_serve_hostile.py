"""The server among clients that drip, flood, do not read, or send what costs much; and how it ends."""

from __future__ import annotations

import http.client
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgesdk.serve import ServeError, Settings, connections, logs
from edgesdk.serve.connections import open_connections

from .serving import PATIENCE, QUESTION, Running, running, script_of

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
ASK: dict[str, Any] = {"model": "default", "messages": QUESTION}
SOON = 1.0  # seconds, for /health
LARGE = 900_000


def dial(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server.listener.getsockname()[1]), PATIENCE)


def health(server: Running) -> float:
    """Seconds that /health takes on a new connection."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", server.server.listener.getsockname()[1], timeout=PATIENCE)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()
    return time.monotonic() - began


def exchange(server: Running, data: bytes) -> bytes:
    """What comes back until the server closes."""
    said = b""
    with dial(server) as line:
        try:
            line.sendall(data)
            while piece := line.recv(65536):
                said += piece
        except ConnectionError:
            pass
    return said


def posted(body: Any) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw


def all_at_once(count: int, work: Callable[[], Any]) -> list[Any]:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(work())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return found


@contextmanager
def shorter(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for name, value in seconds.items():
            patch.setattr(connections, name, value)
        yield


def closed(line: socket.socket) -> bool:
    """Whether the server closes a connection, whatever it says before."""
    line.settimeout(PATIENCE)
    try:
        while line.recv(10000):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def test_half_open_connections_make_room_for_others(bundle: Path) -> None:
    with running(bundle, "ok", connections=32, address_connections=24) as server, ExitStack() as held:
        lines = [held.enter_context(dial(server)) for _ in range(100)]
        for line in lines:
            line.sendall(HEAD + b"X: ")
        assert health(server) < SOON
        for line in lines[-20:]:
            line.sendall(b"a")
        assert health(server) < SOON
        assert all(map(closed, lines[:50]))
        assert exchange(server, posted(ASK)).startswith(b"HTTP/1.1 200")


def test_a_head_has_its_time_however_it_drips(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with shorter(monkeypatch, _HEAD_SECONDS=0.3), running(bundle, "ok") as server:
        with dial(server) as silent, dial(server) as dripping:
            began = time.monotonic()
            dripping.sendall(HEAD)
            while not closed_now(dripping):
                assert time.monotonic() - began < PATIENCE
                time.sleep(0.02)
            assert closed(silent)
        with dial(server) as again:  # the second request of a connection too
            again.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert again.recv(10000).startswith(b"HTTP/1.1 200")
            again.sendall(b"GET /hea")
            assert closed(again)


def closed_now(line: socket.socket) -> bool:
    try:
        line.sendall(b"a")
        line.settimeout(0.01)
        return line.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_a_client_that_does_not_read_is_cut_off(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with shorter(monkeypatch, _WRITE_SECONDS=0.3), running(bundle, "ok") as server, socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        line.connect(server.server.listener.getsockname())
        line.setblocking(False)
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - began < PATIENCE:
                try:
                    line.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
                except BlockingIOError:
                    time.sleep(0.01)
        assert health(server) < SOON


def test_requests_at_work_are_not_cut_off_for_new_ones(bundle: Path) -> None:
    with running(bundle, "ok", connections=16, queue=40) as server, ExitStack() as held:
        script = script_of(server)
        script.open.clear()
        lines = [held.enter_context(dial(server)) for _ in range(16)]
        for line in lines:
            line.sendall(posted(ASK))
        give_up = time.monotonic() + PATIENCE
        while server.server.engine.waiting + server.server.engine.running < 16:
            assert time.monotonic() < give_up
            time.sleep(0.005)
        with dial(server) as late:
            assert closed(late)
        script.open.set()
        for line in lines:
            assert line.recv(10000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "head",
    [
        b"".join(b"X%d: a\r\n" % number for number in range(200)),
        b"X: " + b"a" * 20_000 + b"\r\n",
        b"X: " + b"a" * 200_000,
        b"a:\r\n" * 10_000,
    ],
    ids=["many", "long", "endless", "small"],
)
def test_large_heads_are_refused(bundle: Path, head: bytes) -> None:
    start = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    with running(bundle, "ok") as server:
        said = exchange(server, start + head + b"\r\n")
        assert said == b"" or said.startswith(b"HTTP/1.1 400")
        first = start + b"\r\n"
        said = exchange(server, first + start + head + b"\r\n")  # behind another
        assert said.count(b"HTTP/1.1 200") <= 1
        assert health(server) < SOON


def test_small_chunks_are_refused_and_large_ones_are_not(bundle: Path) -> None:
    with running(bundle, "ok") as server:
        body = json.dumps(ASK | {"user": "u" * 5000}).encode()
        for size, fine in ((1, False), (64, False), (1024, True), (len(body), True)):
            pieces = [body[at : at + size] for at in range(0, len(body), size)]
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
            head = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            assert exchange(server, head + chunks).startswith(b"HTTP/1.1 200") is fine, size


BODIES: dict[str, Any] = {
    "numbers": ASK | {"messages": [{"role": "user", "content": "1 " * (LARGE // 2)}]},
    "spaces": ASK | {"messages": [{"role": "user", "content": " " * LARGE}]},
    "messages": ASK | {"messages": [{"role": "user", "content": "x"}] * 10_000},
    "no messages": ASK | {"messages": [1] * (LARGE // 3)},
    "parts": ASK | {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 20_000}]},
    "no parts": ASK | {"messages": [{"role": "user", "content": [1] * (LARGE // 3)}]},
    "keys": ASK | {f"k{number}": 1 for number in range(LARGE // 13)},
    "metadata": ASK | {"metadata": {f"k{number}": 1 for number in range(LARGE // 13)}},
    "stops": ASK | {"stop": ["a"] * (LARGE // 5)},
    "depth": b"[" * (LARGE // 2) + b"]" * (LARGE // 2),
    "depth of objects": b'{"a":' * (LARGE // 6) + b"1" + b"}" * (LARGE // 6),
    "an integer": json.dumps(ASK).encode()[:-1] + b', "seed": ' + b"9" * LARGE + b"}",
    "a number": json.dumps(ASK).encode()[:-1] + b', "temperature": 9999.' + b"9" * LARGE + b"}",
    "not a number": json.dumps(ASK | {"temperature": float("nan")}).encode(),
    "no Unicode": b"\xff\xfe" * 1000,
}


@pytest.mark.parametrize("name", BODIES)
def test_large_bodies_are_refused_while_health_answers(bundle: Path, name: str) -> None:
    with running(bundle, "ok", queue=4) as server:
        slowest = [0.0]
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                slowest.append(health(server))

        watching = threading.Thread(target=watch)
        watching.start()
        data = posted(BODIES[name])
        found = Counter(said[9:12] for said in all_at_once(6, lambda: exchange(server, data)))
        done.set()
        watching.join(PATIENCE)
        assert set(found) <= {b"400", b"429"} and found[b"400"] >= 1, found
        assert max(slowest) < 3 * SOON  # of a machine that does other work too
        assert exchange(server, posted(ASK)).startswith(b"HTTP/1.1 200")


def test_more_bodies_than_the_server_holds_wait_outside(bundle: Path) -> None:
    body = json.dumps(ASK | {"user": "u" * 1500}).encode()
    with running(bundle, "ok", body_kb=2, queue=100) as server, ExitStack() as held:
        lines = [held.enter_context(dial(server)) for _ in range(40)]
        for line in lines:
            line.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:-1])
        health(server)
        for line in lines:
            line.sendall(body[-1:])
        found = Counter(line.recv(10000)[9:12] for line in lines)
    assert found[b"200"] >= 16 and found[b"429"] >= 1 and found.total() == 40 == found[b"200"] + found[b"429"], found


def test_few_files_leave_few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: asked.append(pair))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    assert 16 <= open_connections(Settings()).most < 192
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    assert open_connections(Settings()).most == Settings().connections and asked[-1][0] > 600
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(ServeError, match="may open 64 files") as refused:
        open_connections(Settings())
    assert refused.value.hint and "ulimit -n" in refused.value.hint
    monkeypatch.undo()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


def test_addresses_of_one_network_count_together() -> None:
    found = connections.Connections(10, 5)

    class Busy:
        waiting_since = None

    def add(address: str) -> bool:
        busy: Any = Busy()
        return found.add(busy, address)

    assert [add(f"2001:db8::{number}") for number in range(6)] == [True] * 5 + [False]
    assert add("2001:db8:1::1") and add("10.0.0.1") and len(found) == 7


def test_logs_are_lines_of_a_bounded_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    handler = logging.Handler()
    logs.write_to(handler)
    monkeypatch.setattr(handler, "emit", lambda record: lines.append(handler.format(record)))
    logger = logging.getLogger("uvicorn.error")
    logger.error("evil \x1b[2J\nname")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("failed")
    for number in range(1000):
        logger.warning("line %d", number)
    assert lines[0] == "ERROR: evil \\x1b[2J\\x0aname" and lines[1] == "ERROR: failed: ValueError: two\\x0alines"
    assert len(lines) == 20 and all(line.isprintable() for line in lines)
    monkeypatch.setattr(logs, "_SECONDS", -1.0)
    logger.warning("next")
    assert lines[-1] == "WARNING: next (982 more lines were left out before)"


SERVER = """
import sys, time
from pathlib import Path
from edgesdk.bundle import open_bundle
from edgesdk.serve import Settings, server
from edgesdk.model import template_runner

class Stuck:
    context, vocab, position = 256, 260, 0
    def prefill(self, ids):
        print("at work", flush=True)
        time.sleep(60)  # as a runtime does: it hears of nothing
    decode = score = prefill
    def reset(self): pass
    def rewind(self, count): pass

if sys.argv[2] == "step":
    server.open_session = lambda *_: Stuck()
else:
    template_runner.SECONDS = 60.0
    original = server.bundle_tokenizer
    def endless(bundle):
        from dataclasses import replace
        loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
        return replace(original(bundle), chat_template=loop)
    server.bundle_tokenizer = endless
with open_bundle(Path(sys.argv[1])) as bundle:
    server.run(bundle, Settings(port=0, stop_seconds=1.0), lambda address: print(address, flush=True))
"""


@pytest.mark.parametrize("stuck", ["step", "template"])
def test_sigterm_ends_it_within_five_seconds_whatever_it_does(bundle: Path, stuck: str) -> None:
    started = subprocess.Popen([sys.executable, "-c", SERVER, str(bundle), stuck], stdout=subprocess.PIPE, text=True)
    with started:
        try:
            assert started.stdout is not None
            address = started.stdout.readline().strip()
            port = int(address.rsplit(":", 1)[1])
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as line:
                line.sendall(posted(ASK))
                if stuck == "step":
                    assert started.stdout.readline() == "at work\n"
                else:
                    wait_for_load(started.pid)
                began = time.monotonic()
                started.send_signal(signal.SIGTERM)
                assert started.wait(PATIENCE) == 0
                assert time.monotonic() - began < 5
        finally:
            started.kill()


def wait_for_load(pid: int) -> None:
    """Until the process of templates computes."""
    give_up = time.monotonic() + PATIENCE
    while True:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ticks = [int(Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[11]) for child in children]
        if any(spent > 0.5 * os.sysconf("SC_CLK_TCK") for spent in ticks):
            return
        assert time.monotonic() < give_up
        time.sleep(0.02)
