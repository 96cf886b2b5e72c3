"""One row for each family and variant: a tiny transformers configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from . import family_disguises as disguises
from .family_disguises import Disguise

CONTEXT = 64
_COMMON = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "head_dim": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Row:
    """A family's variant: the transformers configuration class and what differs from the common tiny one.

    Attributes:
        name: of the variant.
        config: a configuration class of transformers.
        changes: what its configuration gets beside :data:`_COMMON`.
        without: keys of :data:`_COMMON` that the class does not take.
        disguise: a function of :mod:`family_disguises` that turns the checkpoint into one of a family that
            transformers does not have, of the same architecture.
        attention: transformers' implementation that is the oracle.
        spread: factor on the initial matrices; less where states amplify what float32 rounds.
    """

    name: str
    config: str
    changes: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    disguise: Disguise | None = None
    attention: str = "eager"
    spread: float = 4.0


_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_GEMMA_ROPES = {
    "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
_LAYERS = ["sliding_attention", "sliding_attention", "full_attention"]

_GPT2 = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT, "n_inner": 96}
_NEO = {"num_layers": 3, "num_heads": 4, "window_size": 9, "attention_types": [[["global", "local", "local"], 1]]}
_BLOOM = {"n_layer": 3, "n_head": 4, "seq_length": CONTEXT}
_PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "original_max_position_embeddings": CONTEXT,
    "short_factor": [1.0, 1.1, 1.3, 1.5, 1.8, 2.0],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0],
    "partial_rotary_factor": 0.75,
}
_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
_MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
_SPARSE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "decoder_sparse_step": 1}
_MAMBA = {"state_size": 16, "conv_kernel": 4, "expand": 2, "tie_word_embeddings": True}
_STEPS = {"num_heads": 8, "head_dim": 16, "n_groups": 1, "chunk_size": 16, "time_step_limit": (0.05, 0.6)}
_NO_HEAD_DIM = ("head_dim",)
_GRANITE = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.4,
    "attention_multiplier": 0.2,
    "logits_scaling": 2.5,
    "tie_word_embeddings": True,
}
_HYBRID = _GRANITE | {
    "layer_types": ["mamba", "attention", "mamba"],
    "shared_intermediate_size": 96,
    "mamba_n_heads": 8,
    "mamba_d_state": 16,
    "mamba_chunk_size": 16,
}
_DELTA = {
    "num_hidden_layers": 4,
    "full_attention_interval": 3,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 32,
}
_SHARED = _SPARSE | {"shared_expert_intermediate_size": 96}
_ZAMBA = {
    "num_hidden_layers": 6,
    "mamba_d_state": 16,
    "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid", "hybrid", "mamba"],
}
_ZAMBA2 = _ZAMBA | {"n_mamba_heads": 8, "mamba_ngroups": 2, "chunk_size": 16, "adapter_rank": 32}
ROWS = [
    Row("llama", "LlamaConfig"),
    Row("llama-tied-multihead", "LlamaConfig", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    Row("llama-biases", "LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    Row("llama3-rope", "LlamaConfig", {"rope_parameters": _LLAMA3}),
    Row(
        "llama-linear-rope",
        "LlamaConfig",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    ),
    Row("mistral-window", "MistralConfig", {"sliding_window": 9}),
    Row("bitnet", "BitNetConfig", {"hidden_act": "relu2"}),
    Row("bloom", "BloomConfig", _BLOOM),
    Row("bloom-six-heads", "BloomConfig", _BLOOM | {"n_head": 6, "hidden_size": 96}),
    Row("chatglm", "GlmConfig", {"attention_bias": True}, disguise=disguises.chatglm),
    Row("ernie4_5", "Ernie4_5Config", {"use_bias": True}),
    Row("falcon", "FalconConfig", {"num_kv_heads": 1}, _NO_HEAD_DIM),
    Row("falcon-new", "FalconConfig", {"new_decoder_architecture": True, "num_kv_heads": 2}, _NO_HEAD_DIM),
    Row(
        "falcon-alibi",
        "FalconConfig",
        {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
        _NO_HEAD_DIM,
        attention="sdpa",  # transformers 5.23's eager Falcon adds its biases twice
    ),
    Row("gemma", "GemmaConfig", {"num_key_value_heads": 1}),
    Row("gemma2", "Gemma2Config", {"sliding_window": 9, "query_pre_attn_scalar": 24, "attn_logit_softcapping": 3.0}),
    Row("glm", "GlmConfig", {"attention_bias": True}),
    Row("glm4", "Glm4Config"),
    Row("gpt_neo", "GPTNeoConfig", _NEO),
    Row("gpt_neox", "GPTNeoXConfig", {"rope_parameters": _PARTIAL}),
    Row("gpt_neox-serial", "GPTNeoXConfig", {"use_parallel_residual": False, "attention_bias": False}),
    Row("granite", "GraniteConfig", _GRANITE),
    Row("granite_moe", "GraniteMoeConfig", _GRANITE | _MOE, _NO_HEAD_DIM),
    Row("granite_hybrid", "GraniteMoeHybridConfig", _HYBRID | {"num_local_experts": 0}, _NO_HEAD_DIM, spread=2.0),
    Row(
        "granite_hybrid-experts",
        "GraniteMoeHybridConfig",
        _HYBRID | _MOE | {"position_embedding_type": "rope"},
        _NO_HEAD_DIM,
        spread=2.0,
    ),
    Row("internlm2", "LlamaConfig", disguise=disguises.internlm2),
    Row(
        "jamba",
        "JambaConfig",
        {
            "num_hidden_layers": 4,
            "attn_layer_period": 4,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 4,
            "mamba_dt_rank": 4,
            "mamba_d_state": 8,
        },
        _NO_HEAD_DIM,
    ),
    Row(
        "lfm2",
        "Lfm2Config",
        {"layer_types": ["conv", "full_attention", "conv"], "block_multiple_of": 32, "tie_word_embeddings": True},
    ),
    Row("mamba", "MambaConfig", _MAMBA | {"intermediate_size": 128, "time_step_rank": 4}, spread=2.0),
    Row(
        "mamba2", "Mamba2Config", _MAMBA | {"num_heads": 8, "head_dim": 16, "n_groups": 2, "chunk_size": 16}, spread=2.0
    ),
    Row(
        "falcon_mamba",
        "FalconMambaConfig",
        _MAMBA | {"time_step_rank": 4, "mixer_rms_eps": 1e-3, "use_bias": True},
        spread=2.0,
    ),
    Row("mamba2-steps", "Mamba2Config", _MAMBA | _STEPS, spread=2.0),
    Row(
        "minicpm",
        "GraniteConfig",
        {
            "embedding_multiplier": 12.0,
            "residual_multiplier": 1.4 / 3**0.5,
            "attention_multiplier": 16**-0.5,
            "logits_scaling": 64 / 16,
        },
        disguise=disguises.minicpm,
    ),
    Row("mixtral", "MixtralConfig", _MOE),
    Row("mobilellm-shared", "LlamaConfig", {"num_hidden_layers": 4}, disguise=disguises.mobilellm),
    Row("nemotron", "NemotronConfig", {"rope_parameters": _PARTIAL}),
    Row("olmo", "OlmoConfig"),
    Row("olmo-clip", "OlmoConfig", {"clip_qkv": 0.4}),
    Row("olmo2", "Olmo2Config"),
    Row("olmoe", "OlmoeConfig", {"num_experts": 4, "num_experts_per_tok": 2}),
    Row("olmoe-clip", "OlmoeConfig", {"num_experts": 4, "num_experts_per_tok": 2, "clip_qkv": 0.4}),
    Row("openelm", "Qwen3Config", {"num_hidden_layers": 2, "tie_word_embeddings": True}, disguise=disguises.openelm),
    Row("opt", "OPTConfig", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    Row("opt-galactica", "OPTConfig", {"ffn_dim": 96, "word_embed_proj_dim": 64, "activation_function": "gelu"}),
    Row("opt-350m", "OPTConfig", {"ffn_dim": 96, "word_embed_proj_dim": 32, "do_layer_norm_before": False}),
    Row("phi", "PhiConfig", {"rope_parameters": _PARTIAL}),
    Row("phi-qk-norms", "PhiConfig", {"rope_parameters": _PARTIAL, "qk_layernorm": True}),
    Row("phi3", "Phi3Config", {"sliding_window": 9}),
    Row("phi3-long", "Phi3Config", {"rope_parameters": _LONG, "max_position_embeddings": 4 * CONTEXT}),
    Row("phimoe", "PhimoeConfig", _MOE | {"attention_bias": True, "lm_head_bias": True}),
    Row("qwen", "Qwen2Config", {"num_key_value_heads": 4}, disguise=disguises.qwen),
    Row("qwen2_moe", "Qwen2MoeConfig", _SPARSE | {"shared_expert_intermediate_size": 96, "mlp_only_layers": [1]}),
    Row("qwen3_moe", "Qwen3MoeConfig", _SPARSE | {"norm_topk_prob": True}),
    Row("qwen3_5", "Qwen3_5TextConfig", _DELTA | {"head_dim": 32}, spread=2.0),
    Row(
        "qwen3_5-inside",
        "Qwen3_5TextConfig",
        _DELTA | {"tie_word_embeddings": True, "attention_bias": True},
        disguise=disguises.qwen3_5,
        spread=2.0,
    ),
    Row("qwen3_5-experts", "Qwen3_5MoeTextConfig", _DELTA | _SHARED, spread=2.0),
    Row(
        "qwen3_5-experts-inside",
        "Qwen3_5MoeTextConfig",
        _DELTA | _SHARED,
        disguise=disguises.qwen3_5_moe,
        spread=2.0,
    ),
    Row("qwen3_next", "Qwen3NextConfig", _DELTA | _SHARED | {"mlp_only_layers": [1]}, spread=2.0),
    Row("rwkv", "RwkvConfig", {"context_length": CONTEXT}, spread=2.0),
    Row("smollm3", "SmolLM3Config", {"no_rope_layers": [1, 0, 1]}),
    Row("stablelm", "StableLmConfig", {"use_qkv_bias": True, "rope_parameters": _PARTIAL}),
    Row("stablelm-parallel", "StableLmConfig", {"use_parallel_residual": True}),
    Row("stablelm-qk-norms", "StableLmConfig", {"qk_layernorm": True, "use_parallel_residual": True}),
    Row("zamba", "ZambaConfig", _ZAMBA | {"mamba_dt_rank": 4}, _NO_HEAD_DIM, spread=2.0),
    Row(
        "zamba-default-layers",
        "ZambaConfig",
        {"num_hidden_layers": 8, "attn_layer_offset": 2, "n_mamba_heads": 1, "mamba_d_state": 16},
        _NO_HEAD_DIM,
        spread=2.0,
    ),
    Row("zamba2", "Zamba2Config", _ZAMBA2 | {"num_mem_blocks": 2, "add_bias_linear": True}, _NO_HEAD_DIM, spread=2.0),
    Row(
        "zamba2-rope",
        "Zamba2Config",
        _ZAMBA2
        | {
            "use_mem_rope": True,
            "use_shared_attention_adapter": True,
            "num_key_value_heads": 4,
            "time_step_min": 0.05,
        },
        _NO_HEAD_DIM,
        spread=2.0,
    ),
    Row("gpt2", "GPT2Config", _GPT2),
    Row("gpt2-untied-relu", "GPT2Config", _GPT2 | {"activation_function": "relu", "tie_word_embeddings": False}),
    Row("qwen2", "Qwen2Config", {"tie_word_embeddings": True}),
    Row("starcoder2", "Starcoder2Config", {"sliding_window": 9}),
    Row("qwen2-yarn", "Qwen2Config", {"rope_parameters": _YARN}),
    Row("qwen2-window", "Qwen2Config", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
    Row("qwen3", "Qwen3Config", {"head_dim": 32}),
    Row(
        "gemma3",
        "Gemma3TextConfig",
        {"sliding_window": 9, "layer_types": _LAYERS, "rope_parameters": _GEMMA_ROPES, "query_pre_attn_scalar": 24},
    ),
    Row(
        "gemma3-caps",
        "Gemma3TextConfig",
        {
            "sliding_window": 9,
            "layer_types": _LAYERS,
            "rope_parameters": _GEMMA_ROPES,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 5.0,
        },
    ),
]


#: Rows that every further test of a runtime goes through: all kinds of attention of the plain decoders.
CORE = [row for row in ROWS if row.name.partition("-")[0] in ("llama", "llama3", "mistral", "qwen2", "qwen3", "gemma3")]
LAYER_NORMS = [row for row in ROWS if row.name.partition("-")[0] == "gpt2"]


def save_checkpoint(row: Row, folder: Path) -> Any:
    """Save a random checkpoint with a word-level tokenizer; returns the transformers model."""
    import transformers

    _apply_gemma3_attention_cap()
    torch.manual_seed(3)
    common = {key: value for key, value in _COMMON.items() if key not in row.without}
    config = getattr(transformers, row.config)(**common | row.changes, attn_implementation=row.attention)
    network = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("A_log"):  # an exponent already
                continue
            # The initial weights are too alike to show a mistake: norms at a constant, biases at zero, small matrices.
            if parameter.dim() == 1 or not parameter.any():
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.mul_(row.spread)
    network.save_pretrained(folder)
    if row.disguise is not None:
        row.disguise(network, folder)
    save_tokenizer(folder, config.vocab_size)
    return network


def _apply_gemma3_attention_cap() -> None:
    """transformers 5.23 reads Gemma 3's attention cap but does not pass it to the attention function: pass it."""
    from transformers.models.gemma3 import modeling_gemma3

    plain = modeling_gemma3.eager_attention_forward
    if getattr(plain, "caps", False):
        return

    def capped(module: Any, *arguments: Any, **named: Any) -> Any:
        return plain(module, *arguments, **named | {"softcap": module.attn_logit_softcapping})

    capped.caps = True  # type: ignore[attr-defined]
    modeling_gemma3.eager_attention_forward = capped


def save_tokenizer(folder: Path, size: int) -> None:
    """A word-level tokenizer of ``size`` words, w0 to w(size - 1)."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"w{index}": index for index in range(size)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
