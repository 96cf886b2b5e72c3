"""What makes a ``.tflite`` file fail in TFLM, loudly or (worse) silently, found before anything runs.

Every rule names what to choose instead. Usable on any file: ``require_clean(read_file(path))``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgesdk.errors import TargetError

from .decode import OPERATOR as DECODE
from .decode import faults
from .format import Contents, scales_of, zero_of
from .numerics import Range
from .operators import DECIDES, INSTEAD, OTHERS, TYPES

_ALIGNMENT = 16
_LIMITS = {"INT8": (-128, 127), "INT16": (-32768, 32767)}
_PACKED = ("INT8", "INT4", "INT2")


def require_clean(file: Contents) -> None:
    """Refuse a file that TFLM cannot run, or would run wrongly.

    Raises:
        TargetError: the first violation.
    """
    for violation in violations(file):
        raise violation


def violations(file: Contents) -> Iterator[TargetError]:
    """Everything that is wrong with a file for TFLM."""
    yield from _outside(file)
    yield from _unaligned(file)
    yield from _read_late(file)
    for number, operator in enumerate(file.graph.operators):
        code = file.code(operator)
        where = f"{file.name}: operator {number} ({code})"
        inputs = [file.graph.tensors[index] if index >= 0 else None for index in operator.inputs]
        outputs = [file.graph.tensors[index] for index in operator.outputs]
        yield from _unknown(where, code)
        if code in TYPES and not _is_whole(code, inputs, outputs):
            yield TargetError(f"{where}: it lacks inputs or outputs", hint="the file is damaged: export again")
            continue
        yield from _wrong_type(file, where, code, inputs)
        if code in _RULES:
            yield from _RULES[code](file, where, inputs, outputs)


def refuse_clipped(file: Contents, ranges: Mapping[str, Range]) -> None:
    """Refuse grids that do not hold what was measured (by tensor name, a suffix for the type aside).

    Raises:
        TargetError: the first tensor whose grid clips, with both ranges.
    """
    for tensor in file.graph.tensors:
        kind = file.kind(tensor)
        scales = scales_of(tensor)
        if kind not in _LIMITS or len(scales) != 1 or file.data(tensor) is not None:
            continue
        name = tensor.name.decode().removesuffix(f".{kind.lower()}")
        if name not in ranges:
            continue
        scale = float(scales[0])
        low, high = ((limit - zero_of(tensor)) * scale for limit in _LIMITS[kind])
        least, greatest = float(ranges[name].low.min()), float(ranges[name].high.max())
        if least < low - scale or greatest > high + scale:
            raise TargetError(
                f"{file.name}: {name} was measured from {least:.4g} to {greatest:.4g}, but its grid holds only "
                f"{low:.4g} to {high:.4g}: every value beyond is clipped",
                hint="calibrate with plain minima and maxima, not with a moving average",
            )


def _outside(file: Contents) -> Iterator[TargetError]:
    hint = "write every buffer inside the flatbuffer (export it again with edgesdk)"
    for number, buffer in enumerate(file.model.buffers):
        if buffer.offset > 1 or buffer.size > 1:
            yield TargetError(
                f"{file.name}: buffer {number} lies outside the flatbuffer (offset {buffer.offset}, {buffer.size} "
                "bytes): TFLM ignores that and reads other bytes",
                hint=hint,
            )
    for tensor in file.graph.tensors:
        if getattr(tensor, "externalBuffer", 0):
            yield TargetError(f"{file.name}: {tensor.name.decode()} lies in an external buffer", hint=hint)


def _unaligned(file: Contents) -> Iterator[TargetError]:
    base = np.frombuffer(file.content, np.uint8).__array_interface__["data"][0]
    for number, buffer in enumerate(file.model.buffers):
        if buffer.data is None or not len(buffer.data):
            continue
        offset = buffer.data.__array_interface__["data"][0] - base
        if offset % _ALIGNMENT:
            yield TargetError(
                f"{file.name}: buffer {number} begins at byte {offset}, which is no multiple of {_ALIGNMENT}: kernels "
                "on microcontrollers read constants as words",
                hint="align it (tflite_micro's tflite_flatbuffer_align), or export again with edgesdk",
            )


def _read_late(file: Contents) -> Iterator[TargetError]:
    """What DECODE writes lasts for one operator: in alternate memory, the next DECODE writes over it."""
    operators = file.graph.operators
    for number, operator in enumerate(operators):
        if file.code(operator) != DECODE:
            continue
        readers = [at for at, each in enumerate(operators) if set(each.inputs) & set(operator.outputs)]
        if any(at != number + 1 for at in readers) or set(operator.outputs) & set(file.graph.outputs):
            yield TargetError(
                f"{file.name}: operator {number} ({DECODE}): what it writes is not read by the next operator alone",
                hint="a DECODE of its own just before every reader",
            )


def _unknown(where: str, code: str) -> Iterator[TargetError]:
    if code not in TYPES and code not in OTHERS:
        instead = INSTEAD.get(code)
        yield TargetError(f"{where}: TFLM has no such operator", hint=f"use {instead}" if instead else None)


def _is_whole(code: str, inputs: list[Any], outputs: list[Any]) -> bool:
    """Whether an operator has the tensors that the rules below read."""
    least = 2 if code in ("EMBEDDING_LOOKUP", "FULLY_CONNECTED", "SELECT_V2") else 1
    return len(inputs) >= least and None not in inputs[:least] and bool(outputs)


def _wrong_type(file: Contents, where: str, code: str, inputs: list[Any]) -> Iterator[TargetError]:
    if code not in TYPES:
        return
    kind = file.kind(inputs[DECIDES.get(code, 0)])
    if kind not in TYPES[code]:
        yield TargetError(f"{where}: TFLM's kernel does not take {kind}", hint=f"it takes {', '.join(TYPES[code])}")


def _lookup(file: Contents, where: str, inputs: list[Any], _: list[Any]) -> Iterator[TargetError]:
    table = inputs[1]
    if file.kind(table) == "INT8" and len(scales_of(table)) > 1:
        yield TargetError(
            f"{where}: the table has {len(scales_of(table))} scales, and TFLM multiplies every row by the first",
            hint="one scale for the table (recipe w8t), or the scales of the rows in a float table of their own",
        )


def _dequantize(file: Contents, where: str, inputs: list[Any], _: list[Any]) -> Iterator[TargetError]:
    if len(scales_of(inputs[0])) > 1:
        yield TargetError(
            f"{where}: {inputs[0].name.decode()} has {len(scales_of(inputs[0]))} scales, and TFLM multiplies every row "
            "by the first",
            hint="weights in int8 need integer activations (-a8 or -a16), or leave them float (recipe none)",
        )


def _quantize(file: Contents, where: str, _: list[Any], outputs: list[Any]) -> Iterator[TargetError]:
    if len(scales_of(outputs[0])) != 1:
        yield TargetError(f"{where}: TFLM writes tensors with one scale", hint="give the output one scale")


def _fully_connected(file: Contents, where: str, inputs: list[Any], _: list[Any]) -> Iterator[TargetError]:
    kind, weight, count = file.kind(inputs[0]), file.kind(inputs[1]), len(scales_of(inputs[1]))
    if kind == "FLOAT32" and weight in _PACKED:
        yield TargetError(
            f"{where}: {weight} weights with float activations, which TFLM has no kernel for",
            hint="integer activations (-a8 or -a16), or float weights (recipe none)",
        )
    if kind == "INT16" and count > 1:
        yield TargetError(
            f"{where}: {count} scales with int16 activations: the host runs it, CMSIS-NN on the device refuses it",
            hint="one scale for the matrix (recipe w8t), or the scales of the rows as a product afterwards",
        )
    if kind == "INT8" and weight == "INT4" and count > 1:
        yield TargetError(
            f"{where}: int4 weights with {count} scales: TFLM takes one scale for int4",
            hint="int8 weights (recipe w8)",
        )


def _decode(file: Contents, where: str, inputs: list[Any], outputs: list[Any]) -> Iterator[TargetError]:
    if len(inputs) != 2 * len(outputs) or None in inputs:
        yield TargetError(f"{where}: {len(inputs)} inputs for {len(outputs)} outputs", hint="two for each output")
        return
    for number, output in enumerate(outputs):
        data, header = (file.data(each) for each in inputs[2 * number : 2 * number + 2])
        for fault in faults(data, header, output.shape, max(1, len(scales_of(output)))):
            yield TargetError(f"{where}: {output.name.decode()}: {fault}", hint="export again with edgesdk")


_RULES = {
    DECODE: _decode,
    "EMBEDDING_LOOKUP": _lookup,
    "DEQUANTIZE": _dequantize,
    "QUANTIZE": _quantize,
    "FULLY_CONNECTED": _fully_connected,
}
