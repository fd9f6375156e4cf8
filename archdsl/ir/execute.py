"""A reference executor of graphs in numpy: slow, plain, and the meaning of every operator.

It is what passes and backends are proven against; it shares no code with them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.ir.graph import Graph
from archdsl.ir.node import Node
from archdsl.ir.ops import (
    Activation,
    Add,
    BatchNorm,
    Conv2d,
    Dropout,
    GlobalAvgPool,
    Input,
    LayerScale,
    Linear,
    MatMul,
    Mul,
    Pad,
    Padding,
    Reshape,
    Softmax,
    Transpose,
)

Array = NDArray[Any]
Weights = Mapping[str, Array]
"""Arrays by `state_dict` key, in PyTorch's shapes."""


def execute(
    graph: Graph,
    weights: Weights,
    images: Array,
    before: Callable[[Node, list[Array]], None] | None = None,
    keep: Container[str] | None = None,
) -> dict[str, Array]:
    """The value of every node of a graph at inference, or of those in `keep`.

    `images` is (batch, height, width, channels); feature maps have this order too. The arithmetic
    is done in the images' dtype. `before` is called with each node and its inputs.

    Raises:
        KeyError: a weight is missing.
    """
    values: dict[str, Array] = {}
    unread = Counter(source for node in graph for source in node.inputs)
    for node in graph:
        parameters = _Parameters(node.name, weights)
        inputs = [values[name] for name in node.inputs] or [images]
        if before is not None:
            before(node, inputs)
        values[node.name] = _RULES[type(node.op)](node, parameters, *inputs)
        if keep is not None:
            # Large images have some gigabytes of values: each goes with its last reader.
            unread.subtract(node.inputs)
            for name in {*node.inputs, node.name}:
                if not unread[name] and name not in keep:
                    del values[name]
    return values


class _Parameters:
    """A node's own weights."""

    def __init__(self, node: str, weights: Weights) -> None:
        self._node, self._weights = node, weights

    def __getitem__(self, name: str) -> Array:
        return self._weights[f"{self._node}.{name}"]


def activate(function: str | None, x: Array) -> Array:
    """An activation function, elementwise; gelu is the exact one."""
    return x if function is None else _FUNCTIONS[function](x)


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _hsigmoid(x: Array) -> Array:
    return np.asarray(np.clip(x + 3, 0, 6) / 6)


def _gelu(x: Array) -> Array:
    places = (x / math.sqrt(2)).ravel().tolist()
    erf = np.fromiter(map(math.erf, places), x.dtype, x.size).reshape(x.shape)
    return np.asarray(x * (1 + erf) / 2)


_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hsigmoid": _hsigmoid,
    "hswish": lambda x: x * _hsigmoid(x),
    "sigmoid": _sigmoid,
    "swish": lambda x: x * _sigmoid(x),
    "gelu": _gelu,
}


def _padded(x: Array, padding: Padding) -> Array:
    top, bottom, left, right = padding
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))


def _conv2d(node: Node, p: _Parameters, x: Array) -> Array:
    op = node.op
    assert isinstance(op, Conv2d)
    x = _padded(x, op.padding)
    weight = p["weight"]
    rows, columns, _ = node.shape
    per_group = op.in_channels // op.groups
    out = np.zeros((len(x), rows, columns, op.groups, op.out_channels // op.groups), x.dtype)
    grouped = x.reshape(*x.shape[:3], op.groups, per_group)
    kernels = weight.reshape(op.groups, op.out_channels // op.groups, per_group, *op.kernel)
    for row in range(op.kernel[0]):
        for column in range(op.kernel[1]):
            window = grouped[
                :,
                row : row + (rows - 1) * op.stride[0] + 1 : op.stride[0],
                column : column + (columns - 1) * op.stride[1] + 1 : op.stride[1],
            ]
            kernel = kernels[..., row, column]
            # A depthwise one has nothing to add up, which matrix products would be slower at.
            out += np.einsum("nhwgi,goi->nhwgo", window, kernel, optimize=per_group > 1)
    result = out.reshape(len(x), rows, columns, op.out_channels)
    if op.bias:
        result = result + p["bias"]
    return activate(op.activation, result)


def _batch_norm(node: Node, p: _Parameters, x: Array) -> Array:
    assert isinstance(node.op, BatchNorm)
    scale = p["weight"] / np.sqrt(p["running_var"] + node.op.eps)
    return (x - p["running_mean"]) * scale + p["bias"]


def _linear(node: Node, p: _Parameters, x: Array) -> Array:
    assert isinstance(node.op, Linear)
    y = x @ p["weight"].T
    return activate(node.op.activation, y + p["bias"] if node.op.bias else y)


def _matmul(node: Node, _: _Parameters, a: Array, b: Array) -> Array:
    assert isinstance(node.op, MatMul)
    return node.op.scale * (a @ (b.swapaxes(-1, -2) if node.op.transpose_b else b))


def _softmax(_: Node, __: _Parameters, x: Array) -> Array:
    exponents = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))


def _transpose(node: Node, _: _Parameters, x: Array) -> Array:
    assert isinstance(node.op, Transpose)
    return x.transpose(0, *(axis + 1 for axis in node.op.axes))


_RULES: dict[type, Callable[..., Array]] = {
    Input: lambda node, p, x: x,
    Conv2d: _conv2d,
    BatchNorm: _batch_norm,
    Activation: lambda node, p, x: activate(node.op.function, x),
    Add: lambda node, p, a, b: a + b,
    Mul: lambda node, p, a, b: a * b,
    Pad: lambda node, p, x: _padded(x, node.op.padding),
    GlobalAvgPool: lambda node, p, x: x.mean(axis=(1, 2), keepdims=True),
    Linear: _linear,
    MatMul: _matmul,
    Softmax: _softmax,
    Reshape: lambda node, p, x: x.reshape(len(x), *node.op.shape),
    Transpose: _transpose,
    LayerScale: lambda node, p, x: x * p["gamma"],
    Dropout: lambda node, p, x: x,
}
