"""What a graph comes to in TensorFlow Lite's operators: which there are, and what each computes.

A plan is still float32 and free of batch, buffers and numbers of tensors: `tflite_network` writes
it in the precision that is wanted. Decided here are the activations that kernels do themselves, how
padding is said, and where constant factors go:

- A hard sigmoid is relu6(x + 3) / 6: the 3 joins the bias before it, the 1/6 the weights of the
  convolution that reads the product.
- The scale of attention scores joins the queries' projection.
- A norm with no convolution before it joins the projections behind it where none of them pads; else
  it is a 1x1 depthwise convolution, one pass, and exact per channel in int8 too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from archdsl.backend import refuse_unknown
from archdsl.ir.execute import Array
from archdsl.ir.graph import Graph
from archdsl.ir.lazy import Lazy, LazyWeights
from archdsl.ir.node import INPUT, Node
from archdsl.ir.ops import (
    NO_PADDING,
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
    Op,
    Pad,
    Padding,
    Pair,
    Reshape,
    Shape,
    Softmax,
    Transpose,
)
from archdsl.rounding import same_padding

from .tflite_ops import ACTIVATIONS, SAME, VALID

KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
"""Calls with weights."""

_NATIVE = {
    "relu": "RELU",
    "relu6": "RELU6",
    "hswish": "HARD_SWISH",
    "gelu": "GELU",
    "sigmoid": "LOGISTIC",
}


class Call(NamedTuple):
    """An operator of TensorFlow Lite on values, which have names.

    `weight` and `bias` are in PyTorch's layout (a depthwise weight is (channels, 1, h, w)), and
    `node` says whose they are. `constant` is a second operand: paddings, axes, a permutation, a
    shape, or a number for ADD and MUL.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    options: Mapping[str, float] = {}
    weight: Lazy | None = None
    bias: Lazy | None = None
    constant: Array | None = None
    node: str = ""


@dataclass
class Plan:
    """Calls in order, the shape of every value (without batch), and the values of the results.

    `meanings` tells of a value which node's it is, and how many times that: only values that lie
    between nodes (a border, six times a hard sigmoid) have none.
    """

    calls: list[Call] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    meanings: dict[str, tuple[str, float]] = field(default_factory=dict)


def plan(graph: Graph, weights: Mapping[str, Array], results: Mapping[str, str]) -> Plan:
    """The calls of a graph whose norms are folded; `results` maps names to nodes.

    Raises:
        ArchError: E0701 for every operator that TensorFlow Lite is not known to have.
    """
    refuse_unknown("tflite", graph, _RULES)
    planner = _Planner(graph, weights)
    for node in graph:
        if node.name not in planner.values:
            _RULES[type(node.op)](planner, node, node.op)
    made = planner.plan
    made.results = {name: planner.result(node) for name, node in results.items()}
    return made


