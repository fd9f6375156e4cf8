"""From the operator graph to ONNX's nodes, in float32.

ONNX's convolutions take (batch, channels, height, width), the graph says (height, width, channels).
Feature maps are kept in ONNX's order, what attention makes of them in the graph's, and where a
reader wants the other one a transposition stands between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from archdsl.backend import refuse_unknown
from archdsl.ir.execute import Array
from archdsl.ir.graph import Graph
from archdsl.ir.lazy import Lazy, LazyWeights
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
    Shape,
    Softmax,
    Transpose,
)

from .metadata import file_name
from .onnx_protobuf import Message
from .onnx_protobuf import node as node_message
from .outputs import IMAGE

Layout = Literal["channels first", "as in the graph"]

CHANNELS_FIRST: Layout = "channels first"
AS_IN_GRAPH: Layout = "as in the graph"


class Value(NamedTuple):
    """A tensor, and the order of its axes behind the batch."""

    tensor: str
    layout: Layout


# ------------------------------------------------------------------------------------- layouts

_MAKES_MAPS = (Input, Conv2d, BatchNorm, GlobalAvgPool, LayerScale, Pad)
_KEEPS_LAYOUT = (Activation, Add, Mul, Dropout)


def layouts(graph: Graph) -> dict[str, Layout]:
    """The order in which each node's value is kept."""
    found: dict[str, Layout] = {}
    for node in graph:
        if isinstance(node.op, _MAKES_MAPS):
            found[node.name] = CHANNELS_FIRST
        elif isinstance(node.op, _KEEPS_LAYOUT):
            found[node.name] = found[node.inputs[0]]
        else:
            found[node.name] = AS_IN_GRAPH
    return found


def laid_out(shape: Shape, layout: Layout) -> Shape:
    """A shape of the graph in another order of axes."""
    if layout == AS_IN_GRAPH:
        return shape
    height, width, channels = shape
    return channels, height, width


# ----------------------------------------------------------------------------------- the network


class Network:
    """Collects the nodes and the initialisers of an ONNX graph.

    A tensor is called as the graph's node whose value it is; one that is no node's is called after
    the node that it is made for.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, Array]) -> None:
        refuse_unknown("onnx", graph, _RULES)
        self.graph = graph
        self.weights = LazyWeights.of(weights)
        self.layouts = layouts(graph)
        self.nodes: list[Message] = []
        self.initializers: dict[str, Lazy] = {}
        self.operators: set[str] = set()
        """The types of the nodes."""
        self._values: dict[str, Value] = {}
        self._other: dict[str, Value] = {}
        self._called: dict[str, str] = {}
        self._docs: dict[str, str] = {}

    def write(self, results: Mapping[str, str]) -> None:
        """Write all nodes; `results` maps the name of an output to the node whose value it is."""
        self._call(results)
        for node in self.graph:
            self.write_node(node)
        for name, source in results.items():
            if self._called.get(source) != name:
                # A view of another value, or a second name for one.
                value = self.value(source, self.result_layout(name, source))
                self.add("Identity", [value], name, self.graph[source])

    def write_node(self, node: Node) -> None:
        """Write a node of the graph, and set its value."""
        _RULES[type(node.op)](self, node)

    def result_layout(self, name: str, source: str) -> Layout:
        """The order of axes of a result: feature maps are channels first.

        What goes out under its node's name stays as it is kept.
        """
        if name == source:
            return self.layouts[source]
        return CHANNELS_FIRST if len(self.graph[source].shape) == 3 else AS_IN_GRAPH

    def _call(self, results: Mapping[str, str]) -> None:
        """Give tensors the names of the results that they are."""
        for name, source in results.items():
            op = self.graph[source].op
            if (
                source not in self._called
                and not isinstance(op, (Input, Dropout))
                and self.layouts[source] == self.result_layout(name, source)
            ):
                self._called[source] = name

    # -- tensors

    def name(self, node: Node) -> str:
        """What a node's tensor is called."""
        return self._called.get(node.name, node.name)

    def add(self, op_type: str, inputs: list[str], name: str, node: Node, **attributes: Any) -> str:
        """Write a node that makes the tensor `name`, for a node of the graph."""
        # Node and tensor have one name, but where the tensor's is that of a result.
        called = node.name if name == self.name(node) else f"{name}.node"
        self.nodes.append(node_message(op_type, inputs, name, called, self.doc(node), attributes))
        self.operators.add(op_type)
        return name

    def doc(self, node: Node) -> str:
        """The line and the block that a node came from."""
        origin = node.origin
        if origin is None:
            return ""
        if origin.path not in self._docs:
            self._docs[origin.path] = _place(node)
        return self._docs[origin.path]

    def constant(self, name: str, array: Array | Lazy) -> str:
        """An initialiser; of equal names the first one stays."""
        lazy = array if isinstance(array, Lazy) else Lazy.of(array)
        self.initializers.setdefault(name, lazy)
        return name

    def weight(self, node: Node, name: str) -> Array:
        """A node's weight, as the graph has it."""
        return self.weights[f"{node.name}.{name}"]

    def parameter(self, node: Node, name: str) -> str:
        """The tensor of a node's weight."""
        key = f"{node.name}.{name}"
        return self.constant(key, self.weights.lazy[key])

    # -- values

    def set(self, node: Node, tensor: str) -> None:
        """Say which tensor is a node's value, in the node's own layout."""
        self._values[node.name] = Value(tensor, self.layouts[node.name])

    def value(self, source: str, layout: Layout | None = None) -> str:
        """The tensor of a node's value, in a layout (None: in the one it is kept in)."""
        found = self._values[source]
        if layout is None or found.layout == layout:
            return found.tensor
        if source not in self._other:
            self._other[source] = Value(self._transposed(source, found, layout), layout)
        return self._other[source].tensor

    def _transposed(self, source: str, value: Value, layout: Layout) -> str:
        first = layout == CHANNELS_FIRST
        name = f"{source}.{'nchw' if first else 'nhwc'}"
        order = (0, 3, 1, 2) if first else (0, 2, 3, 1)
        return self.moved("Transpose", value.tensor, [], name, self.graph[source], perm=order)

    def moved(
        self, op_type: str, tensor: str, constants: list[str], name: str, node: Node, **options: Any
    ) -> str:
        """Write a node that only moves a tensor's elements: a transposition or another shape."""
        return self.add(op_type, [tensor, *constants], name, node, **options)


