"""What an encoder family is, and what becomes of a text according to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...bounds.regular import read_limited, regular_file
from ...documents import parse_json
from ...errors import ModelError
from ..config import Config
from ..encoder_spec import Classification, Embedding, EncoderAttention, EncoderSpec, Head, Pooling
from ..weights import Stowed

BERT_TENSORS = {
    "embed.weight": "embeddings.word_embeddings.weight",
    "positions.weight": "embeddings.position_embeddings.weight",
    "types.weight": "embeddings.token_type_embeddings.weight",
    "embed_norm": "embeddings.LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "attn_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "mlp_norm": "output.LayerNorm",
    "dense": "pooler.dense",
}
CLASSIFIER = {"classifier": "classifier"}
_CLASSIFIES = "ForSequenceClassification"
#: Heads that answer other questions than "what is this text like": their bodies cannot stand for them.
_OTHER_TASKS = ("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice", "ForNextSentencePrediction")
#: What sentence-transformers may do to a text's vector, by the last part of a module's type.
_MODULES = ("Transformer", "Pooling", "Normalize")
_POOLINGS: dict[str, Pooling] = {"mean": "mean", "mean_tokens": "mean", "cls": "cls", "cls_token": "cls"}


def part(first: int, last: int) -> tuple[int, int, int]:
    """As :attr:`Stowed.rows`: the rows from ``first`` to ``last`` (excluded) of a matrix that holds several."""
    return 1, first, last


@dataclass(frozen=True)
class EncoderFamily:
    """A mapping from one published encoder architecture to a spec and to canonical weight names.

    Attributes:
        name: the family's name.
        model_types: ``model_type`` values of transformers configurations.
        spec: makes the spec from a configuration and the head.
        classification: the head of its sequence classifiers, from the configuration and the labels' names.
        tensors: canonical names (within a layer without its prefix) to those in a checkpoint of the body.
        outside: the same for tensors that are no part of the body.
        body: what stands before the body's names where a checkpoint holds more than the body.
        layers: what stands before a layer's number.
    """

    name: str
    model_types: tuple[str, ...]
    spec: Callable[[Config, Head], EncoderSpec]
    classification: Callable[[Config, tuple[str, ...]], Classification]
    tensors: Mapping[str, str] = field(default_factory=lambda: BERT_TENSORS)
    outside: Mapping[str, str] = field(default_factory=lambda: CLASSIFIER)
    body: str = ""
    layers: str = "encoder.layer."

    def places(self, spec: EncoderSpec, names: Mapping[str, Any]) -> dict[str, Stowed]:
        """Where each canonical tensor lies in a checkpoint that has tensors of these ``names``."""
        prefix = self.body if any(name.startswith(self.body) for name in names) else ""
        return {name: self.place(name, shape, spec, prefix, names) for name, shape in spec.tensors().items()}

    def place(
        self, name: str, shape: tuple[int, ...], spec: EncoderSpec, prefix: str, names: Mapping[str, Any]
    ) -> Stowed:
        """Where one tensor lies; ``prefix`` stands before the body's names."""
        return Stowed(_renamed(self.stowed_name(name, prefix), names))

    def stowed_name(self, name: str, prefix: str) -> str:
        """The checkpoint's name of a tensor."""
        if name in self.tensors:
            return prefix + self.tensors[name]
        path, _, kind = name.rpartition(".")
        if path in self.outside:
            return f"{self.outside[path]}.{kind}"
        if not name.startswith("layers."):
            return f"{prefix}{self.tensors[path]}.{kind}"
        _, index, part = path.split(".")
        return f"{prefix}{self.layers}{index}.{self.tensors[part]}.{kind}"


def _renamed(stowed: str, names: Mapping[str, Any]) -> str:
    """The older name of a layer norm's tensor, where a checkpoint has just that."""
    older = stowed.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return older if stowed not in names and older in names else stowed


def head_of(family: EncoderFamily, config: Config, folder: Path) -> Head:
    """What becomes of a text: labels for a sequence classifier, otherwise one vector, as sentence-transformers says.

    Raises:
        ModelError: the checkpoint answers another question, or pools in a way that no program does.
    """
    (architecture,) = (config.get("architectures") or [""])[:1]
    if str(architecture).endswith(_OTHER_TASKS):
        raise ModelError(
            f"{config.where}: {architecture} is not built: encoders give a text's embedding or labels "
            f"(a plain model, or one {_CLASSIFIES})"
        )
    if not str(architecture).endswith(_CLASSIFIES):
        return _embedding(folder)
    named = config.section("id2label").values
    count = len(named) or config.integer("num_labels", 2)
    labels = tuple(str(named.get(str(index), f"LABEL_{index}")) for index in range(count))
    return family.classification(config, labels)


def scores_of(config: Config, labels: tuple[str, ...]) -> Any:
    """What turns logits into scores, as transformers' text-classification pipeline decides it."""
    problem = config.get("problem_type")
    if problem == "regression":
        return "none"
    return "sigmoid" if problem == "multi_label_classification" or len(labels) == 1 else "softmax"


def _embedding(folder: Path) -> Embedding:
    """The pooling of a sentence-transformers folder; the mean over all tokens without one."""
    path = regular_file(folder, "modules.json", ModelError)
    if path is None:
        return Embedding()
    modules = parse_json(read_limited(path, error=ModelError), str(path), ModelError)
    try:
        kinds = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in modules}
    except (TypeError, KeyError) as failure:
        raise ModelError(f"{path}: not a list of sentence-transformers' modules ({failure})") from None
    for kind in kinds:
        if kind not in _MODULES:
            raise ModelError(f"{path}: a module '{kind}' is not built; known: {', '.join(_MODULES)}")
    pooling: Pooling = "mean"
    if "Pooling" in kinds:
        pooling = _pooling(Config.read(folder / kinds["Pooling"] / "config.json"))
    return Embedding(pooling, "Normalize" in kinds)


def _pooling(config: Config) -> Pooling:
    modes = [key.removeprefix("pooling_mode_") for key, on in config.values.items() if on is True and "_mode_" in key]
    if isinstance(config.get("pooling_mode"), str):
        modes = [config.values["pooling_mode"]]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise ModelError(f"{config.where}: pooling by {' and '.join(modes) or 'nothing'} is not built; mean or cls is")
    return _POOLINGS[modes[0]]


def attention_of(config: Config, heads: str, hidden: str, **changes: Any) -> EncoderAttention:
    """Attention whose heads share the width of the stream."""
    count, width = config.integer(heads), config.integer(hidden)
    if width % count:
        raise ModelError(f"{config.where}: '{hidden}' {width} is no multiple of {count} attention heads")
    size = width // count
    return EncoderAttention(count, size, size**-0.5, **changes)
