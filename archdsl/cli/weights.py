"""`archdsl weights`: draw them, look into a file of them, import another library's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from archdsl.cli.options import (
    Overrides,
    Status,
    as_json,
    deliver,
    file_argument,
    limits_option,
    load,
    output_option,
    overridable,
    within,
    writable,
)
from archdsl.cli.output import Refusal, report, say, shape, size, visible, write, write_json
from archdsl.cli.table import write_table

if TYPE_CHECKING:
    from archdsl.compiler import Arch
    from archdsl.ir.execute import Array
    from archdsl.lang.diagnostics import Diagnostic


@click.group("weights")
def weights() -> None:
    """Draw weights, look into them, or import them.

    A set of weights is a safetensors file with the keys of the PyTorch module.

    \b
    Examples:
      archdsl weights init net.arch --seed 1
      archdsl weights import checkpoint.pth --for net.arch
      archdsl weights inspect net.safetensors --for net.arch
    """


_out = output_option("Where to write; - for standard output. Default: NAME.safetensors, here.")


@weights.command("init")
@file_argument
@overridable
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    callback=within(0, 2**63 - 1),
    metavar="N",
    help="What the weights are drawn from.",
)
@click.option("--lively", is_flag=True, help="Random norms and biases too: to compare runtimes.")
@_out
@as_json
def init(
    file: str, overrides: Overrides, seed: int, lively: bool, out: str | None, json: bool
) -> Status:
    """Write the weights that training starts from.

    \b
    Examples:
      archdsl weights init mnv4_conv_m
      archdsl weights init net.arch --seed 7 --lively -o net.safetensors
    """
    from archdsl.weights import initial
    from archdsl.weights import lively as enlivened

    if out is not None:
        writable(out, file, json=json)
    arch = load(file, overrides)
    values = enlivened.lively(arch, seed) if lively else initial.drawn(arch.graph(), seed)
    target = writable(out or f"{arch.name}.safetensors", file)
    return _written(arch, values, (), (), target, json)


@weights.command("import")
@limits_option
@click.argument("checkpoint", type=click.Path())
@click.option(
    "--for", "file", metavar="FILE", required=True, help="The architecture whose weights they are."
)
@overridable
@_out
@as_json
def import_(
    checkpoint: str, file: str, overrides: Overrides, out: str | None, json: bool
) -> Status:
    """Read a checkpoint of timm, torchvision or Keras.

    CHECKPOINT is a .safetensors, .pth, .h5 or .keras file. Its layers are matched with those of
    FILE by kind, shape and order. FILE must say how the checkpoint's network pads, and the norms'
    eps: no checkpoint holds them, and libraries differ in both (docs/differences.md).

    \b
    Examples:
      archdsl weights import tf_mobilenetv3_large_100.safetensors --for mnv3_large
      archdsl weights import model.keras --for net.arch --classes 10 -o net.safetensors
    """
    from archdsl.weights.importing import imported

    if out is not None:
        writable(out, file, checkpoint, json=json)
    arch = load(file, overrides)
    target = writable(out or f"{arch.name}.safetensors", file, checkpoint)
    try:
        found = imported(checkpoint, arch)
    except ImportError as failure:
        raise Refusal(str(failure)) from None
    report(found.warnings)
    return _written(arch, *found, target, json)


def _written(
    arch: Arch,
    weights: Mapping[str, Array],
    notes: tuple[str, ...],
    warnings: tuple[Diagnostic, ...],
    out: str,
    json: bool,
) -> Status:
    from archdsl.weights.store import digest
    from archdsl.weights.tensors import safetensors

    data = safetensors(weights)
    deliver(out, data)
    if json:
        record = {"file": out, "architecture": arch.name, "tensors": len(weights)}
        record |= {"bytes": len(data), "weights_sha256": digest(weights)}
        record |= {"notes": notes, "warnings": [warning.to_json() for warning in warnings]}
        write_json(record)
        return 0
    for note in notes:
        say(f"note: {visible(note)}")
    place = "standard output" if out == "-" else visible(out)
    say(f"{place}: {len(weights):,} tensors for {visible(arch.name)}, {size(len(data))}")
    return 0


# ------------------------------------------------------------------------------------ looking


@weights.command("inspect")
@limits_option
@click.argument("file", metavar="W", type=click.Path())
@click.option("--for", "arch_file", metavar="FILE", help="Say whether they fit an architecture.")
@overridable
@as_json
def inspect(file: str, arch_file: str | None, overrides: Overrides, json: bool) -> Status:
    """Show what is in a weight file.

    The exit status is 1 where they do not fit, or where one is infinite or not a number.

    \b
    Examples:
      archdsl weights inspect net.safetensors
      archdsl weights inspect net.safetensors --for net.arch --json
    """
    from archdsl.lang.diagnostics import ArchError, quoted
    from archdsl.weights.store import digest, load_weights, not_finite

    if arch_file is None and any(value is not None for value in overrides.values()):
        raise click.UsageError("options that change a network need --for FILE")
    arch = None if arch_file is None else load(arch_file, overrides)
    rows = _tensors(file, [] if arch is None else list(arch.graph().state()))
    with open(file, "rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    total = {
        "elements": sum(row["elements"] for row in rows),
        "bytes": sum(row["bytes"] for row in rows),
        "not_finite": sum(row["not_finite"] for row in rows),
        "sha256": sha256,
    }
    fit: dict[str, Any] = {}
    faults: list[Diagnostic] = []
    if arch is not None:
        try:
            loaded = load_weights(file, arch.graph())
            fit = {"architecture": arch.name, "fits": True, "weights_sha256": digest(loaded)}
        except ArchError as failure:
            faults += failure.diagnostics
            fit = {"architecture": arch.name, "fits": False, "weights_sha256": None}
    if json:
        write_json({"file": file, **total, **fit, "tensors": rows})
    else:
        _show(rows, total, fit)
    bad = [row["key"] for row in rows if row["not_finite"]]
    if bad and all(fault.code != "E0803" for fault in faults):
        faults.append(not_finite(quoted(file, 200), bad))
    report(faults)
    return 1 if faults else 0


def _tensors(file: str, order: list[str]) -> list[dict[str, Any]]:
    """What can be said of each tensor: first those of an order, then the others by name."""
    import numpy as np

    from archdsl.weights.tensors import NUMPY, open_regular, read_header, read_tensor

    rows = []
    header = read_header(file)
    strays = sorted(header.keys() - set(order), key=_natural)
    with open_regular(file) as opened:
        for key in (*(key for key in order if key in header), *strays):
            entry = header[key]
            row: dict[str, Any] = {"key": key, "dtype": entry.dtype, "shape": list(entry.shape)}
            row |= {"elements": 0, "bytes": entry.size, "min": None, "max": None, "not_finite": 0}
            if entry.dtype in NUMPY:
                values = read_tensor(opened, entry)
                finite = values[np.isfinite(values)]
                row |= {"elements": values.size, "not_finite": values.size - finite.size}
                if finite.size:
                    row |= {"min": finite.min().item(), "max": finite.max().item()}
            rows.append(row)
    return rows


def _natural(key: str) -> list[tuple[int, str]]:
    """Sorts `c10` behind `c9`."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in _PARTS.split(key)]


_PARTS = re.compile("([0-9]{1,9})")


def _show(rows: list[dict[str, Any]], total: dict[str, Any], fit: dict[str, Any]) -> None:
    cells = [
        (
            visible(row["key"]),
            row["dtype"],
            shape(row["shape"]) or "scalar",
            *("" if row[end] is None else f"{row[end]:.4g}" for end in ("min", "max")),
            f"{row['not_finite']:,}" if row["not_finite"] else "",
        )
        for row in rows
    ]
    write_table(("key", "type", "shape", ">min", ">max", ">not finite"), cells)
    lines = [
        f"{len(rows):,} tensors, {total['elements']:,} numbers, {size(total['bytes'])}",
        f"{total['not_finite']:,} infinite or not numbers" if total["not_finite"] else "all finite",
        f"sha256 of the file: {total['sha256']}",
    ]
    if fit.get("fits"):
        lines += [
            f"fits {visible(fit['architecture'])}",
            f"sha256 of the weights, as in artefacts: {fit['weights_sha256']}",
        ]
    write("\n" + "".join(f"{line}\n" for line in lines))
