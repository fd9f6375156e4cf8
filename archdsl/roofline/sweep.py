"""Latency against the ridge point: what each balance of computing and moving prefers.

With the peak as the unit, equation 1 is sum over layers of max(MACs, ridge point x bytes): MACs
alone at 0, bytes alone where the ridge point is large. Devices of one ridge point therefore rank
networks alike, however fast they are. MobileNetV4 (arXiv 2404.10518, figures 2 and 3) sweeps it
from 0 to 500 MACs per byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.passes.cost import DTYPES, Dtype, Work
from archdsl.roofline.pareto import front

Array = NDArray[np.float64]

MAX_POINTS = 100_000


@dataclass(frozen=True)
class Candidate:
    """A network to compare: its work and, where published, its top-1 in percent."""

    name: str
    work: Work
    top1: float | None = None


def ridge_points(low: float, high: float, steps: int, *, log: bool = False) -> Array:
    """Ridge points from low to high, at equal distances or, with `log`, at equal ratios.

    Raises:
        ValueError: a range that is none, fewer than two points or too many, or a logarithmic
            range from zero.

    >>> ridge_points(0, 500, 6).tolist()
    [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]
    """
    if not (math.isfinite(low) and math.isfinite(high) and 0 <= low < high):
        raise ValueError("a range of ridge points is LOW:HIGH, two numbers, such as 0:500")
    if not 2 <= steps <= MAX_POINTS:
        raise ValueError(f"steps must be from 2 to {MAX_POINTS:,}")
    if log and low <= 0:
        raise ValueError("ridge points at equal ratios begin above 0")
    points: Array
    points = np.geomspace(low, high, steps) if log else np.linspace(low, high, steps)
    return points


def equivalent_macs(work: Work, points: Array, *, dtype: Dtype = "int8", batch: int = 1) -> Array:
    """The time of a network at each ridge point (MACs per byte), in units of a MAC at the peak."""
    pairs = np.array(work.pairs(batch)).reshape(-1, 2)
    macs, moved = pairs[:, 0], pairs[:, 1] * DTYPES[dtype]
    # A layer is bound by memory where the ridge point is above its intensity: sums over the layers
    # in the order of their intensity give all ridge points at once.
    with np.errstate(divide="ignore", invalid="ignore"):
        intensity = np.where(moved > 0, macs / moved, np.inf)
    order = np.argsort(intensity, kind="stable")
    bytes_below = np.concatenate([[0.0], np.cumsum(moved[order])])
    macs_above = np.concatenate([np.cumsum(macs[order][::-1])[::-1], [0.0]])
    below = np.searchsorted(intensity[order], points, side="left")
    found: Array = bytes_below[below] * points + macs_above[below]
    return found


@dataclass(frozen=True)
class Sweep:
    """Networks at ridge points. `times` are equivalent MACs, a row for each network."""

    points: Array
    names: tuple[str, ...]
    top1: tuple[float | None, ...]
    times: Array
    dtype: Dtype
    log: bool = False

    @cached_property
    def relative(self) -> Array:
        """Times as multiples of the networks' geometric mean at the same ridge point."""
        mean = np.exp(np.mean(np.log(self.times), axis=0))
        found: Array = self.times / mean
        return found

    @cached_property
    def on_front(self) -> NDArray[np.bool_]:
        """Whether a network is on the front of time and top-1 at a ridge point.

        Networks without a published top-1 are on none.
        """
        known = [number for number, top1 in enumerate(self.top1) if top1 is not None]
        found = np.zeros(self.times.shape, dtype=bool)
        accuracies = [self.top1[number] or 0.0 for number in known]
        for column in range(len(self.points)):
            found[known, column] = front(self.times[known, column].tolist(), accuracies)
        return found

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """The share of the ridge points at which each network is on the front."""
        return tuple(float(share) for share in self.on_front.mean(axis=1))

    def columns(self, count: int = 4) -> list[int]:
        """Places of some ridge points: the ends and, with four, a hundredth and a tenth between.

        From 0 to 500 these are 5, as of CPUs, and 50, as of accelerators.
        """
        low, high = float(self.points[0]), float(self.points[-1])
        if self.log:
            wanted = list(np.geomspace(low, high, count))
        else:
            wanted = [low, *(low + (high - low) / 10**n for n in range(count - 2, 0, -1)), high]
        return [int(np.argmin(np.abs(self.points - point))) for point in wanted]

    def ranges(self, number: int) -> Iterator[tuple[float, float]]:
        """From which ridge point to which a network is on the front, as far as the points tell."""
        on = np.concatenate([[False], self.on_front[number], [False]])
        edges = np.flatnonzero(on[1:] != on[:-1])
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            yield float(self.points[start]), float(self.points[stop - 1])

    def to_json(self) -> dict[str, Any]:
        """The record that `archdsl sweep --json` prints."""
        return {
            "dtype": self.dtype,
            "spacing": "log" if self.log else "linear",
            "ridge_points": self.points.tolist(),
            "networks": [
                {
                    "name": name,
                    "top1": self.top1[number],
                    "share_on_front": self.shares[number],
                    "on_front": [list(span) for span in self.ranges(number)],
                    "equivalent_macs": self.times[number].tolist(),
                    "relative": self.relative[number].tolist(),
                }
                for number, name in enumerate(self.names)
            ],
        }

    def to_csv(self) -> str:
        """A row for each network and ridge point."""
        lines = ["network,top1,ridge_point,equivalent_macs,relative,on_front"]
        for number, name in enumerate(self.names):
            top1 = "" if self.top1[number] is None else f"{self.top1[number]:g}"
            columns = (self.points, self.times[number], self.relative[number])
            rows = zip(*(c.tolist() for c in columns), self.on_front[number].tolist(), strict=True)
            lines += [f"{name},{top1},{p!r},{t!r},{r!r},{int(on)}" for p, t, r, on in rows]
        return "\n".join(lines) + "\n"


def sweep(
    candidates: Sequence[Candidate], points: Array, *, dtype: Dtype = "int8", log: bool = False
) -> Sweep:
    """The networks at all ridge points (`ridge_points` makes them).

    >>> import archdsl
    >>> nets = [Candidate(name, archdsl.load(name).work) for name in ("mnv1", "efficientnet_b0")]
    >>> found = sweep(nets, ridge_points(0, 500, 501))
    >>> found.times[:, 0].tolist()
    [568740352.0, 385814752.0]
    >>> bool(found.times[0, 500] < found.times[1, 500])
    True
    """
    times = np.array([equivalent_macs(c.work, points, dtype=dtype) for c in candidates])
    names = tuple(candidate.name for candidate in candidates)
    top1 = tuple(candidate.top1 for candidate in candidates)
    return Sweep(points, names, top1, times, dtype, log)
