"""What a search has found: the front as a table, and all of it as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.cli.output import write
from archdsl.cli.table import Row, write_table
from archdsl.lang.diagnostics import listed

if TYPE_CHECKING:
    from archdsl.search.objectives import Objectives
    from archdsl.search.study import Ending, Study
    from archdsl.search.trials import Trial


def worth(study: Study, trial: Trial) -> str:
    """The accuracy of a network, or what it costs where that is all that is wanted."""
    from archdsl.search.objectives import amount

    first = study.objectives.goals[0]
    if study.objectives.reward == "cost":
        return amount(first, trial.figures[first])
    return f"{trial.accuracy:.4g}"


def print_results(study: Study, ending: Ending) -> None:
    """The front as a table."""
    identity, objectives = study.identity, study.objectives
    said = [f"{ending.evaluated} network{'' if ending.evaluated == 1 else 's'} evaluated"]
    if ending.failed:
        said.append(f"{ending.failed} failed")
    if ending.infeasible:
        said.append(f"{ending.infeasible} beyond a bound")
    if ending.repeated:
        said.append(f"{ending.repeated} met again")
    write(f"{study.space.name}: {', '.join(said)}\n")
    write(f"{identity['algorithm']}, seed {identity['seed']}; {_wish(objectives)}\n")
    if not study.complete:
        return
    judged, rewarded = study.judged, objectives.weighed
    names = [device.name for device in objectives.devices]
    columns = [">trial", *([">accuracy"] if judged else []), *([">reward"] if rewarded else [])]
    others = [goal for goal in objectives.goals if goal.endswith("_bytes")]
    columns += [*(f">ms on {name}" for name in names), ">MACs", ">parameters"]
    columns += [*(f">{goal.removesuffix('_bytes')} bytes".replace("_", " ") for goal in others), ""]
    best, front = study.best, study.front
    assert best is not None
    rows: list[Row] = []
    for trial in front if best in front else [*front, best]:
        marks = []
        if trial is best and objectives.reward != "cost":
            marks.append("best reward" if rewarded else "best")
        if trial not in front:
            marks.append("not on the front")
        rows.append(
            (
                str(trial.number),
                *([_number(trial.accuracy or 0.0)] if judged else []),
                *([f"{trial.reward:.4f}"] if rewarded else []),
                *(f"{trial.figures[f'latency_us:{name}'] / 1000:,.3f}" for name in names),
                f"{trial.figures['macs']:,}",
                f"{trial.figures['params']:,}",
                *(f"{trial.figures[goal]:,}" for goal in others),
                ", ".join(marks),
            )
        )
    write("\n")
    write_table(columns, rows)


def _number(accuracy: float) -> str:
    return f"{accuracy:.4f}" if abs(accuracy) < 1e4 else f"{accuracy:g}"


def _wish(objectives: Objectives) -> str:
    """What was asked for, in a line."""
    from archdsl.search.objectives import amount

    goals = [
        "accuracy"
        if goal == "accuracy"
        else {"params": "parameters", "macs": "MACs"}.get(goal, goal)
        .replace("latency_us:", "latency on ")
        .replace("_", " ")
        for goal in objectives.goals
    ]
    said = "front of " + listed(goals, "and")
    if objectives.weighed:
        targets = objectives.targets or {}
        times = [amount(f"latency_us:{name}", value) for name, value in targets.items()]
        said += f"; reward {objectives.reward}, target {listed(times, 'and')}"
    bounds = [amount(name, value) for name, value in (objectives.bounds or {}).items()]
    return said + (f"; at most {listed(bounds, 'and')}" if bounds else "")


def results_as_json(study: Study, ending: Ending, folder: Path) -> dict[str, Any]:
    """All of it; the front with its files."""
    from archdsl.search.reports import FRONT, losses, record

    best = study.best
    front = [record(study, trial) for trial in study.front]
    return {
        "schema_version": 1,
        "space": study.space.name,
        "study": study.identity,
        "evaluated": ending.evaluated,
        "failed": ending.failed,
        "infeasible": ending.infeasible,
        "repeated": ending.repeated,
        "ended": ending.reason,
        "lost": [{"fault": fault, "trials": numbers} for fault, numbers in losses(study.trials)],
        "best": record(study, best) if best is not None else None,
        "front": [{**one, "file": str(folder / FRONT / f"{one['name']}.arch")} for one in front],
    }
