"""``edgesdk serve`` among hostile clients: the longest ``/health``, and memory before and two seconds after.

    python tests/benchmarks/hostile_clients.py BUNDLE

BUNDLE is a chat model's with room for 128 tokens; a tiny one shows the server and not the model. Each line is a server
of its own, started with 256 open files.
"""

from __future__ import annotations

import dataclasses
import http.client
import itertools
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgesdk.bundle import open_bundle, seal

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX: "
HALF_OPEN, BODIES, HANGS, GUESSES = 400, 40, 8, 10_000
DRIP_SECONDS, DRIPS = 5.0, 4
FILES = 256
SECRET = "7294"
TEMPLATE = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def call(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    text = None if body is None else json.dumps(body)
    connection.request(method, path, text, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    data = json.loads(answer.read() or b"null")
    connection.close()
    return answer.status, data


def asked(port: int, text: str) -> tuple[int, Any]:
    body = {"model": "default", "messages": [{"role": "user", "content": text}], "max_tokens": 1, "temperature": 0}
    return call(port, "POST", "/v1/chat/completions", body)


def half_open(port: int) -> str:
    lines = [socket.create_connection(("127.0.0.1", port)) for _ in range(HALF_OPEN)]
    for line in lines:
        line.sendall(HEAD)
    for _ in range(DRIPS):
        time.sleep(DRIP_SECONDS)  # what the client does
        for line in lines:
            try:
                line.sendall(b"a")
            except OSError:
                line.close()
    return f"{HALF_OPEN} half-open"


def bodies(port: int) -> str:
    found: Counter[int] = Counter()
    together(BODIES, lambda: found.update([asked(port, "1 " * 470_000)[0]]))
    return f"{BODIES} bodies of 0.94 MB: {dict(found)}"


def hangs(port: int) -> str:
    found: Counter[int] = Counter()
    together(HANGS, lambda: found.update([asked(port, "hi")[0]]))
    return f"{HANGS} templates without end: {dict(found)}"


def guesses(port: int) -> str:
    """Each time the victim asks with the secret and the attacker guesses it, over connections of their own."""
    best: dict[str, int] = {}
    for digits in itertools.islice(itertools.product("0123456789", repeat=len(SECRET)), GUESSES):
        guess = "".join(digits)
        asked(port, f"The PIN is {SECRET}.")
        _, answer = asked(port, f"The PIN is {guess}.")
        best[guess] = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    most = [guess for guess, cached in best.items() if cached == max(best.values())]
    return f"{len(best)} guesses: the secret is one of {len(most)} that look alike"


def together(count: int, work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def served(bundle: Path) -> Iterator[tuple[int, int]]:
    """Port and process of a server over a bundle."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["sh", "-c", f'ulimit -n {FILES}; exec "$@"', "sh", sys.executable, "-m", "edgesdk", "serve", str(bundle)]
    server = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    while "Serving" not in (line := server.stderr.readline()):
        if not line:
            raise SystemExit(f"the server ended with status {server.wait()}")
    threading.Thread(target=server.stderr.read, daemon=True).start()
    try:
        yield port, server.pid
    finally:
        server.terminate()
        server.wait()


def resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024


def watched(bundle: Path, attack: Callable[[int], str]) -> None:
    with served(bundle) as (port, pid):
        call(port, "GET", "/health")
        before, longest, over = resident(pid), [0.0], threading.Event()

        def watch() -> None:
            while not over.wait(0.1):
                began = time.monotonic()
                call(port, "GET", "/health")
                longest.append(time.monotonic() - began)

        watcher = threading.Thread(target=watch)
        watcher.start()
        said = attack(port)
        over.set()
        watcher.join()
        time.sleep(2)  # when memory is looked at
        print(f"{said}; /health {len(longest) - 1} times, at most {max(longest):.2f} s; {before} to {resident(pid)} MB")


def hostile(bundle: Path, folder: Path) -> Path:
    """The bundle with a template that never ends, and hashes that are right."""
    copy = Path(shutil.copytree(bundle, folder / "hostile"))
    with open_bundle(bundle, check=False) as opened:
        manifest = opened.manifest
    assert manifest.tokenizer.chat_template is not None
    (copy / manifest.tokenizer.chat_template).write_text(TEMPLATE, encoding="utf-8")
    (copy / "manifest.json").unlink()
    seal(copy, dataclasses.replace(manifest, files=()))
    return copy


def main(arguments: list[str]) -> None:
    bundle = Path(arguments[0])
    with tempfile.TemporaryDirectory() as scratch:
        watched(bundle, half_open)
        watched(bundle, bodies)
        watched(hostile(bundle, Path(scratch)), hangs)
        watched(bundle, guesses)


if __name__ == "__main__":
    main(sys.argv[1:])
