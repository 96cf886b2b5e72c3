"""SmolVLM and Idefics3: a SigLIP encoder, squares of patches joined, one matrix, a decoder (arXiv 2504.05299)."""

from __future__ import annotations

from pathlib import Path

from ...errors import ModelError
from ..config import Config
from ..encoder_spec import EncoderLayer, Normalization
from ..encoders.base import attention_of
from ..families.base import ACTIVATIONS
from ..spec import DecoderSpec, Mlp
from ..vision_spec import ImageSpec, Preparation, VisionSpec
from .base import VisionFamily
from .preparing import read_preparation

_WHOLE = {
    "patch": "model.vision_model.embeddings.patch_embedding",
    "patch_positions": "model.vision_model.embeddings.position_embedding",
    "vision_norm": "model.vision_model.post_layernorm",
    "connector": "model.connector.modality_projection.proj",
}
_PARTS = {
    "attn_norm": "layer_norm1",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.out_proj",
    "mlp_norm": "layer_norm2",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}


def _stowed(name: str) -> str:
    path, _, kind = name.rpartition(".")
    if path in _WHOLE:
        return f"{_WHOLE[path]}.{kind}"
    _, _, index, part = path.split(".")
    return f"model.vision_model.encoder.layers.{index}.{_PARTS[part]}.{kind}"


def _spec(config: Config, text: DecoderSpec) -> VisionSpec:
    vision = config.section("vision_config")
    size, patch = vision.integer("image_size", 224), vision.integer("patch_size", 32)
    shuffle = config.integer("scale_factor", 2)
    if size % (patch * shuffle):
        raise ModelError(f"{vision.where}: images of {size} pixels are no multiple of {shuffle} patches of {patch}")
    hidden = vision.integer("hidden_size", 1152)
    mlp = Mlp(
        vision.integer("intermediate_size", 3072),
        vision.choice("hidden_act", ACTIVATIONS, "gelu_pytorch_tanh"),
        gated=False,
        bias=True,
    )
    layer = EncoderLayer(attention_of(vision, "num_attention_heads", "hidden_size"), mlp, pre_norm=True)
    norm = Normalization("layer", vision.number("layer_norm_eps", 1e-6))
    layers = (layer,) * vision.integer("num_hidden_layers", 12)
    image = ImageSpec(size, patch, vision.integer("num_channels", 3), hidden, layers, norm, shuffle)
    return VisionSpec("smolvlm", image, text, config.integer("image_token_id"))


def _preparation(folder: Path, size: int) -> Preparation | None:
    return read_preparation(folder, size, "<fake_token_around_image>", "<global-img>", "<row_{row}_col_{column}>")


FAMILY = VisionFamily("smolvlm", ("smolvlm", "idefics3"), _spec, _stowed, "model.text_model.", _preparation)
