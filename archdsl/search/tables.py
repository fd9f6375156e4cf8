"""Costs of many members at once, by numpy: what a block costs is looked up, and added.

A member is a path through the graph of its space (`paths.py`), and each step of it costs what its
block costs on what comes in. So a table for each level, from (node, option) to the next node and
to the block's figures, is all that there is to know: a batch of vectors walks through the levels
side by side. Whole numbers are the compiler's to the unit; times are its sums in another order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from archdsl.compiler import Run
from archdsl.passes.cost import DTYPES, Dtype, Work
from archdsl.roofline.model import Device, common_dtype
from archdsl.search.paths import Edge, Node
from archdsl.search.reading import Pick
from archdsl.search.space import Space

Whole = NDArray[np.int64]
Real = NDArray[np.float64]


@dataclass(frozen=True)
class BatchCost:
    """What members cost, an entry for each: the figures of `Cost` under the same names.

    `latency_us` has an array for each device, by its name.
    """

    params: Whole
    macs_conv_linear: Whole
    macs_attention: Whole
    weight_bytes: Whole
    activation_bytes: Whole
    peak_activation_bytes: Whole
    latency_us: Mapping[str, Real] = field(default_factory=dict)

    @property
    def macs(self) -> Whole:
        return self.macs_conv_linear + self.macs_attention

    def __len__(self) -> int:
        return len(self.params)


class _Level(NamedTuple):
    """The steps of a level: `codes` are those of its ways to decide, in order.

    Entry `node * len(codes) + code` of the others is one step; its target is -1 where there is
    none.
    """

    columns: NDArray[np.intp]
    factors: NDArray[np.uint64]
    codes: NDArray[np.uint64]
    target: NDArray[np.intp]
    figures: Whole
    """Parameters, MACs of convolutions and of attention, elements of kernels, elements moved."""
    peak: Whole
    runs: list[Run | None]


class Tables:
    """The tables of a space; made once, in about the time that reading the space took.

    >>> from archdsl.search.space import parse_space
    >>> tables = Tables(parse_space("arch s input 8x8x3 stem { conv_k{1,3}_o{8,16} }"))
    >>> tables.cost([(0, 0), (1, 1)]).params
    array([ 40, 464])
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        # Vectors are told apart by a sum of their indices with fixed random factors.
        draws = np.random.default_rng(0x5EED)
        high = np.iinfo(np.uint64).max
        self._factors = draws.integers(1, high, len(space.choices), np.uint64, endpoint=True)
        paths = space.graphs
        depth = max(len(part.levels) for part in paths) - 1
        live = [part for part in paths if part.ways]
        self._levels: list[_Level] = []
        numbers: dict[Node, int] = {part.start: place for place, part in enumerate(live)}
        self._starts = np.array([self._code(part.picks) for part in live], np.uint64)
        order = np.argsort(self._starts)
        self._starts, self._order = self._starts[order], order
        self._columns = np.array([column for column, _ in live[0].picks], np.intp)
        for level in range(depth):
            nodes = [node for part in live for node in part.levels[level] if node.ways]
            numbers = self._add(nodes, numbers)
        self._seconds: dict[tuple[Device, Dtype, int], list[Real]] = {}

    def _code(self, picks: Iterable[Pick]) -> int:
        total = sum(int(self._factors[column]) * index for column, index in picks)
        return total % (1 << 64)

    def _add(self, nodes: Sequence[Node], numbers: Mapping[Node, int]) -> dict[Node, int]:
        """Add the level of these nodes; the numbers of those behind them."""
        columns = sorted({column for node in nodes for column in node.menu.columns})
        steps: list[tuple[Node, int, Edge]] = []
        behind: dict[Node, int] = {}
        for node in nodes:
            for edge in node.edges:
                if edge.target.ways:
                    behind.setdefault(edge.target, len(behind))
                    steps.append((node, self._code(edge.option.picks), edge))
        codes = {code: place for place, code in enumerate(sorted({code for _, code, _ in steps}))}
        size = len(nodes) * len(codes)
        target = np.full(size, -1, np.intp)
        figures = np.zeros((size, 5), np.int64)
        peak = np.zeros(size, np.int64)
        runs: list[Run | None] = [None] * size
        for node, code, edge in steps:
            place = numbers[node] * len(codes) + codes[code]
            assert target[place] == -1, "two options of a menu have one code"
            target[place] = behind[edge.target]
            if edge.run is not None:
                *additive, peak[place] = edge.run.totals
                figures[place] = additive
                runs[place] = edge.run
        self._levels.append(
            _Level(
                np.array(columns, np.intp),
                self._factors[np.array(columns, np.intp)],
                np.array(list(codes), np.uint64),
                target,
                figures,
                peak,
                runs,
            )
        )
        return behind

    def valid(self, vectors: Any) -> NDArray[np.bool_]:
        """Which of the vectors are members.

        Raises:
            ValueError: an array of another shape.
        """
        steps = self._walk(self._read(vectors))
        return np.asarray(steps[-1] >= 0)

    def cost(
        self,
        vectors: Any,
        *,
        dtype: Dtype | None = None,
        batch: int = 1,
        devices: Iterable[Device] = (),
    ) -> BatchCost:
        """What members cost: `vectors` has a row of indices for each.

        Without a dtype it is the devices' one, or float32 where they have none or differ.

        Raises:
            ValueError: a row is no member's vector; an unknown dtype, or one that a device's
                profile is not for; a batch below 1; a device without times.
        """
        devices = tuple(devices)
        dtype = common_dtype(devices, dtype)
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r}: must be one of {', '.join(DTYPES)}")
        if type(batch) is not int or batch < 1:
            raise ValueError(f"batch {batch!r}: must be a whole number, at least 1")
        for device in devices:
            if device.relative:
                raise ValueError(f"{device.name} is known by its ridge point: it has no times")
        rows = self._read(vectors)
        steps = self._walk(rows)
        if len(rows) and steps[-1].min() < 0:
            number = int(np.argmax(steps[-1] < 0))
            raise ValueError(f"row {number}: no member of `{self.space.name}` has this vector")
        figures = np.zeros((len(rows), 5), np.int64)
        peak = np.zeros(len(rows), np.int64)
        for level, places in zip(self._levels, steps, strict=True):
            figures += level.figures.take(places, axis=0)
            np.maximum(peak, level.peak.take(places), out=peak)
        size = DTYPES[dtype]
        return BatchCost(
            figures[:, 0],
            figures[:, 1] * batch,
            figures[:, 2] * batch,
            figures[:, 3] * size,
            figures[:, 4] * (size * batch),
            peak * (size * batch),
            {device.name: self._times(device, steps, dtype, batch) for device in devices},
        )

    def _read(self, vectors: Any) -> NDArray[np.uint64]:
        rows = np.asarray(vectors)
        width = len(self.space.choices)
        if rows.size == 0 and rows.ndim < 2:
            rows = rows.reshape(0, width).astype(np.int64)
        if rows.ndim != 2 or rows.shape[1] != width or rows.dtype.kind not in "iu":
            raise ValueError(f"vectors of `{self.space.name}` are rows of {width} whole numbers")
        return rows.astype(np.uint64)

    def _walk(self, rows: NDArray[np.uint64]) -> list[NDArray[np.intp]]:
        """The step of each row in each level, -1 where it is no member's."""
        code = rows[:, self._columns] @ self._factors[self._columns]
        start = np.searchsorted(self._starts, code).clip(max=len(self._starts) - 1)
        node = np.where(self._starts[start] == code, self._order[start], -1)
        steps: list[NDArray[np.intp]] = []
        for level in self._levels:
            code = rows[:, level.columns] @ level.factors
            place = np.searchsorted(level.codes, code).clip(max=len(level.codes) - 1)
            known = (level.codes[place] == code) & (node >= 0)
            place += node * len(level.codes)
            place[~known] = 0
            node = level.target[place]
            node[~known] = -1
            steps.append(place)
        steps[-1][node < 0] = -1
        return steps

    def _times(
        self, device: Device, steps: Sequence[NDArray[np.intp]], dtype: Dtype, batch: int
    ) -> Real:
        """Microseconds."""
        if device.on_chip.weight_bytes:
            return self._whole_times(device, steps, dtype, batch)
        key = (device, dtype, batch)
        if key not in self._seconds:
            self._seconds[key] = [
                np.array([seconds_of(run, device, dtype, batch) for run in level.runs])
                for level in self._levels
            ]
        total = np.full(len(steps[0]), device.fixed_overhead)
        for table, places in zip(self._seconds[key], steps, strict=True):
            total += table.take(places)
        return np.asarray(total * 1e6)

    def _whole_times(
        self, device: Device, steps: Sequence[NDArray[np.intp]], dtype: Dtype, batch: int
    ) -> Real:
        """The same where a layer's time hangs on all the others: their weights share a memory."""
        found = np.empty(len(steps[0]))
        for number, places in enumerate(zip(*steps, strict=True)):
            runs = (level.runs[place] for level, place in zip(self._levels, places, strict=True))
            rows = (row for run in runs if run for unit in run.units for row in unit.cost.rows)
            estimate = device.estimate(Work(rows), dtype=dtype, batch=batch)
            assert estimate.us is not None
            found[number] = estimate.us
        return found


def seconds_of(run: Run | None, device: Device, dtype: Dtype, batch: int) -> float:
    """The time of a block on a device, without the device's fixed overhead."""
    if run is None:
        return 0.0
    work = Work(row for unit in run.units for row in unit.cost.rows)
    return sum(time.seconds for time in device.layer_times(work, dtype=dtype, batch=batch))
