"""A file of device profiles: the classes that check it, and what becomes of them.

The unit of a number stands in its key: `peak_gmacs` are 10^9 MAC/s, `bandwidth_gbs` 10^9 bytes/s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from archdsl.ir.ops import Function
from archdsl.passes.cost import OP_CLASSES, Dtype, Mode, OpClass
from archdsl.roofline.model import Calibration, Device, OnChip, PerClass

_GIGA, _MICRO, _NANO = 1e9, 1e-6, 1e-9

MAX_PERCENT = 1e6
"""Of an error: who is off by more foretells nothing."""

MemoryOp = Literal["add", "mul", "global_avg_pool", "softmax", "transpose", "batch_norm"]
"""Operators without MACs that move bytes of their own (docs/cost.md), by their names."""


def _not_tiny(value: float) -> float:
    if value < 1e-9:
        raise ValueError("must be at least 1e-9")
    return value


def _bandwidth(value: float) -> float:
    if value > 1e9 and value != math.inf:
        raise ValueError("must be at most 1e9, or inf where memory is left out")
    return _not_tiny(value)


Rate = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False), AfterValidator(_not_tiny)]
Bandwidth = Annotated[float, Field(gt=0), AfterValidator(_bandwidth)]
Share = Annotated[float, Field(ge=1e-6, le=1e3, allow_inf_nan=False)]
Time = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Capacity = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=MAX_PERCENT, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=1000)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Range = Annotated[list[Finite], Field(min_length=2, max_length=2)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class Fault(NamedTuple):
    """What is wrong with a profile: the path to the place, a code, a sentence and a repair."""

    path: tuple[str | int, ...]
    code: str
    message: str
    repair: str | None = None


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Shares(_Table):
    """A share for each class of operators; `all` is that of those which are not named."""

    all: Share = 1.0
    depthwise: Share | None = None
    pointwise: Share | None = None
    conv: Share | None = None
    linear: Share | None = None
    attention: Share | None = None
    elementwise: Share | None = None


class Times(_Table):
    """A time in µs for each class of operators; `all` is that of those which are not named."""

    all: Time = 0.0
    depthwise: Time | None = None
    pointwise: Time | None = None
    conv: Time | None = None
    linear: Time | None = None
    attention: Time | None = None
    elementwise: Time | None = None


def _per_class(table: Shares | Times | None, default: float) -> PerClass:
    if table is None:
        return PerClass.same(default)
    return PerClass(*(table.all if v is None else v for v in _named(table)))


def _named(table: Shares | Times) -> Iterator[float | None]:
    return (getattr(table, name) for name in OP_CLASSES)


class OnChipTable(_Table):
    """Memory on the chip: bytes of weights and of a layer's activations that stay there."""

    weight_bytes: Capacity = 0.0
    activation_bytes: Capacity = 0.0
    bandwidth_gbs: Bandwidth = math.inf


class OverheadTable(_Table):
    """Time that is neither computing nor moving: of a run, and of each operator by its class."""

    fixed_us: Time = 0.0
    op_us: Times | None = None


class ActivationTable(_Table):
    """ns an element, of activation functions that the runtime does not fuse into what precedes."""

    relu: Time = 0.0
    relu6: Time = 0.0
    hswish: Time = 0.0
    swish: Time = 0.0
    gelu: Time = 0.0
    sigmoid: Time = 0.0
    hsigmoid: Time = 0.0


class FusionTable(_Table):
    """Operators without MACs that the runtime joins to others, at no cost."""

    free: list[MemoryOp] = []


class CalibrationTable(_Table):
    """How a calibrated profile's numbers were found, and its error on what the fit had not seen."""

    method: Annotated[str, Field(min_length=1, max_length=1000)]
    measurements: Annotated[int, Field(ge=1)] | None = None
    error_percent: Percent | None = None
    held_out: Text = ""
    spearman: Annotated[float, Field(ge=-1, le=1)] | None = None
    runtime_version: Text = ""
    provenance: Text = ""
    range_us: Range | None = None
    classes: list[OpClass] = []
    intervals: dict[str, Range] = {}

    def to_calibration(self) -> Calibration:
        return Calibration(
            self.method,
            self.measurements,
            self.error_percent,
            self.held_out,
            self.spearman,
            self.runtime_version,
            self.provenance,
            (self.range_us[0], self.range_us[1]) if self.range_us else None,
            tuple(self.classes),
            tuple((name, low, high) for name, (low, high) in self.intervals.items()),
        )


