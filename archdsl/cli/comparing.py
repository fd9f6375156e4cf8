"""`archdsl sweep` and `archdsl rank`: many networks on all ridge points, or on one device."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click

from archdsl.cli.options import (
    Overrides,
    Status,
    as_json,
    deliver,
    device_option,
    load,
    one_device,
    optional_files_argument,
    output_option,
    overridable,
    within,
)
from archdsl.cli.output import Refusal, report, say, visible, write, write_json
from archdsl.cli.pictures import checked_suffix, picture
from archdsl.cli.table import Row, columns_wide, write_table

if TYPE_CHECKING:
    from archdsl.compiler import Arch
    from archdsl.passes.cost import Dtype
    from archdsl.roofline.accuracies import Counts
    from archdsl.roofline.model import Device
    from archdsl.roofline.sweep import Candidate, Sweep


def _candidates(
    files: tuple[str, ...],
    overrides: Overrides,
    accuracies: dict[str, float] | None = None,
    counts: Iterable[Counts] = (),
) -> list[Candidate]:
    """The networks of the FILEs, or every published one whose top-1 is known.

    Accuracies by name take the place of what is published; `counts` say of which networks they are.

    Raises:
        Refusal: there are no FILEs to change, or one has only its name in common with those.
    """
    from archdsl.library import networks, top1_of
    from archdsl.roofline.sweep import Candidate

    asked = [name for name, value in overrides.items() if value is not None]
    if asked and not files:
        raise Refusal(f"--{asked[0]}: of such networks no top-1 is published; name FILEs")
    found = []
    counted: dict[str, list[Counts]] = {}
    for count in counts:
        counted.setdefault(count.name, []).append(count)
    for arch in (load(file, overrides) for file in files) if files else networks():
        top1 = top1_of(arch) if accuracies is None else accuracies.get(arch.name)
        if files or top1 is not None:
            _require_same(arch, counted.get(arch.name, []))
            found.append(Candidate(arch.name, arch.work, top1))
    return found


def _require_same(arch: Arch, counts: Iterable[Counts]) -> None:
    """Refuse a network that has only its name in common with one of a table.

    Raises:
        Refusal: it has.
    """
    params, macs = arch.total.params, arch.total.macs_conv_linear + arch.total.macs_attention
    for there in counts:
        # A search counts the MACs of a batch.
        if there.params != params or there.macs % max(macs, 1):
            raise Refusal(
                f"--accuracies: it is another {visible(arch.name)} that has an accuracy there: of "
                f"{there.params:,} parameters and {there.macs:,} MACs, and this one has "
                f"{params:,} and {macs:,}"
            )


def _range(ctx: click.Context, param: click.Parameter, value: str) -> tuple[float, float]:
    match = re.fullmatch(r"([0-9.]{1,20}(?:e[0-9]{1,2})?):([0-9.]{1,20}(?:e[0-9]{1,2})?)", value)
    try:
        assert match is not None
        return float(match[1]), float(match[2])
    except (AssertionError, ValueError):
        raise click.BadParameter("must be LOW:HIGH, such as 0:500") from None


@click.command()
@optional_files_argument
@overridable
@click.option(
    "--ridge",
    callback=_range,
    default="0:500",
    show_default=True,
    metavar="LOW:HIGH",
    help="Ridge points, in MACs per byte.",
)
@click.option(
    "--steps",
    type=int,
    callback=within(2, 100_000),
    default=501,
    show_default=True,
    metavar="N",
    help="How many of them.",
)
@click.option("--log", is_flag=True, help="At equal ratios instead of equal distances.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    default="int8",
    show_default=True,
    help="What a byte holds.",
)
@output_option("Write a .svg, .png, .html or .csv.")
@as_json
def sweep(
    files: tuple[str, ...],
    overrides: Overrides,
    ridge: tuple[float, float],
    steps: int,
    log: bool,
    dtype: str,
    out: str | None,
    json: bool,
) -> Status:
    """Compare networks at every balance of computing and moving.

    The time of equation 1 against the device's ridge point, as in MobileNetV4's paper, and, where
    top-1 is published, the networks than which no other is both faster and more accurate. Without
    a FILE every published network whose top-1 is known.

    \b
    Examples:
      archdsl sweep
      archdsl sweep mnv2 mnv3_large mnv4_conv_s --ridge 0:100 -o sweep.svg
    """
    from archdsl.roofline.sweep import ridge_points
    from archdsl.roofline.sweep import sweep as swept

    suffix = checked_suffix(out, (".svg", ".png", ".html", ".csv"))
    try:
        points = ridge_points(*ridge, steps, log=log)
    except ValueError as error:
        raise Refusal(f"--ridge: {error}") from None
    networks = _candidates(files, overrides)
    if len(networks) * steps > 20_000_000:
        raise Refusal("--steps: more than 20 million points of networks and ridge points")
    found = swept(networks, points, dtype=cast("Dtype", dtype), log=log)
    if out is not None:
        _save(found, out, suffix)
    if json:
        write_json(found.to_json())
    elif out is None:
        _print(found)
    return 0


def _save(found: Sweep, out: str, suffix: str) -> None:
    if suffix == ".csv":
        deliver(out, found.to_csv().encode("utf-8"))
    else:
        title = "archdsl: networks against the ridge point"
        with picture(out, suffix, title) as draw:
            from archdsl.roofline.sweep_plots import sweep_figure

            draw(sweep_figure(found))
    say(f"wrote {out}")


def _print(found: Sweep) -> None:
    low, high = found.points[0], found.points[-1]
    spacing = "ratios" if found.log else "distances"
    write(
        f"{len(found.names)} networks, {found.dtype}, {len(found.points):,} ridge points from "
        f"{low:g} to {high:g} MACs per byte at equal {spacing}\n\n"
    )
    columns = found.columns(4)
    order = sorted(
        range(len(found.names)), key=lambda n: (-(found.top1[n] or 0), found.times[n, 0])
    )
    accurate = any(top1 is not None for top1 in found.top1)
    rows: list[Row] = []
    never: list[str] = []
    for number in order:
        known = found.top1[number] is not None
        if known and not found.shares[number]:
            never.append(found.names[number])
            continue
        times = [f"{found.relative[number, column]:.3g}" for column in columns]
        top1 = f"{found.top1[number]:.1f}" if known else ""
        front = [f"{found.shares[number]:.1%}", _ranges(found, number)] if known else ["", ""]
        rows.append((found.names[number], top1, *(front if accurate else []), *times))
    heads = [f">t at {found.points[column]:.3g}" for column in columns]
    front = [">on the front", "at ridge points"] if accurate else []
    write_table(("network", ">top-1", *front, *heads), rows)
    width = min(columns_wide(), 100)
    if never:
        text = f"Never on the front of time and top-1: {', '.join(never)}."
        write("\n" + fill(text, width, break_on_hyphens=False) + "\n")
    note = "t: time as a multiple of the networks' geometric mean at that ridge point."
    write("\n" + fill(note, width) + "\n")


def _ranges(found: Sweep, number: int) -> str:
    spans = [
        f"{low:.4g} to {high:.4g}" if low < high else f"{low:.4g}"
        for low, high in found.ranges(number)
    ]
    return ", ".join(spans[:3]) + (", …" if len(spans) > 3 else "")


# ---------------------------------------------------------------------------------------- rank


class _Ranked(NamedTuple):
    name: str
    accuracy: float
    ms: float
    reward: float
    on_front: bool


@click.command()
@optional_files_argument
@overridable
@click.option(
    "--target-ms",
    type=float,
    callback=within(1e-9, 1e12),
    required=True,
    metavar="T",
    help="The latency to aim at, in ms.",
)
@click.option("--soft", "form", flag_value="soft", help="alpha = beta = -0.07; the default.")
@click.option("--hard", "form", flag_value="hard", help="alpha = 0, beta = -1.")
@click.option("--alpha", type=float, callback=within(-100, 100), help="w at or below T.")
@click.option("--beta", type=float, callback=within(-100, 100), help="w above T.")
@partial(device_option, required=True, many=False)
@click.option(
    "--accuracies",
    type=click.Path(),
    metavar="TABLE",
    help="Accuracies by name, such as a search's trials.csv, instead of the published top-1.",
)
@as_json
def rank(
    files: tuple[str, ...],
    overrides: Overrides,
    target_ms: float,
    form: str | None,
    alpha: float | None,
    beta: float | None,
    device: str,
    accuracies: str | None,
    json: bool,
) -> Status:
    """Rank networks by MnasNet's reward on a device.

    The reward is top-1 x (latency / T)^w: accuracy, weighted by the latency against a target.
    Without a FILE every published network whose top-1 is known. A TABLE has the columns `name` and
    `accuracy`, in CSV or in objects of JSON.

    \b
    Examples:
      archdsl rank --device pixel6-cpu-int8 --target-ms 5
      archdsl rank mnv2 mnv3_large --device pixel1-cpu-fp32 --target-ms 80 --hard
      archdsl rank net-search/front/*.arch --accuracies net-search/trials.csv \\
        --device pixel6-cpu-int8 --target-ms 2
    """
    from archdsl.roofline.accuracies import accuracies_of, counts_of, read_table
    from archdsl.roofline.extrapolation import extrapolated_together
    from archdsl.roofline.pareto import front
    from archdsl.roofline.reward import HARD, SOFT, mnasnet_reward

    if form and (alpha is not None or beta is not None):
        raise click.UsageError(f"--{form} sets alpha and beta: leave --alpha and --beta out")
    usual = HARD if form == "hard" else SOFT
    alpha = usual[0] if alpha is None else alpha
    beta = usual[1] if beta is None else beta
    target = one_device(device)
    if target.relative:
        raise Refusal(f"--device: {target.name} has a ridge point and no times; see archdsl sweep")
    known: list[Candidate] = []
    unknown: list[Candidate] = []
    source = None if accuracies is None else read_table(accuracies)
    table = None if source is None else accuracies_of(source)
    counts = [] if source is None else counts_of(source)
    for candidate in _candidates(files, overrides, table, counts):
        (unknown if candidate.top1 is None else known).append(candidate)
    if not known:
        raise Refusal(
            "the reward is of a top-1, and none is published of any of these networks; "
            "--accuracies names a table of others"
            if accuracies is None
            else f"{visible(accuracies)} has an accuracy of none of these networks"
        )
    if unknown:
        why = "no top-1 is published" if accuracies is None else f"{accuracies} has no accuracy"
        say(visible(f"left out, for {why}: {', '.join(c.name for c in unknown)}"))
    latencies = [target.estimate(candidate.work) for candidate in known]
    times = [(latency.us or 0.0) / 1e3 for latency in latencies]
    found = [candidate.top1 or 0.0 for candidate in known]
    fronts = front(times, found)
    ranked = []
    for candidate, ms, accuracy, on_front in zip(known, times, found, fronts, strict=True):
        if accuracy < 0:
            raise Refusal(f"{candidate.name}: no reward for {accuracy:g}, an accuracy below 0")
        try:
            reward = mnasnet_reward(accuracy, ms, target_ms, alpha=alpha, beta=beta)
        except (ValueError, OverflowError):
            raise Refusal(f"{candidate.name}: no reward for a latency of {ms:g} ms") from None
        ranked.append(_Ranked(candidate.name, accuracy, ms, reward, on_front))
    ranked.sort(key=lambda one: (-one.reward, one.ms, one.name))
    asked = zip(known, latencies, strict=True)
    report(extrapolated_together(((c.name, c.work, latency) for c, latency in asked), target))
    if json:
        called = "top1" if accuracies is None else "accuracy"
        write_json(_record(ranked, called, target, target_ms, alpha, beta))
        return 0
    # A table's may be shares of one.
    title, digits = ("top-1", 1) if accuracies is None else ("accuracy", 4)
    error = "" if target.error is None else f", {target.error:.1f} % off on average"
    write(
        f"{target.name} ({target.mode}{error}): {title} x (latency / {target_ms:g} ms)^w, "
        f"w = {alpha:g} up to {target_ms:g} ms and {beta:g} above\n\n"
    )
    rows = [
        (
            str(place),
            one.name,
            f"{one.accuracy:.{digits}f}",
            f"{one.ms:,.3f}",
            f"{one.reward:.{max(digits, 2)}f}",
            "yes" if one.on_front else "",
        )
        for place, one in enumerate(ranked, 1)
    ]
    write_table((">", "network", f">{title}", ">ms", ">reward", "on the front"), rows)
    return 0


def _record(
    ranked: list[_Ranked],
    called: str,
    device: Device,
    target_ms: float,
    alpha: float,
    beta: float,
) -> dict[str, Any]:
    """The ranking as JSON; what accuracies are called there."""
    return {
        "device": device.name,
        "mode": device.mode,
        "held_out_error_percent": device.error,
        "target_ms": target_ms,
        "alpha": alpha,
        "beta": beta,
        "networks": [
            {called if key == "accuracy" else key: value for key, value in one._asdict().items()}
            for one in ranked
        ],
    }
