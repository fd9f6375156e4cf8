"""`archdsl show --device`: where a network's time goes on one device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from archdsl.cli.output import report, write
from archdsl.cli.table import Row, write_table

if TYPE_CHECKING:
    from archdsl.compiler import Arch
    from archdsl.passes.cost import Cost, Dtype
    from archdsl.roofline.breakdown import Breakdown, Part
    from archdsl.roofline.model import Device


def taken_apart(arch: Arch, device: Device, dtype: Dtype | None = None) -> Breakdown:
    """The network's time on the device; what is extrapolated is said on standard error."""
    from archdsl.roofline.breakdown import breakdown

    counted = arch.cost(dtype=dtype, devices=[device])
    warn_of_extrapolation(arch, [device], counted)
    return breakdown(counted, device)


def warn_of_extrapolation(arch: Arch, devices: Iterable[Device], counted: Cost) -> None:
    """Say of calibrated devices what of the network lies beyond what was measured on them."""
    from archdsl.roofline.extrapolation import extrapolations

    for device, latency in zip(devices, counted.latency, strict=True):
        report(extrapolations(arch.name, arch.work, device, latency))


def timing_record(arch: Arch, found: Breakdown) -> dict[str, Any]:
    """What `--json` prints."""
    from archdsl.passes.cost import BYTE_CONVENTION, SCHEMA_VERSION

    return {
        "schema_version": SCHEMA_VERSION,
        "byte_convention": BYTE_CONVENTION,
        "name": arch.name,
        "input": list(arch.input),
        **found.to_json(),
    }


def write_timing(arch: Arch, found: Breakdown, what: dict[str, str], *, ops: bool) -> None:
    """The table of blocks or operators, and of what they sum to; `what` tells blocks by path."""
    write(f"{arch.name} on {headline(found)}\n\n")
    digits = 3 if found.time < 1000 else 1
    scale = 1e-6 if found.device.relative else 1.0
    unit = "MMACs" if found.device.relative else "µs"

    def time(value: float) -> str:
        return f"{value * scale:,.{digits}f}"

    rows: list[Row] = []
    section = ""
    for name, description, macs, intensity, value, share, bound in (
        _operators(found) if ops else _blocks(found, what)
    ):
        last, section = section, name.split(".")[0] if ops else name.rpartition(".")[0]
        if last and section != last:
            rows.append(None)
        figures = (f"{macs:,}", intensity, time(value), _percent(share))
        rows.append((name, description, *figures, bound))
    macs = sum(layer.macs for layer in found.layers)
    total = ("total", "", f"{macs:,}", "", time(found.time), "100.0 %", found.latency.bound)
    kind = "operator" if ops else "block"
    head = ("layer", kind, ">MACs", ">MACs/byte", f">{unit}", ">share", "bound by")
    write_table(head, rows, total)
    if found.fixed:
        write(f"\nThe total has {time(found.fixed)} {unit} a run that no layer has.\n")
    write("\n")
    bounds = [(name, "", "", time(t), _percent(share), "") for name, t, share in found.by_bound()]
    parts: list[Row] = [(f"bound by {name}", *rest) for name, *rest in bounds if rest[3] != "0.0 %"]
    for title, groups in (("stage", found.by_stage()), ("class", found.by_class())):
        parts.append(None)
        parts += [_part(title, part, time(part.time)) for part in groups]
    write_table(
        ("where the time goes", ">layers", ">MACs", f">{unit}", ">share", "bound by"), parts
    )
    write(f"\n{reliability(found)}\n")


def headline(found: Breakdown) -> str:
    """The device, its roof, and the network's time."""
    device, latency = found.device, found.latency
    time = "no times" if latency.us is None else f"{latency.us:,.1f} µs"
    if latency.error is not None and latency.us is not None:
        time += f" ± {latency.us * latency.error / 100:,.1f}"
    roof = f"ridge point {device.ridge_point:.4g} MACs per byte"
    if not device.relative:
        roof = (
            f"{device.peak_macs / 1e9:,.5g} GMAC/s, {device.bandwidth / 1e9:,.5g} GB/s, "
            f"{roof if device.ridge_point else 'memory left out'}"
        )
    return f"{device.name} ({device.mode}, {latency.dtype}): {time}, {latency.bound}-bound\n{roof}"


def reliability(found: Breakdown) -> str:
    """How far the times are to be believed."""
    device, error = found.device, found.latency.error
    if device.mode == "nominal":
        return (
            "Nominal: from data sheets, no time was measured. Compare networks; do not take the "
            "times as such."
        )
    if error is None:
        return "Calibrated; its error on networks that it has not seen was not measured."
    return f"Calibrated; on networks that it had not seen it was {error:.1f} % off on average."


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


Line = tuple[str, str, int, str, float, float, str]


def _operators(found: Breakdown) -> Iterator[Line]:
    for layer in found.layers:
        intensity = f"{layer.intensity:.2f}"
        yield (
            *(layer.name, layer.op_class, layer.macs, intensity),
            *(layer.time, layer.share, layer.bound),
        )


def _blocks(found: Breakdown, what: dict[str, str]) -> Iterator[Line]:
    moved: dict[str, int] = {}
    for layer in found.layers:
        moved[layer.block] = moved.get(layer.block, 0) + layer.bytes
    for part in found.by_block():
        intensity = f"{part.macs / moved[part.name]:.2f}" if moved[part.name] else ""
        name = part.name
        yield name, what.get(name, ""), part.macs, intensity, part.time, part.share, part.bound


def _part(title: str, part: Part, time: str) -> tuple[str, ...]:
    share = _percent(part.share)
    return f"{title} {part.name}", str(part.layers), f"{part.macs:,}", time, share, part.bound