class Profile(_Table):
    """One unit of a device under one runtime, for one type of weights and activations."""

    name: Name
    unit: Text = ""
    runtime: Text = ""
    dtype: Dtype
    mode: Mode
    peak_gmacs: Rate | None = None
    bandwidth_gbs: Bandwidth | None = None
    ridge_point: Rate | None = None
    weight_bandwidth_gbs: Bandwidth | None = None
    activation_bandwidth_gbs: Bandwidth | None = None
    on_chip: OnChipTable | None = None
    overhead: OverheadTable | None = None
    efficiency: Shares | None = None
    memory_efficiency: Shares | None = None
    overlap: Annotated[float, Field(ge=0, le=1)] = 1.0
    activation_ns: ActivationTable | None = None
    fusion: FusionTable | None = None
    source: Text | dict[str, Text] = {}
    calibration: CalibrationTable | None = None

    def faults(self) -> Iterator[Fault]:
        """What is missing, and which numbers contradict each other."""
        given = self.model_fields_set
        if "ridge_point" in given:
            for key in sorted(given & _TIMED):
                message = f"`{key}` and `ridge_point`: a ridge point alone has no times"
                yield Fault((key,), "E0905", message, "leave one of the two out")
        else:
            for key, what in (("peak_gmacs", "10^9 MAC/s"), ("bandwidth_gbs", "10^9 bytes/s")):
                if key not in given:
                    yield Fault((), "E0902", f"`{self.name}` has no `{key}` ({what})")
        if self.mode == "nominal":
            for key in _FITTED:
                if key in given:
                    message = f"`{key}` in a nominal profile: such a number comes from measurements"
                    hint = 'write `mode = "calibrated"`, and say how in `calibration`'
                    yield Fault((key,), "E0905", message, hint)
        elif self.calibration is None:
            message = f"`{self.name}` is calibrated, and has no `calibration`"
            hint = 'write at least `calibration.method = "..."`'
            yield Fault((), "E0902", message, hint)
        if isinstance(self.source, dict):
            known = _numbers(self.model_dump(exclude_unset=True))
            for key in self.source:
                if key not in known:
                    message = f"a source of `{key}`, which the profile does not have"
                    yield Fault(("source", key), "E0905", message)
        if self.calibration:
            ranges = {("intervals", key): span for key, span in self.calibration.intervals.items()}
            ranges |= {("range_us", ""): self.calibration.range_us or [0.0, 0.0]}
            for (table, key), (low, high) in ranges.items():
                if low > high:
                    path = ("calibration", table, key) if key else ("calibration", table)
                    message = f"`{path[-1]}`: the range ends before it begins"
                    yield Fault(path, "E0905", message)

    def to_device(self, title: str) -> Device:
        """The device; its profile has no faults."""
        if isinstance(self.source, str):
            sources: tuple[tuple[str, str], ...] = (("", self.source),) if self.source else ()
        else:
            sources = tuple(self.source.items())
        chip = self.on_chip or OnChipTable()
        overhead = self.overhead or OverheadTable()
        op_overhead = _per_class(overhead.op_us, 0.0)
        if self.ridge_point is not None:
            peak, bandwidth = self.ridge_point, 1.0
        else:
            assert self.peak_gmacs is not None and self.bandwidth_gbs is not None
            peak, bandwidth = self.peak_gmacs * _GIGA, self.bandwidth_gbs * _GIGA
        return Device(
            name=self.name,
            peak_macs=peak,
            bandwidth=bandwidth,
            mode=self.mode,
            dtype=self.dtype,
            device=title,
            unit=self.unit,
            runtime=self.runtime,
            weight_bandwidth=_scaled(self.weight_bandwidth_gbs),
            activation_bandwidth=_scaled(self.activation_bandwidth_gbs),
            on_chip=OnChip(chip.weight_bytes, chip.activation_bytes, chip.bandwidth_gbs * _GIGA),
            fixed_overhead=overhead.fixed_us * _MICRO,
            op_overhead=PerClass(*(us * _MICRO for us in op_overhead)),
            efficiency=_per_class(self.efficiency, 1.0),
            memory_efficiency=_per_class(self.memory_efficiency, 1.0),
            overlap=self.overlap,
            activation_cost=_function_costs(self.activation_ns),
            free_ops=frozenset(self.fusion.free) if self.fusion else frozenset(),
            relative=self.ridge_point is not None,
            sources=sources,
            calibration=self.calibration.to_calibration() if self.calibration else None,
        )


class ProfileFile(_Table):
    """Profiles of one device, for `archdsl cost --device`."""

    device: Annotated[str, Field(min_length=1, max_length=200)]
    profile: Annotated[list[Profile], Field(min_length=1, max_length=256)]

    def to_toml(self) -> str:
        """The text of the file, which reads as these profiles.

        Raises:
            ImportError: tomli-w is not installed.
        """
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_defaults=True))


_TIMED = {
    "peak_gmacs",
    "bandwidth_gbs",
    "weight_bandwidth_gbs",
    "activation_bandwidth_gbs",
    "on_chip",
    "overhead",
    "activation_ns",
}
_FITTED = (
    "ridge_point",
    "overhead",
    "efficiency",
    "memory_efficiency",
    "overlap",
    "activation_ns",
    "fusion",
    "calibration",
)


def _function_costs(table: ActivationTable | None) -> tuple[tuple[Function, float], ...]:
    if table is None:
        return ()
    costs = ((name, getattr(table, name)) for name in get_args(Function))
    return tuple((name, ns * _NANO) for name, ns in costs if ns)


def _scaled(value: float | None) -> float | None:
    return None if value is None else value * _GIGA


def _numbers(given: dict[str, Any], before: str = "") -> set[str]:
    """The dotted keys of the numbers of a profile: `peak_gmacs`, `overhead.op_us.conv`."""
    found: set[str] = set()
    for key, value in given.items():
        path = f"{before}{key}"
        if isinstance(value, dict) and key not in ("source", "calibration"):
            found |= _numbers(value, f"{path}.")
        elif isinstance(value, (float, int, list)):
            found.add(path)
    return found
