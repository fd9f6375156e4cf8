"""From a block to operators: the one place that says what each block kind is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, cast

from archdsl.ir.node import INPUT, Fragment, Node
from archdsl.ir.ops import (
    Activation,
    Add,
    BatchNorm,
    Conv2d,
    Dropout,
    Function,
    GlobalAvgPool,
    LayerScale,
    Linear,
    MatMul,
    Mul,
    Op,
    Padding,
    Pair,
    Reshape,
    Shape,
    Softmax,
    Transpose,
)
from archdsl.lang.fields import Width
from archdsl.lang.spec import (
    Attributes,
    Block,
    Classifier,
    Convolution,
    Depthwise,
    FusedInvertedResidual,
    InvertedResidual,
    MultiHeadAttention,
    MultiQueryAttention,
    Pool,
    Separable,
    Skip,
    UniversalInvertedBottleneck,
)
from archdsl.lang.spec import (
    Dropout as DropoutSpec,
)
from archdsl.lang.widths import rounded, scaled, squeezed
from archdsl.rounding import same_padding

_DEFAULT_LAYER_SCALE = 1e-5
"""The initial value of `ls` where the file names none (arXiv 2404.10518; tf-models)."""


class Misfit(NamedTuple):
    """Why a block does not fit where it stands; `field` names the part of it to blame."""

    code: str
    field: str | None
    message: str
    help: str | None = None


class LoweringError(Exception):
    """Raised with the `misfit` of a block."""

    def __init__(self, code: str, field: str | None, message: str, help: str | None = None) -> None:
        super().__init__(message)
        self.misfit = Misfit(code, field, message, help)


def lower(block: Block, shape: Shape, attributes: Attributes, *, first: bool = True) -> Fragment:
    """The operators of one block on an input of `shape` (height, width, channels).

    Only the `first` of a block's repeats has its stride.

    Raises:
        LoweringError: the block does not fit its input.
    """
    if len(shape) != 3 and not isinstance(block, _ON_VECTORS):
        raise LoweringError(
            "E0307",
            None,
            f"a block of kind `{block.kind}` needs a feature map, and `fc` has left a vector",
            "put it before the first `fc`",
        )
    stride = getattr(block, "stride", (1, 1)) if first else (1, 1)
    builder = _Builder(shape, attributes, stride)
    _LOWERINGS[type(block)](builder, block)
    return Fragment(block.kind, shape, builder.shape(builder.last), tuple(builder.nodes))


@dataclass
class _Builder:
    """Collects a fragment's nodes; `last` is the name of the newest, the next one's input."""

    input: Shape
    attributes: Attributes
    stride: Pair
    nodes: list[Node] = field(default_factory=list)
    last: str = INPUT

    def __post_init__(self) -> None:
        self.shapes = {INPUT: self.input}

    @property
    def channels(self) -> int:
        """The channels of the block's input."""
        return self.input[-1]

    def shape(self, name: str) -> Shape:
        return self.shapes[name]

    def add(self, name: str, op: Op, *inputs: str) -> str:
        sources = inputs or (self.last,)
        return self.put(_node(name, op, sources, tuple([self.shapes[s] for s in sources])))

    def put(self, node: Node) -> str:
        name = node.name
        self.nodes.append(node)
        self.shapes[name] = node.shape
        self.last = name
        return name

    # -- the pieces blocks are made of

    def conv(
        self,
        name: str,
        out: int,
        kernel: int = 1,
        stride: Pair = (1, 1),
        groups: int = 1,
        bias: bool = False,
        source: str | None = None,
    ) -> str:
        source = source or self.last
        shape = self.shapes[source]
        for side, step in zip(shape, stride, strict=False):
            if side < step:
                raise LoweringError(
                    "E0301",
                    "stride" if stride == self.stride else "kv_stride",
                    f"the image is too small: {shape[0]}x{shape[1]} pixels are left for a stride "
                    f"of {step}",
                    "take a larger input or a smaller stride",
                )
        pad = self.attributes.pad
        return self.put(_convolved(name, source, shape, out, kernel, stride, pad, groups, bias))

    def norm(self, name: str) -> str:
        rule = self.attributes.norm
        shape = self.shapes[self.last]
        return self.put(_normed(name, self.last, shape, rule.eps, rule.momentum))

    def act(self, name: str, function: str | None) -> None:
        function = function or self.attributes.act
        if function != "linear":
            self.put(_activated(name, self.last, self.shapes[self.last], function))

    def conv_norm(self, name: str, out: int, kernel: int = 1, **options: Any) -> None:
        self.conv(f"{name}.conv", out, kernel, **options)
        self.norm(f"{name}.norm")

    def depthwise(self, name: str, kernel: int, stride: Pair = (1, 1), group_size: int = 1) -> None:
        channels = self.shapes[self.last][-1]
        groups = channels if group_size == 1 else self.groups(channels, group_size)
        self.conv_norm(name, channels, kernel, stride=stride, groups=groups)

    def groups(self, out: int, group_size: int | None) -> int:
        """The groups of a convolution of the newest node to `out` channels; None is one group."""
        if group_size is None:
            return 1
        channels = self.shapes[self.last][-1]
        groups, rest = divmod(out, group_size)
        if rest or channels % max(groups, 1):
            raise LoweringError(
                "E0305",
                "group_size",
                f"groups of {group_size} do not fit: the convolution takes {channels} "
                f"channels and gives {out}",
                "the group size must divide what comes out, and the groups what goes in",
            )
        return groups

    def squeeze_excite(self, block: InvertedResidual | FusedInvertedResidual | Separable) -> None:
        if not block.se:
            return
        rule, features = self.attributes.se, self.last
        expanded = self.shapes[features][-1]
        self.add("se.pool", GlobalAvgPool())
        width = squeezed(block.se, self.channels, expanded, self.attributes)
        self.conv("se.reduce", width, bias=True)
        self.act("se.act", block.act if rule.act == "block" else rule.act)
        self.conv("se.expand", expanded, bias=True)
        self.act("se.gate", rule.gate)
        self.add("se.mul", Mul(), features, self.last)

    def layer_scale(self, wanted: bool | None) -> None:
        value = self.attributes.layer_scale
        if wanted or (wanted is None and value):
            channels = self.shapes[self.last][-1]
            self.add("layer_scale", LayerScale(channels, value or _DEFAULT_LAYER_SCALE))

    def residual(self, wanted: bool) -> None:
        if wanted and self.stride == (1, 1) and self.shapes[self.last] == self.input:
            self.add("add", Add(), self.last, INPUT)

    # -- widths

    def out(self, width: Width | None) -> int:
        return self.channels if width is None else scaled(width, self.attributes)

    def expanded(
        self, block: InvertedResidual | FusedInvertedResidual | UniversalInvertedBottleneck
    ) -> int:
        if block.expanded is not None:
            return scaled(block.expanded, self.attributes)
        return rounded(self.channels * block.expansion, self.attributes)

    def expands(self, block: InvertedResidual | FusedInvertedResidual) -> bool:
        """False where the ratio is 1: the block then has no expansion convolution."""
        if block.expanded is not None:
            return scaled(block.expanded, self.attributes) != self.channels
        return block.expansion != 1


