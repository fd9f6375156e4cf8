"""Cost: parameters, MACs, bytes and peak memory, of a block and of a network.

The byte convention, which the JSON carries too: each fused operator reads its kernel and its
inputs once and writes its output once; norm, bias and activation are fused and move no bytes of
their own; add, multiply, pool, softmax, transpose and a norm that stands alone (before attention)
are memory operators of 0 MACs; reshapes and dropout move nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, NamedTuple

from archdsl.ir.node import INPUT, Fragment, Node
from archdsl.ir.ops import Activation, Conv2d, Function, Linear, MatMul, Op, Shape
from archdsl.passes.fuse import Schedule, schedule
from archdsl.passes.memory import peak_elements

SCHEMA_VERSION = 1
COST_MODEL_VERSION = 1
"""Raised whenever a figure of an unchanged text changes."""

BYTE_CONVENTION = (
    "each fused operator: kernel + inputs + output once; norm, bias and activation are fused into "
    "the convolution or linear layer before them; add, mul, pool, softmax, transpose and a norm "
    "that stands alone are memory operators of 0 MACs; reshape and dropout are free"
)

Dtype = Literal["float32", "float16", "int8"]
DTYPES: dict[str, int] = {"float32": 4, "float16": 2, "int8": 1}
"""Bytes of an element."""

Mode = Literal["nominal", "calibrated"]
"""Where a device's numbers come from: data sheets, or measured times. Never mixed."""

Bound = Literal["compute", "memory", "overhead"]
"""What a time goes to."""

OpClass = Literal["depthwise", "pointwise", "conv", "linear", "attention", "elementwise"]
"""Operators that a runtime has kernels of their own for: a device is good at some of them."""

OP_CLASSES: tuple[OpClass, ...] = (
    "depthwise",
    "pointwise",
    "conv",
    "linear",
    "attention",
    "elementwise",
)


def op_class(op: Op, output: Shape) -> OpClass:
    """The class of an operator.

    A 1x1 convolution is `linear` where its map is a single position, as in
    squeeze-and-excitation, otherwise `pointwise`; `conv` is every other convolution that is not
    depthwise, `attention` the matrix products, `elementwise` all that has no MACs.
    """
    if isinstance(op, Conv2d):
        if op.depthwise:
            return "depthwise"
        if op.kernel != (1, 1) or op.groups != 1:
            return "conv"
        return "linear" if output[:2] == (1, 1) else "pointwise"
    if isinstance(op, Linear):
        return "linear"
    return "attention" if isinstance(op, MatMul) else "elementwise"


class Row(NamedTuple):
    """One fused operator: counts of elements, for one image."""

    name: str
    op: str
    input: Shape
    output: Shape
    params: int
    macs: int
    weights: int
    activations: int
    op_class: OpClass
    function: Function | None = None
    """The activation function at its end."""


class Totals(NamedTuple):
    """Sums over rows, for one image; `peak` is in elements, as `weights` and `activations` are."""

    params: int = 0
    macs_conv_linear: int = 0
    macs_attention: int = 0
    weights: int = 0
    activations: int = 0
    peak: int = 0


class FragmentCost(NamedTuple):
    """The cost of one lowered block."""

    rows: tuple[Row, ...]
    totals: Totals


def fragment_cost(fragment: Fragment) -> FragmentCost:
    """The cost of a block from its operators.

    Blocks form a chain, so a network's peak is the largest of its blocks' peaks.
    """
    plan = schedule(fragment.nodes, [fragment.result])
    table = rows(plan, fragment.nodes, {INPUT: fragment.input})
    result = plan.tensors.get(fragment.result, INPUT)
    peak = peak_elements(plan, {INPUT: fragment.input}, frozenset({result}))
    return FragmentCost(table, totals(table, peak))


def rows(plan: Schedule, nodes: Iterable[Node], outside: dict[str, Shape]) -> tuple[Row, ...]:
    """A row for each fused operator of a schedule."""
    shapes = {node.name: node.shape for node in nodes}
    shapes.update(outside)
    return tuple(
        [
            _row(group.members, tuple([shapes[name] for name in group.anchor.inputs]))
            for group in plan.groups
            if group.anchor.inputs
        ]
    )


