"""The operators of the intermediate representation.

Each is a frozen dataclass with, beside it, its output shape, its MACs and its parameters. Shapes
have no batch dimension; a feature map is (height, width, channels). Parameter shapes are
PyTorch's (a convolution's weight is out x in/groups x height x width), since the names of the
weights are the keys of the emitted module's `state_dict`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

Shape = tuple[int, ...]
Pair = tuple[int, int]
Padding = tuple[int, int, int, int]
"""Pixels of zeros: top, bottom, left, right."""

NO_PADDING: Padding = (0, 0, 0, 0)

Function = Literal["relu", "relu6", "hswish", "swish", "gelu", "sigmoid", "hsigmoid"]


class ShapeError(ValueError):
    """An operator was given tensors it cannot take."""


@dataclass(frozen=True)
class Op:
    """An operator; subclasses give the fields."""

    name: ClassVar[str]

    def output(self, *inputs: Shape) -> Shape:
        """The output's shape.

        Raises:
            ShapeError: the inputs do not fit the operator.
        """
        raise NotImplementedError(type(self).__name__)

    def macs(self, *inputs: Shape) -> int:
        """Multiply-accumulates for one image; 0 for memory operators."""
        return 0

    def parameters(self) -> dict[str, Shape]:
        """Trainable parameters by name, in PyTorch's shapes."""
        return {}

    def buffers(self) -> dict[str, Shape]:
        """Running statistics by name."""
        return {}

    @property
    def parameter_count(self) -> int:
        """The number of trainable parameters."""
        return sum(math.prod(shape) for shape in self.parameters().values())

    @property
    def kernel_size(self) -> int:
        """Elements of the kernel: what is read beside the input (bias and norm are fused)."""
        return math.prod(self.parameters().get("weight", (0,)))


def _one(op: Op, inputs: tuple[Shape, ...]) -> Shape:
    if len(inputs) != 1:
        raise ShapeError(f"{op.name} takes one input, not {len(inputs)}")
    return inputs[0]


def _map(op: Op, inputs: tuple[Shape, ...], channels: int | None = None) -> Shape:
    """The single input, which must be a feature map (of so many channels)."""
    shape = _one(op, inputs)
    if len(shape) != 3:
        raise ShapeError(f"{op.name} takes a feature map, not the shape {shape}")
    if channels is not None and shape[2] != channels:
        raise ShapeError(f"{op.name} takes {channels} channels, not {shape[2]}")
    return shape


@dataclass(frozen=True)
class Input(Op):
    """The image."""

    name: ClassVar[str] = "input"
    shape: Shape

    def output(self, *inputs: Shape) -> Shape:
        if inputs:
            raise ShapeError("the image has no inputs")
        return self.shape


