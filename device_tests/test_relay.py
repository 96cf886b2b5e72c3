"""The relay's faults, on connections of this machine alone."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from device_tests.lab.relay import Relay


@pytest.fixture
def relay() -> Iterator[Relay]:
    """A relay to a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        with Relay(server.getsockname()) as made:
            yield made


def _echo(server: socket.socket) -> None:
    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(1000):
                connection.sendall(data)

    with suppress(OSError):
        while True:
            threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()


def _sent(relay: Relay, data: bytes) -> bytes:
    """What comes back until the connection ends."""
    with socket.create_connection(("127.0.0.1", relay.port), 5) as connection:
        connection.settimeout(5)
        with suppress(OSError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        back = b""
        with suppress(ConnectionError):
            while piece := connection.recv(1000):
                back += piece
    return back


def test_without_a_fault_all_passes(relay: Relay) -> None:
    """Both ways, to the end."""
    assert _sent(relay, bytes(range(256)) * 100) == bytes(range(256)) * 100
    assert relay.passed == {"up": 25600, "down": 25600}


def test_a_cut_lets_exactly_so_many_bytes_pass_once(relay: Relay) -> None:
    """And the next connection is whole."""
    relay.cut_after(1234)
    assert _sent(relay, b"abc" * 1000) != b"abc" * 1000
    assert relay.passed["up"] == 1234
    assert _sent(relay, b"abc" * 1000) == b"abc" * 1000


def test_a_corruption_turns_one_byte(relay: Relay) -> None:
    """The others are as sent."""
    relay.corrupt_at(2500, "down")
    assert _sent(relay, bytes(5000)) == bytes(2500) + b"\xff" + bytes(2499)
    assert _sent(relay, bytes(5000)) == bytes(5000)


def test_a_stall_holds_back_until_it_is_lifted(relay: Relay) -> None:
    """Nothing is lost by it."""
    relay.stall(after=3)
    with socket.create_connection(("127.0.0.1", relay.port), 5) as connection:
        connection.settimeout(0.2)
        connection.sendall(b"abcdef")
        with pytest.raises(TimeoutError):
            connection.recv(9)
        relay.normal()
        connection.settimeout(5)
        back = b""
        while len(back) < 6:
            back += connection.recv(9)
    assert back == b"abcdef"


def test_a_refusal_ends_connections_and_takes_no_new_ones(relay: Relay) -> None:
    """Until it is lifted; the port stays the same."""
    with socket.create_connection(("127.0.0.1", relay.port), 5) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        relay.refuse()
        with suppress(ConnectionError):
            assert connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        _sent(relay, b"x")
    relay.normal()
    assert _sent(relay, b"x") == b"x"


def test_other_processes_switch_faults_by_lines_of_json(relay: Relay, tmp_path: Path) -> None:
    """A mistake is answered, not fatal."""
    relay.serve_control(tmp_path / "control")
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(tmp_path / "control"))
        orders = [{"fault": "close"}, {"fault": "stall"}, {"fault": "cut_after", "count": 5}]
        control.sendall("".join(json.dumps(order) + "\n" for order in orders).encode())
        with control.makefile("r") as lines:
            answers = [json.loads(lines.readline()) for _ in orders]
    assert [*map(list, answers)] == [["error"], ["passed"], ["passed"]]
    _sent(relay, b"0123456789")
    assert relay.passed["up"] == 5
