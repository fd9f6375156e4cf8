"""Shapes: every node's output, inferred from the image by the operators' own rules."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from archdsl.ir.graph import Graph
from archdsl.ir.ops import Input, Shape


def infer_shapes(graph: Graph, image: Shape | None = None) -> Mapping[str, Shape]:
    """The output shape of every node, for the graph's own image or another of the same channels.

    Padding is the graph's: a graph lowered for one image pads SAME for that one.

    Raises:
        ShapeError: the operators do not fit that image.
    """
    shapes: dict[str, Shape] = {}
    for node in graph:
        if isinstance(node.op, Input):
            shapes[node.name] = image or node.op.shape
        else:
            shapes[node.name] = node.op.output(*(shapes[name] for name in node.inputs))
    return MappingProxyType(shapes)
