"""`archdsl verify` compares what the runtimes make of one network."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from archdsl.cli.compiling import (
    DEFAULT,
    PRECISIONS,
    Calibration,
    Weights,
    calibrated,
    complete_backend,
    demand_calibration,
    given_weights,
    pictures,
    stages,
    weighted,
)
from archdsl.cli.options import (
    Overrides,
    Status,
    as_json,
    file_argument,
    load,
    overridable,
    within,
)
from archdsl.cli.output import Refusal, error, report, say, shape, size, visible, write, write_json
from archdsl.cli.quiet import hushed
from archdsl.cli.table import columns_wide, write_table

if TYPE_CHECKING:
    from archdsl.compiler import Arch
    from archdsl.verification import Comparison, Report


@click.command()
@file_argument
@overridable
@weighted
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_backend,
    help="A backend to compare; may be given again. Default: all.",
)
@click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    type=click.Choice(PRECISIONS),
    help="A precision; may be given again. Default: float32.",
)
@click.option(
    "--images",
    type=click.Path(),
    metavar="X",
    help="Images to compare on: a .npz file, or a folder of photos. Default: random ones.",
)
@calibrated
@click.option(
    "--runs",
    type=int,
    callback=within(0, 100_000),
    default=20,
    show_default=True,
    metavar="N",
    help="Inferences to time; 0 for none.",
)
@click.option("--layers", is_flag=True, help="Find the first operator that departs, in float32.")
@click.option(
    "--artefact",
    type=click.Path(),
    metavar="F",
    help="Run nothing: is this file what the text and the weights compile to?",
)
@click.option(
    "--features", metavar="STAGES", help="With --artefact: the stages that compile was told."
)
@click.option("--keep-norm", is_flag=True, help="With --artefact: compile was told so.")
@as_json
def verify(
    file: str,
    overrides: Overrides,
    weights: Weights,
    backends: Sequence[str],
    dtypes: Sequence[Any],
    images: str | None,
    calibration: Calibration,
    runs: int,
    layers: bool,
    artefact: str | None,
    features: str | None,
    keep_norm: bool,
    json: bool,
) -> Status:
    """Compile with every backend, run all, and compare.

    Exits 1 where float32 networks differ by more than a ten-thousandth of the largest output, or
    where an artefact is not what is compiled anew.

    \b
    Examples:
      archdsl verify mnv4_conv_m
      archdsl verify net.arch --weights net.safetensors --layers
      archdsl verify net.arch --dtype float32 --dtype int8 --calibration images.npz
      archdsl verify net.arch --weights net.safetensors --artefact net.onnx
      archdsl verify net.arch --seed 0 --artefact net.onnx --features c3,c4 --keep-norm
    """
    demand_calibration("int8" in dtypes, calibration)
    if calibration["preprocess"] is not None and calibration["calibration"] is images is None:
        message = "--preprocess says how --images or --calibration are read, and there are none"
        raise click.UsageError(message)
    if artefact is not None:
        if images is not None or layers or len(backends) > 1 or len(dtypes) > 1:
            message = "--artefact takes one --backend and --dtype, and no --images or --layers"
            raise click.UsageError(message)
        options = _Making(
            next(iter(backends), None),
            next(iter(dtypes), "float32"),
            calibration,
            stages(features),
            keep_norm,
        )
        return _check_artefact(artefact, load(file, overrides), weights, options, json)
    if features is not None or keep_norm:
        message = "--features and --keep-norm say how --artefact was compiled, and there is none"
        raise click.UsageError(message)
    from archdsl.backend import BackendError
    from archdsl.verification import verify as compared

    arch = load(file, overrides)
    preprocess = calibration["preprocess"]
    given = labels = to_calibrate = None
    try:
        if images is not None:
            given, labels = pictures(images, preprocess, arch)
        if calibration["calibration"] is not None:
            to_calibrate, _ = pictures(calibration["calibration"], preprocess, arch)
        with hushed(), _status() as progress:
            found = compared(
                arch,
                weights=weights["weights"],
                seed=weights["seed"] or 0,
                backends=backends or None,
                dtypes=dtypes or ("float32",),
                images=given,
                labels=labels,
                calibration=to_calibrate,
                ranges=calibration["ranges"] or DEFAULT,  # type: ignore[arg-type]
                runs=runs,
                layers=layers,
                progress=progress,
            )
    except BackendError as failure:
        raise Refusal(str(failure)) from None
    if json:
        write_json(found.to_json())
    else:
        _print(found)
    for skipped in found.skipped:
        say(f"skipped {skipped.backend} {skipped.dtype}: {visible(skipped.why)}")
    for fault in found.all_faults():
        error(visible(fault))
    _say_traces(found)
    return 0 if found.ok else 1


class _Making(NamedTuple):
    """How an artefact was made: with which backend (None: told by its ending), in which way."""

    backend: str | None
    dtype: Any
    calibration: Calibration
    features: Sequence[str]
    keep_norm: bool


def _check_artefact(path: str, arch: Arch, weights: Weights, making: _Making, json: bool) -> Status:
    from archdsl.backend import BackendError, available, backend, compile
    from archdsl.provenance import departures

    try:
        to = making.backend or next(
            (name for name in available() if backend(name).suffix == Path(path).suffix), None
        )
        if to is None:
            raise Refusal(f"{visible(path)}: no backend writes such files; name it by --backend")
        calibration = making.calibration
        made = compile(
            arch,
            to,
            weights=given_weights(arch, weights),
            dtype=making.dtype,
            features=making.features,
            fold=not making.keep_norm,
            calibration=calibration["calibration"],
            preprocess=calibration["preprocess"],
            ranges=calibration["ranges"] or DEFAULT,  # type: ignore[arg-type]
            filename=Path(path).name,
        )
        found = departures(path, made)
    except BackendError as failure:
        raise Refusal(str(failure)) from None
    if json:
        faults = [departure._asdict() for departure in found]
        write_json({"file": path, "backend": to, "dtype": making.dtype, "faults": faults})
    elif not found:
        write(f"{visible(path)} is what {visible(arch.name)} compiles to, byte for byte\n")
    for departure in found:
        error(visible(f"{departure.file}: {departure.why}"))
    return 1 if found else 0


def _print(found: Report) -> None:
    if not found.comparisons:
        return
    inputs = "images" if found.given else "random images"
    write(
        f"{found.name}: input {shape(found.input)}, {found.images} {inputs}, "
        f"weights {visible(found.weights)}\n\n"
    )
    columns = ["backend", "precision", ">difference", ">maps", ">top-1", ">SQNR dB"]
    columns += [">accuracy"] if found.labelled else []
    rows = [_row(comparison, found) for comparison in found.comparisons]
    write_table([*columns, ">size", ">latency"], rows)
    timed = f"; latency: median of {found.runs} runs, one image, one thread" if found.runs else ""
    runtimes = ", ".join(dict.fromkeys(c.runtime for c in found.comparisons if c.runtime))
    note = (
        f"Reference: {found.reference}. Difference: the largest, as a share of the reference's "
        f"largest value; maps: the same of feature maps{timed}. {found.machine}; {runtimes}."
    )
    write("\n" + fill(note, max(columns_wide(), 40), break_on_hyphens=False) + "\n")


def _row(comparison: Comparison, found: Report) -> list[str]:
    def share(value: float | None) -> str:
        return "" if comparison.is_reference else "?" if value is None else f"{value:.1e}"

    def share_of_images(value: float | None) -> str:
        return "" if value is None else f"{value:.1%}"

    maps = comparison.features.values()
    worst = None if None in maps else max((m for m in maps if m is not None), default=0.0)
    row = [
        comparison.backend,
        comparison.dtype,
        "reference" if comparison.is_reference else share(comparison.difference),
        share(worst) if maps else "",
        share_of_images(None if comparison.is_reference else comparison.agreement),
        "" if comparison.sqnr is None else f"{comparison.sqnr:.1f}",
    ]
    if found.labelled:
        row.append(share_of_images(comparison.accuracy))
    latency = comparison.latency
    return [*row, size(comparison.bytes), "" if latency is None else f"{latency:,.0f} µs"]


def _say_traces(found: Report) -> None:
    for trace in found.traces:
        diagnostic = trace.diagnostic()
        if diagnostic is not None:
            report([diagnostic])
        elif trace.worst is not None:
            say(
                f"{trace.backend}: none of {len(trace.layers)} operators departs; "
                f"{trace.worst.node.name} differs most, by {trace.worst.difference:.1e}"
            )


@contextmanager
def _status() -> Iterator[Callable[[str], None] | None]:
    """What is being done, on standard error where that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    # Drawn seldom: it is there while others are timed.
    with Console(file=sys.stderr).status("", refresh_per_second=2) as status:
        yield lambda what: status.update(visible(what))
