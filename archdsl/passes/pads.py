"""Explicit padding: for targets whose convolutions pad both sides alike, or not at all."""

from __future__ import annotations

from dataclasses import replace

from archdsl.ir.graph import Graph
from archdsl.ir.node import Node
from archdsl.ir.ops import NO_PADDING, Conv2d, Pad


def explicit_padding(graph: Graph) -> Graph:
    """Put a `Pad` before each convolution that pads one side more than the other.

    The convolution keeps no padding of its own. Values are unchanged.
    """
    nodes: list[Node] = []
    for node in graph:
        op = node.op
        if isinstance(op, Conv2d) and (
            op.padding[0] != op.padding[1] or op.padding[2] != op.padding[3]
        ):
            (source,) = node.inputs
            border = Pad(op.padding)
            name = f"{node.name}.pad"
            nodes.append(
                Node(name, border, (source,), border.output(graph[source].shape), node.origin)
            )
            node = node._replace(op=replace(op, padding=NO_PADDING), inputs=(name,))
        nodes.append(node)
    return graph.replaced(nodes)