class _Planner:
    """Collects calls. `values` maps nodes to the names of their values."""

    def __init__(self, graph: Graph, weights: Mapping[str, Array]) -> None:
        self.graph, self.weights = graph, LazyWeights.of(weights)
        self.plan = Plan()
        self.values: dict[str, str] = {}
        self.norms: dict[str, tuple[Array, Array]] = {}
        """Nodes that are scale * value + shift of their value: norms that readers take in."""
        self.wanted = _query_factors(graph)
        """Convolutions whose output is wanted so many times: queries."""

    # -- the graph around a node

    def reader(self, node: Node) -> Node | None:
        """The only reader of a node's value, where nothing else wants it."""
        readers = self.graph.readers(node.name)
        return readers[0] if len(readers) == 1 and node.name not in self.graph.kept else None

    def clamp(self, node: Node) -> Node | None:
        """The relu or relu6 that the node's kernel does itself."""
        reader = self.reader(node)
        if reader and isinstance(reader.op, Activation) and reader.op.function in ACTIVATIONS:
            return reader
        return None

    def gates(self, node: Node) -> bool:
        """Whether a node (of a gate) may be six times itself: convolutions read the product."""
        product = self.reader(node)
        return (
            product is not None
            and isinstance(product.op, Mul)
            and product.inputs.count(node.name) == 1
            and product.name not in self.graph.kept
            and all(isinstance(r.op, Conv2d) for r in self.graph.readers(product.name))
        )

    # -- values

    def call(
        self,
        name: str,
        inputs: Iterable[str],
        output: str,
        shape: Shape,
        *,
        options: Mapping[str, float] | None = None,
        weight: Lazy | None = None,
        bias: Lazy | None = None,
        constant: Array | None = None,
        node: str = "",
    ) -> str:
        call = Call(name, tuple(inputs), output, options or {}, weight, bias, constant, node)
        self.plan.calls.append(call)
        self.plan.shapes[output] = shape
        return output

    def is_value(self, node: Node, value: str, factor: float = 1) -> None:
        self.values[node.name] = value
        self.plan.meanings[value] = node.name, factor

    def factor(self, value: str) -> float:
        return self.plan.meanings[value][1]

    def plain(self, node: str) -> str:
        """The value of a node as it is: without a factor or a norm to come."""
        value = self.values[node]
        assert self.factor(value) == 1 and node not in self.norms, f"{node} is not plain"
        return value

    def result(self, node: str) -> str:
        """The value of a result; the image itself is copied, since inputs are no outputs."""
        value = self.plain(node)
        if value != INPUT:
            return value
        copy = f"{value}.copy"
        shape = self.plan.shapes[value]
        if copy not in self.plan.shapes:
            self.call("RESHAPE", [value], copy, shape, constant=_new_shape(shape))
        return copy

    def times(self, value: str, factor: float, output: str) -> str:
        constant = np.array([factor], np.float32)
        return self.call("MUL", [value], output, self.plan.shapes[value], constant=constant)

    def padded(self, value: str, padding: Padding, output: str) -> str:
        top, bottom, left, right = padding
        height, width, channels = self.plan.shapes[value]
        shape = height + top + bottom, width + left + right, channels
        border = np.array([(0, 0), (top, bottom), (left, right), (0, 0)], "<i4")
        return self.call("PAD", [value], output, shape, constant=border)

    def parameter(self, node: Node, name: str) -> Lazy:
        return self.weights.lazy[f"{node.name}.{name}"]


# --------------------------------------------------------------------------------------- rules


def _input(p: _Planner, node: Node, op: Input) -> None:
    p.plan.shapes[node.name] = node.shape
    p.is_value(node, node.name)


def _conv2d(p: _Planner, node: Node, op: Conv2d) -> None:
    value = p.values[node.inputs[0]]
    padding, border = _padding_scheme(op, p.plan.shapes[value][:2], node.shape[:2])
    if border != NO_PADDING:
        value = p.padded(value, border, f"{node.name}.pad")
    single = op.groups > 1 and op.groups == op.in_channels
    options = {"padding": padding, "stride_h": op.stride[0], "stride_w": op.stride[1]}
    if single:
        options["multiplier"] = op.out_channels // op.groups
    name = "DEPTHWISE_CONV_2D" if single else "CONV_2D"
    weight, bias = _taken_in(p, node, p.parameter(node, "weight"))
    _kernel(p, node, name, value, options, weight, bias)


def _linear(p: _Planner, node: Node, op: Linear) -> None:
    weight, bias = _taken_in(p, node, p.parameter(node, "weight"))
    value = p.values[node.inputs[0]]
    _kernel(p, node, "FULLY_CONNECTED", value, {}, weight, bias)


def _taken_in(p: _Planner, node: Node, weight: Lazy) -> tuple[Lazy, Lazy]:
    """Weight and bias of a convolution or linear layer, with what its input still lacks, and
    with the factor that is wanted of its output."""
    (source,) = node.inputs
    own = getattr(node.op, "bias", False)
    zeros = Lazy.of(np.zeros(weight.shape[0], np.float32))
    bias = p.parameter(node, "bias") if own else zeros
    factor = p.wanted.get(node.name, 1)
    if source in p.norms:
        scale, shift = p.norms[source]

        def scaled(weight: Array) -> Array:
            return (weight * (scale * factor)[:, None, None]).astype(np.float32)

        def moved(bias: Array) -> Array:
            total: Array = bias + weight.make().sum((2, 3), np.float64) @ shift
            return (total * factor).astype(np.float32)

        return weight.then(scaled), bias.then(moved)
    return _times(weight, factor / p.factor(p.values[source])), _times(bias, factor)


