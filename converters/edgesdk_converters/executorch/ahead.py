"""Programs for delegates that only compile ahead of time here: Vulkan and Core ML, through ``torch.export``.

The decoder takes one token a step, so every shape is fixed; ExecuTorch's runners then prefill token by token. What the
delegate does not take stays with the portable kernels, and is counted. Nothing here runs on this computer.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesdk.errors import EdgeError, MissingExtraError
from edgesdk.model.layers import DecoderLayer, Tables, normalize
from edgesdk.model.rope import rotary_tables
from edgesdk.model.weights import dense
from edgesdk.partials import scratch_folder

from .native import native_log
from .wheel import version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgesdk.model import Model
    from edgesdk.progress import Progress

_MASKED = -1e4  # as low as float16 needs


class StepLayer(DecoderLayer):
    """A decoder layer over caches of fixed size, for one token."""

    def __init__(self, model: Model, index: int, context: int) -> None:
        prefix, layer = f"layers.{index}.", model.spec.layers[index]
        names = model.spec.layer_tensors(index)
        tensors = {name.removeprefix(prefix): dense(model.weights.get(name)) for name in names}
        super().__init__(layer, model.spec.norm, model.spec.norm_eps, tensors)
        shape = (1, context, layer.attention.kv_heads, layer.attention.head_dim)
        self.register_buffer("keys", torch.zeros(shape))
        self.register_buffer("values", torch.zeros(shape))
        if layer.attention.alibi is not None:
            self.register_buffer("slopes", torch.tensor(layer.attention.slopes).view(1, -1, 1, 1))

    def step(self, x: Tensor, tables: Tables | None, position: Tensor, age: Tensor) -> Tensor:
        """Hidden states [1, 1, hidden] through the layer; ``age`` is how far back each entry lies, [context]."""
        normed = self._norm(x, "attn_norm") if self.layer.pre_norms else x
        return self._after_attention(x, normed, self._attend_step(normed, tables, position, age))

    def _attend_step(self, x: Tensor, tables: Tables | None, position: Tensor, age: Tensor) -> Tensor:
        attention = self.layer.attention
        groups = attention.heads // attention.kv_heads
        q, k, v = self._placed(x, tables)
        keys, values = self.get_buffer("keys"), self.get_buffer("values")
        keys.index_copy_(1, position, k.transpose(1, 2))
        values.index_copy_(1, position, v.transpose(1, 2))
        every_key = keys.transpose(1, 2).repeat_interleave(groups, dim=1)
        every_value = values.transpose(1, 2).repeat_interleave(groups, dim=1)
        scores = (q @ every_key.transpose(-1, -2)) * attention.scale
        if attention.softcap is not None:
            scores = attention.softcap * torch.tanh(scores / attention.softcap)
        if attention.alibi is not None:
            scores = scores - self.get_buffer("slopes") * age
        window = attention.window or keys.shape[1]
        seen = torch.logical_and(age >= 0, age < window)
        scores = scores + torch.where(seen, 0.0, _MASKED)
        mixed = (torch.softmax(scores, dim=-1) @ every_value).transpose(1, 2).reshape(1, 1, attention.q_size)
        return self.linear(self._norm(mixed, "o_norm") if attention.sub_norm else mixed, "o")


class StepDecoder(nn.Module):
    """A whole decoder for one token: ``forward(tokens [1, 1], position [1])`` gives logits [1, 1, vocab]."""

    def __init__(self, model: Model, context: int) -> None:
        super().__init__()
        spec = self.spec = model.spec
        self.layers = nn.ModuleList(StepLayer(model, index, context) for index in range(len(spec.layers)))
        for name in spec.tensors():
            if not name.startswith("layers."):
                self.register_buffer(name.replace(".", "_"), dense(model.weights.get(name)))
        self.register_buffer("entries", torch.arange(context))
        for index, (rope, head_dim) in enumerate(spec.ropes):
            for name, table in zip(("cos", "sin"), rotary_tables(rope, head_dim, context), strict=True):
                self.register_buffer(f"{name}{index}", table)

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        """Logits after the token, which goes to ``position`` of the caches."""
        age = position - self.get_buffer("entries")
        tables = [
            (
                self.get_buffer(f"cos{index}").index_select(0, position),
                self.get_buffer(f"sin{index}").index_select(0, position),
            )
            for index in range(len(self.spec.ropes))
        ]
        x = F.embedding(tokens, self.get_buffer("embed_weight")) * self.spec.embedding_scale
        if self.spec.embedding is not None:
            x = F.linear(x, self.get_buffer("embed_proj_weight"))
        if self.spec.learned_positions:
            x = x + self.get_buffer("positions_weight").index_select(0, position)
        if self.spec.embed_norm:
            x = self._norm(x, "embed_norm")
        for layer in self.layers:
            assert isinstance(layer, StepLayer)
            rope = layer.layer.attention.rope
            x = layer.step(
                x, None if rope is None else tables[self.spec.rope_index(layer.layer.attention)], position, age
            )
        head = self.get_buffer(self.spec.head_name.replace(".", "_"))
        bias = self.get_buffer("head_bias") if self.spec.head_bias else None
        x = self._norm(x, "final_norm")
        if self.spec.embedding is not None:
            x = F.linear(x, self.get_buffer("head_proj_weight"))
        logits = F.linear(x, head, bias)
        cap = self.spec.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        bias = self.get_buffer(f"{name}_bias") if self.spec.norm == "layer" else None
        return normalize(x, self.get_buffer(f"{name}_weight"), bias, self.spec.norm_eps)


@dataclass(frozen=True)
class Compiled:
    """What became of a decoder.

    Attributes:
        delegated: subgraphs that the delegate took.
        portable: operators that stayed with the portable kernels, and how often each.
    """

    delegated: int
    portable: Mapping[str, int]


def compile_ahead(
    model: Model,
    delegate: str,
    context: int,
    half: bool,
    facts: Mapping[str, bool | int | Sequence[int]],
    path: Path,
    progress: Progress,
) -> Compiled:
    """Write a program for ``delegate`` (``vulkan`` or ``coreml``) to ``path``.

    The graph is float32; with ``half`` the delegate keeps weights and computes in float16.

    Raises:
        EdgeError: the delegate's compiler is not installed, or refuses the model.
    """
    decoder = StepDecoder(model, context).eval()
    with _hushed(), progress.stage(f"Compiling for {delegate} (ahead of time)", 3) as stage:
        try:
            from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower

            partitioner = _PARTITIONERS[delegate](half)
        except ModuleNotFoundError as failure:
            raise MissingExtraError(failure.name or "executorch", "executorch") from None
        try:
            example = (torch.zeros((1, 1), dtype=torch.int64), torch.tensor([1]))
            exported = torch.export.export(decoder, example, strict=False)
            stage.advance()
            lowered = to_edge_transform_and_lower(
                exported,
                partitioner=[partitioner],
                compile_config=EdgeCompileConfig(_check_ir_validity=False),
                constant_methods=dict(facts),
            )
            stage.advance()
            calls = [node for node in lowered.exported_program().graph.nodes if node.op == "call_function"]
            finished = lowered.to_executorch(ExecutorchBackendConfig(extract_delegate_segments=True))
        except Exception as failure:  # each compiler raises classes of its own
            reason = (str(failure).strip().splitlines() or ["no reason given"])[0]
            raise EdgeError(
                f"ExecuTorch {version()} cannot compile this model for {delegate}: {type(failure).__name__}: {reason}",
                hint="leave out --delegate to use XNNPACK",
            ) from failure
        with path.open("wb") as out:
            finished.write_to_file(out)
        stage.advance()
    names = Counter(_operator(node.target) for node in calls)
    delegated = names.pop("executorch_call_delegate", 0)
    return Compiled(delegated, {name: names[name] for name in sorted(names) if name != "getitem"})


def _vulkan(half: bool) -> Any:
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

    return VulkanPartitioner({"force_fp16": half})


def _coreml(half: bool) -> Any:
    import coremltools
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner

    specs = CoreMLBackend.generate_compile_specs(
        minimum_deployment_target=coremltools.target.iOS17,
        compute_precision=coremltools.precision.FLOAT16 if half else coremltools.precision.FLOAT32,
    )
    return CoreMLPartitioner(compile_specs=specs, take_over_mutable_buffer=False)


_PARTITIONERS: dict[str, Callable[[bool], Any]] = {"vulkan": _vulkan, "coreml": _coreml}


def _operator(target: Any) -> str:
    """The name of an operator of a graph, without its schema."""
    return str(getattr(target, "__name__", target)).removeprefix("<EdgeOpOverload: ").partition(">")[0]


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """The compilers log and draw on both streams, and write temporary files where they stand."""
    level, here = logging.root.manager.disable, Path.cwd()
    logging.disable(logging.CRITICAL)
    try:
        with scratch_folder() as scratch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with native_log(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                os.chdir(scratch)
                yield
    finally:
        os.chdir(here)
        logging.disable(level)
