"""``edgesdk run``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import EdgeError
from .device_options import fleet_option
from .terminal import echo, json_option, print_json, told, typed_lines

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..chat import Chat
    from ..drafting import Drafting


@click.command("run")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("prompt", required=False)
@click.option("--max-tokens", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-k", type=click.IntRange(min=0), default=0, help="Keep the k best tokens (0: all).")
@click.option("--top-p", type=click.FloatRange(min=0, max=1, min_open=True), default=1.0, help="Nucleus sampling.")
@click.option("--min-p", type=click.FloatRange(min=0, max=1, max_open=True), default=0.0, help="Relative cut-off.")
@click.option("--repetition-penalty", type=click.FloatRange(min=0, min_open=True), default=1.0)
@click.option("--seed", type=int, help="Of the random numbers.")
@click.option("--stop", multiple=True, help="String that ends the answer; may be repeated.")
@click.option(
    "--draft",
    type=click.Choice(["auto", "lookup", "off"]),
    default="auto",
    show_default=True,
    help="What drafts tokens: the bundle's draft model, the text so far, or nothing.",
)
@click.option(
    "--image",
    "images",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Image that PROMPT is about, for a vision-language model; may be repeated.",
)
@click.option("--tiles/--no-tiles", default=None, help="Cut large images into tiles too.  [default: as the model does]")
@click.option("--adapter", help="Adapter of the bundle to answer with (edgesdk export --switchable).")
@click.option("--threads", type=click.IntRange(min=1, max=256), help="Threads.  [default: one for each core]")
@click.option("--runner", is_flag=True, help="Use the runtime's own text runner, as an app does; greedy unless hot.")
@click.option("--device", "-d", metavar="DEVICE", help="Run it there: an address, or a name of devices.toml.")
@fleet_option
@json_option
def command(
    bundle: Path,
    prompt: str | None,
    max_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    repetition_penalty: float,
    seed: int | None,
    stop: tuple[str, ...],
    draft: Drafting,
    images: tuple[Path, ...],
    tiles: bool | None,
    adapter: str | None,
    threads: int | None,
    runner: bool,
    device: str | None,
    fleet: Path | None,
    as_json: bool,
) -> None:
    """Run a bundle: answer PROMPT, or chat; an encoder's gives PROMPT's embedding or its labels.

    A vision-language model answers about each --image.

    With a chat template the prompt is a user's message; without one the text is continued. Without PROMPT, lines are
    read until end of file (Ctrl-D). With --device the bundle runs on that device, where it is pushed first if it is
    missing; a microcontroller has it from `edgesdk flash`.
    """
    from ..bundle import kind_of, open_bundle
    from ..chat import Chat
    from ..generation import Sampling
    from ..kinds import DECODER
    from .other_kinds import run_other

    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    with open_bundle(bundle) as opened:
        if kind_of(opened.manifest) != DECODER:
            if device is not None or runner or stop or adapter is not None or sampling != Sampling():
                raise EdgeError(
                    "this bundle takes a text, --threads, --max-tokens and --json (and --image, where it sees), and no "
                    "other choice"
                )
            run_other(opened, prompt, images, tiles, max_tokens, threads, as_json)
            return
        if images or tiles is not None:
            raise EdgeError("this bundle is a decoder of text: it sees no images")
        if device is not None or runner:
            _refuse_here_only(opened, draft, adapter)
        if device is not None:
            if runner or top_k or min_p or repetition_penalty != 1.0:
                raise EdgeError("runners on devices sample by --temperature, --top-p and --seed, and by nothing else")
            from .on_device import run_there

            run_there(
                opened,
                device,
                fleet,
                prompt,
                sampling,
                max_tokens=max_tokens,
                stop=stop,
                threads=threads,
                as_json=as_json,
            )
            return
        if runner:
            if prompt is None or stop or sampling != Sampling(temperature):
                raise EdgeError("--runner answers one PROMPT, with --max-tokens and --temperature and no other choice")
            _run_native(opened, prompt, max_tokens, temperature, as_json)
            return
        chat = Chat(opened, sampling=sampling, threads=threads, adapter=adapter, drafting=draft)
        _chat(chat, prompt, max_tokens, stop, as_json)


def _chat(chat: Chat, prompt: str | None, max_tokens: int, stop: tuple[str, ...], as_json: bool) -> None:
    """Answer a prompt, or every line that is typed."""
    if prompt is None:
        for line in typed_lines():
            _answer(chat, line, max_tokens, stop)
    elif as_json:
        answer = chat.ask(prompt, max_tokens=max_tokens, stop=stop)
        print_json({"answer": answer, **vars(chat.statistics)})
    else:
        _answer(chat, prompt, max_tokens, stop)


def _answer(chat: Chat, prompt: str, max_tokens: int, stop: tuple[str, ...]) -> None:
    for piece in chat.stream(prompt, max_tokens=max_tokens, stop=stop):
        echo(piece, nl=False)
    echo()
    told(chat.statistics)


def _refuse_here_only(bundle: Bundle, draft: Drafting, adapter: str | None) -> None:
    """Runners run the program as it is, token by token."""
    if adapter is not None:
        raise EdgeError("--adapter is for programs that run here, in edgesdk's own session")
    if draft == "lookup":
        raise EdgeError("--draft lookup is for programs that run here, in edgesdk's own session")
    if bundle.manifest.draft is not None:
        echo("Note: the bundle's draft stays unused: runners decode token by token", err=True)


def _run_native(bundle: Bundle, prompt: str, max_tokens: int, temperature: float, as_json: bool) -> None:
    from ..chat import answer_with_runner

    pieces: list[str] = []

    def on_text(piece: str) -> None:
        pieces.append(piece)
        if not as_json:
            echo(piece, nl=False)

    found = answer_with_runner(bundle, prompt, on_text, max_tokens=max_tokens, temperature=temperature)
    if as_json:
        print_json({"answer": "".join(pieces), **vars(found)})
        return
    echo()
    rate = f"{found.new_tokens / found.decode_seconds:.0f} tokens/s" if found.decode_seconds else "no decode time"
    first = f"{found.prompt_tokens} prompt tokens in {found.prefill_seconds:.2f} s"
    echo(f"[{first}; {found.new_tokens} tokens, {rate}; runtime's own runner; on this machine]", err=True)
