"""Qoitech Otii Arc and Ace through the TCP server of the Otii program: one JSON object a line, ``\\r\\n`` behind each.

The program needs somebody logged in with a licence for automation; powering the board stays with its user.
"""

from __future__ import annotations

import json
import socket
import time
from statistics import fmean
from typing import Any

from ....documents import parse_json, whole
from ....errors import EdgeError
from ..base import Meter, Sensor
from .base import Collector, Reading, supplied, supply

PORT = 1905
_DEVICES = ("Arc", "Ace", "Simulator")
_PERIOD = 0.25
_BIN = 0.01
_CHUNK = 40_000
_TIMEOUT = 15.0


class Otii:
    """One Arc or Ace: its main current and voltage, as means over 10 ms."""

    def __init__(self, host: str, port: int) -> None:
        evidence = "Otii channels mc and mv: ampere and volt, means over 10 ms"
        self.sensors: tuple[Sensor, ...] = supply("otii", evidence)
        self._host, self._port = host, port
        self._collector = Collector()
        self._link: _Link | None = None
        self._project: object = None

    def start(self) -> None:
        """Raises EdgeError: no server, no device, or the server refuses."""
        self._link = link = _Link(self._host, self._port)
        try:
            device = _device(link.asked("otii_get_devices", timeout=10))
            for channel in ("mc", "mv"):
                link.asked("arc_enable_channel", device_id=device, channel=channel, enable=True)
            self._project = link.asked("otii_get_active_project").get("project_id", -1)
            if self._project == -1:
                self._project = link.asked("otii_create_project").get("project_id")
            before = time.monotonic()
            link.asked("project_start_recording", project_id=self._project)
            started = (before + time.monotonic()) / 2
            recording = link.asked("project_get_last_recording", project_id=self._project).get("recording_id")
        except EdgeError:
            self.stop()
            raise
        self._collector.run(lambda: self._follow(link, device, recording, started), "Otii")

    def taken(self) -> list[Reading]:
        return self._collector.taken()

    def stop(self) -> None:
        self._collector.stop()
        link, self._link = self._link, None
        if link is not None:
            try:
                if self._project is not None:
                    link.asked("project_stop_recording", project_id=self._project)
            except EdgeError:
                pass  # gone already
            link.close()

    def _follow(self, link: _Link, device: object, recording: object, started: float) -> None:
        channels = {name: _Channel(name) for name in ("mc", "mv")}
        while not self._collector.stopped.wait(_PERIOD):
            for channel in channels.values():
                channel.read(link, device, recording)
            current, voltage = channels["mc"], channels["mv"]
            if not voltage.bins:
                continue
            until = max(voltage.bins)
            for place in sorted(place for place in current.bins if place <= until):
                nearest = place if place in voltage.bins else min(voltage.bins, key=lambda other: abs(other - place))
                amperes = current.bins.pop(place)
                self._collector.add(supplied(voltage.bins[nearest], amperes), started + (place + 0.5) * _BIN)
            voltage.bins = {place: volts for place, volts in voltage.bins.items() if place >= until - 10}


class _Channel:
    """What came of one channel: means by number of the 10 ms that they stand for."""

    def __init__(self, name: str) -> None:
        self.bins: dict[int, float] = {}
        self._name = name
        self._index = 0
        self._place: int | None = None
        self._open: list[float] = []

    def read(self, link: _Link, device: object, recording: object) -> None:
        which = {"recording_id": recording, "device_id": device, "channel": self._name}
        count = int(link.asked("recording_get_channel_data_count", **which).get("count", 0)) - self._index
        while count > 0:
            asked = min(count, _CHUNK)
            data = link.asked("recording_get_channel_data", **which, index=self._index, count=asked)
            values, first, interval = data["values"], float(data["timestamp"]), float(data["interval"])
            if not values:
                return
            for number, value in enumerate(values):
                self._one(int((first + number * interval) / _BIN), float(value))
            self._index += len(values)
            count -= len(values)

    def _one(self, place: int, value: float) -> None:
        if place != self._place:
            if self._place is not None and self._open:
                self.bins[self._place] = fmean(self._open)
            self._place, self._open = place, []
        self._open.append(value)


class _Link:
    """The connection to the server."""

    def __init__(self, host: str, port: int) -> None:
        self._name = f"Otii server at {host}:{port}"
        self._number = 0
        self._rest = b""
        try:
            self._socket = socket.create_connection((host, port), timeout=_TIMEOUT)
        except OSError as failure:
            hint = "start the Otii program or otii_server, with its TCP server switched on"
            raise EdgeError(f"{self._name}: {failure}", hint=hint) from None

    def asked(self, command: str, **data: object) -> dict[str, Any]:
        """The data of the answer.

        Raises:
            EdgeError: the server says no, is gone, or speaks another protocol.
        """
        self._number += 1
        request = {"type": "request", "cmd": command, "trans_id": str(self._number), "data": data}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\r\n")
            while True:
                answer = parse_json(self._line(), self._name)
                ours = isinstance(answer, dict) and answer.get("trans_id") == request["trans_id"]
                if ours and answer.get("type") != "progress":
                    return self._good(command, answer)
        except (OSError, ValueError) as failure:
            raise EdgeError(f"{self._name}: {failure}") from None

    def close(self) -> None:
        self._socket.close()

    def _good(self, command: str, answer: dict[str, Any]) -> dict[str, Any]:
        data = answer.get("data")
        found = data if isinstance(data, dict) else {}
        if answer.get("type") == "error":
            said = found.get("message") or answer.get("errorcode") or "no reason given"
            hint = "log in to the Otii program and reserve a licence with automation"
            raise EdgeError(f"{self._name} refuses {command}: {said}", hint=hint)
        return found

    def _line(self) -> bytes:
        while b"\r\n" not in self._rest:
            more = self._socket.recv(131_072)
            if not more:
                raise ConnectionError("the connection ended")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line


def open_otii(rest: str) -> Meter:
    """``otii://host:port``; this computer and port 1905 where they are not given."""
    host, _, port = rest.strip("/").partition(":")
    number = whole(port) if port else PORT
    if number is None:
        raise EdgeError(f"otii://{rest}: no port '{port}'", hint="otii://127.0.0.1:1905")
    return Otii(host or "127.0.0.1", number)


def _device(data: dict[str, Any]) -> object:
    listed = data.get("devices")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    devices = [device for device in entries if device.get("type") in _DEVICES]
    if len(devices) == 1:
        return devices[0].get("device_id")
    names = ", ".join(str(device.get("name")) for device in devices) or "none"
    raise EdgeError(f"Otii: one device is needed; connected: {names}", hint="connect it, and unplug the others")
