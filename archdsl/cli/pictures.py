"""`archdsl plot`: pictures of a network on a device; and how all commands write pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from archdsl.cli.options import (
    Overrides,
    Status,
    deliver,
    device_option,
    devices,
    file_argument,
    load,
    one_device,
    output_option,
    overridable,
    within,
    writable,
)
from archdsl.cli.output import Refusal, say
from archdsl.cli.timing import taken_apart

if TYPE_CHECKING:
    from archdsl.passes.cost import Dtype
    from archdsl.roofline.breakdown import Breakdown

_MOST = 6
"""Panels of one picture."""


def checked_suffix(out: str | None, known: tuple[str, ...]) -> str:
    """The ending of the file to write, before any work is done; empty without a file.

    Raises:
        Refusal: it is none of the known ones, or the file cannot be written.
    """
    if out is None:
        return ""
    suffix = Path(out).suffix.lower()
    if suffix not in known:
        raise Refusal(f"-o {out}: must end with {', '.join(known[:-1])} or {known[-1]}")
    writable(out, "-")
    return suffix


@contextmanager
def picture(out: str, suffix: str, title: str) -> Iterator[Callable[[Any], None]]:
    """Within it a figure is drawn; what it yields writes the figure.

    Raises:
        Refusal: matplotlib is not installed.
    """
    from archdsl.roofline import figures

    def draw(figure: Any) -> None:
        deliver(out, figures.render(figure, suffix, title))

    try:
        with figures.style():
            yield draw
    except ImportError as failure:
        raise Refusal(str(failure)) from None


@click.group()
def plot() -> None:
    """Draw a network on a device: the roof, or each layer's time.

    \b
    Examples:
      archdsl plot roofline mnv4_conv_m --device pixel6-cpu-int8 -o roof.svg
      archdsl plot layers mnv4_conv_m --ridge 5 --ridge 50 --ridge 500 -o layers.html
    """


@plot.command()
@file_argument
@overridable
@partial(device_option, required=True, many=False)
@output_option("A .svg, .png or .html.", required=True)
def roofline(file: str, overrides: Overrides, device: str, out: str) -> Status:
    """Draw the layers on a device's roof, and the time that each takes.

    \b
    Examples:
      archdsl plot roofline mnv4_conv_m --device pixel6-cpu-int8 -o roof.svg
    """
    from archdsl.roofline.figures import SUFFIXES

    suffix = checked_suffix(out, SUFFIXES)
    target = one_device(device)
    arch = load(file, overrides)
    found = taken_apart(arch, target)
    with picture(out, suffix, f"{arch.name} on {target.name}") as draw:
        from archdsl.roofline.plots import roofline_figure

        draw(roofline_figure(arch.name, found))
    say(f"wrote {out}")
    return 0


def _ridges(ctx: click.Context, param: click.Parameter, values: tuple[float, ...]) -> Any:
    check = within(1e-3, 1e6)
    return tuple(check(ctx, param, value) for value in values)


@plot.command()
@file_argument
@overridable
@device_option
@click.option(
    "--ridge",
    type=float,
    multiple=True,
    callback=_ridges,
    metavar="MAC/B",
    help="A ridge point instead of a device; may be repeated.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    help="With --ridge, what a byte holds: int8.",
)
@click.option("--ops", is_flag=True, help="A bar for each operator instead of each block.")
@output_option("A .svg, .png or .html.", required=True)
def layers(
    file: str,
    overrides: Overrides,
    device: tuple[str, ...],
    ridge: tuple[float, ...],
    dtype: str | None,
    ops: bool,
    out: str,
) -> Status:
    """Draw the time of each block, and what binds it; a panel for each device.

    \b
    Examples:
      archdsl plot layers mnv4_conv_m --device rpi5-cpu-fp32 -o layers.svg
      archdsl plot layers mnv3_large --ridge 5 --ridge 500 --ops -o layers.png
    """
    from archdsl.roofline.figures import SUFFIXES
    from archdsl.roofline.model import Device

    suffix = checked_suffix(out, SUFFIXES)
    targets = [*devices(device), *map(Device.of_ridge, ridge)]
    if not 1 <= len(targets) <= _MOST:
        raise click.UsageError(f"name from 1 to {_MOST} devices or ridge points")
    arch = load(file, overrides)

    def on(target: Device) -> Breakdown:
        own = target.dtype or dtype or ("int8" if target.relative else "float32")
        return taken_apart(arch, target, cast("Dtype", own))

    found = [on(target) for target in targets]
    with picture(out, suffix, f"{arch.name}: where the time goes") as draw:
        from archdsl.roofline.plots import layers_figure

        draw(layers_figure(arch.name, found, ops=ops))
    say(f"wrote {out}")
    return 0
