"""What PEFT's ``adapter_config.json`` says of a LoRA adapter, and which of it can be computed here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError
from .config import Config

if TYPE_CHECKING:
    import torch

CONFIG = "adapter_config.json"
MERGE = "merge it where it was trained (PEFT: merge_and_unload(), then save_pretrained) and give the merged folder"
#: Keys of a configuration that change what the adapter computes, and the words for them.
_VARIANTS = {
    "use_dora": "DoRA",
    "lora_bias": "a bias in lora_B",
    "alora_invocation_tokens": "activated LoRA",
    "use_qalora": "QA-LoRA",
    "layer_replication": "replicated layers",
    "target_parameters": "bare parameters as targets",
    "trainable_token_indices": "trained rows of the embedding",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "monteclora_config": "Monte Carlo LoRA",
    "use_bdlora": "block-diagonal LoRA",
    "megatron_config": "Megatron's layers",
}
#: Keys that the merge reads, or that only training, naming or loading are about.
_KNOWN = frozenset(
    {
        *("peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "bias", "init_lora_weights"),
        *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
        *("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern"),
        *("lora_dropout", "fan_in_fan_out", "megatron_core", "qalora_group_size", "ensure_weight_tying"),
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "velora_config", "runtime_config"),
    }
)
#: Ways to begin that leave the base as it is: the update is zero at first.
_PLAIN = (None, True, False, "gaussian", "eva", "orthogonal")
#: Ways to begin that change the base by what cannot be found again, and why.
_LOST = {
    "corda": "CorDA takes a part out of the base that follows from calibration data, which the adapter does not carry",
    "loftq": "LoftQ quantizes the base while it begins",
    "lora_ga": "LoRA-GA takes a part out of the base that follows from gradients, which the adapter does not carry",
    "mica": "MiCA trains on directions of the base that are not stored",
}


def pissa(matrix: torch.Tensor, rank: int, scale: float) -> torch.Tensor:
    """What PiSSA takes out of a matrix [out, in]: its ``rank`` largest singular components (arXiv 2404.02948)."""
    import torch

    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    taken: torch.Tensor = (left[:, :rank] * values[:rank]) @ right[:rank]
    return taken


def olora(matrix: torch.Tensor, rank: int, scale: float) -> torch.Tensor:
    """What OLoRA takes out of a matrix [out, in]: the first columns of its QR decomposition (arXiv 2406.01775)."""
    import torch

    q, r = torch.linalg.qr(matrix)
    taken: torch.Tensor = scale * (q[:, :rank] @ r[:rank])
    return taken


#: Ways to begin that take a part out of the base, which follows from the base alone.
PRINCIPAL: dict[object, Callable[[torch.Tensor, int, float], torch.Tensor]] = {"pissa": pissa, "olora": olora}


def read_adapter_config(folder: Path) -> Config:
    """The configuration of a LoRA adapter.

    Raises:
        ModelError: there is none, or it asks for what is not computed here.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(
            f"{folder}: no {CONFIG}", hint="an adapter is a folder that PEFT's save_pretrained wrote: its path"
        )
    config = Config.read(path)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ModelError(f"{path}: an adapter of type {kind!r}; supported: LORA", hint=MERGE)
    for key, words in _VARIANTS.items():
        if config.get(key):
            raise ModelError(f"{path}: {words} ('{key}') is not supported", hint=MERGE)
    if config.get("bias") not in (None, "none"):
        raise ModelError(f"{path}: trained biases ('bias': {config.get('bias')!r}) are not supported", hint=MERGE)
    _refuse_beginning(config)
    for key, value in config.values.items():
        if value and key not in _KNOWN and key not in _VARIANTS:
            raise ModelError(f"{path}: '{key}' is {value!r}, and nothing here knows what it changes", hint=MERGE)
    return config


def _refuse_beginning(config: Config) -> None:
    """Stop at an adapter whose base cannot be made again."""
    start = config.get("init_lora_weights")
    name = start.lower() if isinstance(start, str) else start
    if name in _PLAIN or start in PRINCIPAL:
        return
    reason = next((words for kind, words in _LOST.items() if str(name).startswith(kind)), None)
    if str(name).startswith("pissa_niter"):
        reason = "its fast SVD draws random numbers, so what it took out of the base cannot be found again"
    raise ModelError(
        f"{config.where}: 'init_lora_weights' is {start!r}: {reason or 'not a way to begin that is known here'}",
        hint="save it with PEFT's path_initial_model_for_weight_conversion, which makes a plain LoRA, or " + MERGE,
    )
