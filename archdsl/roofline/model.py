"""The roofline: a layer takes the larger of its compute time and its memory time.

Source: MobileNetV4, arXiv 2404.10518, equation 1. Model time is the sum over layers of
max(MACs / peak MACs, (weight bytes + activation bytes) / peak bandwidth). That is what a `Device`
of two numbers gives, to the last bit. Every further number of a device has a default that changes
nothing:

    compute  = MACs / (peak x efficiency of the operator's class)
    memory   = (weight bytes / weight bandwidth + activation bytes / activation bandwidth)
               / memory efficiency of the class, less what stays on the chip
    busy     = larger of the two + (1 - overlap) x smaller of the two
    time     = fixed overhead + sum over layers of (busy + overhead of the class
               + elements x cost of an activation function that is not fused),
               the fusion table's free operators left out

docs/latency.md has each with its meaning. Nothing here needs numpy: a network on one device is a
sum over some hundred layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from archdsl.ir.ops import Function
from archdsl.passes.cost import DTYPES, Bound, Cost, Dtype, Latency, Mode, Work


class PerClass(NamedTuple):
    """A number for each class of operators (`archdsl.passes.cost.OP_CLASSES`, in that order)."""

    depthwise: float
    pointwise: float
    conv: float
    linear: float
    attention: float
    elementwise: float

    @classmethod
    def same(cls, value: float) -> PerClass:
        """One number for all."""
        return cls(*[value] * len(cls._fields))


ONE, ZERO = PerClass.same(1.0), PerClass.same(0.0)


@dataclass(frozen=True, slots=True)
class OnChip:
    """Memory beside the arithmetic: what fits does not cross the bandwidth of the device.

    Of a network's weights the first `weight_bytes` stay on the chip from one run to the next: of
    every layer that share is not read from outside. Of a layer's inputs and output the first
    `activation_bytes` do not leave it. What stays costs no time or, with a `bandwidth` (bytes/s),
    the time to read it there.
    """

    weight_bytes: float = 0.0
    activation_bytes: float = 0.0
    bandwidth: float = math.inf


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a calibrated device's numbers were found, and how well they foretell.

    `error` is the mean absolute error in percent of times that the fit had not seen (`held_out`
    says which), `spearman` the rank correlation, `range_us` the smallest and largest time
    measured, `classes` those of the operators in them, `intervals` the 95 % intervals
    (key, low, high) of the fitted numbers.
    """

    method: str
    measurements: int | None = None
    error: float | None = None
    held_out: str = ""
    spearman: float | None = None
    runtime_version: str = ""
    provenance: str = ""
    range_us: tuple[float, float] | None = None
    classes: tuple[str, ...] = ()
    intervals: tuple[tuple[str, float, float], ...] = ()


class LayerTime(NamedTuple):
    """A layer's time and its parts, in seconds; `bound` is the part that decides."""

    seconds: float
    compute: float
    memory: float
    overhead: float
    bound: Bound


