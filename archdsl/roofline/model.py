"""The roofline: a layer takes the larger of its compute time and its memory time.

Source: MobileNetV4, arXiv 2404.10518, equation 1. Model time is the sum over layers of
max(MACs / peak MACs, (weight bytes + activation bytes) / peak bandwidth).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from archdsl.passes.cost import Cost, Latency, LayerCost


@dataclass(frozen=True, slots=True)
class Device:
    """Peak compute in MAC/s (not FLOP/s) and peak bandwidth in bytes/s.

    Raises:
        ValueError: a peak that is not a positive, finite number.
    """

    name: str
    peak_macs: float
    bandwidth: float
    mode: str = "nominal"

    def __post_init__(self) -> None:
        for what, value in (("peak", self.peak_macs), ("bandwidth", self.bandwidth)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{what} {value}: must be a positive number")

    @property
    def ridge_point(self) -> float:
        """The operational intensity, in MACs per byte, above which a layer is compute-bound."""
        return self.peak_macs / self.bandwidth

    def layer_time(self, layer: LayerCost) -> tuple[float, Literal["compute", "memory"]]:
        """Seconds for one layer, and what bounds it."""
        compute = layer.macs / self.peak_macs
        memory = (layer.weight_bytes + layer.activation_bytes) / self.bandwidth
        return (compute, "compute") if compute > memory else (memory, "memory")


def estimate(layers: Iterable[LayerCost], device: Device) -> Latency:
    """The latency of a network's layers on a device.

    >>> layer = LayerCost("conv", "conv2d", "stem.0", (2, 2, 1), (2, 2, 1), 1, 4_000, 4, 32)
    >>> estimate([layer], Device("one", peak_macs=1e9, bandwidth=1e9)).us
    4.0
    """
    shares = {"compute": 0.0, "memory": 0.0}
    for layer in layers:
        seconds, bound = device.layer_time(layer)
        shares[bound] += seconds
    bound = "compute" if shares["compute"] > shares["memory"] else "memory"
    return Latency(device.name, device.mode, sum(shares.values()) * 1e6, bound)


def with_latency(cost: Cost, devices: Iterable[Device]) -> Cost:
    """The cost with an estimate for each device."""
    return replace(cost, latency=tuple(estimate(cost.layers, device) for device in devices))
