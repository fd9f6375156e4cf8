"""Peak activation memory: liveness over the schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from archdsl.ir.ops import Shape
from archdsl.passes.fuse import Schedule


def peak_elements(schedule: Schedule, outside: Mapping[str, Shape], kept: frozenset[str]) -> int:
    """The most elements that are live at once, for one image.

    A tensor lives from the operator that writes it to the last that reads it; while an operator
    runs, its inputs and its output are both live (nothing is done in place). `outside` gives the
    tensors that exist before the first operator, `kept` the names that live to the end.
    """
    steps = tuple([(group.inputs, group.output.name) for group in schedule.groups])
    sizes = {name: math.prod(shape) for name, shape in outside.items()}
    for group in schedule.groups:
        sizes[group.output.name] = math.prod(group.output.shape)
    alive = _alive(steps, tuple(outside), kept)
    return max([sum([sizes[name] for name in names]) for names in alive])


@lru_cache(maxsize=1 << 10)
def _alive(
    steps: tuple[tuple[tuple[str, ...], str], ...], outside: tuple[str, ...], kept: frozenset[str]
) -> tuple[tuple[str, ...], ...]:
    """The names of what is live before the first step, and while each one runs."""
    last_use: dict[str, int] = {}
    for step, (inputs, _) in enumerate(steps):
        for name in inputs:
            last_use[name] = step
    live = dict.fromkeys(outside)
    found = [outside]
    for step, (inputs, output) in enumerate(steps):
        live[output] = None
        found.append(tuple(live))
        for name in (*inputs, output):
            if last_use.get(name, step) <= step and name not in kept:
                live.pop(name, None)
    return tuple(found)
