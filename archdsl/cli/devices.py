"""`archdsl devices`: the device profiles, and where their numbers are from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from textwrap import fill
from typing import TYPE_CHECKING, Any

import click

from archdsl.cli.options import Status, as_json
from archdsl.cli.options import devices as read
from archdsl.cli.output import visible, write, write_json
from archdsl.cli.table import Row, columns_wide, write_table

if TYPE_CHECKING:
    from archdsl.roofline.model import Calibration, Device, PerClass


@click.command()
@click.argument("names", metavar="[NAME|FILE.toml]...", nargs=-1)
@as_json
def devices(names: tuple[str, ...], json: bool) -> Status:
    """List device profiles, with the sources of their numbers.

    Without a name all that are shipped; a name is a profile's or a device's.

    \b
    Examples:
      archdsl devices
      archdsl devices pixel6 board.toml
    """
    from archdsl.roofline.profiles import shipped

    found = read(names) if names else list(shipped())
    if json:
        write_json([_record(device) for device in found])
        return 0
    rows: list[Row] = []
    title = ""
    for device in found:
        last, title = title, device.device
        if last and last != title:
            rows.append(None)
        rows.append(_row(device))
    head = ("profile", ">GMAC/s", ">GB/s", ">ridge", "numbers", "source of the peak…")
    write_table(head, rows)
    if names:
        write("".join(map(_sources, found)))
    write("\nRidge: MACs per byte above which a layer is bound by compute.\n")
    if any(device.bandwidth == math.inf for device in found):
        write("A bandwidth of inf: none is known, memory is left out, times are lower bounds.\n")
    return 0


def _row(device: Device) -> tuple[str, ...]:
    peak = bandwidth = ""
    if not device.relative:
        peak, bandwidth = _short(device.peak_macs / 1e9), _short(device.bandwidth / 1e9)
    source = visible(device.source("ridge_point" if device.relative else "peak_gmacs"))
    return device.name, peak, bandwidth, _short(device.ridge_point), device.mode, source


def _short(number: float) -> str:
    return f"{number:,.0f}" if 1000 <= number < math.inf else f"{number:.4g}"


def _sources(device: Device) -> str:
    """A profile in words, and where each of its numbers is from."""
    what = ", ".join(part for part in (device.device, device.unit, device.runtime) if part)
    lines = [("", what)]
    lines += [(f"{key or 'all'}: ", said) for key, said in device.sources]
    lines += list(_further(device))
    if device.calibration:
        lines.append(("calibration: ", device.calibration.method))
        lines.append(("", device.calibration.provenance))
        lines.append(("error: ", _error(device.calibration)))
    width = max(columns_wide(), 40)
    wrapped = (
        fill(visible(said), width, initial_indent=f"  {key}", subsequent_indent="    ")
        for key, said in lines
        if said
    )
    return "\n".join([f"\n{device.name}", *wrapped]) + "\n"


def _further(device: Device) -> Iterator[tuple[str, str]]:
    """The numbers that have no column: those that change something, by their keys."""
    from archdsl.roofline.model import Device

    record = _record(device)
    tables = ("on_chip", "overhead", "efficiency", "memory_efficiency", "activation_ns", "fusion")
    for key in ("weight_bandwidth_gbs", "activation_bandwidth_gbs"):
        if record[key] is not None:
            yield f"{key}: ", f"{record[key]:.4g}"
    plain = _record(Device(device.name, device.peak_macs, device.bandwidth))
    for table in tables:
        said = ", ".join(_changed(record[table], plain[table]))
        if said:
            yield f"{table}: ", said
    if device.overlap != 1:
        yield "overlap: ", f"{device.overlap:.4g}"


def _changed(found: dict[str, Any], plain: dict[str, Any], before: str = "") -> Iterator[str]:
    """The entries of a table that are not those of a device of two numbers."""
    for key, value in found.items():
        usual = plain.get(key)
        if isinstance(value, dict):
            yield from _changed(value, usual or {}, f"{before}{key}.")
        elif value != usual:
            shown = " ".join(value) if isinstance(value, list) else f"{value:.4g}"
            yield f"{before}{key} {shown}"


def _error(calibration: Calibration) -> str:
    """How far it was off on what the fit had not seen; empty for nobody knows."""
    if calibration.error is None:
        return "not measured on networks that the fit had not seen"
    seen = f" ({calibration.held_out})" if calibration.held_out else ""
    return f"{calibration.error:.1f} % on average{seen}"


def _record(device: Device) -> dict[str, Any]:
    """The profile as data: keys as in its file, what is not known or infinite is null."""
    chip, calibration = device.on_chip, device.calibration
    return {
        "name": device.name,
        "device": device.device,
        "unit": device.unit,
        "runtime": device.runtime,
        "dtype": device.dtype,
        "mode": device.mode,
        "peak_gmacs": None if device.relative else device.peak_macs / 1e9,
        "bandwidth_gbs": None if device.relative else _rate(device.bandwidth),
        "ridge_point": device.ridge_point,
        "weight_bandwidth_gbs": _rate(device.weight_bandwidth),
        "activation_bandwidth_gbs": _rate(device.activation_bandwidth),
        "on_chip": {
            "weight_bytes": chip.weight_bytes,
            "activation_bytes": chip.activation_bytes,
            "bandwidth_gbs": _rate(chip.bandwidth),
        },
        "overhead": {
            "fixed_us": device.fixed_overhead * 1e6,
            "op_us": {name: s * 1e6 for name, s in _classes(device.op_overhead).items()},
        },
        "efficiency": _classes(device.efficiency),
        "memory_efficiency": _classes(device.memory_efficiency),
        "overlap": device.overlap,
        "activation_ns": {name: s * 1e9 for name, s in device.activation_cost},
        "fusion": {"free": sorted(device.free_ops)},
        "source": dict(device.sources),
        "calibration": calibration
        and {
            "method": calibration.method,
            "measurements": calibration.measurements,
            "error_percent": calibration.error,
            "held_out": calibration.held_out,
            "spearman": calibration.spearman,
            "runtime_version": calibration.runtime_version,
            "provenance": calibration.provenance,
            "range_us": calibration.range_us,
            "classes": calibration.classes,
            "intervals": {name: [low, high] for name, low, high in calibration.intervals},
        },
    }


def _rate(bytes_per_second: float | None) -> float | None:
    if bytes_per_second is None or bytes_per_second == math.inf:
        return None
    return bytes_per_second / 1e9


def _classes(table: PerClass) -> dict[str, float]:
    return dict(table._asdict())
