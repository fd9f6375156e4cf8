"""What a calibrated device was not measured on: where its estimates are guesses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from archdsl.lang.diagnostics import Diagnostic, listed, quoted
from archdsl.passes.cost import OP_CLASSES, Latency, Work
from archdsl.roofline.model import Device

_NAMED = 5
"""How many networks a warning names."""

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


def extrapolated_together(
    networks: Iterable[tuple[str, Work, Latency]], device: Device
) -> Iterator[Diagnostic]:
    """As `extrapolations`, of many networks: one warning for all of them."""
    asked = list(networks)
    found = [(one[0], list(extrapolations(*one[:2], device, one[2]))) for one in asked]
    beyond = [(name, warnings) for name, warnings in found if warnings]
    if len(beyond) <= 1:
        yield from (warning for _, warnings in beyond for warning in warnings)
        return
    names = [quoted(name) for name, _ in beyond[:_NAMED]]
    if len(beyond) > _NAMED:
        names.append(f"{len(beyond) - _NAMED} more")
    message = (
        f"{len(beyond)} of {len(asked)} networks lie beyond what {device.name} was calibrated on: "
        f"{listed(names, 'and')}"
    )
    yield Diagnostic("W0901", message, None, "they are extrapolated; `archdsl cost` says how")
