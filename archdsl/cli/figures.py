"""`archdsl cost`: what one network costs. `archdsl list`: every published one, with its figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import click

from archdsl.cli.layers import BYTES_NOTE
from archdsl.cli.options import (
    Overrides,
    Status,
    as_json,
    device_option,
    devices,
    file_argument,
    load,
    overridable,
    within,
)
from archdsl.cli.output import Refusal, shape, size, visible, write, write_json
from archdsl.cli.table import Row, write_table
from archdsl.cli.timing import warn_of_extrapolation

if TYPE_CHECKING:
    from archdsl.compiler import Arch
    from archdsl.library import Member
    from archdsl.passes.cost import Cost, Dtype, Latency
    from archdsl.roofline.model import Device
    from archdsl.search.space import Space

# Outside of this no latency fits a number.
_rate = within(1e-6, 1e12)


@click.command()
@file_argument
@overridable
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    help="Type of weights and activations: the device's, or float32.",
)
@click.option(
    "--batch",
    type=int,
    callback=within(1, 1_000_000),
    default=1,
    show_default=True,
    metavar="N",
    help="Images at once.",
)
@device_option
@click.option(
    "--peak",
    type=float,
    callback=_rate,
    metavar="GMAC/S",
    help="A device's peak, in 10^9 MAC/s.",
)
@click.option(
    "--bandwidth",
    type=float,
    callback=_rate,
    metavar="GB/S",
    help="Its bandwidth, in 10^9 bytes/s.",
)
@as_json
@click.option(
    "--jsonl", is_flag=True, help="FILE has an architecture on each line: a line for each."
)
def cost(
    file: str,
    overrides: Overrides,
    dtype: str | None,
    batch: int,
    device: tuple[str, ...],
    peak: float | None,
    bandwidth: float | None,
    json: bool,
    jsonl: bool,
) -> Status:
    """Count parameters, MACs, bytes and peak memory.

    With a device also the latency, by the roofline of arXiv:2404.10518: a layer takes MACs / peak
    or bytes / bandwidth, whichever is larger. A device is a profile that `archdsl devices` lists,
    a file of your own, or --peak and --bandwidth.

    \b
    Examples:
      archdsl cost mnv2_140 --dtype int8
      archdsl cost mnv4_conv_m --device pixel6-cpu-int8 --device rpi5
      archdsl cost mnv4_conv_m --peak 50 --bandwidth 10
      archdsl space sample mnasnet_space -n 100 --jsonl | archdsl cost --jsonl -
    """
    custom = _device(peak, bandwidth)
    asked = [*([custom] if custom else []), *devices(device)]
    if jsonl:
        from archdsl.cli.streaming import stream

        try:
            return stream(file, overrides, cast("Dtype | None", dtype), batch, asked)
        except ValueError as error:
            raise Refusal(f"--dtype: {error}; leave --dtype out") from None
    arch = load(file, overrides)
    try:
        counted = arch.cost(dtype=cast("Dtype | None", dtype), batch=batch, devices=asked)
    except ValueError as error:
        raise Refusal(f"--dtype: {error}; leave --dtype out") from None
    if json:
        write_json(counted.to_json())
    else:
        _print(counted, arch.output, custom if len(asked) == 1 else None)
    warn_of_extrapolation(arch, asked, counted)
    return 0


def _device(peak: float | None, bandwidth: float | None) -> Device | None:
    if peak is None and bandwidth is None:
        return None
    if peak is None or bandwidth is None:
        raise click.UsageError("--peak and --bandwidth go together: a latency needs both")
    from archdsl.roofline.model import Device

    return Device("custom", peak_macs=peak * 1e9, bandwidth=bandwidth * 1e9)


def _print(counted: Cost, output: tuple[int, ...], device: Device | None) -> None:
    rows = [
        ("parameters", f"{counted.params:,}", ""),
        ("MACs", f"{counted.macs:,}", ""),
    ]
    if counted.macs_attention:
        rows += [
            ("  convolution, linear", f"{counted.macs_conv_linear:,}", ""),
            ("  attention", f"{counted.macs_attention:,}", ""),
        ]
    rows += [
        (title, f"{count:,}", size(count))
        for title, count in (
            ("weight bytes", counted.weight_bytes),
            ("activation bytes", counted.activation_bytes),
            ("peak activation bytes", counted.peak_activation_bytes),
        )
    ]
    for latency in counted.latency if device else ():
        assert device is not None
        at = f"at {device.peak_macs / 1e9:g} GMAC/s and {device.bandwidth / 1e9:g} GB/s"
        rows.append(("latency", f"{latency.us or 0:,.1f} µs", f"{latency.bound}-bound, {at}"))
    write(
        f"{counted.name}: input {shape(counted.input)}, output {shape(output)}, "
        f"batch {counted.batch:,}, {counted.dtype}\n\n"
    )
    first = max(len(title) for title, _, _ in rows)
    second = max(len(figure) for _, figure, _ in rows)
    for title, figure, note in rows:
        write(f"{title:<{first}}  {figure:>{second}}  {note}".rstrip() + "\n")
    if counted.latency and not device:
        write("\n")
        write_latencies(counted.latency)
    write(f"\n{BYTES_NOTE}; peak: the most alive at once.\n")


def write_latencies(found: Sequence[Latency]) -> None:
    """A row for each device: what its numbers are, and where the time goes."""
    calibrated = any(latency.mode == "calibrated" for latency in found)
    rows: list[Row] = [
        (
            latency.device,
            latency.mode,
            latency.dtype,
            "no times" if latency.us is None else f"{latency.us:,.1f}",
            latency.bound,
            *([_error(latency)] if calibrated else []),
        )
        for latency in found
    ]
    head = ["device", "numbers", "dtype", ">latency µs", "bound by"]
    write_table([*head, *([">held-out error"] if calibrated else [])], rows)


def _error(latency: Latency) -> str:
    if latency.mode == "nominal":
        return ""
    return "not measured" if latency.error is None else f"{latency.error:.1f} %"


# ---------------------------------------------------------------------------------------- list


@click.command("list")
@click.option("--spaces", is_flag=True, help="List the search spaces, with their sizes.")
@as_json
def list_(spaces: bool, json: bool) -> Status:
    """List every published network with its figures.

    With --spaces instead every published search space, with the number of its networks.

    \b
    Examples:
      archdsl list
      archdsl list --json
      archdsl list --spaces
    """
    return _list_spaces(json) if spaces else _list_networks(json)


def _list_spaces(json: bool) -> Status:
    from archdsl.search.space import load_space, shipped_spaces

    records = [_space_record(load_space(name)) for name in shipped_spaces()]
    if json:
        write_json(records)
        return 0
    rows: list[Row] = []
    for record in records:
        count = int(record["networks"])
        rows.append(
            (
                record["name"],
                str(record["year"] or ""),
                f"{count:,}" if count < 1e9 else f"{count:.2e}",
                str(record["choices"]),
                visible(record["source"] or ""),
            )
        )
    write_table(("name", ">year", ">networks", ">choices", "source…"), rows)
    return 0


def _space_record(space: Space) -> dict[str, Any]:
    from archdsl.library import year_of

    source = space.spec_of(space.member(0)).source
    return {
        "name": space.name,
        # Other languages read larger numbers as floats.
        "networks": str(space.count),
        "choices": len(space.choices),
        "year": year_of(source),
        "source": source,
    }


def _list_networks(json: bool) -> Status:
    from archdsl.compiler import parse
    from archdsl.library import members, published_source

    records = [
        _record(member, parse(published_source(member.file), variant=member.variant))
        for member in members()
    ]
    if json:
        write_json(records)
        return 0
    rows: list[Row] = []
    generation = ""
    for record in records:
        last, generation = generation, record["name"].split("_")[0]
        if last and last != generation:
            rows.append(None)
        rows.append(
            (
                record["name"],
                str(record["year"] or ""),
                shape(record["input"]),
                f"{record['params']:,}",
                f"{record['macs']:,}",
                record["top1"] or "",
                visible(record["source"] or ""),
            )
        )
    write_table(("name", ">year", ">input", ">parameters", ">MACs", ">top-1", "source…"), rows)
    return 0


def _record(member: Member, arch: Arch) -> dict[str, Any]:
    from archdsl.library import year_of

    counted = arch.cost()
    accurate = next((p for p in arch.published if "top1" in p.facts), None)
    return {
        "name": member.name,
        "file": member.file,
        "variant": member.variant,
        "input": list(arch.input),
        "classes": arch.classes,
        "params": counted.params,
        "macs": counted.macs,
        "top1": accurate.facts["top1"] if accurate else None,
        "year": year_of(arch.spec.source),
        "source": accurate.source if accurate else arch.spec.source,
    }
