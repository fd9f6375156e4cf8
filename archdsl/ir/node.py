"""Nodes: an operator in its place, and the fragments and origins they carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from archdsl.ir.ops import Op, Shape
from archdsl.lang.source import Span
from archdsl.lang.spec import Block

INPUT = "input"
"""The name of the image's node, and of a fragment's input."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The block that made a node: its path (`stages.c3.0`) and its place in the text."""

    path: str
    block: Block
    span: Span | None = None


class Node(NamedTuple):
    """An operator, the names of its inputs in order, and its output shape."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    shape: Shape
    origin: Origin | None = None

    def __repr__(self) -> str:
        return f"Node({self.name} = {self.op}({', '.join(self.inputs)}) -> {self.shape})"


@dataclass(frozen=True, slots=True)
class Fragment:
    """One lowered block: nodes in schedule order under local names, from one input to one output.

    A fragment knows neither its place in a network nor its text, so equal blocks share one.
    """

    kind: str
    input: Shape
    output: Shape
    nodes: tuple[Node, ...]

    @property
    def result(self) -> str:
        """The local name of the output (the input's where the block does nothing)."""
        return self.nodes[-1].name if self.nodes else INPUT

    def placed(self, origin: Origin, source: str) -> list[Node]:
        """The nodes under `origin.path`, reading from the node `source`."""
        names = {INPUT: source}
        for node in self.nodes:
            names[node.name] = f"{origin.path}.{node.name}" if node.name else origin.path
        return [
            node._replace(
                name=names[node.name],
                inputs=tuple(names[name] for name in node.inputs),
                origin=origin,
            )
            for node in self.nodes
        ]