# The rows of nodes, by these nodes' identities: those that lowering gives are few and shared. The
# nodes are kept beside the row, so that no identity is used again.
_ROWS: dict[tuple[Any, ...], tuple[Row, tuple[Node, ...]]] = {}
_MOST_ROWS = 1 << 15


def _row(members: tuple[Node, ...], inputs: tuple[Shape, ...]) -> Row:
    key = (inputs, *map(id, members))
    found = _ROWS.get(key)
    if found is None:
        if len(_ROWS) >= _MOST_ROWS:
            _ROWS.clear()
        found = _ROWS[key] = (_make_row(members, inputs), members)
    return found[0]


def _make_row(members: tuple[Node, ...], inputs: tuple[Shape, ...]) -> Row:
    anchor, last = members[0], members[-1]
    op = anchor.op
    return Row(
        anchor.name,
        op.name,
        inputs[0],
        last.shape,
        sum(member.op.parameter_count for member in members),
        op.macs(*inputs),
        op.kernel_size,
        math.prod(last.shape) + sum(math.prod(shape) for shape in inputs),
        op_class(op, anchor.shape),
        last.op.function if isinstance(last.op, Activation) else None,
    )


def totals(table: Iterable[Row], peak: int) -> Totals:
    """The sums of rows; `peak` in elements."""
    params = conv = attention = weights = activations = 0
    for row in table:
        params += row.params
        if row.op_class == "attention":
            attention += row.macs
        else:
            conv += row.macs
        weights += row.weights
        activations += row.activations
    return Totals(params, conv, attention, weights, activations, peak)


def add_totals(parts: Iterable[Totals]) -> Totals:
    """Totals of parts that run one after the other."""
    params = conv = attention = weights = activations = peak = 0
    for part in parts:
        params += part.params
        conv += part.macs_conv_linear
        attention += part.macs_attention
        weights += part.weights
        activations += part.activations
        if part.peak > peak:
            peak = part.peak
    return Totals(params, conv, attention, weights, activations, peak)


class Work:
    """What a network computes and moves, layer by layer, for one image and any type of number.

    Made once for an architecture, so that a device asks for nothing but sums: `macs`, `weights`
    and `activations` (elements), `classes` (places in OP_CLASSES), `ops` (operators' names) and
    `functions` (the activation function and its elements, or None) have an entry for each layer,
    in order. Floats hold these counts exactly, up to 2^53.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        rows = tuple(rows)
        self.macs = tuple(float(row.macs) for row in rows)
        self.weights = tuple(float(row.weights) for row in rows)
        self.activations = tuple(float(row.activations) for row in rows)
        self.classes = tuple(_CLASS_NUMBERS[row.op_class] for row in rows)
        self.ops = tuple(row.op for row in rows)
        self.functions = tuple(
            (row.function, float(math.prod(row.output))) if row.function else None for row in rows
        )
        self._pairs: dict[int, tuple[tuple[float, float], ...]] = {}

    @classmethod
    def of(cls, placed: Iterable[tuple[str, FragmentCost]]) -> Work:
        """The work of placed blocks."""
        return cls(row for _, cost in placed for row in cost.rows)

    def __len__(self) -> int:
        return len(self.macs)

    def pairs(self, batch: int = 1) -> tuple[tuple[float, float], ...]:
        """MACs of a batch, and elements moved: kernel once, inputs and output for each image."""
        found = self._pairs.get(batch)
        if found is None:
            moved = zip(self.macs, self.weights, self.activations, strict=True)
            found = tuple((macs * batch, w + a * batch) for macs, w, a in moved)
            self._pairs = {batch: found}
        return found


_CLASS_NUMBERS = {name: number for number, name in enumerate(OP_CLASSES)}


# ------------------------------------------------------------------------------- for the user


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One fused operator of a network: shapes are (height, width, channels), bytes per batch."""

    name: str
    op: str
    block: str
    input: Shape
    output: Shape
    params: int
    macs: int
    weight_bytes: int
    activation_bytes: int
    op_class: OpClass = "elementwise"

    def to_json(self) -> dict[str, Any]:
        record = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**record, "input": list(self.input), "output": list(self.output)}


