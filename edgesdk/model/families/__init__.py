"""Families: one module for each published architecture that edgesdk maps to a decoder spec.

A module holds one ``FAMILY``. To add a family, write the module, add its line below, and add a row to the oracle test
(``tests/unit/test_families.py``). Other packages add theirs through the entry-point group ``edgesdk.families``.
"""

from __future__ import annotations

from ...registry import Registry
from .base import Family

_MODULES = (
    "bitnet bloom chatglm ernie4_5 falcon gemma gemma2 gemma3 glm gpt2 gpt_neo gpt_neox granite internlm2 "
    "jamba lfm2 llama mamba mamba2 minicpm mistral mixtral mobilellm nemotron olmo olmo2 olmoe openelm opt phi "
    "phi3 phimoe qwen qwen2 qwen3 qwen_moe rwkv smollm3 stablelm"
)
FAMILIES: Registry[Family] = Registry(
    "family",
    "edgesdk.families",
    {name: f"edgesdk.model.families.{name}:FAMILY" for name in _MODULES.split()},
)

__all__ = ["FAMILIES", "Family"]
