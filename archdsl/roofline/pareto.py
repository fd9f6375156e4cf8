"""Pareto fronts of time and accuracy."""

from __future__ import annotations

from collections.abc import Sequence


def front(times: Sequence[float], accuracies: Sequence[float]) -> list[bool]:
    """Of each network, whether no other is at least as fast and as accurate, and better in one.

    >>> front([1.0, 2.0, 3.0, 2.0], [70.0, 75.0, 74.0, 75.0])
    [True, True, False, True]
    """
    order = sorted(range(len(times)), key=lambda n: (times[n], -accuracies[n]))
    found = [False] * len(times)
    best = float("-inf")
    last: tuple[float, float] | None = None
    for number in order:
        point = (times[number], accuracies[number])
        if point[1] > best or point == last:
            found[number] = True
            best, last = point[1], point
    return found