@dataclass(frozen=True, slots=True)
class Latency:
    """An estimated time on a device.

    `us` is None where the device is known by its ridge point alone: `equivalent_macs`, the time
    in units of what the device computes in it, still ranks networks. `bound` says what most of
    the time goes to. `error` is the held-out error of a calibrated device, in percent: how far
    such estimates were from times measured on networks that the calibration had not seen.
    """

    device: str
    mode: Mode
    us: float | None
    bound: Bound
    dtype: Dtype = "float32"
    equivalent_macs: float = 0.0
    error: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "mode": self.mode,
            "us": self.us,
            "bound": self.bound,
            "dtype": self.dtype,
            "equivalent_macs": self.equivalent_macs,
            "held_out_error_percent": self.error,
        }


@dataclass(frozen=True)
class Cost:
    """What a network costs. MACs and activation bytes are for the whole batch.

    `params` are the trainable ones; `macs` = `macs_conv_linear` + `macs_attention`, with
    squeeze-and-excitation and classifier included. `input` is (height, width, channels).
    """

    name: str
    input: Shape
    classes: int
    batch: int
    dtype: Dtype
    params: int
    macs: int
    macs_conv_linear: int
    macs_attention: int
    weight_bytes: int
    activation_bytes: int
    peak_activation_bytes: int
    width: float = 1.0
    """The width multiplier."""
    latency: tuple[Latency, ...] = ()
    _placed: Sequence[tuple[str, FragmentCost]] = field(default=(), repr=False, compare=False)

    @cached_property
    def work(self) -> Work:
        """What the network computes and moves, layer by layer: all that a latency needs of it."""
        return Work.of(self._placed)

    @cached_property
    def layers(self) -> tuple[LayerCost, ...]:
        """One record for each fused operator, in order; made when first asked for."""
        size, batch = DTYPES[self.dtype], self.batch
        return tuple(
            LayerCost(
                name=f"{path}.{row.name}" if row.name else path,
                op=row.op,
                block=path,
                input=row.input,
                output=row.output,
                params=row.params,
                macs=row.macs * batch,
                weight_bytes=row.weights * size,
                activation_bytes=row.activations * size * batch,
                op_class=row.op_class,
            )
            for path, cost in self._placed
            for row in cost.rows
        )

    def to_json(self, *, layers: bool = True) -> dict[str, Any]:
        """The record that `archdsl cost --json` prints; without `layers` that of `--jsonl`."""
        record: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "cost_model_version": COST_MODEL_VERSION,
            "byte_convention": BYTE_CONVENTION,
            "name": self.name,
            "input": list(self.input),
            "classes": self.classes,
            "width": self.width,
            "batch": self.batch,
            "dtype": self.dtype,
            "params": self.params,
            "macs": self.macs,
            "macs_conv_linear": self.macs_conv_linear,
            "macs_attention": self.macs_attention,
            "weight_bytes": self.weight_bytes,
            "activation_bytes": self.activation_bytes,
            "peak_activation_bytes": self.peak_activation_bytes,
            "latency": [entry.to_json() for entry in self.latency],
        }
        if layers:
            record["layers"] = [layer.to_json() for layer in self.layers]
        return record


def network_cost(
    name: str,
    image: Shape,
    classes: int,
    total: Totals,
    placed: Sequence[tuple[str, FragmentCost]],
    dtype: Dtype = "float32",
    batch: int = 1,
    width: float = 1.0,
) -> Cost:
    """The user's figures from element counts of one image.

    Raises:
        ValueError: an unknown dtype, or a batch below 1.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r}: must be one of {', '.join(DTYPES)}")
    if type(batch) is not int or batch < 1:
        raise ValueError(f"batch {batch!r}: must be a whole number, at least 1")
    size = DTYPES[dtype]
    return Cost(
        name=name,
        input=image,
        classes=classes,
        batch=batch,
        dtype=dtype,
        params=total.params,
        macs=(total.macs_conv_linear + total.macs_attention) * batch,
        macs_conv_linear=total.macs_conv_linear * batch,
        macs_attention=total.macs_attention * batch,
        weight_bytes=total.weights * size,
        activation_bytes=total.activations * size * batch,
        peak_activation_bytes=total.peak * size * batch,
        width=width,
        _placed=placed,
    )
