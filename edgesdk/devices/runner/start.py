"""Start the runner that fits a bundle and a device."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from ...bundle import Bundle
from ...converter import CONVERTERS
from ...files import file_entry
from ...partials import scratch_folder
from ...progress import SILENT, Progress
from ...signing.pins import check_pinned
from ..base import Device, DeviceError
from ..facts import Facts
from ..shell import ShellDevice
from ..store import Parcel, Pushed, Store, refuse_misfit
from .archive import runner_archive
from .interpreter import PYTHON, check_python
from .link import RunnerLink


@contextmanager
def running(
    device: Device, bundle: Bundle, *, threads: int | None = None, activate: bool = True, progress: Progress = SILENT
) -> Iterator[RunnerLink]:
    """A runner on a device with a bundle loaded, which is pushed first where it is missing; ended with the block.

    Args:
        device: a board or phone with a shell, or a microcontroller whose firmware was made from this bundle.
        bundle: verified.
        threads: of the runtime; None leaves the choice to it.
        activate: whether the bundle is in use there from then on.
        progress: told of what is sent.

    Raises:
        DeviceError: there is no runner for this device, or it fails.
        BundleError: the bundle is for other devices, or not signed as its pin asks.
    """
    if isinstance(device, ShellDevice):
        link = _on_shell(device, bundle, threads, activate, progress)
    else:
        link = _on_line(device, bundle)
    try:
        yield link
    finally:
        link.close()


def _on_line(device: Device, bundle: Bundle) -> RunnerLink:
    check_pinned(device, bundle)
    link = RunnerLink(device.stream(), device.name, ask=True, seconds=10)
    expected = bundle.manifest.program.facts.get("crc32")
    if expected is not None and link.hello.get("model_crc") != expected:
        link.close()
        raise DeviceError(
            f"{device.name} runs the firmware of another bundle (model {link.hello.get('model_crc')}, not {expected})",
            hint="edgesdk flash BUNDLE puts this one there",
        )
    return link


def _on_shell(
    device: ShellDevice, bundle: Bundle, threads: int | None, activate: bool, progress: Progress
) -> RunnerLink:
    store = Store(device)
    survey = store.survey()
    if note := refuse_misfit(bundle, survey.facts, device.name):
        progress.note(note)
    if not _is_native(device, bundle):
        check_python(device, bundle, progress)
    pushed = store.push(Parcel.of_bundle(bundle), activate=activate, progress=progress, survey=survey)
    command = _command(store, bundle, survey.facts, pushed, threads, progress)
    return RunnerLink(device.stream(command), device.name)


def _is_native(device: ShellDevice, bundle: Bundle) -> bool:
    """Whether the runner is the one in C++, which needs no Python there."""
    return bundle.manifest.program.converter == "executorch" and not device.python


def _command(
    store: Store, bundle: Bundle, facts: Facts, pushed: Pushed, threads: int | None, progress: Progress
) -> str:
    """The command line that starts the runner there, which is pushed first."""
    device, program = store.device, bundle.manifest.program
    if _is_native(device, bundle):
        from .native import native_command

        return native_command(store, facts, pushed, threads, progress)
    on_device = CONVERTERS.get(program.converter).on_device
    if on_device is None:
        raise DeviceError(f"{device.name} cannot run programs of '{program.converter}'", hint="edgesdk flash BUNDLE")
    with scratch_folder() as scratch:
        path = scratch / "runner.pyz"
        path.write_bytes(runner_archive(on_device))
        entry = file_entry(path)
        runner = store.push(Parcel(f"runner.{entry.sha256[:12]}", path.parent, (entry,)), activate=False)
    words = [device.python or PYTHON, "-u", f"{runner.path}/{entry.path}", pushed.path]
    return "exec " + shlex.join([*words, *([str(threads)] if threads else [])])