def _times(array: Lazy, factor: float) -> Lazy:
    return array if factor == 1 else array.then(lambda made: made * np.float32(factor))


def _kernel(
    p: _Planner,
    node: Node,
    name: str,
    value: str,
    options: Mapping[str, float],
    weight: Lazy,
    bias: Lazy,
) -> None:
    """A call with weights, and the activation that its kernel does."""
    gate = p.reader(node)
    if gate is not None and isinstance(gate.op, Activation) and gate.op.function == "hsigmoid":
        six = f"{gate.name}.six"
        options = {**options, "activation": ACTIVATIONS["relu6"]}
        bias = bias.then(lambda made: made + np.float32(3))
        p.call(
            name,
            [value],
            six,
            node.shape,
            options=options,
            weight=weight,
            bias=bias,
            node=node.name,
        )
        _gate(p, gate, six)
        return
    last = p.clamp(node) or node
    options = {**options, "activation": _clamping(last)}
    p.call(
        name,
        [value],
        last.name,
        node.shape,
        options=options,
        weight=weight,
        bias=bias,
        node=node.name,
    )
    p.is_value(node, last.name)
    p.is_value(last, last.name, p.wanted.get(node.name, 1))


def _clamping(node: Node) -> int:
    return ACTIVATIONS[node.op.function if isinstance(node.op, Activation) else None]


def _gate(p: _Planner, node: Node, six: str) -> None:
    """The value of a hard sigmoid from the one that is six times it."""
    p.is_value(node, six, 6)
    if not p.gates(node):
        p.is_value(node, p.times(six, 1 / 6, node.name))


def _batch_norm(p: _Planner, node: Node, op: BatchNorm) -> None:
    gamma, beta, mean, variance = (
        p.parameter(node, name).make().astype(np.float64)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + op.eps)
    _affine(p, node, scale, beta - mean * scale)


def _layer_scale(p: _Planner, node: Node, op: LayerScale) -> None:
    scale = p.parameter(node, "gamma").make().astype(np.float64)
    _affine(p, node, scale, np.zeros_like(scale))


def _affine(p: _Planner, node: Node, scale: Array, shift: Array) -> None:
    value = p.plain(node.inputs[0])
    if node.name not in p.graph.kept and all(map(_projects, p.graph.readers(node.name))):
        p.values[node.name] = value
        p.norms[node.name] = scale, shift
        return
    options = {"padding": VALID, "stride_h": 1, "stride_w": 1, "multiplier": 1}
    weight = Lazy.of(scale.astype(np.float32).reshape(-1, 1, 1, 1))
    bias = Lazy.of(shift.astype(np.float32))
    _kernel(p, node, "DEPTHWISE_CONV_2D", value, options, weight, bias)


def _projects(node: Node) -> bool:
    op = node.op
    return isinstance(op, Conv2d) and op.padding == NO_PADDING and op.groups == 1


def _activation(p: _Planner, node: Node, op: Activation) -> None:
    value = p.plain(node.inputs[0])
    if op.function == "swish":
        sigmoid = p.call("LOGISTIC", [value], f"{node.name}.sigmoid", node.shape)
        p.call("MUL", [value, sigmoid], node.name, node.shape)
        p.is_value(node, node.name)
    elif op.function == "hsigmoid":
        options = {"activation": ACTIVATIONS["relu6"]}
        three = np.array([3], np.float32)
        six = f"{node.name}.six"
        p.call("ADD", [value], six, node.shape, options=options, constant=three)
        _gate(p, node, six)
    else:
        p.is_value(node, p.call(_NATIVE[op.function], [value], node.name, node.shape))


def _add(p: _Planner, node: Node, op: Add) -> None:
    _binary(p, node, "ADD", [p.plain(name) for name in node.inputs], 1)


def _mul(p: _Planner, node: Node, op: Mul) -> None:
    values = [p.values[name] for name in node.inputs]
    _binary(p, node, "MUL", values, math.prod(map(p.factor, values)))


def _binary(p: _Planner, node: Node, name: str, values: list[str], factor: float) -> None:
    last = p.clamp(node) or node
    p.call(name, values, last.name, node.shape, options={"activation": _clamping(last)})
    p.is_value(node, last.name)
    p.is_value(last, last.name, factor)


