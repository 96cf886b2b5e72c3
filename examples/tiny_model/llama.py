"""A Llama-style decoder in plain torch; its weights have the names that transformers gives them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: config.json of the model: everything that its shape follows from.
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "torch_dtype": "float32",
}
HIDDEN, HEADS, KV_HEADS, HEAD = (
    CONFIG[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim")
)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.o_proj = _linear(HIDDEN, HEADS * HEAD), _linear(HEADS * HEAD, HIDDEN)
        self.k_proj, self.v_proj = _linear(HIDDEN, KV_HEADS * HEAD), _linear(HIDDEN, KV_HEADS * HEAD)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (-1, HEAD)).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        k, v = (heads.repeat_interleave(HEADS // KV_HEADS, dim=1) for heads in (k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        inner = CONFIG["intermediate_size"]
        self.gate_proj, self.up_proj, self.down_proj = (
            _linear(*s) for s in ((HIDDEN, inner),) * 2 + ((inner, HIDDEN),)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(), Mlp()
        self.input_layernorm, self.post_attention_layernorm = _norm(), _norm()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """Token ids [batch, positions] to logits [batch, positions, vocabulary]; the embedding is also the head."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.ModuleList(Layer() for _ in range(CONFIG["num_hidden_layers"]))
        embedding = nn.Embedding(CONFIG["vocab_size"], HIDDEN)
        self.model = nn.ModuleDict({"embed_tokens": embedding, "layers": layers, "norm": _norm()})
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                into_stream = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.06 / (2 * len(layers)) ** 0.5 if into_stream else 0.06)

    def forward(self, ids: Tensor) -> Tensor:
        angles = torch.arange(ids.shape[1])[:, None] * CONFIG["rope_theta"] ** (-torch.arange(0, HEAD, 2) / HEAD)
        cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
        x = self.model["embed_tokens"](ids)
        for layer in self.model["layers"]:
            x = layer(x, cos, sin)
        return F.linear(self.model["norm"](x), self.model["embed_tokens"].weight)


def _norm() -> nn.RMSNorm:
    return nn.RMSNorm(HIDDEN, eps=CONFIG["rms_norm_eps"])


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
