"""The operator graph: nodes in schedule order that verify themselves; networkx on request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from archdsl.ir.node import INPUT, Fragment, Node, Origin
from archdsl.ir.ops import Input, Shape, ShapeError
from archdsl.lang.spec import Attributes

if TYPE_CHECKING:
    import networkx


class GraphError(Exception):
    """A graph that breaks an invariant: a fault in a pass, not in a text."""


@dataclass(frozen=True)
class Graph:
    """An architecture's operators.

    `table` has the nodes by name, in schedule order. `features` maps a stage's name to the node
    whose value is its feature map, `output` names the last node. A graph is never changed: a
    rewrite makes another with `replaced`.
    """

    name: str
    attributes: Attributes
    table: Mapping[str, Node]
    output: str
    features: Mapping[str, str]
    _readers: Mapping[str, tuple[str, ...]] = field(repr=False)

    @classmethod
    def of_blocks(
        cls, name: str, attributes: Attributes, blocks: Iterable[tuple[Origin, Fragment]]
    ) -> Graph:
        """The graph of a chain of lowered blocks.

        Raises:
            GraphError: the blocks do not fit together.
        """
        shape = attributes.input
        nodes = [Node(INPUT, Input(shape), (), shape)]
        features: dict[str, str] = {}
        last = INPUT
        for origin, fragment in blocks:
            placed = fragment.placed(origin, last)
            nodes += placed
            if placed:
                last = placed[-1].name
            section = origin.path.split(".")
            if section[0] == "stages":
                features[section[1]] = last
        return cls._made(name, attributes, nodes, last, features)

    @classmethod
    def _made(
        cls,
        name: str,
        attributes: Attributes,
        nodes: Iterable[Node],
        output: str,
        features: Mapping[str, str],
    ) -> Graph:
        table: dict[str, Node] = {}
        readers: dict[str, dict[str, None]] = {}
        for node in nodes:
            if node.name in table:
                raise GraphError(f"two nodes are called {node.name!r}")
            table[node.name] = node
            readers[node.name] = {}
            for source in node.inputs:
                if source not in table:
                    raise GraphError(f"{node.name!r} reads {source!r}, which is not before it")
                readers[source][node.name] = None
        of = {source: tuple(names) for source, names in readers.items()}
        result = cls(name, attributes, table, output, dict(features), of)
        result.verify()
        return result

    @cached_property
    def nx(self) -> networkx.DiGraph:
        """The graph for networkx's algorithms, frozen.

        A node's attribute `node` is its `Node`, an edge's attribute `operands` the positions at
        which the reader takes it.
        """
        # It takes 0.2 s to import, and emitting a file does without.
        import networkx

        graph = networkx.DiGraph()
        for node in self:
            graph.add_node(node.name, node=node)
            for source in dict.fromkeys(node.inputs):
                operands = tuple(i for i, name in enumerate(node.inputs) if name == source)
                graph.add_edge(source, node.name, operands=operands)
        return networkx.freeze(graph)

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Node]:
        """The nodes in schedule order."""
        yield from self.table.values()

    def __getitem__(self, name: str) -> Node:
        return self.table[name]

    def readers(self, name: str) -> list[Node]:
        """The nodes that read a node's value."""
        return [self.table[reader] for reader in self._readers[name]]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(self)

    @property
    def input(self) -> Shape:
        return self[INPUT].shape

    @property
    def kept(self) -> frozenset[str]:
        """The nodes whose values are results: the feature maps and the output."""
        return frozenset({*self.features.values(), self.output})

    def replaced(self, nodes: Iterable[Node], renamed: Mapping[str, str] | None = None) -> Graph:
        """A graph of other nodes with the same results; `renamed` follows results to new names.

        Raises:
            GraphError: the nodes break an invariant.
        """
        names = renamed or {}
        features = {stage: names.get(node, node) for stage, node in self.features.items()}
        output = names.get(self.output, self.output)
        return self._made(self.name, self.attributes, nodes, output, features)

    def keeping(self, features: Iterable[str]) -> Graph:
        """The graph whose results are the feature maps of these stages, and the output.

        Raises:
            KeyError: there is no such stage.
        """
        return replace(self, features={stage: self.features[stage] for stage in features})

    def verify(self) -> None:
        """Check every invariant.

        Raises:
            GraphError: an order, a shape, an edge or a result is wrong.
        """
        seen: set[str] = set()
        for node in self:
            if not seen.issuperset(node.inputs):
                raise GraphError(f"{node.name!r} runs before its inputs")
            seen.add(node.name)
            try:
                shape = node.op.output(*(self[source].shape for source in node.inputs))
            except ShapeError as error:
                raise GraphError(f"{node.name!r}: {error}") from None
            if shape != node.shape:
                raise GraphError(f"{node.name!r} says {node.shape}, its operator gives {shape}")
        images = [node.name for node in self if isinstance(node.op, Input)]
        if images != [INPUT]:
            raise GraphError(f"one image is wanted, and there are {images}")
        for name in self.kept:
            if name not in seen:
                raise GraphError(f"the result {name!r} is not in the graph")
        for node in self:
            if not self._readers[node.name] and node.name not in self.kept:
                raise GraphError(f"nothing reads {node.name!r}")

    def parameters(self) -> dict[str, Shape]:
        """The trainable parameters: `state_dict` key to PyTorch shape."""
        return {
            f"{node.name}.{name}": shape
            for node in self
            for name, shape in node.op.parameters().items()
        }

    def state(self) -> dict[str, Shape]:
        """Parameters and running statistics, in the order of the emitted `state_dict`."""
        return {
            f"{node.name}.{name}": shape
            for node in self
            for table in (node.op.parameters(), node.op.buffers())
            for name, shape in table.items()
        }
