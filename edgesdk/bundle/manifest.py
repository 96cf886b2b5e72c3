"""The manifest of a bundle: what it is, what it was made from, what it costs, and every file with its hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

from ..documents import parse_json
from ..errors import BundleError
from ..files import FileEntry
from ..lines import Line, check_lines
from ..schema import dump, load
from .contents import check_contents

SCHEMA = 1
FILE = "manifest.json"
SIGNATURE = "signature.json"  # beside the manifest, which does not list it; see edgesdk.signing


@dataclass(frozen=True)
class ModelIdentity:
    """The model that went in."""

    name: Line
    family: Line
    parameters: int
    licence: Line | None
    source: tuple[FileEntry, ...]
    spec: dict[str, Any]


@dataclass(frozen=True)
class RecipeRecord:
    """The recipe with every option, and what each pass reported."""

    name: Line
    activations: int
    passes: tuple[dict[str, Any], ...]
    reports: tuple[dict[str, Any], ...]
    kv_bits: int | None = None


@dataclass(frozen=True)
class TargetRecord:
    """The device class that the bundle is for."""

    name: Line
    os: Line
    architecture: Line
    page_size: int


@dataclass(frozen=True)
class ProgramRecord:
    """The program and the runtime that it needs."""

    converter: Line
    main: Line
    runtime: Line
    runtime_versions: Line
    float_type: Line
    facts: dict[str, Any]


@dataclass(frozen=True)
class MemoryRecord:
    """Bytes on the device, estimated before the export."""

    program: int
    weights: int
    kv_cache: int
    activations: int
    runtime: int


@dataclass(frozen=True)
class TokenizerRecord:
    """The tokenizer's files and the special-token policy, as ids."""

    file: Line
    chat_template: Line | None
    bos: int | None
    stop: tuple[int, ...]
    pad: int | None
    prefix: tuple[int, ...]


@dataclass(frozen=True)
class QualityRecord:
    """Against the uncompressed model; a value that was not measured is null, with the reason."""

    divergence: dict[str, Any] | None
    divergence_reason: str | None
    perplexity: dict[str, Any] | None
    perplexity_reason: str | None


@dataclass(frozen=True)
class AdapterRecord:
    """A LoRA adapter.

    Attributes:
        name: of its folder, or what the user called it.
        rank: the largest rank of its updates.
        matrices: how many of the model's matrices it changes.
        source: the files that PEFT wrote.
        file: where it lies in the bundle, for the runtime to switch to; None: it is merged into the weights.
        parity: of the program with it, against the reference; None where nothing was measured, or it is merged.
    """

    name: Line
    rank: int
    matrices: int
    source: tuple[FileEntry, ...]
    file: str | None = None
    parity: dict[str, Any] | None = None


@dataclass(frozen=True)
class DraftRecord:
    """A smaller model with the same tokens, whose program drafts for the bundle's own.

    Attributes:
        model: what went in.
        recipe: what was done to it.
        program: its converter, main file and facts; the runtime is the bundle's.
        context: most tokens that it takes; beyond them nothing is drafted.
        memory: what it needs beside the bundle's own program.
        notes: what its export said.
        worth: on the built-in prompts, on the machine that exported; None where nothing was measured.
    """

    model: ModelIdentity
    recipe: RecipeRecord
    program: dict[str, Any]
    context: int
    memory: MemoryRecord
    notes: tuple[str, ...] = ()
    worth: dict[str, Any] | None = None

    @property
    def main(self) -> str:
        """The program file, relative to the bundle."""
        return str(self.program.get("main"))


@dataclass(frozen=True)
class OracleRecord:
    """What transformers made of the files that the model was opened from, beside what edgesdk reads of them.

    Attributes:
        by: the oracle and its version; None: nothing was compared.
        reason: why not, or what of it was not compared.
        logits_within: a power of ten that no difference of logits exceeds.
        tokens: how long the sequence was.
        layers: how many of the model's first layers took part.
        layers_of: how many it has.
        texts: how many texts got the same ids.
        conversations: how many conversations were rendered the same.
    """

    by: str | None = None
    reason: str | None = None
    logits_within: float | None = None
    tokens: int | None = None
    layers: int | None = None
    layers_of: int | None = None
    texts: int | None = None
    conversations: int | None = None

    def words(self) -> str:
        """The verdict in one line."""
        if self.by is None:
            return f"none ({self.reason})"
        layers = f"{self.layers} of {self.layers_of} layers, {self.tokens} tokens"
        parts = [self.by, f"logits within {self.logits_within:g} ({layers})"]
        if self.texts is not None:
            parts.append(f"the same ids for {self.texts} texts")
        if self.conversations is not None:
            parts.append(f"{self.conversations} conversations alike")
        return ", ".join(parts) + (f"; {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Manifest:
    """Everything that a bundle says about itself; see each part.

    What came later than schema 1 itself (:data:`_LATER`) is left out of the text where a bundle has none of it, so that
    other readers of the schema take such bundles too.
    """

    schema: int
    model: ModelIdentity
    recipe: RecipeRecord
    target: TargetRecord
    program: ProgramRecord
    context: int
    memory: MemoryRecord
    tokenizer: TokenizerRecord
    quality: QualityRecord
    parity: tuple[dict[str, Any], ...] | None
    parity_reason: str | None
    tools: dict[Line, Line]
    notes: tuple[str, ...] = ()
    files: tuple[FileEntry, ...] = field(default=())
    adapters: tuple[AdapterRecord, ...] = ()
    draft: DraftRecord | None = None
    oracle: OracleRecord | None = None
    digest: str = ""

    def text(self) -> str:
        """The manifest as the one JSON text that says it; ``digest`` is the SHA-256 of that text with it empty.

        Raises:
            BundleError: a string in it is not one printable line.
        """
        check_lines(dump(self), FILE, BundleError)
        digest = hashlib.sha256(_json(replace(self, digest="")).encode()).hexdigest()
        return _json(replace(self, digest=digest))

    @classmethod
    def parse(cls, text: str, where: str) -> Manifest:
        """Read a manifest's text.

        Raises:
            BundleError: not JSON, of a newer schema, with an unknown or missing key, or changed since it was written.
        """
        data = parse_json(text, where, BundleError, hint=_DAMAGED)
        found = data.get("schema") if isinstance(data, dict) else None
        if isinstance(found, int) and found > SCHEMA:
            raise BundleError(
                f"{where}: bundle schema {found}, but this edgesdk reads schemas up to {SCHEMA}",
                hint="pip install --upgrade edgesdk",
            )
        if found != SCHEMA:
            raise BundleError(f"{where}: bundle schema {found!r}; this edgesdk reads schema {SCHEMA}", hint=_DAMAGED)
        check_lines(data, where, BundleError)
        manifest = load(cls, data, where, BundleError)
        try:
            unchanged = manifest.text() == text
        except ValueError:  # NaN or a lone surrogate, which no manifest is written with
            unchanged = False
        if not unchanged:
            raise BundleError(f"{where}: the manifest was changed after it was written", hint=_DAMAGED)
        check_contents(manifest, where)
        return manifest


_DAMAGED = "the bundle is damaged: copy or export it again"


_LATER = ("adapters", "draft", "oracle")


def _json(manifest: Manifest) -> str:
    data = dump(manifest)
    for key in _LATER:
        if not data[key]:
            del data[key]
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
