"""transformers' own network of a checkpoint: its configuration, its loading, its arithmetic, in float32."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model import Model
from ..model.spec import Attention, DecoderSpec

if TYPE_CHECKING:
    import torch

_LAYER_PARAMETERS = 12_000_000  # that all compared layers may have together, where fewer layers show every kind
_MOST_PARAMETERS = 2_000_000_000  # of what is compared: 8 GB in float32
_TOKENS = 32
_LONGEST_WINDOW = 600  # tokens that are worth a longer sequence


class Uncomparable(Exception):  # noqa: N818 - a reason, not a failure
    """There is nothing to compare with, and why.

    Attributes:
        missing: because transformers is not installed.
    """

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.missing = missing


def installed() -> str:
    """The version of transformers.

    Raises:
        Uncomparable: it is not installed.
    """
    try:
        return metadata.version("transformers")
    except metadata.PackageNotFoundError:
        raise Uncomparable("transformers is not installed: pip install 'edgesdk[oracle]'", missing=True) from None


def source_of(model: Model) -> Path:
    """The file or folder that a model was opened from.

    Raises:
        Uncomparable: of a kind that transformers does not read.
    """
    if not model.origin.files:
        raise Uncomparable("the model was not opened from files")
    first = model.origin.files[0]
    if first.suffix == ".gguf":
        return first
    if first.suffix == ".bin":
        raise Uncomparable("transformers does not read llama2.c files")
    if (first.parent / "checkpoint.json").is_file():
        raise Uncomparable("the checkpoint was compressed before: its original can be compared")
    if model.compression is not None:
        raise Uncomparable(f"the checkpoint was quantized by another tool ({model.compression.name})")
    return first.parent


def cut(model: Model) -> Model:
    """The model with as many of its first layers as are compared: every kind of layer, within a bound.

    Raises:
        Uncomparable: it is too large, or its layers depend on one another.
    """
    spec = model.spec
    layers = spec.layers
    if spec.repeats == 1 and not spec.asides and not any(layer.sum_norms for layer in layers):
        count, kinds = 1, set(layers)
        while set(layers[:count]) != kinds or (
            count < len(layers) and _layer_parameters(spec, count + 1) <= _LAYER_PARAMETERS
        ):
            count += 1
        spec = replace(spec, layers=layers[:count])
    if spec.parameters > _MOST_PARAMETERS:
        raise Uncomparable(f"{spec.parameters / 1e9:.1f} billion parameters would have to be in memory at once")
    return replace(model, spec=spec)


def _layer_parameters(spec: DecoderSpec, count: int) -> int:
    return sum(math.prod(shape) for index in range(count) for shape in spec.layer_tensors(index).values())


def probe(spec: DecoderSpec, prefix: Sequence[int] = ()) -> list[int]:
    """Ids to compare logits on: random ones behind the tokenizer's ``prefix``.

    They are more than the shortest window holds, where that is no great length.
    """
    import numpy as np

    windows = [layer.mixer.window for layer in spec.layers if isinstance(layer.mixer, Attention) and layer.mixer.window]
    shortest = min(windows, default=0)
    count = shortest + 8 if _TOKENS < shortest + 8 <= _LONGEST_WINDOW else _TOKENS
    ids: list[int] = np.random.default_rng(20).integers(0, spec.vocab, min(count, spec.context)).tolist()
    return [*prefix, *ids][: len(ids)]


def logits_of_network(model: Model, ids: Sequence[int]) -> tuple[torch.Tensor, str]:
    """transformers' logits [tokens, vocab] in float32, and what computed them.

    Args:
        model: cut to the layers that take part.
        ids: the sequence.

    Raises:
        Uncomparable: transformers has no network for the checkpoint.
    """
    import torch

    source = source_of(model)
    with quiet():
        if source.is_file():
            from .gguf import network_of_gguf

            network = network_of_gguf(source, len(model.spec.layers))
        else:
            network = _network_of_folder(source, len(model.spec.layers))
        try:
            with torch.inference_mode():
                logits = network(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
        except Exception as failure:  # as above
            raise Uncomparable(f"transformers' network fails: {_words(failure)}") from None
    return logits.float()[:, : model.spec.vocab], type(network).__name__


def _network_of_folder(folder: Path, layers: int) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _shorten(config.get_text_config(), layers)
        load: Any = AutoModelForCausalLM.from_pretrained
        network, loading = load(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as failure:  # whatever its validation, its loading and its networks raise over foreign files
        raise Uncomparable(f"transformers does not load it: {_words(failure)}") from None
    if loading["missing_keys"]:  # it would have made them up
        name = min(loading["missing_keys"])
        raise Uncomparable(f"transformers does not find '{name}' in it")
    return network.eval()


def _words(failure: Exception) -> str:
    """The first line of what an exception says."""
    lines = str(failure).splitlines() or [""]
    return f"{type(failure).__name__}: {lines[0][:200]}"


def _shorten(config: Any, layers: int) -> None:
    """Cut a configuration to its first layers; a list with an entry for each layer becomes shorter too."""
    before = config.num_hidden_layers
    if layers >= before:
        return
    for name, value in vars(config).items():
        if isinstance(value, list) and len(value) == before:
            setattr(config, name, value[:layers])
    config.num_hidden_layers = layers


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no progress bars of the libraries: the terminal is the command's."""
    from transformers.utils import logging as messages

    library: Any = messages
    disabled, shown = logging.root.manager.disable, library.is_progress_bar_enabled()
    logging.disable(logging.WARNING)
    library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        if shown:
            library.enable_progress_bar()
