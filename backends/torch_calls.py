"""Blocks as PyTorch says them: a constructor call, read from the lowered operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from archdsl.ir.node import Fragment
from archdsl.ir.ops import (
    Activation,
    Conv2d,
    Dropout,
    Linear,
    Op,
    Pair,
    Reshape,
)
from archdsl.lang.spec import Block, Classifier

from .torch_code import Code

_T = TypeVar("_T", bound=Op)


ACTIVATIONS = {
    "relu": Code("nn.ReLU"),
    "relu6": Code("nn.ReLU6"),
    "hswish": Code("nn.Hardswish"),
    "swish": Code("nn.SiLU"),
    "gelu": Code("nn.GELU"),
    "sigmoid": Code("nn.Sigmoid"),
    "hsigmoid": Code("nn.Hardsigmoid"),
}
NONE = Code("None")
NUM_CLASSES = Code("num_classes")


class BlockReader:
    """A lowered block: its operators under their names in the block."""

    def __init__(self, path: str, spec: Block, fragment: Fragment) -> None:
        self.path, self.spec = path, spec
        self.input, self.output = fragment.input, fragment.output
        self.ops: dict[str, Op] = {node.name: node.op for node in fragment.nodes}

    def __contains__(self, name: str) -> bool:
        return name in self.ops

    def op(self, name: str, kind: type[_T]) -> _T:
        op = self.ops[name]
        if not isinstance(op, kind):
            raise TypeError(f"{self.path}.{name} is {op}, not a {kind.__name__}")
        return op

    def conv(self, name: str) -> Conv2d:
        return self.op(name, Conv2d)

    def act(self, name: str) -> Code:
        return ACTIVATIONS[self.op(name, Activation).function] if name in self else NONE

    def squeezed(self) -> int:
        """The inner width of the squeeze-and-excitation, 0 for none."""
        return self.conv("se.reduce").out_channels if "se.reduce" in self else 0

    def convs(self) -> Iterable[tuple[str, Conv2d]]:
        """The convolutions that belong to a ConvNormAct, each with the name of that."""
        for name, op in self.ops.items():
            part, _, last = name.rpartition(".")
            if last == "conv" and isinstance(op, Conv2d):
                yield part, op


@dataclass(frozen=True)
class Call:
    """A constructor call; `traits` are what else this block asks of its class."""

    name: str
    arguments: tuple[object, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    traits: frozenset[str] = frozenset()


def _conv_norm_act(b: BlockReader) -> Call:
    conv = b.conv("conv")
    options = {
        "kernel": conv.kernel[0],
        "stride": stride_of(conv),
        "groups": conv.groups,
        "bias": conv.bias,
        "norm": "norm" in b,
        "act": b.act("act"),
        "residual": "add" in b,
    }
    return Call("ConvNormAct", (conv.in_channels, conv.out_channels), options)


def _depthwise_separable(b: BlockReader) -> Call:
    conv = b.conv("depthwise.conv")
    options = {
        "kernel": conv.kernel[0],
        "stride": stride_of(conv),
        "group_size": conv.out_channels // conv.groups,
        "se": b.squeezed(),
        "act": b.act("depthwise.act"),
    }
    return Call("DepthwiseSeparable", (b.input[-1], b.output[-1]), options)


def _inverted_residual(b: BlockReader) -> Call:
    conv = b.conv("depthwise.conv")
    options = {
        "kernel": conv.kernel[0],
        "group_size": conv.out_channels // conv.groups,
        "act": b.act("depthwise.act"),
    }
    return _expanding("InvertedResidual", b, conv.in_channels, conv, options)


def _fused_inverted_residual(b: BlockReader) -> Call:
    name = "FusedInvertedResidual"
    if "expand.conv" not in b:
        return _expanding(name, b, b.input[-1], b.conv("project.conv"), {})
    conv = b.conv("expand.conv")
    options = {"kernel": conv.kernel[0], "groups": conv.groups, "act": b.act("expand.act")}
    return _expanding(name, b, conv.out_channels, conv, options)


def _universal_inverted_bottleneck(b: BlockReader) -> Call:
    options: dict[str, object] = {"act": b.act("expand.act")}
    strided = expand = b.conv("expand.conv")
    for part in ("start", "middle"):
        if f"{part}.conv" in b:
            strided = b.conv(f"{part}.conv")
            options[part] = strided.kernel[0]
            options["group_size"] = strided.out_channels // strided.groups
    name = "UniversalInvertedBottleneck"
    return _expanding(name, b, expand.out_channels, strided, options)


def _expanding(
    name: str, b: BlockReader, hidden: int, strided: Conv2d, options: Mapping[str, object]
) -> Call:
    """A call of one of the classes that expand to a hidden width and project from it."""
    stride = stride_of(strided)
    more = {
        "stride": stride,
        "se": b.squeezed(),
        # A ratio near 1 may be rounded to no expansion, which then keeps its convolution.
        "expand": "expand.conv" in b and hidden == b.input[-1],
        "layer_scale": "layer_scale" in b,
        "residual": "add" in b or stride != 1 or b.input != b.output,
    }
    traits = {"scaled": "layer_scale" in b, "bare": "expand.conv" not in b}
    return Call(name, (b.input[-1], hidden, b.output[-1]), {**options, **more}, true_of(traits))


def _attention(b: BlockReader) -> Call:
    query, key = b.conv("query"), b.conv("key")
    if "query.split" in b:
        name = "MultiHeadAttention"
        _, heads, width = b.op("query.split", Reshape).shape
    else:
        name = "MultiQueryAttention"
        heads, width = query.out_channels // key.out_channels, key.out_channels
    options: dict[str, object] = {
        "heads": heads,
        "head_width": width,
        "out_channels": None if b.input == b.output else b.output[-1],
        "layer_scale": "layer_scale" in b,
        "residual": "add" in b or b.input != b.output,
    }
    if "key_reduce.conv" in b:
        conv = b.conv("key_reduce.conv")
        options |= {"kv_stride": conv.stride[0], "kernel": conv.kernel[0]}
    traits = {"scaled": "layer_scale" in b}
    return Call(name, (b.input[-1],), options, true_of(traits))


def _classifier(b: BlockReader) -> Call:
    linear, spec = b.op("", Linear), b.spec
    exact = not isinstance(spec, Classifier) or spec.out_channels is not None
    arguments = (linear.in_features, linear.out_features if exact else NUM_CLASSES)
    plain = "flatten" not in b and "act" not in b
    options = {"bias": linear.bias, "act": b.act("act")}
    return Call("nn.Linear" if plain else "Classifier", arguments, options)


READERS: dict[str, Callable[[BlockReader], Call]] = {
    "ir": _inverted_residual,
    "fused": _fused_inverted_residual,
    "uib": _universal_inverted_bottleneck,
    "sep": _depthwise_separable,
    "mqa": _attention,
    "mha": _attention,
    "conv": _conv_norm_act,
    "dw": _conv_norm_act,
    "pool": lambda b: Call("nn.AdaptiveAvgPool2d", (1,)),
    "fc": _classifier,
    "dropout": lambda b: Call("nn.Dropout", (b.op("", Dropout).rate,)),
    "skip": lambda b: Call("nn.Identity"),
}


def stride_of(conv: Conv2d) -> int | Pair:
    """A convolution's stride, one number where both sides have it."""
    height, width = conv.stride
    return height if height == width else conv.stride


def true_of(traits: Mapping[str, bool]) -> frozenset[str]:
    """The traits that hold."""
    return frozenset(trait for trait, holds in traits.items() if holds)
