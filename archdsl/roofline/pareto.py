"""Pareto fronts: of time and accuracy, and of any number of objectives."""

from __future__ import annotations

from collections.abc import Sequence


def front(times: Sequence[float], accuracies: Sequence[float]) -> list[bool]:
    """Of each network, whether no other is at least as fast and as accurate, and better in one.

    >>> front([1.0, 2.0, 3.0, 2.0], [70.0, 75.0, 74.0, 75.0])
    [True, True, False, True]
    """
    return best([(-time, accuracy) for time, accuracy in zip(times, accuracies, strict=True)])


def best(points: Sequence[tuple[float, ...]]) -> list[bool]:
    """Of each point, whether no other is at least as large in all numbers, and larger in one.

    Equal points are on the front together. All points have as many numbers.

    >>> best([(1, 5, 2), (2, 4, 2), (1, 4, 2), (2, 4, 2)])
    [True, True, False, True]
    >>> best([(3,), (1,), (3,)])
    [True, False, True]
    """
    # What is larger in one and no smaller in the others comes earlier in this order.
    order = sorted(range(len(points)), key=lambda number: points[number], reverse=True)
    found = [False] * len(points)
    kept: list[tuple[float, ...]] = []
    for number in order:
        point = points[number]
        if len(point) == 2:
            # Of two numbers the first descends: the last one kept has the largest second so far.
            beaten = bool(kept) and kept[-1][1] >= point[1] and kept[-1] != point
        else:
            beaten = any(
                other != point and all(a >= b for a, b in zip(other, point, strict=True))
                for other in kept
            )
        if not beaten:
            found[number] = True
            if not kept or kept[-1] != point:
                kept.append(point)
    return found
