"""Opening a model: a Hugging Face folder, a compressed checkpoint, a GGUF file, a catalogue name, or a hub id."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from ..bounds.regular import read_limited, regular_file
from ..errors import ModelError
from ..progress import SILENT, Progress
from ..registry import unknown
from . import Model, Origin, catalogue
from .adapter import with_adapter
from .architectures import refuse_other_tasks
from .checkpoint import is_checkpoint, open_checkpoint
from .config import Config
from .counts import refuse_experts
from .encoder_spec import EncoderSpec
from .encoders.model import EncoderModel
from .encoders.opening import encoder_family, open_encoder
from .families import FAMILIES, Family
from .families.base import both_ways, refuse
from .families.places import with_prefix
from .gguf_file import GgufFile
from .gguf_opening import read_gguf, refuse_other_files
from .gguf_tokenizer import tokenizer_from_gguf
from .llama2c_file import Llama2cFile, llama2c_tokenizer
from .published import completed, passed_over, published_ignored
from .quantized import open_quantized
from .safetensors_file import SafetensorsFolder
from .seq2seq.model import Seq2SeqModel, open_seq2seq, seq2seq_family
from .seq2seq_spec import Seq2SeqSpec
from .spec import Attention, DecoderSpec
from .tokenizer import Tokenizer, open_tokenizer
from .unread import refuse_unread
from .vision.model import VisionModel, open_vision, vision_family
from .vision_spec import VisionSpec
from .weights import CheckpointWeights, Stowed, TensorFile, dense

#: What a checkpoint may hold: a decoder, or a model of another kind.
AnyModel: TypeAlias = Model | EncoderModel | Seq2SeqModel | VisionModel
#: Architectures that people ask for, and what of them no spec describes yet.
_NOT_BUILT = {
    "deepseek_v2": "latent attention",
    "deepseek_v3": "latent attention",
    "falcon_h1": "attention and Mamba-2 side by side",
    "gemma3n_text": "layers that share keys and values, and embeddings of each layer",
    "gpt_oss": "attention sinks and clamped experts",
    **dict.fromkeys(
        (
            *(
                "gemma3",
                "gemma3n",
                "gemma4",
                "llava",
                "llava_next",
                "llava_onevision",
                "paligemma",
                "mistral3",
                "pixtral",
            ),
            *(
                "qwen2_vl",
                "qwen2_5_vl",
                "qwen3_vl",
                "qwen3_vl_moe",
                "mllama",
                "llama4",
                "internvl",
                "lfm2_vl",
                "aya_vision",
            ),
            *("phi4_multimodal", "qwen2_audio", "qwen2_5_omni", "kimi_vl", "glm4v", "ovis2", "fuyu", "idefics2"),
        ),
        "a model that sees or hears, whose text decoder is not taken out of it",
    ),
    "hymba": "attention and Mamba side by side; transformers does not have it either",
}
_LICENCE_NAMES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "NOTICE", "NOTICE.md", "NOTICE.txt")


def open_model(
    name: str | Path,
    progress: Progress = SILENT,
    *,
    adapter: str | Path | None = None,
    prefix_space: bool | None = None,
) -> Model:
    """Open a decoder without loading its weights; arguments and errors as :func:`open_any`.

    Args:
        name: as there.
        progress: as there.
        adapter: a LoRA adapter to merge into the weights: a folder that PEFT wrote.
        prefix_space: as there.

    Raises:
        ModelError: it is a model of another kind; or the adapter does not fit.
    """
    found = open_any(name, progress, prefix_space=prefix_space)
    if not isinstance(found, Model):
        raise ModelError(
            f"{name}: {found.spec.family} is no decoder, and this works on decoders alone",
            hint="edgesdk export takes it, with recipes that round its weights (w8, w4g32) or none",
        )
    return found if adapter is None else with_adapter(found, adapter)


def open_any(name: str | Path, progress: Progress = SILENT, *, prefix_space: bool | None = None) -> AnyModel:
    """Open a model of any kind without loading its weights.

    Args:
        name: a folder with ``config.json`` and safetensors (quantized ones too), a compressed checkpoint, a ``.gguf``
            file, a llama2.c ``.bin`` file, a name from the catalogue (fetched into the user's cache on first use), or a
            hub id like ``org/name``.
        progress: told about a download.
        prefix_space: whether a space goes before each text, for llama2.c files, which do not say it; None: as llama2.c
            does, with one.

    Raises:
        ModelError: what is wrong with the checkpoint, and what to do.
    """
    path = Path(name).expanduser()
    entries = catalogue.load()
    if not path.exists() and str(name) in entries:
        path = catalogue.fetch(entries[str(name)], progress)
    elif not path.exists() and catalogue.is_hub_id(str(name)):
        path = catalogue.fetch_from_hub(str(name), progress)
    if path.is_file() and path.suffix == ".bin":
        return _open_llama2c(path, prefix_space is not False)
    if prefix_space is not None and path.exists():
        raise ModelError(
            f"{name}: its tokenizer says itself whether a space goes before a text",
            hint="--no-prefix-space is for llama2.c files (.bin), which do not say it",
        )
    if path.is_dir():
        return open_checkpoint(path) if is_checkpoint(path) else _open_folder(path)
    if path.is_file():
        return _open_gguf(path)
    raise ModelError(
        f"{name}: no such folder or file, and {unknown('catalogue model', str(name), entries)}",
        hint="give a Hugging Face folder, a .gguf or llama2.c .bin file, a catalogue name (edgesdk models), or a hub "
        "id org/name",
    )


def _open_folder(folder: Path) -> AnyModel:
    given = Config.read(folder / "config.json")
    config = completed(given)
    licence_files = _licence_files(folder)
    if (other := _other_kind(str(given.get("model_type")))) is not None:
        tokenizer = open_tokenizer(folder)
        with _usable(config.where):
            opened = other(folder, config, tokenizer, _card_licence(folder), licence_files)
        origin = replace(opened.origin, notes=(*opened.origin.notes, *passed_over(given, config)))
        return replace(opened, tokenizer=_fitting(tokenizer, opened.spec, str(folder)), origin=origin)
    return _open_decoder(folder, given, config, licence_files)


def _open_decoder(folder: Path, given: Config, config: Config, licence_files: tuple[Path, ...]) -> Model:
    """A decoder's folder; ``given`` is its ``config.json`` as it is, ``config`` with the defaults of its class."""
    kind = given.get("model_type")
    family = _family(str(kind), config.where, lambda family: family.model_types)
    refuse_other_tasks(given, folder)
    spec = _spec(family, config)
    shards = SafetensorsFolder(folder, named=given.get("transformers_weights"))
    config.overruled("transformers_weights")
    refuse_experts(spec, (header.shape for header in shards.headers.values()), str(folder))
    spec, notes = _with_own_head(family, spec, shards)
    places = _places(family, spec, shards)
    file: TensorFile = shards
    compression, unread = None, shards.unread
    if config.get("quantization_config"):
        file = quantized = open_quantized(shards, config.section("quantization_config"))
        compression = quantized.compression(places)
        unread = partial(quantized.unread, places)
    weights = CheckpointWeights(file, places, spec.tensors())
    notes += passed_over(given, config)
    notes += refuse_unread(str(folder), unread(), published_ignored(str(kind)), lambda name: dense(file.read(name)))
    origin = Origin(
        folder.resolve().name, tuple(shards.files), _card_licence(folder), licence_files, notes=tuple(notes)
    )
    return Model(spec, weights, _fitting(open_tokenizer(folder), spec, str(folder)), origin, compression)


def _with_own_head(family: Family, spec: DecoderSpec, shards: SafetensorsFolder) -> tuple[DecoderSpec, list[str]]:
    """The spec with a head of its own, where the configuration ties it and the file holds another (as transformers 5).

    Returns: the spec, and notes on it.
    """
    if not spec.tied:
        return spec, []
    apart = replace(spec, tied=False)
    places = _places(family, apart, shards)
    embed, head = places["embed.weight"].name, places["head.weight"].name
    if not (shards.has(embed) and shards.has(head)) or shards.same(embed, head):
        return spec, []
    note = f"config.json ties the head to the embedding, but '{head}' differs from '{embed}': both are kept, as trained"
    return apart, [note]


def _places(family: Family, spec: DecoderSpec, shards: SafetensorsFolder) -> dict[str, Stowed]:
    """Where the tensors lie: of the layouts that a family has, those that are there."""
    found, others = family.transformers_places(spec), family.fused_places(spec)
    for prefix in ("", family.inside):  # the bare network, saved without the head around it; a part of another
        if prefix is not None:
            moved = with_prefix(found, family.prefix, prefix)
            if shards.has(moved["embed.weight"].name):
                found, others = moved, with_prefix(others, family.prefix, prefix)
    return {name: others[name] if shards.has(others[name].name) else place for name, place in found.items()}


def _other_kind(kind: str) -> Callable[..., EncoderModel | Seq2SeqModel | VisionModel] | None:
    """What opens a folder of this ``model_type``, where it holds no decoder."""
    if (encoder := encoder_family(kind)) is not None:
        return partial(open_encoder, encoder)
    if (seq2seq := seq2seq_family(kind)) is not None:
        return partial(open_seq2seq, seq2seq)
    if (vision := vision_family(kind)) is not None:
        return partial(open_vision, vision)
    return None


def _open_gguf(path: Path) -> Model:
    file = GgufFile(path)
    refuse_other_files(file)
    metadata = file.metadata
    architecture = str(metadata.get("general.architecture"))
    family = _family(architecture, str(path), lambda family: family.gguf_architectures)
    with _usable(str(path)):
        spec, weights, notes = read_gguf(file, family, architecture)
    licence_files = _licence_files(path.parent)
    origin = Origin(path.stem, (path,), metadata.get("general.license"), licence_files, notes=tuple(notes))
    return Model(spec, weights, _fitting(tokenizer_from_gguf(metadata, str(path)), spec, str(path)), origin)


def _open_llama2c(path: Path, prefix_space: bool) -> Model:
    file = Llama2cFile(path)
    family = FAMILIES.get("llama")
    spec = family.spec(Config(file.config, file.where))
    weights = CheckpointWeights(file, family.llama2c_places(spec), spec.tensors())
    tokenizer = _fitting(llama2c_tokenizer(path, spec.vocab, prefix_space=prefix_space), spec, str(path))
    return Model(spec, weights, tokenizer, Origin(path.stem, (path,)))


def _family(kind: str, where: str, kinds: Callable[[Family], tuple[str, ...]]) -> Family:
    families = [FAMILIES.get(name) for name in FAMILIES.names()]
    for family in families:
        if kind in kinds(family):
            return family
    known = sorted({kind for family in families for kind in kinds(family)})
    near = difflib.get_close_matches(kind, known, n=3, cutoff=0.5)
    guess = f"; nearest: {', '.join(near)}" if near else ""
    why = f" ({_NOT_BUILT[kind]})" if kind in _NOT_BUILT else ""
    raise ModelError(
        f"{where}: architecture '{kind}' belongs to no family that edgesdk knows{why}{guess}; "
        f"known: {', '.join(known)}",
        hint="edgesdk models --families lists what runs where; a family is one small module: see "
        "edgesdk/README.md#adding-one-more",
    )


def _spec(family: Family, config: Config) -> DecoderSpec:
    """The family's spec; a value of a wrong shape anywhere in the configuration is one error."""
    with _usable(config.where):
        spec = family.spec(config)
        if config.flag("is_causal", True):
            return spec
        windows = any(isinstance(layer.mixer, Attention) and layer.mixer.window for layer in spec.layers)
        refuse(config, "attention in both directions ('is_causal') within windows", unless=not windows)
        return both_ways(spec)


@contextmanager
def _usable(where: str) -> Iterator[None]:
    """A value of a wrong shape anywhere in the configuration is one error."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as failure:
        raise ModelError(f"{where}: a value cannot be used ({failure})") from None


def _fitting(tokenizer: Tokenizer, spec: DecoderSpec | EncoderSpec | Seq2SeqSpec | VisionSpec, where: str) -> Tokenizer:
    try:
        return tokenizer.within(spec.vocab)
    except ModelError as failure:
        raise ModelError(f"{where}: {failure.message}", hint=failure.hint) from None


def _licence_files(folder: Path) -> tuple[Path, ...]:
    """The texts of licences beside a model; a bundle carries them, so that none may be a link to something else."""
    found = (regular_file(folder, name, ModelError) for name in _LICENCE_NAMES)
    return tuple(path for path in found if path is not None)


def _card_licence(folder: Path) -> str | None:
    """The licence that the model card's front matter names."""
    card = regular_file(folder, "README.md", ModelError)
    if card is None:
        return None
    for line in read_limited(card, error=ModelError).decode("utf-8", "replace").splitlines()[:60]:
        if line.startswith("license:"):
            return line.partition(":")[2].strip() or None
    return None
