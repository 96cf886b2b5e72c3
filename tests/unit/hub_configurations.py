"""``config.json`` of published models, as their makers wrote them, at tiny sizes: keys and odd values are theirs.

Written down from the field's common knowledge of these files (2019 to 2025), not copied from any of them.
"""

from __future__ import annotations

from typing import Any

_SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_USUAL: dict[str, Any] = {
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.02,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}
_LLAMA3 = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
_OWN_CODE = {"auto_map": {"AutoConfig": "configuration.C", "AutoModelForCausalLM": "modeling.M"}}
_LONG = {"long_factor": [1.07] * 4 + [2.0] * 4, "short_factor": [1.0] * 4 + [1.1] * 4, "type": "longrope"}

#: By name: the configuration, and whether its reading has a note for the user.
CONFIGURATIONS: dict[str, tuple[dict[str, Any], bool]] = {
    "smollm2": (
        _SIZES
        | _USUAL
        | {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "hidden_act": "silu",
            "is_llama_config": True,
            "max_position_embeddings": 8192,
            "mlp_bias": False,
            "model_type": "llama",
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-05,
            "rope_interleaved": False,
            "rope_scaling": None,
            "rope_theta": 100000,
            "tie_word_embeddings": True,
            "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
            "transformers_version": "4.42.3",
        },
        False,
    ),
    "llama-3.2": (
        _SIZES
        | _USUAL
        | {
            "architectures": ["LlamaForCausalLM"],
            "eos_token_id": [2, 3, 4],
            "head_dim": 16,
            "max_position_embeddings": 131072,
            "model_type": "llama",
            "rms_norm_eps": 1e-05,
            "rope_scaling": _LLAMA3,
            "rope_theta": 500000.0,
            "tie_word_embeddings": True,
            "unsloth_fixed": True,
        },
        False,
    ),
    "qwen2.5": (
        _SIZES
        | _USUAL
        | {
            "architectures": ["Qwen2ForCausalLM"],
            "hidden_act": "silu",
            "max_position_embeddings": 32768,
            "max_window_layers": 21,
            "model_type": "qwen2",
            "rms_norm_eps": 1e-06,
            "rope_theta": 1000000.0,
            "sliding_window": 32768,
            "tie_word_embeddings": True,
            "use_mrope": False,
            "use_sliding_window": False,
        },
        False,
    ),
    "mistral-7b": (
        _SIZES
        | _USUAL
        | {
            "architectures": ["MistralForCausalLM"],
            "max_position_embeddings": 32768,
            "model_type": "mistral",
            "rms_norm_eps": 1e-05,
            "sliding_window": 4096,
            "tie_word_embeddings": False,
        },
        False,
    ),
    "phi-3.5-mini": (
        _SIZES
        | _USUAL
        | _OWN_CODE
        | {
            "architectures": ["Phi3ForCausalLM"],
            "attention_bias": False,
            "embd_pdrop": 0.0,
            "max_position_embeddings": 131072,
            "model_type": "phi3",
            "num_key_value_heads": 4,
            "original_max_position_embeddings": 4096,
            "pad_token_id": 3,
            "resid_pdrop": 0.0,
            "rms_norm_eps": 1e-05,
            "rope_scaling": _LONG,
            "sliding_window": 262144,
        },
        True,
    ),
    "gemma-2b": (
        _SIZES
        | _USUAL
        | {
            "architectures": ["GemmaForCausalLM"],
            "head_dim": 16,
            "hidden_act": "gelu",
            "hidden_activation": None,
            "max_position_embeddings": 8192,
            "model_type": "gemma",
            "num_key_value_heads": 1,
            "pad_token_id": 0,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
        },
        False,
    ),
    "gemma-3-1b": (
        _SIZES
        | _USUAL
        | {
            "architectures": ["Gemma3ForCausalLM"],
            "cache_implementation": "hybrid",
            "head_dim": 16,
            "hidden_activation": "gelu_pytorch_tanh",
            "max_position_embeddings": 32768,
            "model_type": "gemma3_text",
            "num_key_value_heads": 1,
            "pad_token_id": 0,
            "query_pre_attn_scalar": 256,
            "rope_local_base_freq": 10000,
            "rope_scaling": None,
            "rope_theta": 1000000,
            "sliding_window": 16,
            "sliding_window_pattern": 6,
        },
        False,
    ),
    "lfm2": (
        {key: value for key, value in _SIZES.items() if key != "intermediate_size"}
        | _USUAL
        | {
            "architectures": ["Lfm2ForCausalLM"],
            "block_auto_adjust_ff_dim": True,
            "block_ff_dim": 144,
            "block_ffn_dim_multiplier": 1.0,
            "block_multiple_of": 32,
            "conv_L_cache": 3,
            "conv_bias": False,
            "layer_types": ["conv", "full_attention", "conv"],
            "max_position_embeddings": 128000,
            "model_type": "lfm2",
            "norm_eps": 1e-05,
            "rope_theta": 1000000.0,
            "tie_embedding": True,
        },
        False,
    ),
    "bloom": (
        {
            "apply_residual_connection_post_layernorm": False,
            "architectures": ["BloomForCausalLM"],
            "attention_dropout": 0.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_dropout": 0.0,
            "layer_norm_epsilon": 1e-05,
            "masked_softmax_fusion": True,
            "model_type": "bloom",
            "n_embed": 64,
            "n_head": 4,
            "n_layer": 3,
            "offset_alibi": 100,
            "seq_length": 2048,
            "slow_but_exact": False,
            "vocab_size": 96,
        },
        True,
    ),
    "pythia": (
        {
            "architectures": ["GPTNeoXForCausalLM"],
            "hidden_act": "gelu",
            "hidden_size": 64,
            "intermediate_size": 256,
            "layer_norm_eps": 1e-05,
            "max_position_embeddings": 2048,
            "model_type": "gpt_neox",
            "num_attention_heads": 4,
            "num_hidden_layers": 3,
            "rotary_emb_base": 10000,
            "rotary_pct": 0.25,
            "tie_word_embeddings": False,
            "use_parallel_residual": True,
            "vocab_size": 96,
        },
        False,
    ),
    "gpt2": (
        {
            "activation_function": "gelu_new",
            "architectures": ["GPT2LMHeadModel"],
            "attn_pdrop": 0.1,
            "bos_token_id": 50,
            "embd_pdrop": 0.1,
            "eos_token_id": 50,
            "layer_norm_epsilon": 1e-05,
            "model_type": "gpt2",
            "n_ctx": 1024,
            "n_embd": 64,
            "n_head": 4,
            "n_layer": 3,
            "n_positions": 1024,
            "resid_pdrop": 0.1,
            "summary_activation": None,
            "summary_first_dropout": 0.1,
            "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
            "vocab_size": 96,
        },
        False,
    ),
    "yarn-beside": (
        _SIZES
        | _USUAL
        | {
            "architectures": ["Qwen2ForCausalLM"],
            "max_position_embeddings": 256,
            "model_type": "qwen2",
            "original_max_position_embeddings": 16,
            "rope_scaling": {"type": "yarn", "factor": 4.0},
        },
        False,
    ),
}
