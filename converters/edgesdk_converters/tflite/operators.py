"""The operators of TFLM and the types that their kernels take: data, read from the kernels' sources.

Source: ``python_ops_resolver.cc`` and ``kernels/*.cc`` of tflite-micro, August 2026. The host wheel registers all of
them; a firmware registers those that its program uses.
"""

from __future__ import annotations

_FLOAT, _BYTE, _SHORT, _INT, _BOOL = "FLOAT32", "INT8", "INT16", "INT32", "BOOL"
_REAL = (_FLOAT, _BYTE, _SHORT)

#: Types of the input that decides (see DECIDES), for the operators that our graphs use.
TYPES: dict[str, tuple[str, ...]] = {
    "ADD": (*_REAL, _INT),
    "BATCH_MATMUL": _REAL,
    "CONCATENATION": (*_REAL, _INT, "INT64", _BOOL),
    "DEQUANTIZE": (_BYTE, _SHORT, "UINT8"),
    "EMBEDDING_LOOKUP": (_FLOAT, _BYTE),
    "FULLY_CONNECTED": _REAL,
    "GREATER": (*_REAL, _INT, "INT64"),
    "LESS": (_FLOAT, _BYTE, _INT, "INT64"),
    "LOGICAL_AND": (_BOOL,),
    "LOGISTIC": _REAL,
    "MEAN": _REAL,
    "MUL": (*_REAL, _INT),
    "QUANTIZE": (*_REAL, _INT, "UINT8"),
    "RELU": _REAL,
    "RSQRT": (_FLOAT, _BYTE),
    "SELECT_V2": _REAL,
    "SLICE": (*_REAL, _INT, _BOOL),
    "SOFTMAX": _REAL,
    "SUB": (*_REAL, _INT),
    "TANH": _REAL,
}

#: Which input decides, where it is not the first: a lookup's table, a select's values.
DECIDES = {"EMBEDDING_LOOKUP": 1, "SELECT_V2": 1}

#: Further operators that TFLM has; the types that their kernels take are not listed here.
_OTHERS = (
    "ABS ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO "
    "CALL_ONCE CAST CEIL CONV_2D COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DIV DYNAMIC_UPDATE_SLICE ELU EQUAL EXP "
    "EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD GATHER GATHER_ND GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION "
    "L2_POOL_2D LEAKY_RELU LESS_EQUAL LOG LOGICAL_NOT LOGICAL_OR LOG_SOFTMAX MAXIMUM MAX_POOL_2D MINIMUM MIRROR_PAD "
    "NEG NOT_EQUAL PACK PAD PADV2 PRELU READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU6 RESHAPE RESIZE_BILINEAR "
    "RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND SHAPE SIN SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE "
    "SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUM SVDF TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK "
    "TFLM_DECODE VAR_HANDLE WHILE ZEROS_LIKE "
)
OTHERS = frozenset(_OTHERS.split())

#: Which operator stands for one that TFLM lacks.
INSTEAD = {
    "SELECT": "SELECT_V2",
    "RELU_0_TO_1": "RELU6, or MINIMUM and MAXIMUM",
    "GELU": "the tanh form of GELU, as MUL, ADD and LOGISTIC (activation 'gelu_tanh')",
}
