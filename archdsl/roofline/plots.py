"""Pictures of a network on a device: its layers on the roof, and the time of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from archdsl.passes.cost import Bound
from archdsl.roofline import figures
from archdsl.roofline.breakdown import Breakdown, LayerEstimate
from archdsl.roofline.figures import BLACK, BOUNDS, CLASSES, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 9
"""Points that are named in a picture of the roof: those that take most of the time."""


class _Point(NamedTuple):
    """Layers of one class, intensity and time, which stand on one point of the picture."""

    name: str
    op_class: str
    x: float
    reached: float
    share: float


def roofline_figure(name: str, found: Breakdown) -> Figure:
    """The layers on the device's roof, and below it the share of the time that each takes.

    Log-log: operational intensity against what the layer reaches. Equal layers are one point,
    and their shares add up. Layers without MACs stand at the left edge of the lower part.
    """
    from matplotlib.lines import Line2D

    device = found.device
    figure = figures.canvas(7.2, 4.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    ridge = device.ridge_point
    known = [layer.intensity for layer in found.layers if layer.macs] + ([ridge] if ridge else [])
    low, high = min(known, default=1.0) / 3, max(known, default=1.0) * 3
    points = _points(found, edge=low * 1.2)
    peak = 1.0 if device.relative else device.peak_macs / 1e9
    corner = ridge if ridge else low
    roof = [peak * low / corner, peak, peak]
    above.loglog([low, corner, high], roof, color=BLACK, linewidth=1.2, zorder=1)
    bottom = min([roof[0], *(p.reached for p in points if p.reached)]) / 2.5
    handles = []
    for kind, (color, marker) in CLASSES.items():
        own = [point for point in points if point.op_class == kind]
        share = sum(layer.share for layer in found.layers if layer.op_class == kind)
        if not own:
            continue
        handle = Line2D([], [], color=color, marker=marker, linestyle="", markersize=5)
        handle.set_label(f"{kind}, {share:.0%}")
        handles.append(handle)
        on_roof = [point for point in own if point.reached]
        above.scatter(
            [point.x for point in on_roof],
            [point.reached for point in on_roof],
            s=[14 + 400 * point.share for point in on_roof],
            color=color,
            marker=marker,
            alpha=0.8,
            linewidths=0.5,
            edgecolors="white",
            zorder=2,
        )
        for point in own:
            x, height = point.x, point.share * 100
            below.plot([x, x], [0, height], color=color, linewidth=1.0, zorder=1)
            below.plot([x], [height], color=color, marker=marker, markersize=4, zorder=2)
    figure.suptitle(_title(name, found), fontsize=9)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), title=_LEGEND)
    above.set_ylabel("share of the peak" if device.relative else "GMAC/s")
    above.set_ylim(bottom, peak * 2.5)
    below.set_xlim(low, high)
    below.set_ylim(0, max((point.share for point in points), default=1.0) * 130)
    below.set_ylabel("share of the time, %")
    below.set_xlabel("operational intensity, MACs per byte")
    for axes in (above, below):
        axes.grid(True)
        axes.set_axisbelow(True)
    for axis in (above.xaxis, above.yaxis, below.xaxis):
        figures.plain(axis)
    if ridge:
        for axes in (above, below):
            axes.axvline(ridge, color=GREY, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
        right = ridge < math.sqrt(low * high)
        figures.note(
            above,
            f"ridge point {ridge:.4g}",
            (ridge, bottom * (peak / bottom) ** 0.06),
            (4 if right else -4, 0),
            "left" if right else "right",
        )
    if any(not point.reached for point in points):
        figures.note(below, "no MACs", (low * 1.2, 0), (5, 4), "left")
    largest = sorted(points, key=lambda point: -point.share)[:_NAMED]
    tips = [(point.x, point.share * 100) for point in points]
    labels = [(point.x, point.share * 100, point.name) for point in largest]
    figures.spread(below, labels, tips)
    return figure


_LEGEND = "class of the layer, and its share of the time"


def _points(found: Breakdown, edge: float) -> list[_Point]:
    """The layers with equal ones joined; those without MACs stand at the edge."""
    groups: dict[tuple[str, float, float], list[LayerEstimate]] = {}
    for layer in found.layers:
        if layer.time:
            key = (layer.op_class, round(layer.intensity, 6), round(layer.time, 9))
            groups.setdefault(key, []).append(layer)
    return [
        _Point(
            _short(layers[0].name) + (f" ×{len(layers)}" if len(layers) > 1 else ""),
            layers[0].op_class,
            layers[0].intensity if layers[0].macs else edge,
            _reached(layers[0], found),
            sum(layer.share for layer in layers),
        )
        for layers in groups.values()
    ]


def _short(name: str) -> str:
    return name.removeprefix("stages.").removesuffix(".conv")


def _reached(layer: LayerEstimate, found: Breakdown) -> float:
    """GMAC/s, or the share of the peak where the device has no times."""
    rate = layer.macs / layer.time
    return rate if found.device.relative else rate / 1e3


def layers_figure(name: str, found: Sequence[Breakdown], *, ops: bool = False) -> Figure:
    """The time of each block, or operator, from the stem down: a panel for each device.

    A bar's colours are what the time goes to. Panels of several devices show shares of their
    network's time, so that they compare.
    """
    first = found[0]
    rows = [layer.name for layer in first.layers] if ops else [p.name for p in first.by_block()]
    height = max(2.2, 0.95 + (0.105 if len(rows) > 60 else 0.14) * len(rows))
    width = 7.0 if len(found) < 4 else 1.6 + 1.8 * len(found)
    figure = figures.canvas(width, height)
    panels = figure.subplots(1, len(found), sharex=True, sharey=True, squeeze=False)[0]
    several = len(found) > 1
    for axes, one in zip(panels, found, strict=True):
        _bars(axes, one, rows, ops=ops, share=several)
        axes.set_title(_panel_title(one) if several else _title(name, one), fontsize=8)
    panels[0].set_yticks(range(len(rows)), rows, fontsize=6 if len(rows) > 60 else 7)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    if several:
        figure.suptitle(f"{name}: where the time goes", fontsize=9)
    used = [b for b in BOUNDS if any(t for one in found for n, t, _ in one.by_bound() if n == b)]
    from matplotlib.patches import Patch

    handles = [Patch(color=BOUNDS[bound], label=f"bound by {bound}") for bound in used]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _bars(axes: Axes, found: Breakdown, rows: Sequence[str], *, ops: bool, share: bool) -> None:
    unit = 100 / found.time if share and found.time else 1.0
    if found.device.relative and not share:
        unit = 1e-6
    parts: dict[str, dict[Bound, float]] = {row: dict.fromkeys(BOUNDS, 0.0) for row in rows}  # type: ignore[arg-type]
    for layer in found.layers:
        part = parts[layer.name if ops else layer.block]
        larger: Bound = "compute" if layer.compute > layer.memory else "memory"
        part[larger] += (layer.time - layer.overhead) * unit
        part["overhead"] += layer.overhead * unit
    left = [0.0] * len(rows)
    for bound, color in BOUNDS.items():
        widths = [parts[row][bound] for row in rows]  # type: ignore[index]
        axes.barh(range(len(rows)), widths, left=left, height=0.72, color=color, linewidth=0)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    stages = [row.split(".")[1] if row.startswith("stages.") else row.split(".")[0] for row in rows]
    for number in range(1, len(rows)):
        if stages[number] != stages[number - 1]:
            axes.axhline(number - 0.5, color="#BBBBBB", linewidth=0.5, zorder=0)
    axes.set_xlim(0, max(1.04 * max(left, default=1.0), axes.get_xlim()[1]) or 1.0)
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    named = "share of the time, %" if share else _unit(found)
    axes.set_xlabel(named)


def _unit(found: Breakdown) -> str:
    return "time, millions of MACs at the peak" if found.device.relative else "time, µs"


def _panel_title(found: Breakdown) -> str:
    mode = "" if found.device.relative else f"{found.device.mode}: "
    return f"{found.device.name}\n{mode}{_total(found)}"


def _title(name: str, found: Breakdown) -> str:
    device = found.device
    return f"{name} on {device.name} ({device.mode}, {found.latency.dtype}): {_total(found)}"


def _total(found: Breakdown) -> str:
    latency = found.latency
    if latency.us is None:
        return f"{found.time / 1e6:,.0f} MMAC at the peak"
    time, unit = (latency.us / 1e3, "ms") if latency.us >= 1e3 else (latency.us, "µs")
    digits = max(0, 2 - math.floor(math.log10(time))) if time > 0 else 0
    error = "" if latency.error is None else f" ± {latency.error:.1f} %"
    return f"{time:,.{min(digits, 6)}f} {unit}{error}"