# Equal nodes are one: the blocks of a search space differ in few of theirs.
_MEMO = 1 << 15


@lru_cache(maxsize=_MEMO)
def _node(name: str, op: Op, sources: tuple[str, ...], shapes: tuple[Shape, ...]) -> Node:
    return Node(name, op, sources, op.output(*shapes))


@lru_cache(maxsize=_MEMO)
def _convolved(
    name: str,
    source: str,
    shape: Shape,
    out: int,
    kernel: int,
    stride: Pair,
    pad: str,
    groups: int,
    bias: bool,
) -> Node:
    height, width, channels = shape
    top, bottom = same_padding(height, kernel, stride[0])
    left, right = same_padding(width, kernel, stride[1])
    padding: Padding = (top, bottom, left, right)
    if pad == "symmetric":
        padding = (kernel // 2,) * 4
    op = Conv2d(channels, out, (kernel, kernel), stride, padding, groups, bias)
    return Node(name, op, (source,), op.output(shape))


@lru_cache(maxsize=_MEMO)
def _normed(name: str, source: str, shape: Shape, eps: float, momentum: float) -> Node:
    return Node(name, BatchNorm(shape[-1], eps, momentum), (source,), shape)


@lru_cache(maxsize=_MEMO)
def _activated(name: str, source: str, shape: Shape, function: str) -> Node:
    return Node(name, Activation(cast(Function, function)), (source,), shape)


# ---------------------------------------------------------------------------------------- kinds


def _inverted_residual(b: _Builder, block: InvertedResidual) -> None:
    if b.expands(block):
        b.conv_norm("expand", b.expanded(block))
        b.act("expand.act", block.act)
    b.depthwise("depthwise", block.kernel, b.stride, block.group_size)
    b.act("depthwise.act", block.act)
    b.squeeze_excite(block)
    b.conv_norm("project", b.out(block.out_channels))
    b.residual(block.residual)


def _fused_inverted_residual(b: _Builder, block: FusedInvertedResidual) -> None:
    out = b.out(block.out_channels)
    if not b.expands(block):
        for field, value in (("se", block.se), ("group_size", block.group_size)):
            if value:
                raise LoweringError(
                    "E0210",
                    field,
                    "the expanded width is the input's: the block is a 1x1 convolution with "
                    f"nothing for `{'se' if field == 'se' else 'g'}`",
                    "leave it out, or expand to another width",
                )
        # As the official code has it: neither expansion nor activation are left.
        b.conv_norm("project", out, stride=b.stride)
        b.residual(block.residual)
        return
    expanded = b.expanded(block)
    groups = b.groups(expanded, block.group_size)
    b.conv_norm("expand", expanded, block.kernel, stride=b.stride, groups=groups)
    b.act("expand.act", block.act)
    b.squeeze_excite(block)
    b.conv_norm("project", out)
    b.residual(block.residual)


def _universal_inverted_bottleneck(b: _Builder, block: UniversalInvertedBottleneck) -> None:
    # The stride is the middle depthwise's, or the start's where there is no middle one.
    if block.start_kernel:
        stride = (1, 1) if block.middle_kernel else b.stride
        b.depthwise("start", block.start_kernel, stride, block.group_size)
    b.conv_norm("expand", b.expanded(block))
    b.act("expand.act", block.act)
    if block.middle_kernel:
        b.depthwise("middle", block.middle_kernel, b.stride, block.group_size)
        b.act("middle.act", block.act)
    b.conv_norm("project", b.out(block.out_channels))
    b.layer_scale(block.layer_scale)
    b.residual(block.residual)


def _separable(b: _Builder, block: Separable) -> None:
    b.depthwise("depthwise", block.kernel, b.stride, block.group_size)
    b.act("depthwise.act", block.act)
    b.squeeze_excite(block)
    b.conv_norm("pointwise", b.out(block.out_channels))
    b.act("pointwise.act", block.act)


def _attention(b: _Builder, block: MultiQueryAttention | MultiHeadAttention) -> None:
    shared = isinstance(block, MultiQueryAttention)
    heads, depth = block.heads, block.head_width
    height, width, _ = b.input
    queries = height * width
    normed = b.norm("norm")

    def projection(name: str, channels: int, reduced: str | None) -> str:
        """A 1x1 projection of the normed input; keys and values may be reduced before it."""
        b.last = normed
        if reduced and block.kv_stride > 1:
            b.depthwise(reduced, block.kernel, (block.kv_stride, block.kv_stride))
        return b.conv(name, channels)

    query = projection("query", heads * depth, None)
    key = projection("key", depth if shared else heads * depth, "key_reduce")
    value = projection("value", depth if shared else heads * depth, "value_reduce")
    rows, columns, _ = b.shapes[key]
    keys = rows * columns
    if shared:
        # All heads share keys and values: queries of all heads are rows of one matrix.
        query = b.add("query.rows", Reshape((queries * heads, depth)), query)
        key = b.add("key.rows", Reshape((keys, depth)), key)
        value = b.add("value.rows", Reshape((keys, depth)), value)
    else:
        query = _heads(b, "query", query, (queries, heads, depth))
        key = _heads(b, "key", key, (keys, heads, depth))
        value = _heads(b, "value", value, (keys, heads, depth))
    b.add("scores", MatMul(transpose_b=True, scale=depth**-0.5), query, key)
    weights = b.add("softmax", Softmax())
    b.add("attend", MatMul(), weights, value)
    if not shared:
        b.add("attend.rows", Transpose((1, 0, 2)))
    b.add("heads", Reshape((height, width, heads * depth)))
    b.conv("output", b.out(block.out_channels))
    b.layer_scale(block.layer_scale)
    b.residual(block.residual)


def _heads(b: _Builder, name: str, source: str, shape: Shape) -> str:
    b.add(f"{name}.split", Reshape(shape), source)
    return b.add(f"{name}.heads", Transpose((1, 0, 2)))


def _convolution(b: _Builder, block: Convolution) -> None:
    out = b.out(block.out_channels)
    groups = b.groups(out, block.group_size)
    b.conv("conv", out, block.kernel, b.stride, groups=groups, bias=block.bias)
    _finished(b, block)


def _depthwise(b: _Builder, block: Depthwise) -> None:
    out = b.out(block.out_channels)
    if out != b.channels:
        raise LoweringError(
            "E0303",
            "out_channels",
            f"a depthwise convolution keeps its {b.channels} channels and cannot give {out}",
            "leave `o` out, or use `sep` or `conv`",
        )
    b.conv("conv", out, block.kernel, b.stride, groups=out, bias=block.bias)
    _finished(b, block)


def _finished(b: _Builder, block: Convolution | Depthwise) -> None:
    if block.norm:
        b.norm("norm")
    b.act("act", block.act)
    b.residual(block.residual)


def _pool(b: _Builder, block: Pool) -> None:
    b.add("", GlobalAvgPool())


def _classifier(b: _Builder, block: Classifier) -> None:
    if len(b.input) == 3:
        if b.input[:2] != (1, 1):
            raise LoweringError(
                "E0302",
                None,
                f"a linear layer needs a pooled input, and here it is {b.input[0]}x{b.input[1]}",
                "put `pool` before it",
            )
        b.add("flatten", Reshape((b.channels,)))
    out = b.attributes.classes if block.out_channels is None else block.out_channels
    b.add("", Linear(b.channels, out, block.bias))
    if block.act is not None:
        b.act("act", block.act)


def _dropout(b: _Builder, block: DropoutSpec) -> None:
    b.add("", Dropout(block.rate))


def _skip(b: _Builder, block: Skip) -> None:
    """A block that does nothing has no operators."""


# The kinds that do not need a feature map.
_ON_VECTORS = (Classifier, DropoutSpec, Skip)

_LOWERINGS: dict[type[Block], Callable[[_Builder, Any], None]] = {
    InvertedResidual: _inverted_residual,
    FusedInvertedResidual: _fused_inverted_residual,
    UniversalInvertedBottleneck: _universal_inverted_bottleneck,
    Separable: _separable,
    MultiQueryAttention: _attention,
    MultiHeadAttention: _attention,
    Convolution: _convolution,
    Depthwise: _depthwise,
    Pool: _pool,
    Classifier: _classifier,
    DropoutSpec: _dropout,
    Skip: _skip,
}
