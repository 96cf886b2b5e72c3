"""``edgesdk serve``."""

from __future__ import annotations

from pathlib import Path

import click

from .terminal import echo


@click.command("serve")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with these settings, and the other limits.")
@click.option("--host", help="Address to listen on; others than the loopback need a token.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="0 takes a free one.  [default: 8080]")
@click.option("--token-file", help="File with a token a line, one for each user; or set EDGESDK_TOKEN.")
@click.option("--queue", type=click.IntRange(min=0), help="Requests that may wait; then 429.  [default: 64]")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Most tokens of one answer.  [default: 1024]")
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Of web pages that may ask; again for more, '*' is any.  [default: any with a token, none without]",
)
@click.option("--threads", type=click.IntRange(1, 256), help="Of the model's kernels.  [default: the runtime's choice]")
@click.option("--provider", "providers", multiple=True, help="tensorrt, cuda or cpu; again for the next choice.")
def command(
    bundle: Path,
    config: Path | None,
    host: str | None,
    port: int | None,
    token_file: str | None,
    queue: int | None,
    max_tokens: int | None,
    origins: tuple[str, ...],
    threads: int | None,
    providers: tuple[str, ...],
) -> None:
    """Serve BUNDLE over HTTP, with OpenAI's chat API.

    Of a decoder /v1/chat/completions, /v1/responses (where it has a chat template), /v1/completions, /tokenize and
    /detokenize; of an encoder /v1/embeddings; of both /v1/models, /health and /metrics. One model, one answer at a
    time, a bounded queue before it. Ctrl-C or SIGTERM ends it within 5 seconds, of which the running answer
    has 3; the second one cuts it off at once.
    """
    from dataclasses import replace
    from typing import Any

    from ..bundle import open_bundle
    from ..serve import Settings, open_settings, serve

    settings = open_settings(config) if config else Settings()
    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "token_file": token_file,
        "queue": queue,
        "max_tokens": max_tokens,
        "origins": origins or None,
        "threads": threads,
        "providers": providers or None,
    }
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    with open_bundle(bundle) as opened:
        serve(opened, settings, lambda address: echo(f"Serving {bundle} on {address}", err=True))