def _place(node: Node) -> str:
    assert node.origin is not None
    span = node.origin.span
    if span is None:
        return node.origin.path
    line, _ = span.source.position(span.start)
    return f"{file_name(span.source)}:{line}: {span.text}"


# -------------------------------------------------------------------------------------- rules


def _input(network: Network, node: Node) -> None:
    network.set(node, IMAGE)


def _conv2d(network: Network, node: Node) -> None:
    op = node.op
    assert isinstance(op, Conv2d) and op.activation is None
    inputs = [network.value(node.inputs[0], CHANNELS_FIRST), network.parameter(node, "weight")]
    if op.bias:
        inputs.append(network.parameter(node, "bias"))
    made = network.add("Conv", inputs, network.name(node), node, **convolution_attributes(op))
    network.set(node, made)


def convolution_attributes(op: Conv2d) -> dict[str, Any]:
    """The attributes of a convolution's node."""
    return {
        "kernel_shape": op.kernel,
        "strides": op.stride,
        "pads": _pads(op.padding),
        "group": op.groups,
    }


def _pads(padding: Padding) -> Padding:
    """All starts, then all ends."""
    top, bottom, left, right = padding
    return top, left, bottom, right


def _batch_norm(network: Network, node: Node) -> None:
    op = node.op
    assert isinstance(op, BatchNorm)
    names = ("weight", "bias", "running_mean", "running_var")
    inputs = [network.value(node.inputs[0], CHANNELS_FIRST)]
    inputs += [network.parameter(node, name) for name in names]
    made = network.add("BatchNormalization", inputs, network.name(node), node, epsilon=op.eps)
    network.set(node, made)


def _activation(network: Network, node: Node) -> None:
    op = node.op
    assert isinstance(op, Activation)
    tensor = network.value(node.inputs[0])
    network.set(node, activated(network, node, op.function, tensor))


def activated(network: Network, node: Node, function: str, tensor: str) -> str:
    """A function of a tensor, as a node's value."""
    name = network.name(node)
    match function:
        case "relu":
            return network.add("Relu", [tensor], name, node)
        case "relu6":
            limits = [scalar(network, 0.0), scalar(network, 6.0)]
            return network.add("Clip", [tensor, *limits], name, node)
        case "hswish":
            return network.add("HardSwish", [tensor], name, node)
        case "hsigmoid":
            # ONNX's own default for alpha is another one.
            return network.add("HardSigmoid", [tensor], name, node, alpha=1 / 6, beta=0.5)
        case "swish":
            gate = network.add("Sigmoid", [tensor], f"{node.name}.sigmoid", node)
            return network.add("Mul", [tensor, gate], name, node)
        case "sigmoid":
            return network.add("Sigmoid", [tensor], name, node)
        case _:
            assert function == "gelu", function
            return network.add("Gelu", [tensor], name, node, approximate="none")


