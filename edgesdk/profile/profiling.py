"""The whole job: sensors found, the plan run or gone on with, the profile derived from the record."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..bundle import Bundle, refuse_kind
from ..devices.base import Device, DeviceError
from ..devices.facts import Facts
from ..devices.shell import ShellDevice
from ..errors import EdgeError
from ..progress import SILENT, Progress, Stage
from ..schema import dump
from .derive import derived
from .record import Record, is_complete, read_record
from .regime import regime
from .run import Measuring
from .sampler import Survey, discover
from .schema import BundleFacts, DeviceFacts, Plan, Profile, ProfileError, SensorFacts, write_profile
from .sensors.base import Meter, Sensor, Sum

#: Repeats are cheap beside starts; an odd number of them in each has the bundles begin starts by turns.
IN_TURNS = Plan(repeats=35, starts=7, cost=0, operators=False)
_OVER = object()


def record_path(out: Path) -> Path:
    """Where the raw record of a profile lies."""
    return out.with_suffix(".raw.jsonl")


def profile(
    device: Device,
    bundle: Bundle,
    out: Path,
    plan: Plan | None = None,
    *,
    meters: Sequence[Meter] = (),
    commit: str | None = None,
    progress: Progress = SILENT,
) -> Profile:
    """Measure a bundle on a device, and write the profile and its raw record.

    Whatever fails on the way, what was measured until then is in ``out`` and in the record beside it
    (:func:`record_path`), and the same call goes on from there.

    Args:
        device: with a shell, or a microcontroller that has the bundle's firmware.
        bundle: verified.
        out: the profile's file.
        plan: what to measure.
        meters: that measure beside the device, on this computer's clock.
        commit: of the user's model or app, for the history.
        progress: told of what is done.

    Raises:
        ProfileError: the plan does not fit the bundle, or the record is of another run.
        EdgeError: the device or the runner failed; ``out`` then holds what came before, and says why.
    """
    plan = plan or Plan()
    with _prepared(device, bundle, out, plan, meters, commit, progress) as (measuring, record):
        with _written(record, out):
            measuring.run()
        return rederived(out)


def profile_in_turns(
    devices: tuple[Device, Device],
    bundles: tuple[Bundle, Bundle],
    outs: tuple[Path, Path],
    plan: Plan | None = None,
    *,
    meters: Sequence[Meter] = (),
    commit: str | None = None,
    progress: Progress = SILENT,
) -> tuple[Profile, Profile]:
    """Measure two bundles repeat by repeat in turns (A B, B A, ...): what drifts meets both alike.

    Arguments and errors are those of :func:`profile`, but for two of each and a plan of :data:`IN_TURNS`; the device,
    which may be the same twice, holds both bundles at once, on its disk and in memory. Operators, the sampler's cost
    and meters are for a profile of one bundle.
    """
    plan = replace(plan or IN_TURNS, cost=0, operators=False)
    if meters or plan.sustained:
        what = "external meters" if meters else "a sustained run"
        raise ProfileError(f"two bundles in turns are measured without {what}", hint="profile each by itself for that")
    pair = hashlib.sha256(
        f"{datetime.now(timezone.utc)}{[each.manifest.digest for each in bundles]}".encode()
    ).hexdigest()[:16]
    with ExitStack() as stack:
        measured = [
            stack.enter_context(_prepared(device, bundle, out, plan, meters, commit, SILENT, pair))
            for device, bundle, out in zip(devices, bundles, outs, strict=True)
        ]
        for (_, record), out in zip(measured, outs, strict=True):
            stack.enter_context(_written(record, out))
        with progress.stage(
            "Measuring both in turns", plan.repeats * len(plan.prompt_tokens) * len(plan.threads)
        ) as stage:
            _take_turns([measuring.steps() for measuring, _ in measured], stage)
    return rederived(outs[0]), rederived(outs[1])


def _take_turns(runs: list[Generator[None, None, None]], stage: Stage) -> None:
    """One step of each, the first last every other time, until both are over."""
    try:
        going = list(runs)
        while going:
            going = [run for run in going if next(run, _OVER) is not _OVER][::-1]
            stage.advance()
    finally:
        for run in runs:
            run.close()


@contextmanager
def _written(record: Record, out: Path) -> Iterator[None]:
    """Write the profile of what is on record, however the measuring ended."""
    try:
        yield
    except (EdgeError, OSError, KeyboardInterrupt):
        with suppress(ProfileError, OSError):
            made = derived(record.lines)
            if made.validity != "invalid" or not out.exists():  # never over a profile that holds something
                write_profile(made, out)
        raise
    write_profile(derived(record.lines), out)


@contextmanager
def _prepared(
    device: Device,
    bundle: Bundle,
    out: Path,
    plan: Plan,
    meters: Sequence[Meter],
    commit: str | None,
    progress: Progress,
    paired: str | None = None,
) -> Iterator[tuple[Measuring, Record]]:
    """A measurement that is ready to run, with its record."""
    refuse_kind(bundle.manifest, "a profile")
    _refuse_plan(plan, bundle)
    survey, facts = _survey(device), _facts(device)
    found = survey.sensors
    every = [*(sensor for meter in meters for sensor in meter.sensors), *found]  # a meter goes before the device's own
    header = {
        "bundle": dump(bundle_facts(bundle)),
        "device": dump(_device_facts(device, facts)),
        "plan": dump(plan),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "sensors": [dump(_sensor_facts(each)) for each in every],
        "raw": [{"name": s.name, "wraps_at": s.wraps_at, "parts": _parts(s), "rests": s.rests} for s in every],
        "remarks": [dump(each) for each in survey.remarks],
        "regime": regime(device) if isinstance(device, ShellDevice) else {},
        "commit": commit,
        "paired": paired,
    }
    with _kept(record_path(out), header) as record:
        yield Measuring(device, bundle, plan, record, sensors=found, meters=meters, progress=progress), record


def rederived(out: Path) -> Profile:
    """The profile of a record that is there already, by the formulas of this edgesdk.

    Raises:
        ProfileError: there is none.
    """
    return derived(read_record(record_path(out)))


@contextmanager
def _kept(path: Path, header: dict[str, Any]) -> Iterator[Record]:
    if is_complete(path):  # the same command once more: measured anew
        path.replace(path.with_suffix(".jsonl.before"))
    record = Record(path, header)
    try:
        yield record
    finally:
        record.close()


def _refuse_plan(plan: Plan, bundle: Bundle) -> None:
    longest, context = max(plan.prompt_tokens) + plan.new_tokens + 1, bundle.manifest.context
    if min(plan.prompt_tokens) < 1 or plan.new_tokens < 1 or plan.repeats < 1 or plan.starts < 1 or plan.interval <= 0:
        raise ProfileError("prompt tokens, new tokens, repeats and starts must be 1 or more, and the interval above 0")
    if longest > context:
        raise ProfileError(
            f"{max(plan.prompt_tokens)} prompt tokens and {plan.new_tokens} new ones need a context of {longest}; "
            f"the bundle has {context}",
            hint="ask for fewer, or export with a larger --context",
        )


def _survey(device: Device) -> Survey:
    return discover(device) if isinstance(device, ShellDevice) else Survey([], [])


def _facts(device: Device) -> Facts:
    try:
        return device.facts()
    except DeviceError:
        if isinstance(device, ShellDevice):
            raise
        return Facts()  # a firmware that is busy; its hello comes with the runner


def bundle_facts(bundle: Bundle) -> BundleFacts:
    """What a profile says of its bundle."""
    manifest = bundle.manifest
    main = manifest.program.main
    program = sum(entry.size for entry in manifest.files if entry.path == main or entry.path.startswith(f"{main}."))
    quality = manifest.quality.perplexity or {}
    after = quality.get("after")
    return BundleFacts(
        manifest.digest,
        manifest.model.name,
        manifest.target.name,
        manifest.program.converter,
        manifest.recipe.name,
        sum(entry.size for entry in manifest.files),
        2 * manifest.model.parameters / program if program else None,
        float(after) if isinstance(after, (int, float)) else None,
    )


def _device_facts(device: Device, facts: Facts) -> DeviceFacts:
    return DeviceFacts(
        device.name,
        device.identity,
        facts.model or facts.board,
        facts.os,
        facts.release,
        facts.architecture,
        facts.ram,
        facts.cores,
        facts.emulated,
    )


def _parts(sensor: Sensor) -> list[str]:
    return list(sensor.reading.names) if isinstance(sensor.reading, Sum) else []


def _sensor_facts(sensor: Sensor) -> SensorFacts:
    return SensorFacts(
        sensor.name,
        sensor.quantity,
        sensor.unit,
        sensor.scope,
        sensor.source,
        sensor.evidence,
        sensor.total,
        sensor.limit,
        sensor.critical,
    )
