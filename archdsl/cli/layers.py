"""`archdsl show`: the layer table that a person reads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from archdsl.cli.options import (
    Overrides,
    Status,
    as_json,
    device_option,
    file_argument,
    load,
    one_device,
    overridable,
)
from archdsl.cli.output import shape, size, visible, write, write_json
from archdsl.cli.table import Row, columns_wide, write_table

if TYPE_CHECKING:
    from archdsl.compiler import Arch
    from archdsl.lang.spec import Block

BYTES_NOTE = "Bytes: kernel + inputs + output of each fused operator, once"


class Layer(NamedTuple):
    """A row of the table; bytes are float32's."""

    name: str
    what: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    params: int
    macs: int
    weight_bytes: int
    activation_bytes: int


@click.command()
@file_argument
@overridable
@click.option("--ops", is_flag=True, help="A row for each fused operator instead of each block.")
@partial(device_option, many=False)
@as_json
def show(file: str, overrides: Overrides, ops: bool, device: str | None, json: bool) -> Status:
    """Print the layer table, or with a device where the time goes.

    \b
    Examples:
      archdsl show mnv4_conv_m
      archdsl show net.arch --width 0.5 --ops
      archdsl show mnv4_conv_m --device pixel6-cpu-int8
    """
    arch = load(file, overrides)
    if device is not None:
        from archdsl.cli.timing import taken_apart, timing_record, write_timing

        found = taken_apart(arch, one_device(device))
        if json:
            write_json(timing_record(arch, found))
        else:
            what = {} if ops else {layer.name: layer.what for layer in _blocks(arch)}
            write_timing(arch, found, what, ops=ops)
        return 0
    layers = list(_ops(arch) if ops else _blocks(arch))
    if json:
        write_json(_record(arch, layers, "op" if ops else "block"))
    else:
        _print(arch, layers, "operator" if ops else "block")
    return 0


def _blocks(arch: Arch) -> Iterator[Layer]:
    """A row for each block, repeats counted."""
    from archdsl.lang.printer import print_block
    from archdsl.passes.cost import DTYPES

    width = DTYPES["float32"]
    for item in arch.placed:
        for index, (path, unit) in enumerate(item.units()):
            totals = unit.cost.totals
            yield Layer(
                path,
                print_block(_single(item.run.block, first=index == 0)),
                unit.fragment.input,
                unit.fragment.output,
                totals.params,
                totals.macs_conv_linear + totals.macs_attention,
                totals.weights * width,
                totals.activations * width,
            )


def _single(block: Block, *, first: bool) -> Block:
    """One of a block's repeats: only the first has the stride and the input that `i` declares."""
    if block.repeats == 1:
        return block
    dropped = {"repeats"} if first else {"repeats", "in_channels", "stride"}
    written = {name: getattr(block, name) for name in block.model_fields_set - dropped}
    return type(block).model_construct(_fields_set=set(written), **written)


def _ops(arch: Arch) -> Iterator[Layer]:
    """A row for each fused operator."""
    for layer in arch.cost().layers:
        yield Layer(
            layer.name,
            layer.op,
            layer.input,
            layer.output,
            layer.params,
            layer.macs,
            layer.weight_bytes,
            layer.activation_bytes,
        )


def _print(arch: Arch, layers: list[Layer], what: str) -> None:
    attributes = arch.attributes
    scaled = [
        f", {name} {value:g}"
        for name, value in (("width", attributes.width), ("depth", attributes.depth))
        if value != 1
    ]
    sizes = f"input {shape(arch.input)}, output {shape(arch.output)}"
    write(f"{arch.name}: {sizes}{''.join(scaled)}\n")
    if arch.spec.source:
        lines = wrap(visible(arch.spec.source), max(columns_wide(), 40), break_on_hyphens=False)
        write("\n".join(lines) + "\n")
    write("\n")
    cost = arch.cost()
    rows: list[Row] = []
    section = ""
    for layer in layers:
        # A gap between stem, stages and head; the operators of a net are too many for more.
        last, section = section, layer.name.split(".")[0]
        if what == "block":
            section = layer.name.rpartition(".")[0]
        if last and section != last:
            rows.append(None)
        rows.append(
            (
                layer.name,
                layer.what,
                shape(layer.output),
                f"{layer.params:,}",
                f"{layer.macs:,}",
                size(layer.weight_bytes + layer.activation_bytes),
            )
        )
    moved = size(cost.weight_bytes + cost.activation_bytes)
    total = ("total", "", "", f"{cost.params:,}", f"{cost.macs:,}", moved)
    write_table(("layer", what, ">output", ">parameters", ">MACs", ">bytes"), rows, total)
    write(f"\n{BYTES_NOTE} (float32).\n")


def _record(arch: Arch, layers: list[Layer], what: str) -> dict[str, Any]:
    from archdsl.passes.cost import BYTE_CONVENTION, SCHEMA_VERSION

    cost = arch.cost()
    rows = [
        {
            "name": layer.name,
            what: layer.what,
            "input": list(layer.input),
            "output": list(layer.output),
            "params": layer.params,
            "macs": layer.macs,
            "weight_bytes": layer.weight_bytes,
            "activation_bytes": layer.activation_bytes,
        }
        for layer in layers
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "byte_convention": BYTE_CONVENTION,
        "name": arch.name,
        "source": arch.spec.source,
        "input": list(arch.input),
        "output": list(arch.output),
        "classes": arch.classes,
        "dtype": cost.dtype,
        "params": cost.params,
        "macs": cost.macs,
        "weight_bytes": cost.weight_bytes,
        "activation_bytes": cost.activation_bytes,
        "layers" if what == "op" else "blocks": rows,
    }
