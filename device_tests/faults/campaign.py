"""Pushes that are broken on purpose, and what must hold after each: the bundle in use is whole, and nothing is called
done that is not."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edgesdk.devices import DeviceError
from edgesdk.devices.shell import ShellDevice
from edgesdk.devices.store import Parcel, Store
from edgesdk.files import file_entry

SIZE = 400_000  # bytes of the bundle's large file


@dataclass(frozen=True)
class Fault:
    """One way to break a push.

    Attributes:
        name: for the table.
        start: break it from now on; given a random byte of what goes to the device.
        heal: let the device be well again.
    """

    name: str
    start: Callable[[int], None]
    heal: Callable[[], None]


@dataclass
class Tally:
    """What came of one kind of fault."""

    done: int = 0
    failed: int = 0
    stayed: int = 0
    switched: int = 0
    resumed: int = 0
    needed: int = 0


@dataclass
class Campaign:
    """Injections on one device after another; the table of all of them.

    Attributes:
        folder: where bundles are made.
        tallies: by device and fault.
    """

    folder: Path
    tallies: dict[str, Tally] = field(default_factory=dict)
    words: Counter[str] = field(default_factory=Counter)

    def inject(self, name: str, connect: Callable[[], ShellDevice], faults: list[Fault], count: int, seed: int) -> None:
        """Break ``count`` pushes to a device, each followed by one that nobody breaks."""
        rng = random.Random(seed)
        with connect() as device:
            assert isinstance(device, ShellDevice)
            Store(device).clean(everything=True)
            active = Store(device).push(self._bundle(rng, f"{seed}first")).name
        for number in range(count):
            fault = faults[number % len(faults)]
            tally = self.tallies.setdefault(f"{name}: {fault.name}", Tally())
            wanted = self._bundle(rng, f"{seed}x{number}")
            active = self._one(connect, fault, wanted, active, tally, rng)

    def _one(
        self,
        connect: Callable[[], ShellDevice],
        fault: Fault,
        wanted: Parcel,
        active: str,
        tally: Tally,
        rng: random.Random,
    ) -> str:
        done = False
        fault.start(rng.randrange(12_000, SIZE))
        try:
            with suppress_device_errors(self.words), connect() as device:
                assert isinstance(device, ShellDevice)
                Store(device).push(wanted)
                done = True
        finally:
            fault.heal()
        with connect() as device:
            assert isinstance(device, ShellDevice)
            store = Store(device)
            after = store.survey().active
            assert after in (active, wanted.name), f"{fault.name}: {after} is in use"
            assert store.verify() == [], f"{fault.name}: the bundle in use is damaged"
            assert not done or after == wanted.name, f"{fault.name}: reported done, and it is not"
            tally.done, tally.failed = tally.done + done, tally.failed + (not done)
            tally.stayed, tally.switched = tally.stayed + (after == active), tally.switched + (after == wanted.name)
            again = store.push(wanted)
            assert store.verify(again.name) == [], f"{fault.name}: the next push did not mend it"
            if not done:
                tally.resumed += sum(entry.size for entry in wanted.files) - again.sent_bytes
                tally.needed += sum(entry.size for entry in wanted.files)
            if rng.random() < 0.2:
                store.clean()
        return again.name

    def _bundle(self, rng: random.Random, name: str) -> Parcel:
        folder = self.folder / name
        folder.mkdir()
        for file, size in (("large", SIZE), ("middle", 20_000), ("small", 100)):
            (folder / file).write_bytes(rng.randbytes(size))
        (folder / "same").write_bytes(b"as it was" * 1000)
        entries = tuple(file_entry(path) for path in sorted(folder.iterdir()))
        return Parcel(f"b{name}", folder, entries)

    def table(self) -> Iterator[str]:
        """The summary, line by line."""
        heads = ("injected", "said done", "said failed", "old in use", "new in use", "not resent")
        yield f"{'fault':<34}" + "".join(f"{head:>13}" for head in heads)
        total = Tally()
        for name, tally in [*self.tallies.items(), ("all", total)]:
            kept = f"{100 * tally.resumed / tally.needed:.0f} %" if tally.needed else "-"
            counts = (tally.done + tally.failed, tally.done, tally.failed, tally.stayed, tally.switched, kept)
            yield f"{name:<34}" + "".join(f"{count:>13}" for count in counts)
            for key, value in vars(tally).items():
                setattr(total, key, getattr(total, key) + value)

    @property
    def count(self) -> int:
        """Injections so far."""
        return sum(tally.done + tally.failed for tally in self.tallies.values())


class suppress_device_errors(suppress):  # noqa: N801 (reads as a verb, as its base does)
    """Expected failures; what each said is counted by its class."""

    def __init__(self, words: Counter[str]) -> None:
        super().__init__(DeviceError)
        self._words = words

    def __exit__(self, kind, value, trace):  # type: ignore[no-untyped-def]
        if kind is not None and issubclass(kind, DeviceError):
            self._words[kind.__name__] += 1
        return super().__exit__(kind, value, trace)
