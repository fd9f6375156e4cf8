"""The picture of a search: accuracy against every cost that is a goal, and the reward in time.

A search on costs alone has its first goal in the accuracy's place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from archdsl.roofline import figures
from archdsl.roofline.figures import BLACK, BLUE, GREY, ORANGE, RED, SKY
from archdsl.search.objectives import latency_of
from archdsl.search.study import Study
from archdsl.search.trials import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 3
"""Costs that have a panel each."""


def search_figure(study: Study) -> Figure:
    """What is known of a study with at least one complete trial."""
    objectives = study.objectives
    costs = [goal for goal in objectives.goals if goal != "accuracy"]
    costs = costs or [name for name in objectives.figures if name.startswith("latency")] or ["macs"]
    upwards = "accuracy" if study.judged else costs.pop(0)
    costs = costs[:_MOST]
    figure = figures.canvas(0.8 + 3.2 * (len(costs) + 1), 3.4)
    panels = figure.subplots(1, len(costs) + 1, squeeze=False)[0]
    identity, ending = study.identity, study.ending()
    failed = f", {ending.failed} failed" if ending.failed else ""
    figure.suptitle(
        f"{study.space.name}: {ending.evaluated} networks evaluated{failed}; "
        f"{identity['algorithm']}, seed {identity['seed']}",
        fontsize=9,
    )
    for panel, cost in zip(panels, costs, strict=False):
        _against(panel, study, cost, upwards)
    _in_time(panels[-1], study)
    return figure


def _against(axes: Axes, study: Study, cost: str, upwards: str) -> None:
    """Accuracies, or another cost, against a cost, and the front of the two."""
    found, front = study.complete, study.front
    best = study.best if study.objectives.reward != "cost" else None

    def places(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
        return [_shown(t, cost) for t in trials], [_shown(t, upwards) for t in trials]

    axes.grid(True)
    axes.set_axisbelow(True)
    axes.plot(*places(found), "o", color=SKY, markersize=3, label="evaluated", alpha=0.8)
    xs, ys = places(sorted(front, key=lambda t: t.figures[cost]))
    if len(study.objectives.goals) == 2:
        for (x0, y0), (x1, y1) in pairwise(zip(xs, ys, strict=True)):
            axes.plot([x0, x1, x1], [y0, y0, y1], color=BLUE, linewidth=0.9)
    axes.plot(xs, ys, "o", color=BLUE, markersize=4.5, label="front")
    if best is not None:
        axes.plot(*places([best]), "*", color=RED, markersize=10, label="best reward")
    _limits(axes, study, cost, places(found)[0])
    axes.set_xlabel(_unit(cost)[1])
    axes.set_ylabel(_unit(upwards)[1])
    axes.legend(loc="best")
    marks = list(zip(*places(found), strict=True))
    labels = [(x, y, str(t.number)) for t in front for (x,), (y,) in [places([t])]]
    figures.spread(axes, labels, marks)


def _limits(axes: Axes, study: Study, cost: str, xs: Sequence[float]) -> None:
    """Lines for the target and the bound of a cost; one far from all networks is only named."""
    scale, _ = _unit(cost)
    low, high = min(xs), max(xs)
    room = max(high - low, 0.1 * high)
    targets = {latency_of(name): time for name, time in (study.objectives.targets or {}).items()}
    bounds = study.objectives.bounds or {}
    for kind, wanted, style in (("target", targets, "--"), ("bound", bounds, ":")):
        if cost not in wanted:
            continue
        at = wanted[cost] / scale
        look = {"color": BLACK, "linewidth": 0.8, "linestyle": style}
        if low - room <= at <= high + room:
            axes.axvline(at, label=kind, **look)  # type: ignore[arg-type]
        else:
            axes.plot([], [], label=f"{kind}: {at:,.4g}", **look)  # type: ignore[arg-type]


def _in_time(axes: Axes, study: Study) -> None:
    """Rewards in the order of the trials, and the best so far; costs as they are."""
    found, name = study.complete, study.objectives.reward
    numbers = [trial.number for trial in found]
    rewards = [trial.reward or 0.0 for trial in found]
    better: Callable[[float, float], float] = max
    label = "accuracy" if name == "accuracy" else f"reward ({name})"
    if name == "cost":
        first = study.objectives.goals[0]
        rewards = [_shown(trial, first) for trial in found]
        better, label = min, _unit(first)[1]
    axes.grid(True)
    axes.set_axisbelow(True)
    axes.plot(numbers, rewards, "o", color=GREY, markersize=3, label="trial")
    axes.step(
        [*numbers, max(t.number for t in study.trials)],
        [*accumulate(rewards, better), reduce(better, rewards)],
        where="post",
        color=ORANGE,
        linewidth=1.4,
        label="best so far",
    )
    axes.set_xlabel("trial")
    axes.set_ylabel(label)
    # Above the panel, where it can hide no trial.
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _shown(trial: Trial, figure: str) -> float:
    """An accuracy or a cost of a trial in the unit of its axis."""
    if figure == "accuracy":
        return trial.accuracy or 0.0
    return trial.figures[figure] / _unit(figure)[0]


def _unit(figure: str) -> tuple[float, str]:
    """What a figure is divided by, and the label of its axis."""
    kind, _, device = figure.partition(":")
    if device:
        return 1000.0, f"ms on {device}"
    return {
        "accuracy": (1.0, "accuracy"),
        "params": (1e6, "millions of parameters"),
        "macs": (1e6, "millions of MACs"),
        "weight_bytes": (1e6, "MB of weights"),
        "activation_bytes": (1e6, "MB of activations moved"),
        "peak_activation_bytes": (1e6, "MB of activations at once"),
    }[kind]
