"""What ``edgesdk run --device`` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .device_options import chosen_device
from .terminal import TerminalProgress, echo, print_json, typed_lines

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..devices.chat import DeviceChat
    from ..devices.runner.link import RunnerLink
    from ..generation import Sampling


def run_there(
    bundle: Bundle,
    device: str,
    fleet: Path | None,
    prompt: str | None,
    sampling: Sampling,
    *,
    max_tokens: int,
    stop: tuple[str, ...],
    threads: int | None,
    as_json: bool,
) -> None:
    """Answer one prompt on a device, or converse with it until end of file."""
    from ..devices.chat import DeviceChat
    from ..devices.runner.start import running

    with (
        chosen_device(device, fleet, "edgesdk run") as found,
        running(found, bundle, threads=threads, activate=False, progress=TerminalProgress()) as link,
    ):
        chat = DeviceChat(link, bundle, sampling)
        for line in typed_lines() if prompt is None else [prompt]:
            _answer(chat, link, line, max_tokens, stop, as_json)


def _answer(
    chat: DeviceChat, link: RunnerLink, prompt: str, max_tokens: int, stop: tuple[str, ...], as_json: bool
) -> None:
    said = ""
    for piece in chat.stream(prompt, max_tokens=max_tokens, stop=stop):
        said += piece
        if not as_json:
            echo(piece, nl=False)
    if as_json:
        print_json({"answer": said, "device": link.name, "hello": link.hello, "runner": chat.answer})
        return
    echo()
    echo(f"[{_counts(chat)}; on {link.name}, {link.hello.get('runner')}]", err=True)


def _counts(chat: DeviceChat) -> str:
    found = chat.answer
    if found is None:
        return "stopped"
    prefill = "" if found.prefill_seconds is None else f" in {found.prefill_seconds:.2f} s"
    decoded = found.new_tokens - 1
    rate = f", {decoded / found.decode_seconds:.1f} tokens/s" if found.decode_seconds and decoded > 0 else ""
    return f"{found.prompt_tokens} prompt tokens{prefill}; {found.new_tokens} tokens{rate}; {found.stop}"