def scalar(network: Network, number: float) -> str:
    """A number as an initialiser, which all that need it share."""
    return network.constant(f"constant.{number:g}", np.array(number, np.float32))


def _binary(network: Network, node: Node) -> None:
    layout = network.layouts[node.name]
    inputs = [network.value(source, layout) for source in node.inputs]
    made = network.add(type(node.op).__name__, inputs, network.name(node), node)
    network.set(node, made)


def _pad(network: Network, node: Node) -> None:
    assert isinstance(node.op, Pad)
    top, left, bottom, right = _pads(node.op.padding)
    pads = network.constant(
        f"{node.name}.pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
    )
    inputs = [network.value(node.inputs[0], CHANNELS_FIRST), pads]
    network.set(node, network.add("Pad", inputs, network.name(node), node, mode="constant"))


def _global_avg_pool(network: Network, node: Node) -> None:
    tensor = network.value(node.inputs[0], CHANNELS_FIRST)
    network.set(node, network.add("GlobalAveragePool", [tensor], network.name(node), node))


def _linear(network: Network, node: Node) -> None:
    op = node.op
    assert isinstance(op, Linear) and op.activation is None
    inputs = [network.value(node.inputs[0]), network.parameter(node, "weight")]
    if op.bias:
        inputs.append(network.parameter(node, "bias"))
    network.set(node, network.add("Gemm", inputs, network.name(node), node, transB=1))


def _matmul(network: Network, node: Node) -> None:
    op = node.op
    assert isinstance(op, MatMul)
    left, right = (network.value(source, AS_IN_GRAPH) for source in node.inputs)
    if op.transpose_b:
        order = list(range(len(node.shape) + 1))
        order[-1], order[-2] = order[-2], order[-1]
        right = network.moved("Transpose", right, [], f"{node.name}.transposed", node, perm=order)
    name = network.name(node)
    if op.scale == 1:
        network.set(node, network.add("MatMul", [left, right], name, node))
        return
    product = network.add("MatMul", [left, right], f"{node.name}.product", node)
    factor = network.constant(f"{node.name}.scale", np.array(op.scale, np.float32))
    network.set(node, network.add("Mul", [product, factor], name, node))


def _softmax(network: Network, node: Node) -> None:
    tensor = network.value(node.inputs[0], AS_IN_GRAPH)
    network.set(node, network.add("Softmax", [tensor], network.name(node), node, axis=-1))


def _reshape(network: Network, node: Node) -> None:
    op = node.op
    assert isinstance(op, Reshape)
    (source,) = node.inputs
    # The elements' order is the graph's; in a map of one pixel or one channel it is ONNX's too.
    before = network.graph[source].shape
    same = len(before) == 3 and (before[:2] == (1, 1) or before[2] == 1)
    tensor = network.value(source, None if same else AS_IN_GRAPH)
    # Zero stands for the batch.
    shape = network.constant(f"{node.name}.shape", np.array((0, *op.shape), np.int64))
    network.set(node, network.moved("Reshape", tensor, [shape], network.name(node), node))


def _transpose(network: Network, node: Node) -> None:
    op = node.op
    assert isinstance(op, Transpose)
    tensor = network.value(node.inputs[0], AS_IN_GRAPH)
    order = (0, *(axis + 1 for axis in op.axes))
    made = network.moved("Transpose", tensor, [], network.name(node), node, perm=order)
    network.set(node, made)


def _layer_scale(network: Network, node: Node) -> None:
    assert isinstance(node.op, LayerScale)
    gamma = network.weight(node, "gamma").reshape(-1, 1, 1)
    inputs = [
        network.value(node.inputs[0], CHANNELS_FIRST),
        network.constant(f"{node.name}.gamma", gamma),
    ]
    network.set(node, network.add("Mul", inputs, network.name(node), node))


def _dropout(network: Network, node: Node) -> None:
    # Nothing at inference: another name for the value.
    network.set(node, network.value(node.inputs[0]))


_RULES: dict[type, Callable[[Network, Node], None]] = {
    Input: _input,
    Conv2d: _conv2d,
    BatchNorm: _batch_norm,
    Activation: _activation,
    Add: _binary,
    Mul: _binary,
    Pad: _pad,
    GlobalAvgPool: _global_avg_pool,
    Linear: _linear,
    MatMul: _matmul,
    Softmax: _softmax,
    Reshape: _reshape,
    Transpose: _transpose,
    LayerScale: _layer_scale,
    Dropout: _dropout,
}
