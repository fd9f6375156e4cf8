"""Where a network's time goes on a device: layer by layer, by stage, by class, by bound."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from archdsl.passes.cost import DTYPES, Bound, Cost, Latency, LayerCost, OpClass
from archdsl.roofline.model import Device


@dataclass(frozen=True, slots=True)
class LayerEstimate:
    """A layer's time and why. Times are µs, or MACs on a device that has a ridge point alone.

    `bytes` are those of the byte convention at the device's dtype, `intensity` the MACs for each
    of them; `share` is of the network's whole time.
    """

    name: str
    block: str
    op: str
    op_class: OpClass
    macs: int
    bytes: int
    intensity: float
    time: float
    compute: float
    memory: float
    overhead: float
    share: float
    bound: Bound

    @property
    def stage(self) -> str:
        """`stem`, `head` or the stage's name."""
        return self.block.rpartition(".")[0].removeprefix("stages.") or self.block


class Part(NamedTuple):
    """Some layers together; `bound` is what most of their time goes to."""

    name: str
    layers: int
    macs: int
    time: float
    share: float
    bound: Bound


@dataclass(frozen=True)
class Breakdown:
    """A network's time on a device, taken apart."""

    latency: Latency
    device: Device
    layers: tuple[LayerEstimate, ...]
    fixed: float
    """The overhead of a run, which is in no layer."""
    time: float
    """All of it: what the layers and the fixed overhead sum to."""

    @property
    def unit(self) -> str:
        return "MACs" if self.device.relative else "µs"

    def by(self, key: Callable[[LayerEstimate], str]) -> list[Part]:
        """The layers grouped by a key, in the order in which it first comes."""
        groups: dict[str, list[LayerEstimate]] = {}
        for layer in self.layers:
            groups.setdefault(key(layer), []).append(layer)
        return [self._part(name, layers) for name, layers in groups.items()]

    def by_block(self) -> list[Part]:
        return self.by(lambda layer: layer.block)

    def by_stage(self) -> list[Part]:
        return self.by(lambda layer: layer.stage)

    def by_class(self) -> list[Part]:
        """The largest share first."""
        return sorted(self.by(lambda layer: layer.op_class), key=lambda part: -part.time)

    def by_bound(self) -> list[tuple[Bound, float, float]]:
        """Time and share that computing, moving and overheads take, the fixed one included."""
        busy = _shares(self.layers)
        busy["overhead"] += self.fixed
        return [(name, time, time / self.time if self.time else 0.0) for name, time in busy.items()]

    def _part(self, name: str, layers: Sequence[LayerEstimate]) -> Part:
        busy = _shares(layers)
        time = sum(layer.time for layer in layers)
        bound = max(busy, key=lambda each: busy[each])
        macs = sum(layer.macs for layer in layers)
        return Part(name, len(layers), macs, time, time / self.time if self.time else 0.0, bound)

    def to_json(self) -> dict[str, Any]:
        """The record that `archdsl show --device --json` prints."""
        return {
            "latency": self.latency.to_json(),
            "unit": "MACs" if self.device.relative else "us",
            "ridge_point": self.device.ridge_point,
            "fixed_overhead": self.fixed,
            "by_bound": [
                {"bound": name, "time": time, "share": share}
                for name, time, share in self.by_bound()
            ],
            "by_stage": [part._asdict() for part in self.by_stage()],
            "by_class": [part._asdict() for part in self.by_class()],
            "layers": [
                {
                    "name": layer.name,
                    "op": layer.op,
                    "op_class": layer.op_class,
                    "block": layer.block,
                    "macs": layer.macs,
                    "bytes": layer.bytes,
                    "macs_per_byte": layer.intensity,
                    "time": layer.time,
                    "compute": layer.compute,
                    "memory": layer.memory,
                    "overhead": layer.overhead,
                    "share": layer.share,
                    "bound": layer.bound,
                }
                for layer in self.layers
            ],
        }


def _shares(layers: Iterable[LayerEstimate]) -> dict[Bound, float]:
    """What the layers' times go to: their overheads, and the rest to the larger of the others."""
    busy: dict[Bound, float] = {"memory": 0.0, "compute": 0.0, "overhead": 0.0}
    for layer in layers:
        busy["overhead"] += layer.overhead
        larger: Bound = "compute" if layer.compute > layer.memory else "memory"
        busy[larger] += layer.time - layer.overhead
    return busy


def breakdown(cost: Cost, device: Device) -> Breakdown:
    """A network's cost on a device, taken apart.

    >>> import archdsl
    >>> device = archdsl.load_device("pixel6-cpu-int8")
    >>> taken = breakdown(archdsl.load("mnv4_conv_m").cost(), device)
    >>> [(part.name, round(part.share, 2)) for part in taken.by_class()][:2]
    [('pointwise', 0.8), ('conv', 0.15)]
    """
    dtype = device.dtype or cost.dtype
    latency = device.estimate(cost.work, dtype=dtype, batch=cost.batch)
    scale = device.peak_macs if device.relative else 1e6
    total = latency.equivalent_macs if latency.us is None else latency.us
    times = device.layer_times(cost.work, dtype=dtype, batch=cost.batch)
    layers = []
    for layer, time in zip(cost.layers, times, strict=True):
        moved = _bytes(layer, cost, DTYPES[dtype])
        layers.append(
            LayerEstimate(
                layer.name,
                layer.block,
                layer.op,
                layer.op_class,
                layer.macs,
                moved,
                layer.macs / moved if moved else 0.0,
                time.seconds * scale,
                time.compute * scale,
                time.memory * scale,
                time.overhead * scale,
                time.seconds * scale / total if total else 0.0,
                time.bound,
            )
        )
    return Breakdown(latency, device, tuple(layers), device.fixed_overhead * scale, total)


def _bytes(layer: LayerCost, cost: Cost, size: int) -> int:
    return (layer.weight_bytes + layer.activation_bytes) * size // DTYPES[cost.dtype]
