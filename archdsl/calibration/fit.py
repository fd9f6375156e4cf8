"""Fit a device's numbers to measured times, and measure how well they foretell others.

The model is `archdsl.roofline.model.Device` itself. Its numbers are fitted to the logarithms of
the times, so that an error counts by its share of the time, with a robust loss, so that one odd
time does not bend the rest (`scipy.optimize.least_squares`). Every number has a weak prior: rates
within some powers of e of what the measurements suggest, the classes' efficiencies within a
factor of two of each other, depthwise convolutions at a third of the others, overheads from 0 up.
Where measurements say little, the prior decides; a handful of networks is enough to begin with.
The priors were set once, in round numbers, and are the same for every device.

Held-out errors are those of measurements that the fit has not seen: each is foretold by a fit to
the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from archdsl.calibration.measurement import Measurement, Results
from archdsl.ir.ops import Function
from archdsl.lang.diagnostics import ArchError, Diagnostic, quoted
from archdsl.passes.cost import DTYPES, OP_CLASSES, Dtype, Work
from archdsl.roofline.model import Device
from archdsl.roofline.profile import MAX_PERCENT, CalibrationTable, Profile

Array = NDArray[np.float64]

LEAST = 3
"""Measurements that a fit needs: a peak, a bandwidth, and one that can contradict them."""

_SMALL_OPS = "overhead.op_us.linear"
"""Those of squeeze-and-excitation, mostly: all overhead, and quantised ones more so than others."""

METHOD = "relative least squares with a robust loss and weak priors (docs/calibration.md)"

FITTED_FUNCTIONS: tuple[Function, ...] = ("hswish", "swish", "gelu")
"""Activation functions that some runtimes run by themselves; the others are fused everywhere."""

FOLDS = 25
"""Above so many measurements the held-out ones are taken out in as many groups as this."""

_NOISE = 0.05
"""How far a good model is off: a residual of so much weighs as a prior missed by one deviation."""
_BLOCK_NOISE = 0.15
"""Of a single block: over a network such errors cancel out."""
_OUTLIER = 2.0
"""Residuals beyond so many times the noise count less than by their square."""
_RATE = 2.0
_SHARE = math.log(2)
"""Standard deviations of the priors, in natural logarithms: of rates, and of what is relative."""
_LEAST_US, _MOST_US = 1e-3, 1e9
"""Times of a run that can be: a nanosecond, and some minutes."""
_LEAST, _MOST = 1e-9, 1e9
"""What the numbers of a profile lie between; a fit to times of no device may lead beyond."""

_FAR = 200.0
"""Powers of e beyond which no number is looked for."""

_PER_US = 1e3
"""10^9 a second, in µs."""
_NS_A_US = 1e3

_INTERVAL = 1.96
"""Standard deviations to each side of 95 %."""


class _Number(NamedTuple):
    """A number to be fitted: its key in a profile, and how x becomes it.

    It is scale x exp(x), or scale x x with x from 0 to the limit; x is taken to be 0 give or
    take its deviation, before anything is measured.
    """

    key: str
    scale: float
    log: bool = True
    deviation: float = 1.0
    limit: float = math.inf
    start: float = 0.0

    @property
    def op_class(self) -> str | None:
        """The class of operators that the number is of, where it is of one."""
        last = self.key.rpartition(".")[2]
        return last if last in OP_CLASSES else None

    def value(self, x: float) -> float:
        # Times of no device lead anywhere; what is written is cut to what a profile may hold.
        return self.scale * (math.exp(max(-_FAR, min(x, _FAR))) if self.log else x)


class _Layers:
    """All layers of all measured networks, behind one another."""

    def __init__(self, measurements: Sequence[Measurement], dtype: Dtype) -> None:
        size = DTYPES[dtype]
        works = [(m.work, m.batch) for m in measurements]
        self.macs = np.concatenate([np.array(w.macs) * batch for w, batch in works])
        self.weights = np.concatenate([np.array(w.weights) * size for w, _ in works])
        self.activations = np.concatenate([np.array(w.activations) * size * b for w, b in works])
        self.classes = np.concatenate([np.array(w.classes) for w, _ in works])
        self.functions = {f: self._elements(works, f) for f in FITTED_FUNCTIONS}
        self.starts = np.cumsum([0, *(len(w) for w, _ in works)])[:-1]
        linear = self.classes == OP_CLASSES.index("linear")
        self.small = self.sums(linear.astype(np.float64))
        self.counts = np.array([float(len(w)) for w, _ in works])

    @staticmethod
    def _elements(works: Sequence[tuple[Work, int]], function: Function) -> Array:
        """The elements that the function is applied to, for each network."""
        return np.array(
            [sum(f[1] for f in w.functions if f and f[0] == function) * b for w, b in works]
        )

    def sums(self, values: Array) -> Array:
        """A value for each network from one for each layer."""
        return np.asarray(np.add.reduceat(values, self.starts), np.float64)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A measured time, and what the fit makes of it, all in µs.

    `held_out` is by a fit that has not seen it; None where there is no such fit.
    """

    name: str
    measured: float
    fitted: float
    held_out: float | None


