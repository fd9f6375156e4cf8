"""Peak activation memory: liveness over the schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping

from archdsl.ir.ops import Shape
from archdsl.passes.fuse import Schedule


def peak_elements(schedule: Schedule, outside: Mapping[str, Shape], kept: frozenset[str]) -> int:
    """The most elements that are live at once, for one image.

    A tensor lives from the operator that writes it to the last that reads it; while an operator
    runs, its inputs and its output are both live (nothing is done in place). `outside` gives the
    tensors that exist before the first operator, `kept` the names that live to the end.
    """
    last_use: dict[str, int] = {}
    for step, group in enumerate(schedule.groups):
        for name in group.inputs:
            last_use[name] = step
    live = {name: math.prod(shape) for name, shape in outside.items()}
    peak = total = sum(live.values())
    for step, group in enumerate(schedule.groups):
        size = math.prod(group.output.shape)
        live[group.output.name] = size
        total += size
        peak = max(peak, total)
        for name in {*group.inputs, group.output.name}:
            if last_use.get(name, step) <= step and name not in kept and name in live:
                total -= live.pop(name)
    return peak
