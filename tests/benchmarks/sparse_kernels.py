"""Does LiteRT run fully connected layers with sparse weights faster? Dense against 1x4 and 1x16 blocks, float and int8.

    python tests/benchmarks/sparse_kernels.py

One layer of SmolLM2's size (576 inputs, 1536 outputs), one row of input (a decoding step), with and without XNNPACK, on
one thread. Prints microseconds a call (median of 300) and what share of the weights is left, in blocks.
"""

from __future__ import annotations

import statistics
import time

import flatbuffers
import numpy as np
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

OUTPUTS, INPUTS, CALLS = 1536, 576, 300


def weights(kept: float, block: int, seed: int = 0) -> np.ndarray:
    """A matrix of which some blocks of a row are left."""
    random = np.random.default_rng(seed)
    left = random.random((OUTPUTS, INPUTS // block)) < kept
    return (random.standard_normal((OUTPUTS, INPUTS)) * np.repeat(left, block, axis=1)).astype(np.float32)


def sparsity(matrix: np.ndarray, block: int) -> tuple[schema.SparsityParametersT, np.ndarray]:
    """Blocks of a row in compressed sparse rows, and the values that are left."""
    blocks = matrix.reshape(OUTPUTS, INPUTS // block, block)
    left = np.abs(blocks).sum(-1) != 0
    segments, indices = schema.Int32VectorT(), schema.Int32VectorT()
    segments.values = np.concatenate(([0], np.cumsum(left.sum(1)))).astype(np.int32)
    indices.values = np.nonzero(left)[1].astype(np.int32)
    rows, columns, inner = (schema.DimensionMetadataT() for _ in range(3))
    rows.format, rows.denseSize = schema.DimensionType.DENSE, OUTPUTS
    columns.format = schema.DimensionType.SPARSE_CSR
    columns.arraySegmentsType = columns.arrayIndicesType = schema.SparseIndexVector.Int32Vector
    columns.arraySegments, columns.arrayIndices = segments, indices
    inner.format, inner.denseSize = schema.DimensionType.DENSE, block
    found = schema.SparsityParametersT()
    found.traversalOrder, found.blockMap, found.dimMetadata = [0, 1, 2], [1], [rows, columns, inner]
    return found, blocks[left].ravel()


def program(matrix: np.ndarray, block: int | None, *, int8: bool) -> bytes:
    """A model of one fully connected layer: float input; weights dense or sparse, float or int8 (dynamic)."""
    model, graph, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 8
    scale = float(np.abs(matrix).max()) / 127
    stored = np.round(matrix / scale).astype(np.int8) if int8 else matrix
    tensors, buffers = [], [schema.BufferT()]
    for name, shape, data in (("x", [1, INPUTS], None), ("w", list(matrix.shape), stored), ("y", [1, OUTPUTS], None)):
        tensor, buffer = schema.TensorT(), schema.BufferT()
        tensor.name, tensor.shape, tensor.type = name, shape, schema.TensorType.FLOAT32
        if data is not None:
            tensor.type = schema.TensorType.INT8 if int8 else schema.TensorType.FLOAT32
            if int8:
                tensor.quantization = schema.QuantizationParametersT()
                tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0]
            values = data
            if block:
                tensor.sparsity, values = sparsity(stored.astype(np.float32), block)
                values = values.astype(stored.dtype)
            buffer.data = np.frombuffer(values.tobytes(), dtype=np.uint8)
        tensor.buffer = len(buffers)
        buffers.append(buffer)
        tensors.append(tensor)
    operator, options = schema.OperatorT(), schema.FullyConnectedOptionsT()
    operator.inputs, operator.outputs = [0, 1, -1], [2]
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.FullyConnectedOptions, options
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, [operator], [0], [2]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], buffers
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def run(content: bytes, matrix: np.ndarray, *, xnnpack: bool, tolerance: float) -> str:
    """Microseconds a call, or why it does not run; the result is checked against numpy."""
    resolver = litert.OpResolverType.AUTO if xnnpack else litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    x = np.random.default_rng(1).standard_normal((1, INPUTS)).astype(np.float32)
    try:
        made = litert.Interpreter(model_content=content, experimental_op_resolver_type=resolver, num_threads=1)
        made.allocate_tensors()
        made.set_tensor(made.get_input_details()[0]["index"], x)
        times = []
        for _ in range(CALLS):
            start = time.perf_counter()
            made.invoke()
            times.append(time.perf_counter() - start)
    except (RuntimeError, ValueError) as failure:
        return f"does not run: {str(failure).splitlines()[0][:70]}"
    found, wanted = made.get_tensor(made.get_output_details()[0]["index"]), x @ matrix.T
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    right = "" if error < tolerance else f" WRONG by {error:.2f}"
    return f"{1e6 * statistics.median(times):6.0f} us{right}"


def main() -> None:
    print(f"{'':<34} {'XNNPACK':<24} built-in kernels")
    for int8 in (False, True):
        block = 16 if int8 else 4
        for kept in (1.0, 0.5, 0.25, 0.1):
            matrix = weights(kept, block)
            for name, form in (("dense", None), (f"sparse 1x{block}", block)):
                if kept == 1.0 and form:
                    continue
                content = program(matrix, form, int8=int8)
                found = [run(content, matrix, xnnpack=it, tolerance=0.05) for it in (True, False)]
                label = f"{'int8' if int8 else 'float'} {name}, {kept:.0%} of blocks left"
                print(f"{label:<34} {found[0]:<24} {found[1]}")


if __name__ == "__main__":
    main()