@dataclass(frozen=True, slots=True)
class Device:
    """Peak compute in MAC/s (not FLOP/s) and peak bandwidth in bytes/s, of one unit and dtype.

    An infinite bandwidth leaves memory out: where none is known, MACs / peak bounds the time from
    below. Times are in seconds. `sources` says of each number where it is from; what it does not
    name is unverified. A `relative` device has a ridge point and no times (`Device.of_ridge`).

    Raises:
        ValueError: a number that cannot be.
    """

    name: str
    peak_macs: float
    bandwidth: float
    mode: Mode = "nominal"
    dtype: Dtype | None = None
    """What weights and activations are; without one, what the network is counted in."""
    device: str = ""
    unit: str = ""
    runtime: str = ""
    weight_bandwidth: float | None = None
    """Bytes/s, where weights come at another rate than activations."""
    activation_bandwidth: float | None = None
    on_chip: OnChip = OnChip()
    fixed_overhead: float = 0.0
    """Seconds a run."""
    op_overhead: PerClass = ZERO
    """Seconds a layer."""
    efficiency: PerClass = ONE
    """Shares of the peak."""
    memory_efficiency: PerClass = ONE
    """Shares of the bandwidth."""
    overlap: float = 1.0
    """1 where a layer computes and moves at once, 0 where it does so in turn."""
    activation_cost: tuple[tuple[Function, float], ...] = ()
    """Seconds an element, of the activation functions that the runtime does not fuse."""
    free_ops: frozenset[str] = frozenset()
    """The fusion table: operators by name that the runtime joins to others at no cost."""
    relative: bool = False
    sources: tuple[tuple[str, str], ...] = ()
    calibration: Calibration | None = None
    plain: bool = field(init=False, repr=False, compare=False)
    """Whether this is equation 1 and nothing else."""

    def __post_init__(self) -> None:
        for what, value in (
            ("peak", self.peak_macs),
            ("bandwidth", self.bandwidth),
            ("weight bandwidth", self.weight_bandwidth or 1.0),
            ("activation bandwidth", self.activation_bandwidth or 1.0),
            ("on-chip bandwidth", self.on_chip.bandwidth),
            *((f"efficiency of {n}", v) for n, v in self.efficiency._asdict().items()),
            *(
                (f"memory efficiency of {n}", v)
                for n, v in self.memory_efficiency._asdict().items()
            ),
        ):
            if not value > 0 or (value == math.inf and "bandwidth" not in what):
                raise ValueError(f"{what} {value}: must be a positive number")
        for what, value in (
            ("fixed overhead", self.fixed_overhead),
            ("on-chip weight bytes", self.on_chip.weight_bytes),
            ("on-chip activation bytes", self.on_chip.activation_bytes),
            *((f"overhead of {n}", v) for n, v in self.op_overhead._asdict().items()),
            *((f"time of {n}", v) for n, v in self.activation_cost),
        ):
            if not 0 <= value < math.inf:
                raise ValueError(f"{what} {value}: must be a number, and not negative")
        if not 0 <= self.overlap <= 1:
            raise ValueError(f"overlap {self.overlap}: must lie between 0 and 1")
        if self.relative and (self.fixed_overhead or any(self.op_overhead) or self.activation_cost):
            raise ValueError("a device of no times has no overheads")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r}: must be one of {', '.join(DTYPES)}")
        plain = (
            (self.weight_bandwidth or self.bandwidth) == self.bandwidth
            and (self.activation_bandwidth or self.bandwidth) == self.bandwidth
            and not (self.on_chip.weight_bytes or self.on_chip.activation_bytes)
            and not (self.fixed_overhead or any(self.op_overhead) or self.free_ops)
            and not self.activation_cost
            and self.efficiency == self.memory_efficiency == ONE
            and self.overlap == 1
        )
        object.__setattr__(self, "plain", plain)

    @classmethod
    def of_ridge(
        cls, ridge_point: float, name: str | None = None, mode: Mode = "nominal"
    ) -> Device:
        """A device of which the ridge point (MACs per byte) is all that is known.

        >>> Device.of_ridge(31.2).ridge_point
        31.2
        """
        return cls(name or f"ridge {ridge_point:g}", ridge_point, 1.0, mode, relative=True)

    @property
    def ridge_point(self) -> float:
        """The operational intensity, in MACs per byte, above which a layer is compute-bound."""
        return self.peak_macs / self.bandwidth

    @property
    def error(self) -> float | None:
        """The held-out error of the calibration, in percent."""
        return self.calibration.error if self.calibration else None

    def source(self, number: str) -> str:
        """Where a number is from; `number` is its key in a profile (`peak_gmacs`)."""
        found = dict(self.sources)
        return found.get(number, found.get("", "unverified"))

    def estimate(self, work: Work, *, dtype: Dtype = "float32", batch: int = 1) -> Latency:
        """The time of a network; `dtype` counts where the device has none.

        >>> from archdsl.passes.cost import Row
        >>> work = Work([Row("conv", "conv2d", (2, 2, 1), (2, 2, 1), 1, 4_000, 1, 8, "conv")])
        >>> Device("one", peak_macs=1e9, bandwidth=1e9).estimate(work).us
        4.0
        """
        dtype = self.dtype or dtype
        total = compute = 0.0
        if self.plain:
            peak, elements_per_second = self.peak_macs, self.bandwidth / DTYPES[dtype]
            for macs, moved in work.pairs(batch):
                busy = macs / peak
                moving = moved / elements_per_second
                if busy > moving:
                    compute += busy
                    total += busy
                else:
                    total += moving
            bound: Bound = "compute" if compute > total - compute else "memory"
        else:
            times = self.layer_times(work, dtype=dtype, batch=batch)
            shares: dict[Bound, float] = {"memory": 0.0, "compute": 0.0, "overhead": 0.0}
            for time in times:
                total += time.seconds
                shares["overhead"] += time.overhead
                larger: Bound = "compute" if time.compute > time.memory else "memory"
                shares[larger] += time.seconds - time.overhead
            total += self.fixed_overhead
            shares["overhead"] += self.fixed_overhead
            bound = max(shares, key=lambda name: shares[name])
        us = None if self.relative else total * 1e6
        return Latency(self.name, self.mode, us, bound, dtype, total * self.peak_macs, self.error)

    def layer_times(
        self, work: Work, *, dtype: Dtype = "float32", batch: int = 1
    ) -> Sequence[LayerTime]:
        """The time of each layer; the fixed overhead is in none of them."""
        size = DTYPES[self.dtype or dtype]
        chip = self.on_chip
        staying = min(1.0, chip.weight_bytes / max(sum(work.weights) * size, 1e-300))
        split = (
            chip.weight_bytes > 0
            or chip.activation_bytes > 0
            or self.weight_bandwidth is not None
            or self.activation_bandwidth is not None
        )
        weight_rate = self.weight_bandwidth or self.bandwidth
        activation_rate = self.activation_bandwidth or self.bandwidth
        peaks = [self.peak_macs * share for share in self.efficiency]
        function_cost = dict(self.activation_cost)
        found = []
        for macs, weights, activations, kind, op, function in zip(
            *(work.macs, work.weights, work.activations, work.classes, work.ops, work.functions),
            strict=True,
        ):
            if op in self.free_ops:
                found.append(LayerTime(0.0, 0.0, 0.0, 0.0, "memory"))
                continue
            compute = macs * batch / peaks[kind]
            if split:
                kernel, data = weights * size, activations * batch * size
                inside = kernel * staying
                outside = max(0.0, data - chip.activation_bytes)
                memory = (kernel - inside) / weight_rate + outside / activation_rate
                memory += (inside + data - outside) / chip.bandwidth
            else:
                memory = (weights + activations * batch) * size / self.bandwidth
            memory /= self.memory_efficiency[kind]
            overhead = self.op_overhead[kind]
            if function is not None and function_cost:
                overhead += function_cost.get(function[0], 0.0) * function[1] * batch
            larger, smaller = (compute, memory) if compute > memory else (memory, compute)
            busy = larger + (1.0 - self.overlap) * smaller
            bound: Bound = "compute" if compute > memory else "memory"
            if overhead > busy:
                bound = "overhead"
            found.append(LayerTime(busy + overhead, compute, memory, overhead, bound))
        return found


def common_dtype(devices: Iterable[Device], asked: Dtype | None = None) -> Dtype:
    """The dtype to count a network in for these devices.

    It is the one asked for, else the devices' own, else float32 where they have none or differ.

    Raises:
        ValueError: another one is asked for than a device's profile is for.
    """
    own = {device.dtype for device in devices if device.dtype is not None}
    if asked is not None:
        for device in devices:
            if device.dtype not in (None, asked):
                raise ValueError(f"{device.name} is a profile for {device.dtype}, not {asked}")
        return asked
    return own.pop() if len(own) == 1 else "float32"


def with_latency(cost: Cost, devices: Iterable[Device], work: Work | None = None) -> Cost:
    """The cost with an estimate for each device; `work` where it is known already."""
    work = work or cost.work
    latency = (d.estimate(work, dtype=cost.dtype, batch=cost.batch) for d in devices)
    return replace(cost, latency=tuple(latency))