def _pad(p: _Planner, node: Node, op: Pad) -> None:
    p.is_value(node, p.padded(p.plain(node.inputs[0]), op.padding, node.name))


def _pool(p: _Planner, node: Node, op: GlobalAvgPool) -> None:
    axes = np.array([1, 2], "<i4")
    value = p.plain(node.inputs[0])
    options = {"keep_dims": True}
    p.is_value(node, p.call("MEAN", [value], node.name, node.shape, options=options, constant=axes))


def _matmul(p: _Planner, node: Node, op: MatMul) -> None:
    values = [p.values[name] for name in node.inputs]
    rest = op.scale / math.prod(map(p.factor, values))
    whole = math.isclose(rest, 1, rel_tol=1e-12)
    product = node.name if whole else f"{node.name}.product"
    options = {"adj_y": op.transpose_b}
    p.call("BATCH_MATMUL", values, product, node.shape, options=options)
    p.plan.meanings[product] = node.name, 1 / rest
    if not whole:
        product = p.times(product, rest, node.name)
    p.is_value(node, product)


def _softmax(p: _Planner, node: Node, op: Softmax) -> None:
    value = p.plain(node.inputs[0])
    p.is_value(node, p.call("SOFTMAX", [value], node.name, node.shape, options={"beta": 1.0}))


def _reshape(p: _Planner, node: Node, op: Reshape) -> None:
    value = p.values[node.inputs[0]]
    p.call("RESHAPE", [value], node.name, node.shape, constant=_new_shape(node.shape))
    p.is_value(node, node.name, p.factor(value))


def _transpose(p: _Planner, node: Node, op: Transpose) -> None:
    value = p.values[node.inputs[0]]
    order = np.array((0, *(axis + 1 for axis in op.axes)), "<i4")
    p.call("TRANSPOSE", [value], node.name, node.shape, constant=order)
    p.is_value(node, node.name, p.factor(value))


def _dropout(p: _Planner, node: Node, op: Dropout) -> None:
    p.values[node.name] = p.values[node.inputs[0]]


_RULES: dict[type[Op], Callable[[_Planner, Node, Any], None]] = {
    Input: _input,
    Conv2d: _conv2d,
    BatchNorm: _batch_norm,
    Activation: _activation,
    Add: _add,
    Mul: _mul,
    Pad: _pad,
    GlobalAvgPool: _pool,
    Linear: _linear,
    MatMul: _matmul,
    Softmax: _softmax,
    Reshape: _reshape,
    Transpose: _transpose,
    LayerScale: _layer_scale,
    Dropout: _dropout,
}


# -------------------------------------------------------------------------------------- details


def _new_shape(shape: Shape) -> Array:
    return np.array((-1, *shape), "<i4")


def _padding_scheme(op: Conv2d, size: Shape, wanted: Shape) -> tuple[int, Padding]:
    """TensorFlow's name for a convolution's padding, and what must be padded before it."""
    if op.padding == NO_PADDING:
        return VALID, NO_PADDING
    rows = same_padding(size[0], op.kernel[0], op.stride[0])
    columns = same_padding(size[1], op.kernel[1], op.stride[1])
    ceilings: Pair = -(-size[0] // op.stride[0]), -(-size[1] // op.stride[1])
    if op.padding == (*rows, *columns) and tuple(wanted) == ceilings:
        return SAME, NO_PADDING
    return VALID, op.padding


def _query_factors(graph: Graph) -> dict[str, float]:
    """The convolutions that can take in the scale of attention scores."""
    found = {}
    for node in graph:
        if not isinstance(node.op, MatMul) or node.op.scale == 1:
            continue
        reader, name = node, node.inputs[0]
        while True:
            source = graph[name]
            if len(graph.readers(name)) > 1 or name in graph.kept or reader.inputs.count(name) > 1:
                break
            if isinstance(source.op, (Conv2d, Linear)):
                if source.op.activation is None:
                    found[name] = node.op.scale
                break
            if not isinstance(source.op, (Reshape, Transpose)):
                break
            reader, name = source, source.inputs[0]
    return found