@dataclass(frozen=True)
class Fit:
    """A calibrated profile, and the measurements that it rests on."""

    profile: Profile
    title: str
    """The device in words."""
    predictions: tuple[Prediction, ...]

    @cached_property
    def device(self) -> Device:
        return self.profile.to_device(self.title)

    def values(self) -> dict[str, float]:
        """The fitted numbers by their dotted keys in the profile."""
        calibration = self.profile.calibration
        assert calibration is not None
        return {key: self._value(key) for key in calibration.intervals}

    def _value(self, key: str) -> float:
        found: Any = self.profile
        for part in key.split("."):
            found = getattr(found, part)
        return float(found)

    @property
    def error(self) -> float:
        """Mean absolute error of the fitted times, in percent of the measured ones."""
        return mean_error([(p.fitted, p.measured) for p in self.predictions])


def mean_error(pairs: Sequence[tuple[float, float]]) -> float:
    """Mean absolute error in percent, of (estimated, measured) times.

    >>> mean_error([(90.0, 100.0), (100.0, 100.0)])
    5.0
    """
    return 100 * sum(abs(est - real) / real for est, real in pairs) / len(pairs)


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation of (estimated, measured) times; None where it has no meaning."""
    from scipy.stats import spearmanr

    if len(pairs) < LEAST or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def fit(
    results: Results,
    name: str,
    *,
    device: str = "",
    unit: str = "",
    held_out: bool = True,
    numbers: int | None = None,
) -> Fit:
    """The profile of the device on which these times were measured.

    `name` is the profile's; `device` and `unit` describe it. With `held_out`, every measurement
    is foretold by a fit to the others (in at most 25 groups), for the error that the profile
    states: that of whole networks. With three measurements there is none. `numbers` limits how
    many of the device's numbers are fitted; 2 are a peak and a bandwidth, as in equation 1.

    Raises:
        ArchError: E0906, fewer measurements than numbers to be fitted, or times of no device.
    """
    known = results.measurements
    if len(known) < LEAST:
        count = f"{len(known)} measurement{'' if len(known) == 1 else 's'}"
        message = f"{count} of {results.source or 'the results'} cannot fix a peak and a bandwidth"
        help_ = f"measure at least {LEAST} networks; thirty that differ are a good number"
        raise ArchError([Diagnostic("E0906", message, None, help_)])
    odd = next((m for m in known if not _LEAST_US <= m.us <= _MOST_US), None)
    if odd is not None:
        message = f"{quoted(odd.name)} cannot have taken {odd.us:g} µs"
        raise ArchError([Diagnostic("E0906", message, None, "are the times in µs?")])
    found = _fit(known, results.dtype, numbers)
    foretold: list[float | None] = [None] * len(known)
    if held_out and len(known) > LEAST:
        for inside, outside in _folds(known):
            other = _fit([known[i] for i in inside], results.dtype, numbers)
            times = _times(other.values, _Layers([known[i] for i in outside], results.dtype))
            for i, us in zip(outside, times, strict=True):
                foretold[i] = float(us)
    values = found.rounded()
    fitted = _times(values, _Layers(known, results.dtype))
    predictions = tuple(
        Prediction(m.name, m.us, float(us), other)
        for m, us, other in zip(known, fitted, foretold, strict=True)
    )
    profile = _profile(results, name, unit, values, predictions, found)
    return Fit(profile, device or results.machine or name, predictions)


def _profile(
    results: Results,
    name: str,
    unit: str,
    values: dict[str, float],
    predictions: Sequence[Prediction],
    found: _Found,
) -> Profile:
    return Profile(
        name=name,
        unit=unit or _unit(results),
        runtime=results.runtime,
        dtype=results.dtype,
        mode="calibrated",
        source="fitted to measured times, as `calibration` says",
        calibration=_calibration(results, predictions, found),
        **_nested(values),
    )


def _unit(results: Results) -> str:
    threads = results.threads
    return "" if threads is None else f"{threads} thread{'' if threads == 1 else 's'}"


def _calibration(
    results: Results, predictions: Sequence[Prediction], found: _Found
) -> CalibrationTable:
    """How well the fit foretells: whole networks, where there are enough of them."""
    known = results.measurements
    whole = [(p.held_out, p.measured) for p, m in zip(predictions, known, strict=True) if m.whole]
    every = [(p.held_out, p.measured) for p in predictions]
    chosen = whole if len(whole) >= LEAST else every
    pairs = [(us, measured) for us, measured in chosen if us is not None]
    groups = "one at a time" if len(known) <= FOLDS else f"in {FOLDS} groups"
    held_out = f"{len(pairs)} networks, each left out of the fit, {groups}"
    rho = rank_correlation(pairs) if pairs else None
    error = mean_error(pairs) if pairs else None
    if error is not None and not error <= MAX_PERCENT:
        what = results.source or "the results"
        message = f"the times of {what} are of no device: a fit is {error:.2g} % off"
        help_ = "one device's times grow with what its networks compute and move"
        raise ArchError([Diagnostic("E0906", message, None, help_)])
    return CalibrationTable(
        method=METHOD,
        measurements=len(known),
        error_percent=None if error is None else round(error, 2),
        held_out=held_out if pairs else "",
        spearman=None if rho is None else round(rho, 4),
        runtime_version=results.runtime_version,
        provenance=results.source,
        range_us=[min(m.us for m in known), max(m.us for m in known)],
        classes=[c for c in OP_CLASSES if _measured(c, known)],
        intervals={key: [float(f"{v:.4g}") for v in span] for key, *span in found.intervals()},
    )


def _nested(values: dict[str, float]) -> dict[str, Any]:
    """Tables from dotted keys."""
    tables: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        table = tables
        for part in path:
            table = table.setdefault(part, {})
        table[last] = value
    return tables


def _measured(op_class: str, known: Sequence[Measurement]) -> bool:
    number = OP_CLASSES.index(op_class)
    return any(number in m.work.classes for m in known)


def _folds(known: Sequence[Measurement]) -> Iterator[tuple[list[int], list[int]]]:
    """Which measurements to fit, and which to foretell: neighbours in time fall apart."""
    order = sorted(range(len(known)), key=lambda i: (known[i].us, known[i].name))
    count = min(len(known), FOLDS)
    for fold in range(count):
        outside = order[fold::count]
        yield [i for i in range(len(known)) if i not in outside], outside


@dataclass(frozen=True)
class _Found:
    """Where the fit came to rest."""

    numbers: tuple[_Number, ...]
    x: Array
    deviations: Array

    @cached_property
    def values(self) -> dict[str, float]:
        return {n.key: n.value(x) for n, x in zip(self.numbers, self.x, strict=True)}

    def rounded(self) -> dict[str, float]:
        """The numbers for a profile; what rests on its bound lies there to the last bit."""
        return {
            n.key: float(f"{min(max(n.value(x), _LEAST), _MOST):.6g}") if n.log or x > 1e-6 else 0.0
            for n, x in zip(self.numbers, self.x, strict=True)
        }

    def intervals(self) -> Iterator[tuple[str, float, float]]:
        """The 95 % interval of each number."""
        for number, x, deviation in zip(self.numbers, self.x, self.deviations, strict=True):
            low, high = (x + sign * _INTERVAL * deviation for sign in (-1, 1))
            if not number.log:
                low, high = max(low, 0.0), min(high, number.limit)
            yield number.key, number.value(low), number.value(high)


def _numbers(known: Sequence[Measurement], layers: _Layers, times: Array) -> tuple[_Number, ...]:
    """What to fit: less than there are measurements, in the order of what usually matters.

    The scales are what the measurements suggest: a rate at which the median network would be
    done in a third of its time, one n-th of the time for each of n operators, the shortest time
    for a run.
    """
    rate = math.e * float(np.median(layers.sums(layers.macs) / times)) / _PER_US
    moved = layers.sums(layers.weights + layers.activations)
    bandwidth = math.e * float(np.median(moved / times)) / _PER_US
    an_operator = float(np.median(times / layers.counts))
    wanted = [
        _Number("peak_gmacs", rate, deviation=_RATE),
        _Number("bandwidth_gbs", bandwidth, deviation=_RATE),
        _Number("overhead.fixed_us", float(times.min()), log=False, start=0.1),
        _Number("overhead.op_us.all", an_operator, log=False, start=0.1),
        _Number("weight_bandwidth_gbs", bandwidth, deviation=_RATE),
        _Number("efficiency.depthwise", math.exp(-1), deviation=_SHARE),
        _Number("overlap", 1.0, log=False, deviation=math.inf, limit=1.0, start=0.5),
        _Number("efficiency.conv", 1.0, deviation=_SHARE),
        _Number("memory_efficiency.elementwise", 1.0, deviation=_SHARE),
        _Number("efficiency.linear", 1.0, deviation=_SHARE),
        _Number("efficiency.attention", 1.0, deviation=_SHARE),
    ]
    present = [n for n in wanted if n.op_class is None or _measured(n.op_class, known)]
    element = float(np.median(times / layers.sums(layers.activations))) * _NS_A_US
    for function, elements in layers.functions.items():
        if elements.any():
            present.append(_Number(f"activation_ns.{function}", element, log=False, start=0.1))
    if layers.small.any():
        present.append(_Number(_SMALL_OPS, an_operator, log=False, start=0.1))
    return tuple(present[: len(known) - 1])


def _fit(known: Sequence[Measurement], dtype: Dtype, most: int | None) -> _Found:
    from scipy.optimize import least_squares

    layers = _Layers(known, dtype)
    times = np.array([m.us for m in known])
    numbers = _numbers(known, layers, times)[:most]
    deviations = np.array([n.deviation for n in numbers])
    noises = np.array([_NOISE if m.whole else _BLOCK_NOISE for m in known])

    def misses(x: Array) -> Array:
        off = (
            np.log(_times(_Found(numbers, x, deviations).values, layers)) - np.log(times)
        ) / noises
        return np.concatenate([off, x / deviations])

    lower = [-math.inf if n.log else 0.0 for n in numbers]
    upper = [n.limit for n in numbers]
    start = [n.start for n in numbers]
    found: Any = least_squares(
        misses, start, bounds=(lower, upper), x_scale="jac", loss="soft_l1", f_scale=_OUTLIER
    )
    residuals = np.asarray(found.fun)[: len(known)]
    # Where the model is off by more than it is taken to be, the numbers are as much less certain.
    noise = max(1.0, float(np.mean(residuals**2)))
    inverse = np.linalg.pinv(found.jac.T @ found.jac)
    return _Found(numbers, found.x, np.sqrt(np.maximum(np.diag(inverse) * noise, 0.0)))


def _times(values: dict[str, float], layers: _Layers) -> Array:
    """`Device.estimate` for all networks at once, in µs; the tests hold the two together."""
    rates = values["peak_gmacs"] * _PER_US * _shares(values, "efficiency")
    bandwidth = values["bandwidth_gbs"]
    compute = layers.macs / rates[layers.classes]
    memory = layers.weights / (values.get("weight_bandwidth_gbs", bandwidth) * _PER_US)
    memory = memory + layers.activations / (bandwidth * _PER_US)
    memory = memory / _shares(values, "memory_efficiency")[layers.classes]
    apart = 1.0 - values.get("overlap", 1.0)
    busy = np.maximum(compute, memory) + apart * np.minimum(compute, memory)
    time = layers.sums(busy) + values.get("overhead.fixed_us", 0.0)
    every = values.get("overhead.op_us.all", 0.0)
    small = values.get(_SMALL_OPS, every)
    time = time + every * layers.counts + (small - every) * layers.small
    for function, elements in layers.functions.items():
        time = time + values.get(f"activation_ns.{function}", 0.0) * elements / _NS_A_US
    return time


def _shares(values: dict[str, float], table: str) -> Array:
    return np.array([values.get(f"{table}.{name}", 1.0) for name in OP_CLASSES])
