"""Fusion: which nodes run as one kernel, and the rewrite that joins activations to their producers.

Every mobile runtime runs a convolution with its norm (folded), its bias and its activation as one
kernel; costs, memory and the emitters all take their fused operators from here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from archdsl.ir.node import Node
from archdsl.ir.ops import Activation, BatchNorm, Conv2d, Dropout, LayerScale, Linear, Op, Reshape

if TYPE_CHECKING:
    # Costs are counted without networkx: only the rewrite is given a graph.
    from archdsl.ir.graph import Graph

_VIEWS = (Reshape, Dropout)
"""Operators that move no data at inference: their output is their input's memory."""


class Group(NamedTuple):
    """Nodes that run as one kernel: the anchor, and what is fused into it.

    `inputs` names the groups (or outer tensors) that are read, `output` the last member,
    whose name the group's tensor has.
    """

    anchor: Node
    members: tuple[Node, ...]
    inputs: tuple[str, ...]

    @property
    def output(self) -> Node:
        return self.members[-1]


class Schedule(NamedTuple):
    """Groups in order, and for every node's name the name of the tensor that holds its value."""

    groups: tuple[Group, ...]
    tensors: Mapping[str, str]


def schedule(nodes: Sequence[Node], kept: Iterable[str] = ()) -> Schedule:
    """Group the nodes, given in schedule order.

    A norm, a layer scale or an activation joins its producer where it is the only reader. The
    tensors of the nodes named in `kept` (feature maps) stay readable: nothing joins behind them.
    """
    joints = [(n.name, type(n.op), n.inputs, n.origin and n.origin.path) for n in nodes]
    pattern = _pattern(tuple(joints), tuple(kept))
    groups = [
        Group(nodes[places[0]], tuple([nodes[place] for place in places]), inputs)
        for places, inputs in pattern.groups
    ]
    return Schedule(tuple(groups), pattern.tensors)


class _Joint(NamedTuple):
    """All that grouping asks of a node."""

    name: str
    kind: type[Op]
    inputs: tuple[str, ...]
    path: str | None
    """The block's."""


class _Pattern(NamedTuple):
    """The schedule of all nodes that are joined alike: places in their row, and inputs' names."""

    groups: tuple[tuple[tuple[int, ...], tuple[str, ...]], ...]
    tensors: Mapping[str, str]


@lru_cache(maxsize=1 << 10)
def _pattern(
    joints: tuple[tuple[str, type[Op], tuple[str, ...], str | None], ...], kept: tuple[str, ...]
) -> _Pattern:
    nodes = [_Joint(*joint) for joint in joints]
    readers = Counter([source for node in nodes for source in node.inputs])
    readers.update(kept)
    groups: list[list[tuple[int, _Joint]]] = []
    owner: dict[str, int] = {}
    outside: dict[str, str] = {}
    for place, node in enumerate(nodes):
        source = node.inputs[0] if node.inputs else ""
        producer = owner.get(source)
        if issubclass(node.kind, _VIEWS):
            if producer is None:
                outside[node.name] = outside.get(source, source)
            else:
                owner[node.name] = producer
            continue
        if producer is not None and readers[source] == 1 and _fuses(groups[producer], node):
            groups[producer].append((place, node))
            owner[node.name] = producer
        else:
            groups.append([(place, node)])
            owner[node.name] = len(groups) - 1
    tensors = {**outside, **{name: groups[index][-1][1].name for name, index in owner.items()}}
    return _Pattern(
        tuple(
            (
                tuple(place for place, _ in members),
                tuple(tensors.get(source, source) for source in members[0][1].inputs),
            )
            for members in groups
        ),
        tensors,
    )


def _fuses(group: list[tuple[int, _Joint]], node: _Joint) -> bool:
    # The reader must follow the last member itself, not a view of it, and in the same block: a
    # block costs the same wherever it stands.
    (_, anchor), (_, last) = group[0], group[-1]
    if node.inputs[0] != last.name or issubclass(last.kind, Activation):
        return False
    if node.path and last.path and node.path != last.path:
        return False
    if issubclass(node.kind, Activation):
        return True
    return issubclass(node.kind, (BatchNorm, LayerScale)) and issubclass(
        anchor.kind, (Conv2d, Linear)
    )


def fuse_activations(graph: Graph) -> Graph:
    """Join each activation to the convolution or linear layer that alone feeds it.

    Run it after the norms are folded: a norm between the two keeps them apart.
    """
    renamed: dict[str, str] = {}
    nodes: dict[str, Node] = {}
    for node in graph:
        inputs = tuple(renamed.get(name, name) for name in node.inputs)
        target = nodes.get(inputs[0]) if inputs else None
        if (
            isinstance(node.op, Activation)
            and target is not None
            and isinstance(target.op, (Conv2d, Linear))
            and target.op.activation is None
            and len(graph.readers(node.inputs[0])) == 1
            and node.inputs[0] not in graph.kept
        ):
            op = replace(target.op, activation=node.op.function)
            nodes[target.name] = target._replace(op=op)
            renamed[node.name] = target.name
        else:
            nodes[node.name] = node._replace(inputs=inputs)
    return graph.replaced(nodes.values(), renamed)
