"""All members of a space at once: blocks form a chain, so they are paths through a small graph.

What a block sees of those before it is a state: a shape, and the width as written. A node is a
state at a point of the text (and the layers of a block that are still to be decided), an edge a
way to decide what comes next. So the members are counted by sums over edges, exactly, and drawn
by the same sums, with no two alike and none left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate

from archdsl.compiler import Run, State, block_compiler
from archdsl.ir.lower import Misfit
from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.spec import Attributes
from archdsl.limits import hint, most
from archdsl.passes.cost import Totals, add_totals
from archdsl.search.reading import NOTHING, Menu, Option, Pick, Place


class Edge:
    """A way to decide what comes next: the option's place in the menu, its block's run."""

    __slots__ = ("option", "place", "run", "target")

    def __init__(self, place: int, option: Option, run: Run | None, target: Node) -> None:
        self.place = place
        self.option = option
        self.run = run
        self.target = target


class Node:
    """A state at a level; `ways` is how many members lead on from it."""

    __slots__ = ("edges", "failure", "menu", "number", "state", "sums", "ways")

    def __init__(self, state: State, number: int) -> None:
        self.state = state
        self.number = number
        self.menu = NOTHING
        self.edges: list[Edge] = []
        self.failure: tuple[Option, Misfit] | None = None
        self.ways = 0
        self.sums: list[int] = []


_NOTHING = (0,) * 8


def _added(run: Run | None, behind: tuple[int, ...]) -> tuple[int, ...]:
    """The figures of a block and of what follows it."""
    if run is None:
        return behind
    total = add_totals([run.totals, Totals(*behind[:6])])
    return (*total, run.operators + behind[6], len(run.units) + behind[7])


_Key = tuple[State, tuple[Menu, ...]]


def _too_many(place: Place) -> Diagnostic:
    span = place.menu.options[0].span
    message = (
        f"the space has more than {most('steps'):,} blocks, each counted once for every shape that "
        "may come in"
    )
    return Diagnostic("E0110", message, span, f"leave fewer widths open; {hint('steps')}")


class Paths:
    """The graph of a space whose file-level statements are decided.

    `levels` are the nodes in the order of the text; the last level holds what comes out.

    Raises:
        ArchError: more than `steps` are left to be taken.
    """

    def __init__(
        self,
        picks: tuple[Pick, ...],
        attributes: Attributes,
        places: Sequence[Place],
        steps: int,
    ) -> None:
        self.picks = picks
        self.attributes = attributes
        self.places: list[Place] = []
        """The place of each level."""
        self.levels: list[list[Node]] = []
        self.stuck: Place | None = None
        """The place that nothing leads beyond."""
        self._compiler = block_compiler(attributes)
        self.left = steps
        """The steps that the next graph may take."""
        start = State(attributes.input, attributes.input[2], "the image has")
        frontier: dict[_Key, Node] = {(start, ()): Node(start, 0)}
        for place in places:
            for layer in range(1 + place.layers):
                following: dict[_Key, Node] = {}
                for (_, layers), node in frontier.items():
                    node.menu = layers[0] if layers else place.menu if layer == 0 else NOTHING
                    self.left -= len(node.menu.options)
                if self.left < 0:
                    raise ArchError([_too_many(place)])
                for (state, layers), node in frontier.items():
                    behind = layers[1:]
                    self._expand(place, node, state, behind, following)
                self.levels.append(list(frontier.values()))
                self.places.append(place)
                frontier = following
                if not frontier:
                    break
            if not frontier:
                self.stuck = place
                break
        self.levels.append(list(frontier.values()))
        self._count()

    @property
    def start(self) -> Node:
        return self.levels[0][0]

    @property
    def ways(self) -> int:
        """The number of members."""
        return self.start.ways

    def _expand(
        self,
        place: Place,
        node: Node,
        state: State,
        behind: tuple[Menu, ...],
        following: dict[_Key, Node],
    ) -> None:
        deepened = place.section.startswith("stages.")
        for number, option in enumerate(node.menu.options):
            run, after = None, state
            if option.block is not None:
                run = self._compiler.run(option.block, state, deepened=deepened)
                if run.problems:
                    node.failure = node.failure or (option, run.problems[0])
                    continue
                after = run.after
            key = (after, option.layers or behind)
            target = following.get(key)
            if target is None:
                target = following[key] = Node(after, len(following))
            node.edges.append(Edge(number, option, run, target))

    def _count(self) -> None:
        last = len(self.levels) - 1
        for depth in range(last, -1, -1):
            for node in self.levels[depth]:
                if depth == last:
                    node.ways = 0 if self.stuck else 1
                else:
                    node.sums = list(accumulate(edge.target.ways for edge in node.edges))
                    node.ways = node.sums[-1] if node.sums else 0

    def largest(self) -> tuple[Totals, int, int]:
        """The most that a member has of each figure, of operators and of blocks."""
        most_of: dict[Node, tuple[int, ...]] = dict.fromkeys(self.levels[-1], _NOTHING)
        for nodes in reversed(self.levels[:-1]):
            for node in nodes:
                found = [
                    _added(edge.run, most_of[edge.target])
                    for edge in node.edges
                    if edge.target.ways
                ]
                most_of[node] = tuple(map(max, zip(*found, strict=True))) if found else _NOTHING
        *figures, operators, blocks = most_of[self.start]
        return Totals(*figures), operators, blocks

    # -- members

    def member(self, number: int) -> list[Edge]:
        """The path of the member of a number, from 0, in the order of the vectors."""
        path: list[Edge] = []
        node = self.start
        while node.edges:
            place = bisect_right(node.sums, number)
            number -= node.sums[place - 1] if place else 0
            path.append(node.edges[place])
            node = node.edges[place].target
        return path

    def members(self) -> Iterator[list[Edge]]:
        """All paths, in the order of the vectors."""
        if not self.ways:
            return
        path: list[Edge] = []
        waiting: list[Iterator[Edge]] = [self._live(self.start)]
        while waiting:
            edge = next(waiting[-1], None)
            if edge is None:
                waiting.pop()
                if path:
                    path.pop()
                continue
            path.append(edge)
            if edge.target.edges:
                waiting.append(self._live(edge.target))
            else:
                yield list(path)
                path.pop()

    @staticmethod
    def _live(node: Node) -> Iterator[Edge]:
        return (edge for edge in node.edges if edge.target.ways)

    def follow(self, vector: Sequence[int]) -> list[Edge] | None:
        """The path of a vector, None where it leads into no member."""
        path: list[Edge] = []
        node = self.start
        for _ in self.levels[:-1]:
            key = tuple(vector[column] for column in node.menu.columns)
            place = node.menu.by_indices.get(key)
            edge = next((e for e in node.edges if e.place == place and e.target.ways), None)
            if edge is None:
                return None
            path.append(edge)
            node = edge.target
        return path

    def within(self, allowed: Mapping[int, Collection[int]]) -> Restricted:
        """The members whose decisions keep to some options; a choice that is not named is free."""
        return Restricted(self, allowed)

    def why(self, pick: Pick) -> tuple[Option, Misfit] | None:
        """Why no member has an option: a fault, and the block that has it."""
        for level, nodes in enumerate(self.levels[:-1]):
            for node in nodes:
                for option in node.menu.options:
                    if pick in option.picks:
                        found = self._why(level, node, option)
                        if found is not None:
                            return found
        # It is one of a statement.
        return self._first(self.start) if pick in self.picks else None

    def _why(self, level: int, node: Node, option: Option) -> tuple[Option, Misfit] | None:
        edge = next((edge for edge in node.edges if edge.option is option), None)
        if edge is not None:
            return self._first(edge.target)
        assert option.block is not None
        deepened = self.places[level].section.startswith("stages.")
        run = self._compiler.run(option.block, node.state, deepened=deepened)
        return option, run.problems[0]

    @staticmethod
    def _first(node: Node) -> tuple[Option, Misfit] | None:
        """The first fault behind a node."""
        while node.failure is None and node.edges:
            node = node.edges[0].target
        return node.failure


class Restricted:
    """The members of a graph that keep to some options."""

    def __init__(self, paths: Paths, allowed: Mapping[int, Collection[int]]) -> None:
        self._sums: dict[Node, tuple[list[Edge], list[int]]] = {}
        self.start = paths.start
        reached: list[list[Node]] = [[paths.start]]
        edges: dict[Node, list[Edge]] = {}
        for _ in paths.levels[:-1]:
            following: dict[Node, None] = {}
            for node in reached[-1]:
                kept = edges[node] = [
                    edge
                    for edge in node.edges
                    if edge.target.ways
                    and all(i in allowed[c] for c, i in edge.option.picks if c in allowed)
                ]
                following.update(dict.fromkeys(edge.target for edge in kept))
            reached.append(list(following))
        ways = dict.fromkeys(reached[-1], 1)
        for nodes in reversed(reached[:-1]):
            for node in nodes:
                sums = list(accumulate(ways[edge.target] for edge in edges[node]))
                self._sums[node] = (edges[node], sums)
                ways[node] = sums[-1] if sums else 0
        self.ways = ways[paths.start] if paths.ways else 0
        if any(i not in allowed[c] for c, i in paths.picks if c in allowed):
            self.ways = 0
        self._ways = ways

    def member(self, number: int) -> list[Edge]:
        """The path of one of these members, by its number from 0."""
        path: list[Edge] = []
        node = self.start
        while node in self._sums and self._sums[node][0]:
            edges, sums = self._sums[node]
            place = bisect_right(sums, number)
            number -= sums[place - 1] if place else 0
            path.append(edges[place])
            node = edges[place].target
        return path

    def live(self) -> Iterator[Pick]:
        """The options that some of these members take."""
        for edges, _ in self._sums.values():
            for edge in edges:
                if self._ways[edge.target]:
                    yield from edge.option.picks