@dataclass(frozen=True)
class Conv2d(Op):
    """Convolution; depthwise where groups = in_channels. `activation` is set by fusion."""

    name: ClassVar[str] = "conv2d"
    in_channels: int
    out_channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    groups: int = 1
    bias: bool = False
    activation: Function | None = None

    def __post_init__(self) -> None:
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ShapeError(
                f"{self.groups} groups do not divide "
                f"{self.in_channels} and {self.out_channels} channels"
            )

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.groups == self.in_channels == self.out_channels

    def output(self, *inputs: Shape) -> Shape:
        height, width, _ = _map(self, inputs, self.in_channels)
        top, bottom, left, right = self.padding
        rows = (height + top + bottom - self.kernel[0]) // self.stride[0] + 1
        columns = (width + left + right - self.kernel[1]) // self.stride[1] + 1
        if rows < 1 or columns < 1:
            raise ShapeError(f"a {self.kernel[0]}x{self.kernel[1]} kernel exceeds the image")
        return rows, columns, self.out_channels

    def macs(self, *inputs: Shape) -> int:
        rows, columns, _ = self.output(*inputs)
        return rows * columns * self.kernel_size

    @property
    def kernel_size(self) -> int:
        height, width = self.kernel
        return self.out_channels * (self.in_channels // self.groups) * height * width

    @property
    def parameter_count(self) -> int:
        return self.kernel_size + (self.out_channels if self.bias else 0)

    def parameters(self) -> dict[str, Shape]:
        weight = (self.out_channels, self.in_channels // self.groups, *self.kernel)
        return {"weight": weight, "bias": (self.out_channels,)} if self.bias else {"weight": weight}


@dataclass(frozen=True)
class BatchNorm(Op):
    """Batch normalisation; `momentum` is the share of the new batch, as in PyTorch."""

    name: ClassVar[str] = "batch_norm"
    channels: int
    eps: float
    momentum: float

    def output(self, *inputs: Shape) -> Shape:
        return _map(self, inputs, self.channels)

    def parameters(self) -> dict[str, Shape]:
        return {"weight": (self.channels,), "bias": (self.channels,)}

    def buffers(self) -> dict[str, Shape]:
        return {
            "running_mean": (self.channels,),
            "running_var": (self.channels,),
            "num_batches_tracked": (),
        }

    @property
    def kernel_size(self) -> int:
        return 0

    @property
    def parameter_count(self) -> int:
        return 2 * self.channels


@dataclass(frozen=True)
class Activation(Op):
    """An elementwise function; gelu is the exact one (erf)."""

    name: ClassVar[str] = "activation"
    function: Function

    def output(self, *inputs: Shape) -> Shape:
        return _one(self, inputs)


@dataclass(frozen=True)
class Add(Op):
    """Sum of two equal shapes: a residual. `activation` is set by fusion."""

    name: ClassVar[str] = "add"

    def output(self, *inputs: Shape) -> Shape:
        if len(inputs) != 2 or inputs[0] != inputs[1]:
            raise ShapeError(f"add takes two equal shapes, not {inputs}")
        return inputs[0]


@dataclass(frozen=True)
class Mul(Op):
    """Product of a feature map and one value a channel: the gate of squeeze-and-excitation."""

    name: ClassVar[str] = "mul"

    def output(self, *inputs: Shape) -> Shape:
        if len(inputs) != 2 or inputs[1] not in (inputs[0], (1, 1, inputs[0][-1])):
            raise ShapeError(f"mul takes a feature map and a value a channel, not {inputs}")
        return inputs[0]


@dataclass(frozen=True)
class Pad(Op):
    """A border of zeros, where a target's convolution cannot pad one side more than the other."""

    name: ClassVar[str] = "pad"
    padding: Padding

    def output(self, *inputs: Shape) -> Shape:
        height, width, channels = _map(self, inputs)
        top, bottom, left, right = self.padding
        return height + top + bottom, width + left + right, channels


@dataclass(frozen=True)
class GlobalAvgPool(Op):
    """The mean over height and width, kept as a 1x1 map."""

    name: ClassVar[str] = "global_avg_pool"

    def output(self, *inputs: Shape) -> Shape:
        return 1, 1, _map(self, inputs)[2]


@dataclass(frozen=True)
class Linear(Op):
    """A fully connected layer on a vector. `activation` is set by fusion."""

    name: ClassVar[str] = "linear"
    in_features: int
    out_features: int
    bias: bool = True
    activation: Function | None = None

    def output(self, *inputs: Shape) -> Shape:
        if _one(self, inputs) != (self.in_features,):
            raise ShapeError(f"linear takes the shape ({self.in_features},), not {inputs[0]}")
        return (self.out_features,)

    def macs(self, *inputs: Shape) -> int:
        return self.in_features * self.out_features

    def parameters(self) -> dict[str, Shape]:
        weight = (self.out_features, self.in_features)
        return {"weight": weight, "bias": (self.out_features,)} if self.bias else {"weight": weight}


@dataclass(frozen=True)
class MatMul(Op):
    """`scale` x (a @ b), over the last two axes; `transpose_b` takes b's transpose."""

    name: ClassVar[str] = "matmul"
    transpose_b: bool = False
    scale: float = 1.0

    def output(self, *inputs: Shape) -> Shape:
        if len(inputs) != 2 or len(inputs[0]) != len(inputs[1]) or len(inputs[0]) < 2:
            raise ShapeError(f"matmul takes two matrices, not {inputs}")
        (*batch, rows, inner), (*other, before, behind) = inputs
        columns, depth = (before, behind) if self.transpose_b else (behind, before)
        if batch != other or inner != depth:
            raise ShapeError(f"matmul of {inputs[0]} and {inputs[1]}")
        return (*batch, rows, columns)

    def macs(self, *inputs: Shape) -> int:
        return math.prod(self.output(*inputs)) * inputs[0][-1]


@dataclass(frozen=True)
class Softmax(Op):
    """Softmax over the last axis."""

    name: ClassVar[str] = "softmax"

    def output(self, *inputs: Shape) -> Shape:
        return _one(self, inputs)


@dataclass(frozen=True)
class Reshape(Op):
    """Another shape for the same elements in the same order (height, width, channels)."""

    name: ClassVar[str] = "reshape"
    shape: Shape

    def output(self, *inputs: Shape) -> Shape:
        if math.prod(_one(self, inputs)) != math.prod(self.shape):
            raise ShapeError(f"{inputs[0]} has not as many elements as {self.shape}")
        return self.shape


@dataclass(frozen=True)
class Transpose(Op):
    """The axes in another order."""

    name: ClassVar[str] = "transpose"
    axes: tuple[int, ...]

    def output(self, *inputs: Shape) -> Shape:
        shape = _one(self, inputs)
        if sorted(self.axes) != list(range(len(shape))):
            raise ShapeError(f"transpose of {shape} by {self.axes}")
        return tuple(shape[axis] for axis in self.axes)


@dataclass(frozen=True)
class LayerScale(Op):
    """One learned factor a channel, `gamma`, starting at `init`."""

    name: ClassVar[str] = "layer_scale"
    channels: int
    init: float

    def output(self, *inputs: Shape) -> Shape:
        return _map(self, inputs, self.channels)

    def parameters(self) -> dict[str, Shape]:
        return {"gamma": (self.channels,)}


@dataclass(frozen=True)
class Dropout(Op):
    """Zeroes a share of the elements in training; nothing at inference."""

    name: ClassVar[str] = "dropout"
    rate: float

    def output(self, *inputs: Shape) -> Shape:
        return _one(self, inputs)
