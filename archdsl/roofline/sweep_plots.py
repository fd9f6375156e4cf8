"""The picture of a sweep: accuracy against time at some ridge points, times, and the fronts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from archdsl.roofline import figures
from archdsl.roofline.figures import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY
from archdsl.roofline.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = (BLUE, RED, GREEN, ORANGE, PINK, SKY, "#8B5A2B", BLACK)
_MARKERS = "osD^PXv*"
_FEW = 8
"""Networks that have a colour each; more share one by the beginning of their names."""


def sweep_figure(found: Sweep) -> Figure:
    """What is known of it: with top-1 accuracies also the fronts, at four points and along all."""
    looks = _looks(found.names)
    accurate = sum(top1 is not None for top1 in found.top1) >= 2
    lasting = [n for n in np.argsort([t or 0 for t in found.top1])[::-1] if found.shares[n] > 0]
    rows = [2.3] if accurate else []
    rows += [2.6 if accurate else 3.6]
    rows += [0.6 + 0.135 * len(lasting)] if accurate else []
    figure = figures.canvas(7.2, sum(rows) + 1.0)
    grid = figure.add_gridspec(len(rows), 4, height_ratios=rows)
    spacing = "equal ratios" if found.log else "equal distances"
    low, high = found.points[0], found.points[-1]
    figure.suptitle(
        f"{len(found.names)} networks, {found.dtype}, {len(found.points):,} ridge points from "
        f"{low:g} to {high:g} at {spacing}",
        fontsize=9,
    )
    if accurate:
        panels = [figure.add_subplot(grid[0, column]) for column in range(4)]
        for panel in panels[1:]:
            panel.sharey(panels[0])
            panel.tick_params(labelleft=False)
        for panel, column in zip(panels, found.columns(), strict=True):
            _accuracy(panel, found, column, looks)
        panels[0].set_ylabel("published top-1, %")
    _times(figure.add_subplot(grid[int(accurate), :]), found, looks)
    if accurate:
        _fronts(figure.add_subplot(grid[2, :]), found, lasting, looks)
    handles = _handles(looks)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), 7 if len(handles) < 8 else 4),
    )
    return figure


Looks = list[tuple[str, str, str]]
"""For each network its group, colour and marker."""


def _looks(names: Sequence[str]) -> Looks:
    groups = list(names) if len(names) <= _FEW else [_family(name) for name in names]
    order = list(dict.fromkeys(groups))
    rest = len(_COLORS) - 1
    return [
        (group, _COLORS[place], _MARKERS[place]) if place <= rest else ("others", GREY, ".")
        for group in groups
        for place in [order.index(group)]
    ]


def _family(name: str) -> str:
    """`mnv4` of `mnv4_conv_m`; of `mn_multi_avg` `mn_multi`."""
    parts = name.split("_")
    return "_".join(parts[:2]) if parts[0] == "mn" else parts[0]


def _handles(looks: Looks) -> list[object]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=color, marker=marker, markersize=4, linewidth=1.2, label=group)
        for group, color, marker in dict.fromkeys(looks)
    ]


def _accuracy(axes: Axes, found: Sweep, column: int, looks: Looks) -> None:
    top1 = [accuracy or 0.0 for accuracy in found.top1]
    known = [n for n, accuracy in enumerate(top1) if accuracy]
    on = [n for n in known if found.on_front[n, column]]
    times = found.times[:, column] / 1e9
    for number in known:
        _, color, marker = looks[number]
        x, y = times[number], top1[number]
        shown = 1.0 if number in on else 0.25
        axes.plot([x], [y], color=color, marker=marker, markersize=3.5, alpha=shown, linewidth=0)
    on.sort(key=lambda n: times[n])
    steps = [(times[n], top1[n]) for n in on]
    for (x0, y0), (x1, y1) in pairwise(steps):
        axes.plot([x0, x1, x1], [y0, y0, y1], color=GREY, linewidth=0.7, zorder=0)
    axes.set_xscale("log")
    span = times.max() / times.min()
    figures.plain(
        axes.xaxis, (1,) if span > 20 else (1, 2, 5) if span > 3 else (1, 1.5, 2, 3, 5, 7)
    )
    axes.set_title(f"ridge point {found.points[column]:,.4g}")
    axes.set_xlabel("time, GMAC at the peak", fontsize=7)
    axes.grid(True)
    axes.set_axisbelow(True)


def _times(axes: Axes, found: Sweep, looks: Looks) -> None:
    few = len(found.names) <= _FEW
    for number, (_, color, marker) in enumerate(looks):
        axes.plot(
            found.points,
            found.relative[number],
            color=color,
            linewidth=1.3 if few else 0.7,
            alpha=1.0 if few else 0.55,
            marker=marker if few else None,
            markersize=4,
            markevery=(number * 7 % 40, max(len(found.points) // 10, 1)),
        )
    axes.set_yscale("log")
    axes.set_xscale("log" if found.log else "linear")
    axes.set_xlim(found.points[0], found.points[-1])
    span = float(found.relative.max() / found.relative.min())
    figures.plain(axes.yaxis, (1, 2, 5) if span > 5 else (1, 1.2, 1.5, 2, 3, 5, 6, 7, 8, 9))
    if found.log:
        figures.plain(axes.xaxis, (1, 2, 5))
    axes.set_ylabel("time, 1 is the networks'\ngeometric mean")
    axes.set_xlabel("ridge point, MACs per byte")
    axes.grid(True)
    axes.set_axisbelow(True)


def _fronts(axes: Axes, found: Sweep, lasting: Sequence[int], looks: Looks) -> None:
    """Where each network is on the front, from the most accurate down."""
    for row, number in enumerate(lasting):
        _, color, _ = looks[number]
        for start, stop in found.ranges(int(number)):
            if start == stop:
                axes.plot([start], [row], color=color, marker="|", markersize=5)
            else:
                axes.plot(
                    [start, stop], [row, row], color=color, linewidth=4, solid_capstyle="butt"
                )
    names = [f"{found.names[number]}  {found.top1[number]:.1f} %" for number in lasting]
    axes.set_yticks(range(len(lasting)), names, fontsize=6)
    axes.set_ylim(len(lasting) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xscale("log" if found.log else "linear")
    if found.log:
        figures.plain(axes.xaxis, (1, 2, 5))
    axes.set_xlim(found.points[0], found.points[-1])
    axes.set_xlabel("ridge points at which no other network is both faster and more accurate")
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(lasting)), [f"{found.shares[n]:.0%}" for n in lasting], fontsize=6)
    right.tick_params(axis="y", length=0)
    right.spines["right"].set_visible(False)
