"""A member decision by decision: which options of a choice are still open, given those taken.

The graph of a space (`paths.py`) decides a block at once. Here the ways to decide it are a tree
of forks, a choice at each, in the order of the text; a fork has the options that lead to members,
and a choice with one such option is no fork. So whoever decides at the forks always ends at a
member, and every member has one way there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from archdsl.search.paths import Edge, Node
from archdsl.search.reading import Pick
from archdsl.search.space import Space, Vector

_Ending = tuple[tuple[Pick, ...], int]
"""What is left to be picked, and the number of what is decided by it."""


class Fork:
    """A choice and those of its options that can be taken here: two or more.

    `entries` are the options among those of all choices (`Decisions.offsets`).
    """

    __slots__ = ("column", "entries", "indices", "next")

    def __init__(self, column: int, offset: int, following: dict[int, Fork | int]) -> None:
        self.column = column
        self.indices = tuple(following)
        self.entries = tuple(offset + index for index in following)
        self.next = tuple(following.values())
        """Behind each option the next fork, or the number of what is decided."""


Chooser = Callable[[Fork], int]
"""Takes one of a fork's options: its place in `indices`."""


class Decisions:
    """The forks of a space.

    >>> from archdsl.search.space import parse_space
    >>> space = parse_space("arch s input 8x8x3 stem { uib_s{0,3}_m{0,3}_st22_o8 ( k3 | skip ) }")
    >>> decisions = Decisions(space)
    >>> decisions.walk(lambda fork: 0)  # a stride needs one of the two kernels
    (0, 1, 0)
    >>> [(fork.column, fork.indices) for fork, _ in decisions.forks((0, 1, 0))]
    [(0, (0, 1)), (2, (0, 1))]
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.offsets = tuple(accumulate((len(c.options) for c in space.choices), initial=0))
        """Where the options of each choice begin if all are written one behind the other; and
        how many there are."""
        self._graphs = space.graphs
        live = [(paths.picks, n) for n, paths in enumerate(self._graphs) if paths.ways]
        self._statements = self._grow(live, 0)
        self._trees: dict[tuple[int, tuple[int, ...]], Fork | int] = {}
        self._known: dict[Node, tuple[Fork | int, dict[int, Edge]]] = {}

    def walk(self, choose: Chooser) -> Vector:
        """The member that is reached by these decisions."""
        vector = [0] * len(self.space.choices)
        paths = self._graphs[_descend(self._statements, choose)]
        for column, index in paths.picks:
            vector[column] = index
        node = paths.start
        for _ in paths.levels[:-1]:
            tree, edges = self._at(node)
            edge = edges[_descend(tree, choose)]
            for column, index in edge.option.picks:
                vector[column] = index
            node = edge.target
        return tuple(vector)

    def forks(self, vector: Sequence[int]) -> list[tuple[Fork, int]]:
        """The forks on a member's way, each with the place of the option that it takes.

        Raises:
            ValueError: it is no member's vector.
        """
        taken = tuple(int(index) for index in vector)
        found: list[tuple[Fork, int]] = []

        def follow(fork: Fork) -> int:
            place = fork.indices.index(taken[fork.column])
            found.append((fork, place))
            return place

        reached = None
        if len(taken) == len(self.space.choices):
            try:
                reached = self.walk(follow)
            except ValueError:
                reached = None
        if reached != taken:
            raise ValueError(f"no member of `{self.space.name}` has this vector")
        return found

    def _at(self, node: Node) -> tuple[Fork | int, dict[int, Edge]]:
        """The tree of a node, whose ends are the places of its edges; and these."""
        found = self._known.get(node)
        if found is None:
            edges = {edge.place: edge for edge in node.edges if edge.target.ways}
            # Nodes that differ by their shapes alone share a tree.
            key = (id(node.menu), tuple(edges))
            if key not in self._trees:
                endings = [(edge.option.picks, place) for place, edge in edges.items()]
                self._trees[key] = self._grow(endings, 0)
            found = self._known[node] = self._trees[key], edges
        return found

    def _grow(self, endings: Sequence[_Ending], depth: int) -> Fork | int:
        picks, number = endings[0]
        if len(endings) == 1:
            return number
        column = picks[depth][0]
        groups: dict[int, list[_Ending]] = {}
        for ending in endings:
            groups.setdefault(ending[0][depth][1], []).append(ending)
        following = {index: self._grow(groups[index], depth + 1) for index in sorted(groups)}
        if len(following) == 1:
            return next(iter(following.values()))
        return Fork(column, self.offsets[column], following)


def _descend(tree: Fork | int, choose: Chooser) -> int:
    while type(tree) is Fork:
        tree = tree.next[choose(tree)]
    assert type(tree) is int
    return tree
