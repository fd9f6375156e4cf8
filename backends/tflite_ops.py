"""The operators of the TensorFlow Lite schema that this backend writes: numbers, versions, options.

Numbers are those of `schema.fbs`; versions those that TensorFlow's own converter gives
(tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc). A version that is too low would let
an old runtime compute something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

FLOAT32, FLOAT16, INT32, INT8 = 0, 1, 2, 9
"""Element types (`TensorType`)."""

SAME, VALID = 0, 1
"""How a convolution pads (`Padding`)."""

ACTIVATIONS: Mapping[str | None, int] = {None: 0, "relu": 1, "relu6": 3}
"""What a kernel can do to its result (`ActivationFunctionType`)."""


class Kind(NamedTuple):
    """An operator: `BuiltinOperator`, the number of its options' table in the union, and that
    table's fields, by their slots and types. The default of each is zero."""

    code: int
    options: int = 0
    fields: Mapping[str, tuple[int, str]] = {}


OPERATORS: Mapping[str, Kind] = {
    "ADD": Kind(0, 11, {"activation": (0, "int8")}),
    "CONV_2D": Kind(
        3,
        1,
        {
            "padding": (0, "int8"),
            "stride_w": (1, "int32"),
            "stride_h": (2, "int32"),
            "activation": (3, "int8"),
        },
    ),
    "DEPTHWISE_CONV_2D": Kind(
        4,
        2,
        {
            "padding": (0, "int8"),
            "stride_w": (1, "int32"),
            "stride_h": (2, "int32"),
            "multiplier": (3, "int32"),
            "activation": (4, "int8"),
        },
    ),
    "DEQUANTIZE": Kind(6, 38),
    "FULLY_CONNECTED": Kind(9, 8, {"activation": (0, "int8"), "asymmetric_inputs": (3, "bool")}),
    "LOGISTIC": Kind(14),
    "MUL": Kind(18, 21, {"activation": (0, "int8")}),
    "RELU": Kind(19),
    "RELU6": Kind(21),
    "RESHAPE": Kind(22, 17),
    "SOFTMAX": Kind(25, 9, {"beta": (0, "float32")}),
    "PAD": Kind(34, 22),
    "TRANSPOSE": Kind(39, 26),
    "MEAN": Kind(40, 27, {"keep_dims": (0, "bool")}),
    "QUANTIZE": Kind(114, 89),
    "HARD_SWISH": Kind(117, 91),
    "BATCH_MATMUL": Kind(126, 101, {"adj_y": (1, "bool")}),
    "GELU": Kind(150, 116),
}
"""GELU without its option `approximate` is the exact one (erf)."""

INTEGER_VERSIONS: Mapping[str, int] = {
    "ADD": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 2,
    "FULLY_CONNECTED": 4,
    "LOGISTIC": 2,
    "MEAN": 2,
    "MUL": 2,
    "PAD": 2,
    "TRANSPOSE": 2,
}
"""Versions that read int8; the others are 1, as all are that read float32."""

HYBRID_VERSIONS: Mapping[str, int] = {"CONV_2D": 5, "FULLY_CONNECTED": 12}
"""Versions with float32 activations and int8 weights that have a scale a channel."""

GROUPED_CONVOLUTION = 6
DEQUANTIZE_HALF = 3
MUL_ENLARGING = 3
"""MUL where the product of the inputs' scales is at least the output's."""
