"""Weights of a network for a narrower one: which channels stay, and what becomes of each tensor.

Channels that two operators share (a depthwise convolution's, those on both sides of a residual)
are one set, of which the same ones stay everywhere. Those stay whose filters are the largest, by
the L2 norm over all convolutions that make them (NetAdapt, arXiv 1804.03230, section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from archdsl.ir.execute import Array
from archdsl.ir.graph import Graph
from archdsl.ir.node import Node
from archdsl.ir.ops import (
    Activation,
    Add,
    BatchNorm,
    Conv2d,
    Dropout,
    GlobalAvgPool,
    LayerScale,
    Linear,
    Mul,
    Op,
    Pad,
    Reshape,
    Shape,
)

_KEEPING = (Activation, Add, BatchNorm, Dropout, GlobalAvgPool, LayerScale, Mul, Pad)
"""Operators whose outputs have the channels of their inputs."""


def keeps_channels(op: Op, source: Shape) -> bool:
    """Whether an operator's output has the channels that its inputs have, one by one.

    `source` is the shape of its first input.
    """
    if isinstance(op, Conv2d):
        return op.groups > 1 and op.in_channels == op.out_channels
    if isinstance(op, Reshape):
        # What `fc` flattens is a single position.
        return op.shape == source[-1:]
    return isinstance(op, _KEEPING)


def channel_sets(nodes: Iterable[Node], shapes: Mapping[str, Shape]) -> dict[str, str]:
    """For each node the name of its set of channels: nodes that share channels have one name.

    `nodes` are in schedule order; `shapes` has those of inputs that are no nodes of these.
    """
    parents = {name: name for name in shapes}
    known = dict(shapes)

    def root(name: str) -> str:
        while parents[name] != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    for node in nodes:
        known[node.name] = node.shape
        parents[node.name] = node.name
        if node.inputs and keeps_channels(node.op, known[node.inputs[0]]):
            for source in node.inputs:
                parents[root(source)] = root(node.name)
    return {name: root(name) for name in parents}


def sliced(weights: Mapping[str, Array], wide: Graph, narrow: Graph) -> dict[str, Array]:
    """The weights of `wide` cut to fit `narrow`, the same network with fewer channels.

    Where nothing was removed they are the same. In grouped convolutions that are not depthwise, a
    filter may come to see channels that it did not see before: its weights for them are zero.

    Raises:
        ValueError: the networks differ in more than widths, a width has grown, or the weights are
            not those of `wide`.
    """
    if list(wide.table) != list(narrow.table):
        raise ValueError("the networks have other operators")
    for key, shape in wide.state().items():
        # A counter of batches may be missing, as elsewhere: inference does not read it.
        if shape and (key not in weights or np.shape(weights[key]) != shape):
            raise ValueError(f"the weights are not the network's: {key!r} is to be {shape}")
    sets = channel_sets(wide, {})
    kept = _kept(weights, wide, narrow, sets)
    found: dict[str, Array] = {}
    for node in wide:
        op = narrow[node.name].op
        rows = kept[sets[node.name]]
        columns = kept[sets[node.inputs[0]]] if node.inputs else rows
        for name in (*op.parameters(), *op.buffers()):
            key = f"{node.name}.{name}"
            if not node.op.buffers().get(name, (1,)):
                found[key] = np.array(weights.get(key, 0), np.int64).reshape(())
                continue
            value = np.asarray(weights[key])
            if name == "weight" and isinstance(op, Conv2d):
                assert isinstance(node.op, Conv2d)
                value = _convolution(value, node.op, op, rows, columns)
            elif name == "weight" and isinstance(op, Linear):
                value = value[np.ix_(rows, columns)]
            else:
                value = value[rows]
            found[key] = value
    return found


def _kept(
    weights: Mapping[str, Array], wide: Graph, narrow: Graph, sets: Mapping[str, str]
) -> dict[str, Array]:
    """The channels that stay of each set, in ascending order."""
    before: dict[str, int] = {}
    after: dict[str, int] = {}
    squares: dict[str, Array] = {}
    for node in wide:
        name, count = sets[node.name], narrow[node.name].shape[-1]
        before[name] = node.shape[-1]
        if after.setdefault(name, count) != count or count > node.shape[-1]:
            raise ValueError(f"{node.name!r} has {count} channels, of {node.shape[-1]}")
        makes = isinstance(node.op, (Conv2d, Linear)) and not keeps_channels(
            node.op, wide[node.inputs[0]].shape
        )
        if makes and count < node.shape[-1]:
            filters = np.asarray(weights[f"{node.name}.weight"], np.float64)
            norms = (filters.reshape(len(filters), -1) ** 2).sum(axis=1)
            squares[name] = squares.get(name, 0) + norms
    kept: dict[str, Array] = {}
    for name, count in before.items():
        if after[name] == count:
            kept[name] = np.arange(count)
        elif name not in squares:
            raise ValueError(f"the channels of {name!r} are made by no convolution")
        else:
            # Of equal ones the first stay, on every machine.
            largest = np.argsort(-squares[name], kind="stable")[: after[name]]
            kept[name] = np.sort(largest)
    return kept


def _convolution(weight: Array, wide: Conv2d, narrow: Conv2d, rows: Array, columns: Array) -> Array:
    """The kernel (out x in/groups x height x width) of the filters `rows` on inputs `columns`."""
    filters = np.arange(narrow.out_channels)
    depth = narrow.in_channels // narrow.groups
    group = filters // (narrow.out_channels // narrow.groups)
    # For each filter that stays, the inputs of its new group by their old numbers.
    inputs = columns[group[:, None] * depth + np.arange(depth)]
    old_depth = wide.in_channels // wide.groups
    old_group = rows // (wide.out_channels // wide.groups)
    places = inputs - old_group[:, None] * old_depth
    seen = (places >= 0) & (places < old_depth)
    found = weight[rows[:, None], np.where(seen, places, 0)]
    found[~seen] = 0
    return found
