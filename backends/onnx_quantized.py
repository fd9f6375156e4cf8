"""From the operator graph to ONNX's nodes, in 8 bits: QuantizeLinear and DequantizeLinear pairs.

Activations are uint8 with one scale a tensor, weights int8 with one scale an output channel, biases
int32 (`archdsl.quantization.scheme`). onnxruntime makes an integer operator of each that stands
between such pairs, so what is written here keeps floating-point operators out of the way:

- relu and relu6 are left out: the range of the integers clips as they do.
- hsigmoid's three is added to the bias before it, its clipping is a range from 0 to 6, and its
  sixth is a factor of the scale that it is read with: it costs nothing.
- hswish reads one tensor twice: as x, and, with the zero point at -3, as x + 3. What is left is the
  clipping at 6, of integers and only where the range goes beyond 3, and one multiplication.
- A norm before attention is a depthwise convolution of one pixel.
- Transpositions and reshapings move integers.

Where it is faster otherwise, on the CPU, values stay real: attention's scores and softmax.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from archdsl.ir.execute import Array
from archdsl.ir.graph import Graph
from archdsl.ir.node import Node
from archdsl.ir.ops import (
    Activation,
    BatchNorm,
    Conv2d,
    Dropout,
    LayerScale,
    Linear,
    MatMul,
    Reshape,
    Softmax,
    Transpose,
)
from archdsl.quantization.ranges import Range, checked_ranges
from archdsl.quantization.scheme import Scale, activation_scale, quantized_kernel

from .onnx_network import AS_IN_GRAPH, CHANNELS_FIRST, Network, Value, convolution_attributes

_UNSIGNED = 128
"""What the zero point of a uint8 is more than that of the int8 of the same value."""

_MOVING = (Reshape, Transpose, Dropout)

_STEPS = 255


class Integers(NamedTuple):
    """A tensor of uint8, and how it is read: real = scale * (integer - zero_point)."""

    tensor: str
    scale: float
    zero_point: int


class QuantizedNetwork(Network):
    """Writes a folded graph, given the range of each node's value.

    The values of the nodes in `kept` stay readable: nothing joins behind them.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Array],
        ranges: Mapping[str, Range] | None,
        kept: Iterable[str] = (),
    ) -> None:
        super().__init__(graph, weights)
        self.ranges = checked_ranges(graph, ranges)
        self._kept = {*graph.kept, *kept}
        self._integers: dict[str, Integers] = {}
        self._unread: dict[str, Node] = {}
        self._done: set[str] = set()

    def write(self, results: Mapping[str, str]) -> None:
        super().write(results)
        for name in results:
            self._read(name)

    def write_node(self, node: Node) -> None:
        if node.name in self._done:
            return
        match node.op:
            case Conv2d() | Linear() | BatchNorm() | LayerScale():
                self._write_kernel(node)
            case MatMul(scale=scale) if scale != 1:
                self._write_scaled_matmul(node)
            case Activation(function="swish"):
                self._write_swish(node)
            case _:
                super().write_node(node)

    # -- integers and what they stand for

    def name(self, node: Node) -> str:
        """What a node's tensor is called before it is rounded."""
        final = super().name(node)
        return final if self._stays_real(node) else f"{final}.real"

    def _stays_real(self, node: Node) -> bool:
        """Whether a value is not rounded: integers that are moved, and logits."""
        if isinstance(node.op, Linear):
            # onnxruntime's integer kernel can give float32 too, where nothing follows.
            return node.name == self.graph.output and not self.graph.readers(node.name)
        return isinstance(node.op, _MOVING) or self._in_attention(node)

    def _in_attention(self, node: Node) -> bool:
        """Whether a node's value goes from the scores into the softmax, or from there on.

        onnxruntime's integer softmax takes five times as long as the other, and gives its
        precision away; its integer product can give float32.
        """
        return isinstance(node.op, Softmax) or (
            node.name not in self._kept
            and isinstance(node.op, MatMul)
            and all(isinstance(reader.op, Softmax) for reader in self.graph.readers(node.name))
        )

    def set(self, node: Node, tensor: str) -> None:
        if tensor == f"{super().name(node)}.real":
            tensor = self.rounded(tensor, super().name(node), node, self._scale_of(node))
        elif node.op.name == "input":
            tensor = self.rounded(tensor, node.name, node, self._scale_of(node))
        super().set(node, tensor)

    def _scale_of(self, node: Node) -> Scale:
        return activation_scale(self.ranges[node.name])

    def rounded(self, tensor: str, name: str, node: Node, scale: Scale, factor: float = 1) -> str:
        """The tensor `name`: another one in steps of a scale, times a factor."""
        integers = Integers(f"{name}.integers", scale.scale, scale.zero_point + _UNSIGNED)
        inputs = [tensor, *self._reading(integers.tensor, integers)]
        self.add("QuantizeLinear", inputs, integers.tensor, node)
        return self.real(integers._replace(scale=integers.scale * factor), name, node)

    def real(self, integers: Integers, name: str, node: Node) -> str:
        """The tensor `name`: what integers stand for."""
        self._integers[name] = integers._replace(scale=float(np.float32(integers.scale)))
        self._unread[name] = node
        return name

    def add(self, op_type: str, inputs: list[str], name: str, node: Node, **options: Any) -> str:
        for tensor in inputs:
            self._read(tensor)
        return super().add(op_type, inputs, name, node, **options)

    def _read(self, tensor: str) -> None:
        """Write what makes a tensor of integers: onnxruntime would run what nobody reads."""
        node = self._unread.pop(tensor, None)
        if node is not None:
            integers = self._integers[tensor]
            inputs = [integers.tensor, *self._reading(tensor, integers)]
            super().add("DequantizeLinear", inputs, tensor, node)

    def _reading(self, name: str, integers: Integers) -> list[str]:
        """The constants by which integers are read, or rounded."""
        return [
            self.constant(f"{name}.scale", np.array(integers.scale, np.float32)),
            self.constant(f"{name}.zero_point", np.array(integers.zero_point, np.uint8)),
        ]

    def moved(
        self, op_type: str, tensor: str, constants: list[str], name: str, node: Node, **options: Any
    ) -> str:
        integers = self._integers.get(tensor)
        if integers is None:
            return super().moved(op_type, tensor, constants, name, node, **options)
        inputs = [integers.tensor, *constants]
        moved = self.add(op_type, inputs, f"{name}.integers", node, **options)
        return self.real(integers._replace(tensor=moved), name, node)

    # -- convolutions and linear layers, with the activations that they take with them

    def _write_kernel(self, node: Node) -> None:
        follower = self._follower(node)
        joined = self._joined(node, follower) if follower else None
        if follower is None or joined is None:
            self.set(node, self._kernel(node, self.name(node)))
        else:
            self._done.add(follower.name)
            super().set(follower, joined)

    def _follower(self, node: Node) -> Node | None:
        """The activation that alone reads a node's value."""
        readers = self.graph.readers(node.name)
        alone = len(readers) == 1 and node.name not in self._kept
        return readers[0] if alone and isinstance(readers[0].op, Activation) else None

    def _joined(self, node: Node, follower: Node) -> str | None:
        """The value of an activation that its kernel gives too, or None where it cannot."""
        assert isinstance(follower.op, Activation)
        name, kernel = Network.name(self, follower), f"{node.name}.real"
        match follower.op.function:
            case "relu" | "relu6":
                kernel = self._kernel(node, kernel)
                return self.rounded(kernel, name, follower, self._scale_of(follower))
            case "hsigmoid":
                kernel = self._kernel(node, kernel, shift=3)
                return self.rounded(kernel, name, follower, activation_scale((0, 6)), 1 / 6)
            case "hswish":
                _, high = self.ranges[node.name]
                steps = min(int(_STEPS * 3 / (max(high, 0) + 3)), 128)
                # Values of several hundreds leave no step for what lies below three.
                return self._hswish(node, follower, steps) if steps else None
        return None

    def _hswish(self, node: Node, follower: Node, steps: int) -> str:
        """x * min(x + 3, 6) / 6, where x lies above -3, which is `steps` steps below zero."""
        kernel = self._kernel(node, f"{node.name}.real")
        x = self.rounded(kernel, node.name, node, Scale(3 / steps, steps - _UNSIGNED))
        above = self._integers[x]._replace(zero_point=0)
        if 2 * steps < 255:
            limits = [
                self.constant(f"{follower.name}.{end}", np.array(value, np.uint8))
                for end, value in (("zero", 0), ("six", 2 * steps))
            ]
            clipped = f"{follower.name}.gate.integers"
            self.add("Clip", [above.tensor, *limits], clipped, follower)
            above = above._replace(tensor=clipped)
        gate = self.real(above._replace(scale=above.scale / 6), f"{follower.name}.gate", follower)
        product = self.add("Mul", [x, gate], self.name(follower), follower)
        return self.rounded(
            product, Network.name(self, follower), follower, self._scale_of(follower)
        )

    def _kernel(self, node: Node, name: str, shift: float = 0) -> str:
        """A kernel's value before it is rounded; `shift` is added to it."""
        weight, bias = self._weights(node)
        if shift:
            bias = (np.zeros(len(weight), np.float32) if bias is None else bias) + np.float32(shift)
        layout = AS_IN_GRAPH if isinstance(node.op, Linear) else CHANNELS_FIRST
        x = self.value(node.inputs[0], layout)
        if x not in self._integers:
            source = self.graph[node.inputs[0]]
            x = self.rounded(x, f"{node.name}.input", node, self._scale_of(source))
        step = self._integers[x].scale
        kernel = quantized_kernel(weight, bias, step, least_scales(weight))
        inputs = [x, self._integer_weight(node, "weight", kernel.weight, kernel.scales)]
        if bias is not None:
            steps = kernel.scales * np.float32(step)
            inputs.append(self._integer_weight(node, "bias", kernel.bias, steps))
        if isinstance(node.op, Linear):
            return self.add("Gemm", inputs, name, node, transB=1)
        op = node.op if isinstance(node.op, Conv2d) else _pointwise(len(weight))
        return self.add("Conv", inputs, name, node, **convolution_attributes(op))

    def _weights(self, node: Node) -> tuple[Array, Array | None]:
        """The weight and the bias of a node, norms and layer scales as convolutions."""
        op = node.op
        if isinstance(op, LayerScale):
            return self.weight(node, "gamma").reshape(-1, 1, 1, 1), None
        if isinstance(op, BatchNorm):
            mean, variance = self.weight(node, "running_mean"), self.weight(node, "running_var")
            scale = self.weight(node, "weight") / np.sqrt(variance + np.float32(op.eps))
            return scale.reshape(-1, 1, 1, 1), self.weight(node, "bias") - mean * scale
        assert isinstance(op, (Conv2d, Linear))
        return self.weight(node, "weight"), self.weight(node, "bias") if op.bias else None

    def _integer_weight(self, node: Node, name: str, integers: Array, scales: Array) -> str:
        full = f"{node.name}.{name}"
        inputs = [
            self.constant(f"{full}.integers", integers),
            self.constant(f"{full}.scale", scales),
            self.constant(f"{full}.zero_point", np.zeros(len(scales), integers.dtype)),
        ]
        return self.add("DequantizeLinear", inputs, full, node, axis=0)

    # -- what is left

    def _write_swish(self, node: Node) -> None:
        x = self.value(node.inputs[0])
        name = f"{node.name}.sigmoid"
        gate = self.add("Sigmoid", [x], f"{name}.real", node)
        gate = self.rounded(gate, name, node, activation_scale((0, 1)))
        self.set(node, self.add("Mul", [x, gate], self.name(node), node))

    def _write_scaled_matmul(self, node: Node) -> None:
        op = node.op
        assert isinstance(op, MatMul)
        left = node.inputs[0]
        integers = self._integers.get(self.value(left, AS_IN_GRAPH))
        if integers is None:
            super().write_node(node)
            return
        scaled = self.real(
            integers._replace(scale=integers.scale * op.scale), f"{node.name}.scaled", node
        )
        plain = node._replace(op=replace(op, scale=1.0))
        kept, self._values[left] = self._values[left], Value(scaled, AS_IN_GRAPH)
        super().write_node(plain)
        self._values[left] = kept


def _pointwise(channels: int) -> Conv2d:
    return Conv2d(channels, channels, (1, 1), groups=channels)


def least_scales(weight: Array) -> Array | None:
    """The scales below which products of a pair of weights overflow on some CPUs.

    Without VNNI, x86 multiplies by `vpmaddubsw`: u1 * w1 + u2 * w2 of two neighbouring input
    channels is kept in 16 bits, and clipped. Where the weights of such a pair add up to at most
    128, it never is: 255 * 128 < 2**15. That costs a fraction of a bit, where 7-bit weights, the
    usual remedy, cost a whole one.
    """
    # The order in which the products are added up: input channels last.
    rows = np.moveaxis(weight, 1, -1)
    channels = rows.shape[-1]
    if channels == 1:
        # A depthwise convolution adds in 32 bits.
        return None
    rows = rows.reshape(len(rows), -1)
    if rows.shape[1] % 2:
        rows = np.pad(rows, ((0, 0), (0, 1)))
    largest: Array = np.abs(rows[:, 0::2] + rows[:, 1::2]).max(axis=1)
    # Rounding adds up to one half to each.
    return largest / 127
