"""Which layer of a checkpoint is which of a graph.

Names differ from library to library, so layers are told by what they are: by kind and shape. Among
equal ones the order decides, and nothing is guessed: where it is not known, there is no match.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, NoReturn

from archdsl.lang.diagnostics import ArchError, Diagnostic, quoted
from archdsl.weights.layers import KINDS, Layer, Own, Signature
from archdsl.weights.order import Rank, known, ranks
from archdsl.weights.store import table, written

_AROUND = 3
"""Rows shown before and after the first that differs."""


class Sides(NamedTuple):
    """The layers of both, ours in the order of the forward pass.

    Theirs are sorted by `ranks`, the order by their names; `title` begins what is said of them.
    """

    title: str
    theirs: Sequence[Layer]
    ours: Sequence[Own]
    ranks: Mapping[tuple[str, ...], Rank]


def matched(
    title: str, theirs: Sequence[Layer], ours: Sequence[Own], in_order: bool
) -> dict[str, Layer]:
    """The layer of a checkpoint for each of ours, by our name.

    A checkpoint with our own names needs no order. `in_order` says that it lists its layers as its
    network was built.

    Raises:
        ArchError: E0805 where the layers are others, or come in another order, or where it cannot
            be known which of two equal ones comes first.
    """
    by_name = {layer.name: layer for layer in theirs}
    if {name: layer.signature for name, layer in by_name.items()} == {
        mine.name: mine.signature for mine in ours
    }:
        return by_name
    order = ranks((layer.path for layer in theirs), in_order)
    sides = Sides(title, sorted(theirs, key=lambda layer: order[layer.path]), ours, order)
    places: dict[Signature, list[int]] = defaultdict(list)
    for place, mine in enumerate(ours):
        places[mine.signature].append(place)
    alike: dict[Signature, list[Layer]] = defaultdict(list)
    for layer in sides.theirs:
        alike[layer.signature].append(layer)
    if {key: len(found) for key, found in alike.items()} != {k: len(p) for k, p in places.items()}:
        _refuse(sides, "other layers", _departure(sides), _advice(sides))
    for layers in alike.values():
        for one, other in pairwise(layers):
            if not known(order[one.path], order[other.path]):
                _ambiguous(sides, one, other)
    found = {
        place: layer
        for signature, layers in alike.items()
        for place, layer in zip(places[signature], layers, strict=True)
    }
    if not _agrees({order[layer.path]: place for place, layer in found.items()}):
        _refuse(sides, "the same layers in another order", _departure(sides))
    return {mine.name: found[place] for place, mine in enumerate(ours)}


def _agrees(places: Mapping[Rank, int]) -> bool:
    """Whether places do not run against what is known of the order."""
    # Of each part of the tree of names, the first and the last place.
    extents: dict[Rank, tuple[int, int]] = {}
    for rank, place in places.items():
        for depth in range(1, len(rank) + 1):
            low, high = extents.get(rank[:depth], (place, place))
            extents[rank[:depth]] = min(low, place), max(high, place)
    chains: dict[tuple[Rank, int], list[tuple[int, int, int]]] = defaultdict(list)
    for rank, (low, high) in extents.items():
        chain, position = rank[-1]
        chains[rank[:-1], chain].append((position, low, high))
    for members in chains.values():
        members.sort()
        for (_, _, high), (_, low, _) in pairwise(members):
            if low < high:
                return False
    return True


# -------------------------------------------------------------------------- what is said otherwise


def _ambiguous(sides: Sides, one: Layer, other: Layer) -> NoReturn:
    kind, shape = one.signature
    names = f"{quoted(one.name, 100)} and {quoted(other.name, 100)}"
    why = f"its names do not tell which of {names} comes first, both {kind} {written(shape)}"
    _refuse(sides, why, "a .pth file or a whole Keras model (.h5) keeps the order of the layers")


def _departure(sides: Sides) -> str:
    """The rows around the first layer that differs, and how many layers there are."""
    theirs, ours = list(sides.theirs), list(sides.ours)
    if not _total(sides):
        # The order is known within kinds at most: show the first kind that differs.
        for kind in KINDS:
            theirs = [layer for layer in sides.theirs if layer.signature[0] == kind]
            ours = [mine for mine in sides.ours if mine.signature[0] == kind]
            if [x.signature for x in theirs] != [x.signature for x in ours]:
                break
    signatures = [layer.signature for layer in theirs], [mine.signature for mine in ours]
    first = 0
    while first < min(map(len, signatures)) and signatures[0][first] == signatures[1][first]:
        first += 1
    rows = []
    for place in range(max(0, first - _AROUND), first + _AROUND + 1):
        if place < max(map(len, signatures)):
            mark = ">" if place == first else ""
            rows.append((mark, *_cells(theirs, place), *_cells(ours, place)))
    head = ("", "checkpoint", "", "", "architecture", "", "")
    counts = [
        (kind, *(f"{sum(x.signature[0] == kind for x in side):,}" for side in sides[1:3]))
        for kind in KINDS
        if any(x.signature[0] == kind for side in sides[1:3] for x in side)
    ]
    return (
        f"they part at `>`:\n{table(head, rows)}\n"
        f"{table(('layers', 'checkpoint', 'architecture'), counts)}"
    )


def _total(sides: Sides) -> bool:
    order = [sides.ranks[layer.path] for layer in sides.theirs]
    return all(known(one, other) for one, other in pairwise(order))


def _cells(side: Sequence[Layer] | Sequence[Own], place: int) -> tuple[str, str, str]:
    if place >= len(side):
        return "(ends)", "", ""
    kind, shape = side[place].signature
    return side[place].name, kind, written(shape)


def _advice(sides: Sides) -> str | None:
    """The option that mends another number of classes."""
    theirs, ours = (Counter(layer.signature for layer in side) for side in sides[1:3])
    strays, lacking = theirs - ours, ours - theirs
    if strays.total() == lacking.total() == 1:
        (kind, shape), wanted = *strays, *lacking
        if kind == "dense" and wanted == sides.ours[-1].signature and shape[1:] == wanted[1][1:]:
            return f"its classifier has {shape[0]:,} classes: try --classes {shape[0]}"
    return None


def _refuse(sides: Sides, why: str, *hints: str | None) -> NoReturn:
    help = "\n".join(hint for hint in reversed(hints) if hint) or None
    raise ArchError([Diagnostic("E0805", f"{sides.title}: {why}", None, help)])
