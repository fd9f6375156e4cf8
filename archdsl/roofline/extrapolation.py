"""What a calibrated device was not measured on: where its estimates are guesses."""

from __future__ import annotations

from collections.abc import Iterator

from archdsl.lang.diagnostics import Diagnostic, listed, quoted
from archdsl.passes.cost import OP_CLASSES, Latency, Work
from archdsl.roofline.model import Device

_FAR = 1.25
"""How many times the longest measured time, or the shortest, is still near."""


def extrapolations(
    network: str, work: Work, device: Device, latency: Latency
) -> Iterator[Diagnostic]:
    """W0901 for each way in which a network lies beyond what the device was calibrated on.

    That is a time beyond those measured by more than a quarter, and classes of operators of which
    none was measured.
    """
    calibration = device.calibration
    if calibration is None:
        return
    name = quoted(network)
    if calibration.range_us is not None and latency.us is not None:
        low, high = calibration.range_us
        if not low / _FAR <= latency.us <= high * _FAR:
            message = (
                f"{name} takes {latency.us:,.0f} µs on {device.name}, calibrated on {low:,.0f} to "
                f"{high:,.0f} µs"
            )
            yield Diagnostic(
                "W0901", message, None, "it is extrapolated; measure networks of its size"
            )
    if calibration.classes:
        unseen = [OP_CLASSES[number] for number in sorted(set(work.classes))]
        unseen = [op_class for op_class in unseen if op_class not in calibration.classes]
        if unseen:
            message = (
                f"{device.name} was calibrated without {listed(unseen, 'and')}: {name} has them"
            )
            yield Diagnostic(
                "W0901", message, None, "it is extrapolated; measure networks that have them"
            )
