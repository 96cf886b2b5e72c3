"""A lab that stays up after the command that started it: one process holds the devices, a file says where they are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from edgesdk.errors import EdgeError
from edgesdk.files import replacing

from . import LIMIT, MACHINES, Board, Lab, Microcontroller, Phone, up
from .host import lab_dir
from .processes import started_at

DEVICES = ("phone", "board", *MACHINES)
_PAUSE = 0.05  # seconds between two looks
_BUILD = 900.0  # seconds for the first start, which builds the images
_STOP = 30.0  # seconds for everything to be gone
_ROOT = Path(__file__).parents[2]


def start(names: Sequence[str], limit: float = LIMIT) -> dict[str, Any]:
    """Start devices in the background; returns the state when all are up.

    Raises:
        EdgeError: a lab is up, or a device does not start.
    """
    if state() is not None:
        raise EdgeError("the lab is up", hint="python -m device_tests.lab down")
    unknown = [name for name in names if name not in DEVICES]
    if unknown:
        raise EdgeError(f"no device {unknown[0]!r}", hint=f"there are: {', '.join(DEVICES)}")
    lab_dir().mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)])}
    command = [sys.executable, "-m", __package__ or "", "serve", str(limit), *names]
    with (lab_dir() / "log").open("wb") as log:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    give_up = time.monotonic() + _BUILD
    while time.monotonic() < give_up:
        if server.poll() is not None:
            said = (lab_dir() / "log").read_text(encoding="utf-8", errors="replace").strip()
            raise EdgeError(f"the lab did not start: {said[-1500:]}")
        if (found := state()) is not None and found["pid"] == server.pid:
            server.returncode = 0  # it stays, and is nobody's child when this process ends
            return found
        time.sleep(_PAUSE)
    server.terminate()
    raise EdgeError(f"the lab did not start in {_BUILD:g} s")


def state() -> dict[str, Any] | None:
    """What runs, or None."""
    try:
        found: dict[str, Any] = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if started_at(found["pid"]) == found["started"] else None


def stop() -> bool:
    """End what :func:`start` started, and nothing else; False: nothing ran."""
    found = state()
    if found is None:
        return False
    os.kill(found["pid"], signal.SIGTERM)
    give_up = time.monotonic() + _STOP
    while started_at(found["pid"]) == found["started"]:
        if time.monotonic() > give_up:
            os.kill(found["pid"], signal.SIGKILL)  # its devices see the pipe close, and end
            break
        time.sleep(_PAUSE)
    _file().unlink(missing_ok=True)
    return True


def serve(names: Sequence[str], limit: float) -> None:
    """Hold devices until told to stop, or for ``limit`` seconds; this is the process in the background."""
    signal.signal(signal.SIGTERM, _asked)
    lab, own = up(limit=limit), os.getpid()
    with ExitStack() as stack, suppress(KeyboardInterrupt):
        devices = {name: _device(lab, name, stack) for name in names}
        until = time.time() + limit
        stack.callback(_file().unlink, missing_ok=True)
        found = {"pid": own, "started": started_at(own), "until": until, "devices": devices}
        with replacing(_file()) as partial:
            partial.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        time.sleep(limit)


def _device(lab: Lab, name: str, stack: ExitStack) -> dict[str, str]:
    """Start one and describe it: its address for the SDK first, then what goes with it."""
    if name == "phone":
        return _phone(stack.enter_context(lab.phone()), stack)
    if name == "board":
        return _board(stack.enter_context(lab.board()))
    return _microcontroller(stack.enter_context(lab.microcontroller(name)))


def _phone(phone: Phone, stack: ExitStack) -> dict[str, str]:
    control = lab_dir() / f"relay-{os.getpid()}.sock"
    phone.relay.serve_control(control)
    stack.callback(control.unlink, missing_ok=True)
    if phone.adb:
        subprocess.run([phone.adb, "-P", str(phone.adb_port), "connect", phone.serial], check=False, timeout=60)
    return {"address": f"adb:{phone.serial}", **phone.environment, "relay": str(control)}


def _board(board: Board) -> dict[str, str]:
    address = f"ssh:{board.user}@{board.host}:{board.port}"
    small = f"{board.host}:{board.dropbear_port}"
    return {"address": address, "key": str(board.key), "known_hosts": str(board.known_hosts), "dropbear": small}


def _microcontroller(made: Microcontroller) -> dict[str, str]:
    return {"address": made.uart, "gdb": made.gdb}


def _asked(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _file() -> Path:
    return lab_dir() / "state.json"
