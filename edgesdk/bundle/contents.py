"""What a manifest's plain parts must hold, where commands read them by key: the spec's sizes, quality, parity, facts.

Converters and passes write more into these parts than is listed here; what is listed has the type that its readers
count on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from typing_extensions import NotRequired, TypedDict

from ..errors import BundleError
from ..kinds import DECODER, ENCODER, KINDS, SEQ2SEQ, VISION

if TYPE_CHECKING:
    from .manifest import Manifest

_LARGEST_VOCABULARY = 10_000_000  # tokens; the largest in use has 262,144
_HINT = "the bundle is damaged, or a newer edgesdk made it"


class _Divergence(TypedDict):
    kl: float
    top1: float
    tokens: int
    text: NotRequired[str]
    texts: NotRequired[int]


class _Embeddings(TypedDict):
    cosine: float
    cosine_least: float
    same_label: float | None
    texts: int
    text: str


class _Perplexity(TypedDict):
    before: float
    after: float
    windows: int
    window: int


class _Parity(TypedDict):
    prompt: int
    first_divergence: int | None
    max_logit_difference: float
    top1: float


class _Scores(TypedDict):
    tokens: int
    max_difference: float
    top1: float


class _States(TypedDict):
    tokens: int
    max_difference: float
    cosine: float


class _AdapterParity(TypedDict):
    max_logit_difference: float
    top1: float
    tokens: int


class _Worth(TypedDict):
    accepted: int
    drafted: int
    tokens: int
    steps: int
    as_token_by_token: int
    prompts: int


class _Board(TypedDict):
    flash: int
    ram: int
    fits: bool | None


class _Ram(TypedDict):
    kv_cache: int
    work: int


class _Facts(TypedDict):
    kind: NotRequired[str]
    boards: NotRequired[dict[str, _Board]]
    arena_bytes: NotRequired[int | None]
    firmware: NotRequired[str]
    form: NotRequired[str]
    image: NotRequired[int]
    tokenizer: NotRequired[int]
    ram: NotRequired[_Ram]
    delegate: NotRequired[str | None]
    adapters: NotRequired[dict[str, str]]


class _Head(TypedDict):
    labels: NotRequired[list[str] | tuple[str, ...]]
    scores: NotRequired[str]


def check_contents(manifest: Manifest, where: str) -> None:
    """Refuse a manifest whose plain parts are of other types than its readers count on.

    Args:
        manifest: as loaded.
        where: its file, for messages.

    Raises:
        BundleError: which part, and what of it.
    """
    from pydantic import TypeAdapter, ValidationError

    kind = manifest.program.facts.get("kind", DECODER)
    if not isinstance(kind, str) or kind not in KINDS:
        raise BundleError(f"{where}: a program of kind {kind!r}; known: {', '.join(KINDS)}", hint=_HINT)
    vocabulary = vocabulary_size(manifest)
    if isinstance(vocabulary, bool) or not isinstance(vocabulary, int) or not 0 < vocabulary <= _LARGEST_VOCABULARY:
        raise BundleError(f"{where}: a vocabulary of {vocabulary!r} tokens", hint=_HINT)
    for part, form, data in _parts(manifest, kind):
        try:
            TypeAdapter(form).validate_python(data, strict=True)
        except ValidationError as failure:
            first = failure.errors(include_url=False)[0]
            key = ".".join(str(each) for each in (part, *first["loc"]))
            raise BundleError(f"{where}: key '{key}': {first['msg'].lower()}", hint=_HINT) from None


def vocabulary_size(manifest: Manifest) -> Any:
    """How many tokens the model knows, as its spec says."""
    spec = manifest.model.spec
    inner = spec if "vocab" in spec else spec.get("encoder", spec.get("text"))
    return inner.get("vocab") if isinstance(inner, Mapping) else None


def _parts(manifest: Manifest, kind: str) -> Iterator[tuple[str, Any, Any]]:
    """Each part by its name, with its form."""
    yield "program.facts", _Facts, manifest.program.facts
    if kind == ENCODER:
        yield "model.spec.head", _Head, manifest.model.spec.get("head")
    quality = manifest.quality
    if quality.divergence is not None:
        tokens = kind in (DECODER, VISION, SEQ2SEQ) or "kl" in quality.divergence
        yield "quality.divergence", _Divergence if tokens else _Embeddings, quality.divergence
    if quality.perplexity is not None:
        yield "quality.perplexity", _Perplexity, quality.perplexity
    for index, row in enumerate(manifest.parity or ()):
        other = _Scores if "top1" in row else _States
        yield f"parity.{index}", _Parity if kind == DECODER else other, row
    for record in manifest.adapters:
        if record.parity is not None:
            yield f"adapters.{record.name}.parity", _AdapterParity, record.parity
    if manifest.draft is not None and manifest.draft.worth is not None:
        yield "draft.worth", _Worth, manifest.draft.worth
