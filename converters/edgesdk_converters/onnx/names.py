"""Names of the program's inputs and outputs: those that onnxruntime-genai expects, and one of ours."""

from __future__ import annotations

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
VISION_FILE = "vision.onnx"  # of a vision-language model, whose decoder is the main program
ENCODER_FILE = "encoder.onnx"  # of an encoder-decoder, whose decoder is the main program

#: First position whose logits are wanted, as a slice start: -1 (the default) the last, 0 all.
LOGITS_START = "logits_start"
#: What a vision-language model makes rows of, and those rows.
PIXELS, IMAGE_ROWS = "pixel_values", "image_features"
#: Outputs of encoders: every token's states, and a text's embedding or its labels' logits.
STATES, EMBEDDING, LOGITS = "last_hidden_state", "sentence_embedding", "logits"


def past_names(layer: int) -> tuple[str, str]:
    """Names of a layer's cache inputs."""
    return f"past_key_values.{layer}.key", f"past_key_values.{layer}.value"


def state_names(layer: int, state: str) -> tuple[str, str]:
    """Names of the input and the output of a state that a layer carries."""
    return f"past_state.{layer}.{state}", f"present_state.{layer}.{state}"


def present_names(layer: int) -> tuple[str, str]:
    """Names of a layer's cache outputs."""
    return f"present.{layer}.key", f"present.{layer}.value"
