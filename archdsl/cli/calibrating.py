"""`archdsl calibrate`: a device's profile from measured times."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from archdsl.cli.benching import RUNTIMES
from archdsl.cli.compiling import progress_bar
from archdsl.cli.options import Status, as_json, deliver, output_option, within, writable
from archdsl.cli.output import Refusal, refused, say, visible, write, write_json
from archdsl.cli.table import Row, write_table
from archdsl.extras import needs

if TYPE_CHECKING:
    from archdsl.calibration.fit import Fit
    from archdsl.calibration.measurement import Results

_NAMELESS = re.compile(r"[^a-z0-9]")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


def _name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _NAME.fullmatch(value):
        what = "small letters, digits and `_.-`, beginning with a letter or a digit"
        raise click.BadParameter(f"{visible(value[:70])!r} must be at most 64 {what}")
    return value


@click.command()
@click.argument("results", metavar="[RESULTS]", required=False, type=click.Path())
@click.option("--here", is_flag=True, help="Measure this machine, instead of reading RESULTS.")
@click.option("--runtime", type=click.Choice(RUNTIMES), help="With --here: what runs the networks.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    help="The type of the numbers, where RESULTS do not say it. With --here: float32 by default.",
)
@click.option(
    "--threads", type=int, callback=within(1, 1024), help="With --here: how many. Default: 1."
)
@click.option(
    "--seconds",
    type=float,
    callback=within(1, 3600),
    help="With --here: how long to measure, after compiling. Default: 40.",
)
@click.option(
    "--kit",
    type=click.Path(),
    metavar="FOLDER",
    help="The bench kit that was measured. Default: the one beside RESULTS, or the shipped one.",
)
@click.option("--name", callback=_name, help="The profile's name. Default: RUNTIME-DTYPE.")
@click.option("--device", "title", metavar="TEXT", help="The device in words.")
@output_option("The profile. Default: NAME.toml.")
@as_json
def calibrate(
    results: str | None,
    here: bool,
    runtime: Any,
    dtype: Any,
    threads: int | None,
    seconds: float | None,
    kit: str | None,
    name: str | None,
    title: str | None,
    out: str | None,
    json: bool,
) -> Status:
    """Fit a device profile to measured times, and say how well it foretells.

    RESULTS is what the bench kit's `run.py` wrote, the output of LiteRT's `benchmark_model`, a
    profile of ONNX Runtime or of AI Hub, a table with the columns `network` and `us`, or a folder
    of such files. The error that is printed is that on networks which the fit had not seen.

    \b
    Examples:
      archdsl calibrate --here --runtime onnxruntime
      archdsl calibrate kit-tflite-int8/results.json --name board-cpu-int8
      archdsl cost mnv4_conv_m --device board-cpu-int8.toml
    """
    if here == (results is not None):
        raise click.UsageError("give either RESULTS or --here")
    if here and runtime is None:
        raise click.UsageError("--here needs a --runtime")
    if not here and (runtime or threads or seconds):
        raise click.UsageError("--runtime, --threads and --seconds go with --here")
    if here and kit:
        raise click.UsageError("--kit goes with RESULTS")
    _needed()
    if here:
        dtype = dtype or "float32"
        name = name or f"here-{runtime}-{dtype}"
        target = writable(out or f"{name}.toml", "-", json=json)
        found = _measured(runtime, dtype, threads or 1, seconds)
    else:
        found = _read(str(results), kit, dtype)
        name = name or f"{_NAMELESS.sub('', found.runtime.lower()) or 'device'}-{found.dtype}"
        target = writable(out or f"{name}.toml", "-", results, json=json)
    from archdsl.calibration.fit import fit
    from archdsl.roofline.profile import ProfileFile

    made = fit(found, name, device=title or "")
    text = ProfileFile(device=made.title, profile=[made.profile]).to_toml()
    if json:
        write_json(_record(made, found))
    elif target != "-":
        _print(made, found)
    deliver(target, text.encode())
    if target != "-":
        say(f"wrote {visible(target)}; use it with --device {visible(target)}")
    return 0


def _needed() -> None:
    """Refuse before minutes are spent on measuring.

    Raises:
        Refusal: a package is missing.
    """
    for package in ("scipy.optimize", "tomli_w"):
        with needs("calibrate", f"{package} cannot be imported", Refusal):
            import_module(package)


def _measured(runtime: Any, dtype: Any, threads: int, seconds: float | None) -> Results:
    from archdsl.backend import BackendError
    from archdsl.calibration import kit
    from archdsl.calibration.measuring import SECONDS, measure

    try:
        with progress_bar("") as bar:
            tell = None if bar is None else lambda doing, done, count: bar(done, count)
            return measure(
                kit.networks(),
                runtime,
                dtype,
                threads=threads,
                seconds=seconds or SECONDS,
                progress=tell,
            )
    except BackendError as failure:
        raise Refusal(str(failure)) from None


def _read(path: str, kit: str | None, dtype: Any) -> Results:
    from archdsl.calibration.results import read_results

    try:
        found = read_results(path, kit, dtype=dtype)
    except OSError as failure:
        raise Refusal(refused(failure)) from None
    for entry, why in found.skipped:
        say(f"skipped {visible(entry)}: {why}")
    return found


def _record(made: Fit, found: Results) -> dict[str, Any]:
    profile = made.profile.model_dump(mode="json", exclude_defaults=True)
    return {
        "schema_version": 1,
        "device": made.title,
        "profile": profile,
        "fitted_error_percent": made.error,
        "networks": [
            {
                "name": one.name,
                "measured_us": one.measured,
                "fitted_us": one.fitted,
                "held_out_us": one.held_out,
            }
            for one in made.predictions
        ],
        "skipped": [{"name": entry, "why": why} for entry, why in found.skipped],
    }


def _print(made: Fit, found: Results) -> None:
    calibration = made.profile.calibration
    assert calibration is not None
    write(f"{made.profile.name}: {visible(made.title)}, {found.dtype}\n\n")
    rows: list[Row] = [
        (
            *(visible(one.name), f"{one.measured:,.1f}"),
            *(_off(one.fitted, one.measured), _off(one.held_out, one.measured)),
        )
        for one in made.predictions
    ]
    write_table(("network", ">measured µs", ">fitted", ">not seen"), rows)
    values = made.values()
    numbers: list[Row] = [
        (key, f"{values[key]:.4g}", f"{low:.4g} to {high:.4g}")
        for key, (low, high) in calibration.intervals.items()
    ]
    write("\n")
    write_table(("number", ">value", ">95 % interval"), numbers)
    if calibration.error_percent is None:
        write("\nToo few networks to leave one out: its error was not measured.\n")
        return
    rho = "" if calibration.spearman is None else f", rank correlation {calibration.spearman:.3f}"
    write(
        f"\nOn networks that the fit had not seen it was {calibration.error_percent:.1f} % off on "
        f"average{rho} ({calibration.held_out}).\n"
    )


def _off(us: float | None, measured: float) -> str:
    return "" if us is None else f"{(us / measured - 1) * 100:+.1f} %"
