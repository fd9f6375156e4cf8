"""The least that any network of a space has of a figure, exactly, before anything is evaluated.

All members are paths through a graph (`paths.py`). A sum over blocks is least on a shortest path,
and a maximum on the path whose worst step is the best; both are found from the end to the start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from textwrap import fill
from typing import NamedTuple

from archdsl.compiler import Run
from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.printer import print_block
from archdsl.passes.cost import DTYPES, Dtype
from archdsl.roofline.model import Device
from archdsl.search.objectives import Objectives, amount, latency_of
from archdsl.search.paths import Edge, Node, Paths
from archdsl.search.space import Space, Vector
from archdsl.search.tables import seconds_of

_EVERYTHING = 1e30
"""More bytes than any network's weights have."""


class Least(NamedTuple):
    """A smallest figure, and a member that has it: None where it is only known to be no less."""

    value: float
    vector: Vector | None


def least(space: Space, figure: str, objectives: Objectives) -> Least:
    """The smallest figure of a space's members.

    Where a device keeps weights on its chip, a layer's time hangs on all the others: then it is
    the time with all weights there, which no member falls below.
    """
    dtype, batch = objectives.dtype, objectives.batch
    assert dtype is not None
    device = next((d for d in objectives.devices if latency_of(d.name) == figure), None)
    exact = True
    offset = 0.0
    if device is not None:
        exact = not device.on_chip.weight_bytes
        if not exact:
            chip = replace(device.on_chip, weight_bytes=_EVERYTHING)
            device = replace(device, on_chip=chip)
        offset = device.fixed_overhead * 1e6
    cost = _cost(figure, device, dtype, batch)
    join = max if figure == "peak_activation_bytes" else float.__add__
    found = [_shortest(paths, cost, join) for paths in space.graphs if paths.ways]
    value, path, paths = min(found, key=lambda one: one[0])
    vector = space.vector_along(paths, path) if exact else None
    return Least(value + offset, vector)


def _cost(figure: str, device: Device | None, dtype: Dtype, batch: int) -> Callable[[Run], float]:
    """What a block adds to a figure (or the memory that it needs)."""
    size = DTYPES[dtype]
    if device is not None:
        return lambda run: seconds_of(run, device, dtype, batch) * 1e6
    return {
        "params": lambda run: float(run.totals.params),
        "macs": lambda run: float(
            (run.totals.macs_conv_linear + run.totals.macs_attention) * batch
        ),
        "weight_bytes": lambda run: float(run.totals.weights * size),
        "activation_bytes": lambda run: float(run.totals.activations * size * batch),
        "peak_activation_bytes": lambda run: float(run.totals.peak * size * batch),
    }[figure]


def _shortest(
    paths: Paths, cost: Callable[[Run], float], join: Callable[[float, float], float]
) -> tuple[float, list[Edge], Paths]:
    best: dict[Node, tuple[float, Edge | None]] = {node: (0.0, None) for node in paths.levels[-1]}
    known: dict[int, float] = {}
    for nodes in reversed(paths.levels[:-1]):
        for node in nodes:
            for edge in node.edges:
                if not edge.target.ways:
                    continue
                step = 0.0
                if edge.run is not None:
                    key = id(edge.run)
                    if key not in known:
                        known[key] = cost(edge.run)
                    step = known[key]
                total = join(step, best[edge.target][0])
                if node not in best or total < best[node][0]:
                    best[node] = (total, edge)
    path: list[Edge] = []
    step_on = best[paths.start][1]
    while step_on is not None:
        path.append(step_on)
        step_on = best[step_on.target][1]
    return best[paths.start][0], path, paths


def unreachable(space: Space, objectives: Objectives) -> list[Diagnostic]:
    """E1007 for each bound and target that no network of a space comes down to."""
    found = []
    for figure, most, role in objectives.limits():
        smallest = least(space, figure, objectives)
        # Times are sums in another order than the compiler's.
        if smallest.value <= most * (1 + 1e-9):
            continue
        asked, there = amount(figure, most), amount(figure, smallest.value)
        if asked == there:
            asked, there = f"{most:,.15g}", f"{smallest.value:,.15g} ({figure})"
        message = f"no network of `{space.name}` comes down to {asked}, the {role}"
        help = f"none has less than {there}"
        if smallest.vector is not None:
            help = f"the least is {there}, of\n{_blocks(space, smallest.vector)}"
        found.append(Diagnostic("E1007", message, None, help))
    return found


def _blocks(space: Space, vector: Vector) -> str:
    """The blocks of a member in short."""
    spec = space.spec_of(vector)
    words = [print_block(block) for stage in spec.stages for block in stage.blocks]
    words = words or [print_block(block) for _, blocks in spec.sections() for block in blocks]
    return fill(" ".join(words if len(words) <= _SHOWN else (*words[:_SHOWN], "…")), _WIDE)


_SHOWN = 12
_WIDE = 84


def require_reachable(space: Space, objectives: Objectives) -> None:
    """Refuse bounds and targets that no network of the space comes down to.

    Raises:
        ArchError: E1007.
    """
    faults = unreachable(space, objectives)
    if faults:
        raise ArchError(faults)
