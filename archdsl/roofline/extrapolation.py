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
            side = "longer" if latency.us > high else "shorter"
            message = (
                f"{name} takes {latency.us:,.0f} µs by extrapolation: {device.name} was calibrated on "
                f"{low:,.0f} to {high:,.0f} µs, and this is {side}"
            )
            yield Diagnostic("W0901", message, None, "measure networks of its size, and calibrate")
    if calibration.classes:
        unseen = [OP_CLASSES[number] for number in sorted(set(work.classes))]
        unseen = [op_class for op_class in unseen if op_class not in calibration.classes]
        if unseen:
            what = f"{device.name} was not calibrated on: {listed(unseen, 'and')}"
            message = f"{name} has operators of a class that {what}"
            yield Diagnostic(
                "W0901", message, None, "measure networks that have them, and calibrate"
            )
