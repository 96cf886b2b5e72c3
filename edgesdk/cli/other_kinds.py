"""What commands show of bundles that hold no decoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EdgeError
from .terminal import echo, print_json, told, typed_lines

if TYPE_CHECKING:
    from ..bundle import Bundle, Manifest
    from ..encoders import Encoder
    from ..seeing import Viewer

_SHOWN = 6  # first values of an embedding


def run_other(
    bundle: Bundle,
    text: str | None,
    images: Sequence[Path],
    tiles: bool | None,
    max_tokens: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """What a bundle makes of a text (and images), or of every line that is typed."""
    from ..bundle import kind_of
    from ..kinds import SEQ2SEQ, VISION, described

    kind = kind_of(bundle.manifest)
    if kind == VISION:
        from ..seeing import Viewer

        viewer = Viewer(bundle, threads=threads)
        _run_vision(viewer, partial(viewer.stream, images=images, tiles=tiles, max_tokens=max_tokens), text, as_json)
        return
    if images or tiles is not None:
        raise EdgeError(f"this bundle is {described(kind)}: it sees no images")
    if kind == SEQ2SEQ:
        _run_seq2seq(bundle, text, max_tokens, threads, as_json)
    else:
        _run_encoder(bundle, text, threads, as_json)


def _run_vision(viewer: Viewer, ask: Callable[[str], Iterator[str]], text: str | None, as_json: bool) -> None:
    for line in typed_lines() if text is None else [text]:
        pieces = []
        for piece in ask(line):
            pieces.append(piece)
            if not as_json:
                echo(piece, nl=False)
        if as_json:
            print_json({"answer": "".join(pieces), **vars(viewer.statistics)})
        else:
            echo()
            told(viewer.statistics)


def _run_seq2seq(bundle: Bundle, text: str | None, max_tokens: int, threads: int | None, as_json: bool) -> None:
    from ..answering import Answerer

    answerer = Answerer(bundle, threads=threads)
    for line in typed_lines() if text is None else [text]:
        started, pieces = time.perf_counter(), []
        for piece in answerer.stream(line, max_tokens=max_tokens):
            pieces.append(piece)
            if not as_json:
                echo(piece, nl=False)
        seconds, found = time.perf_counter() - started, answerer.last
        if as_json:
            said = {"text_tokens": found.read, "tokens": found.tokens, "stopped": found.stopped, "seconds": seconds}
            print_json({"answer": "".join(pieces), **said})
        else:
            echo()
            echo(
                f"[{found.read} tokens read, {len(found.tokens)} written in {seconds:.2f} s; on this machine]", err=True
            )


def _run_encoder(bundle: Bundle, text: str | None, threads: int | None, as_json: bool) -> None:
    from ..encoders import Encoder

    encoder = Encoder(bundle, threads=threads)
    for line in typed_lines() if text is None else [text]:
        started = time.perf_counter()
        answer = _answered(encoder, line)
        answer["seconds"] = time.perf_counter() - started
        if as_json:
            print_json(answer)
        else:
            _show(answer)


def measured_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """Rows of a bundle's summary about quality and parity."""
    rows, found = [], manifest.quality.divergence
    head = manifest.model.spec.get("head", {})
    if head.get("labels"):
        rows.append(("labels", ", ".join(head["labels"])))
    if found is not None and "kl" in found:
        told = f"KL {found['kl']:g} nats a token, same best token {found['top1']:.1%}"
        rows.append(("quality", f"{told} ({found['tokens']} tokens of {found['texts']} answers, {found['text']})"))
    elif found is not None:
        same = "" if found["same_label"] is None else f", same label {found['same_label']:.1%}"
        least = f"cosine {found['cosine']:g}, least {found['cosine_least']:g}{same}"
        rows.append(("quality", f"{least} ({found['texts']} texts, {found['text']})"))
    if manifest.parity is None:
        rows.append(("parity", f"not measured: {manifest.parity_reason}"))
    for row in manifest.parity or ():
        if "top1" in row:
            difference = f"logits within {row['max_difference']:g}, same best {row['top1']:.1%}"
        else:
            difference = f"states within {row['max_difference']:g}, answers' cosine {row['cosine']:g}"
        rows.append((f"parity, {row['tokens']}", difference))
    return rows


def _answered(encoder: Encoder, text: str) -> dict[str, Any]:
    if encoder.labels:
        (scores,) = encoder.classify([text])
        return {"label": next(iter(scores)), "scores": scores, "tokens": encoder.count(text)}
    (vector,) = encoder.embed([text])
    return {"embedding": vector.tolist(), "size": len(vector), "tokens": encoder.count(text)}


def _show(answer: dict[str, Any]) -> None:
    if "scores" in answer:
        for label, score in answer["scores"].items():
            echo(f"{label}  {score:.4f}")
    else:
        first = " ".join(f"{value:.4f}" for value in answer["embedding"][:_SHOWN])
        echo(f"embedding of {answer['size']} values: {first} ...")
    echo(f"[{answer['tokens']} tokens in {answer['seconds']:.3f} s; on this machine]", err=True)
