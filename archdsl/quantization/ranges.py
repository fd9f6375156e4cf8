"""The ranges of a network's values, observed on a calibration set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from archdsl.ir.execute import Array
from archdsl.ir.graph import Graph
from archdsl.lang.diagnostics import ArchError, Diagnostic, quoted

Range = tuple[float, float]
"""The least and the largest value that shall be represented; zero lies between them."""

Method = Literal["minmax", "percentile", "mse"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "mse")
DEFAULT: Method = "mse"

_LARGEST = 1e18
"""Values beyond it come of weights or images that are wrong: products of scales would overflow."""

Run = Callable[[Array], Mapping[str, Array]]
Progress = Callable[[int, int], None]

_BINS = 2048
_PERCENTILE = 99.99
"""Values beyond it, half of them at each end, are clipped."""
_CANDIDATES = 80


def observe(
    run: Run, images: Array, method: Method = DEFAULT, progress: Progress | None = None
) -> dict[str, Range]:
    """The range of every value that `run` gives for the images, which it is given one by one.

    `minmax` takes the extremes; `percentile` clips the ten-thousandth part of the values that lie
    farthest out; `mse` shrinks each end until the mean squared error of 8-bit values is least.
    The latter two look at each image twice. `progress` is called with the images done, and all.

    Raises:
        ValueError: an unknown method, or no images.
        ArchError: E0804 where a value is not finite.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r}: must be one of {', '.join(METHODS)}")
    if not len(images):
        raise ValueError("a calibration set needs an image")
    passes = 1 if method == "minmax" else 2
    done = 0

    def values(image: int) -> Mapping[str, Array]:
        nonlocal done
        found = run(images[image : image + 1])
        done += 1
        if progress is not None:
            progress(done, passes * len(images))
        return found

    extremes: dict[str, Range] = {}
    for image in range(len(images)):
        for name, value in values(image).items():
            low, high = extremes.get(name, (0.0, 0.0))
            least, largest = float(value.min()), float(value.max())
            # A NaN is the least and the largest of its array, and lost in Python's comparisons.
            if not math.isfinite(least) or not math.isfinite(largest):
                message = f"{quoted(name, 100)} is not finite on image {image} of the calibration"
                hint = "the weights are too large, or the images are not those of this network"
                raise ArchError([Diagnostic("E0804", message, None, hint)])
            extremes[name] = min(low, least), max(high, largest)
    if method == "minmax":
        return extremes
    counts = {name: np.zeros(_BINS, np.int64) for name in extremes}
    for image in range(len(images)):
        for name, value in values(image).items():
            counts[name] += np.histogram(value, _BINS, extremes[name])[0]
    shrink = _percentile if method == "percentile" else _mse
    return {
        name: shrink(counts[name], *limits) if limits[0] < limits[1] else limits
        for name, limits in extremes.items()
    }


def _percentile(counts: Array, low: float, high: float) -> Range:
    edges = np.linspace(low, high, _BINS + 1)
    share = np.cumsum(counts) / counts.sum()
    tail = (1 - _PERCENTILE / 100) / 2
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1 - tail, side="left"))
    return min(0.0, float(edges[first])), max(0.0, float(edges[min(last, _BINS - 1) + 1]))


def _mse(counts: Array, low: float, high: float) -> Range:
    edges = np.linspace(low, high, _BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2

    # Of the values below each edge: their number, their sum, the sum of their squares.
    sums = np.zeros((3, _BINS + 1))
    np.cumsum([counts, counts * centres, counts * centres**2], axis=1, out=sums[:, 1:])

    def errors(low: Array, high: Array) -> Array:
        # Rounding errs by a uniform part of a step; clipping by what lies outside.
        first = sums[:, centres.searchsorted(low)]
        last = sums[:, centres.searchsorted(high, side="right")]
        rounded = (last[0] - first[0]) * ((high - low) / 255) ** 2 / 12
        outside = squares(first, low) + squares(sums[:, -1:] - last, high)
        return np.asarray(rounded + outside)

    def squares(sums: Array, end: Array) -> Array:
        """The sum of the squared distances from an end."""
        return np.asarray(sums[2] - 2 * end * sums[1] + end**2 * sums[0])

    # One end, then the other: after hard-swish they lie at very different distances from zero.
    shares = np.linspace(1, 0.1, _CANDIDATES)
    lows, highs = np.full(_CANDIDATES, low), high * shares
    high = float(highs[errors(lows, highs).argmin()])
    lows, highs = low * shares, np.full(_CANDIDATES, high)
    return float(lows[errors(lows, highs).argmin()]), high


def checked_ranges(graph: Graph, ranges: Mapping[str, Range] | None) -> Mapping[str, Range]:
    """Ranges that hold every node of a graph.

    Raises:
        ArchError: E0804 where some are missing, upside down, or beyond 1e18.
    """
    found = ranges or {}
    bad = [
        node.name
        for node in graph
        if node.name not in found
        or not all(abs(end) <= _LARGEST for end in found[node.name])
        or found[node.name][0] > found[node.name][1]
    ]
    if bad:
        shown = ", ".join(quoted(name, 100) for name in bad[:4])
        more = f" and {len(bad) - 4:,} more" if len(bad) > 4 else ""
        message = (
            f"int8 needs the range of every value, within ±1e18, and has none of {shown}{more}"
        )
        hint = "take them from a calibration set, at this network and with these weights"
        raise ArchError([Diagnostic("E0804", message, None, hint)])
    return found
