"""What a checkpoint with a decoder's configuration is for: not every one of them generates text."""

from __future__ import annotations

from pathlib import Path

from ..errors import ModelError
from .config import Config

#: Endings of the names that ``architectures`` holds, and what such a model is.
_TASKS = {
    "ForSequenceClassification": "a classifier (reward models and rerankers too): its answer is labels or a score",
    "ForTokenClassification": "a tagger: its answer is a label for every token",
    "ForQuestionAnswering": "a reader: its answer is a span of the text",
    "ForMultipleChoice": "a chooser among given answers",
    "ForRewardModel": "a reward model: its answer is a score",
    "RewardModel": "a reward model: its answer is a score",
    "ForProcessRewardModel": "a reward model: its answer is a score for each step",
    "ForImageClassification": "a classifier of pictures",
    "ForMaskedLM": "an encoder that fills in masked tokens",
    "ForTextEncoding": "an embedder: its answer is a vector",
    "ForRetrieval": "an embedder: its answer is a vector",
    "ForEmbedding": "an embedder: its answer is a vector",
}
_EMBEDDER = "an embedder (sentence-transformers wrote it): its answer is a vector"


def refuse_other_tasks(config: Config, folder: Path) -> None:
    """Stop at a checkpoint that answers with something else than text.

    Raises:
        ModelError: what it is.
    """
    names = config.get("architectures")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ModelError(f"{config.where}: 'architectures' must be a list of names, found {names!r}")
    for name in names or []:
        task = next((words for ending, words in _TASKS.items() if name.endswith(ending)), None)
        if task is not None:
            raise ModelError(
                f"{config.where}: {name} is {task}; edgesdk exports decoders that generate text", hint=_HINT
            )
    for name in (name for name in names or [] if "Bidirectional" in name or name.endswith("EncoderModel")):
        raise ModelError(f"{config.where}: {name} is an embedder: its answer is a vector", hint=_HINT)
    own = config.get("auto_map")
    code = {key for key in own if key.startswith("AutoModelFor")} if isinstance(own, dict) else set()
    if code and not code & {"AutoModelForCausalLM", "AutoModelForSeq2SeqLM"}:
        raise ModelError(f"{config.where}: its own code ('auto_map') is an {min(code)}, no generator", hint=_HINT)
    if any((folder / name).exists() for name in ("modules.json", "1_Pooling", "config_sentence_transformers.json")):
        raise ModelError(f"{folder}: {_EMBEDDER}; edgesdk exports decoders that generate text", hint=_HINT)
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder}: holds a model and, beside it, a LoRA adapter (adapter_config.json), which transformers would "
            "add to it",
            hint="move the adapter into a folder of its own and give it with --adapter, or remove it",
        )


_HINT = "give the checkpoint of a model that generates text; encoders such as BERT and MiniLM export as embedders"
