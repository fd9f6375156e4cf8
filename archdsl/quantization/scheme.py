"""The integers that stand for values: real = scale * (integer - zero_point).

As TensorFlow Lite's 8-bit specification has it (ai.google.dev/edge/litert/models/quantization_spec)
and ONNX can say too: activations with one scale a tensor, weights symmetric with one scale an
output channel, biases int32 with the product of both.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from archdsl.ir.execute import Array
from archdsl.quantization.ranges import Range


class Scale(NamedTuple):
    """How the int8 values of a tensor are read; for uint8 the zero point is 128 more."""

    scale: float
    zero_point: int


def activation_scale(limits: Range) -> Scale:
    """The scale of a tensor whose values lie in a range; zero is represented exactly."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    # float32 is what the files hold, and what the runtimes divide by.
    scale = float(np.float32((high - low) / 255))
    if scale < 1e-12:
        # Nothing but zeros. Nothing below them is left: a relu may be told by its range alone.
        return Scale(1.0, -128)
    zero = round(-128 - low / scale)
    return Scale(scale, max(-128, min(127, zero)))


class QuantizedKernel(NamedTuple):
    """int8 weights, one float32 scale for each output channel, and the int32 bias."""

    weight: Array
    scales: Array
    bias: Array


def quantized_kernel(
    weight: Array, bias: Array | None, input_scale: float, least: Array | None = None
) -> QuantizedKernel:
    """Weights (output channels first) and bias of a convolution or linear layer.

    Weights lie in [-127, 127]. A channel whose weights are tiny beside its bias has a larger scale,
    since the bias must fit 32 bits; `least` gives a bound for each that a target asks for.
    """
    flat = weight.reshape(len(weight), -1)
    scales = np.abs(flat).max(axis=1).astype(np.float64) / 127
    scales[scales < 1e-12] = 1e-12
    if least is not None:
        scales = np.maximum(scales, least)
    offsets = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
    scales = np.maximum(scales, np.abs(offsets) / (input_scale * 2**30))
    rounded = scales.astype(np.float32)
    shape = (-1,) + (1,) * (weight.ndim - 1)
    integers = np.clip(np.rint(weight / rounded.reshape(shape)), -127, 127).astype(np.int8)
    steps = rounded.astype(np.float64) * input_scale
    return QuantizedKernel(integers, rounded, np.rint(offsets / steps).astype(np.int32))
