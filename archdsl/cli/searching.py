"""`archdsl search`: the networks of a space that are worth having."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from archdsl.cli.evaluators import Chosen, evaluator_options, refusing
from archdsl.cli.options import (
    Status,
    as_json,
    device_option,
    devices,
    key_values,
    results_folder,
    within,
)
from archdsl.cli.output import Refusal, error, report, say, visible, write, write_json
from archdsl.cli.spacing import load_space, space_argument
from archdsl.cli.table import Row, write_table
from archdsl.lang.diagnostics import ArchError, listed

if TYPE_CHECKING:
    from archdsl.roofline.model import Device
    from archdsl.search.objectives import Objectives
    from archdsl.search.study import Ending, Study
    from archdsl.search.trials import Trial, Workers

_LOG = "evaluator.log"

_MOST = 1_000_000
"""Evaluations of one search."""

_SHOWN = 5
"""Reasons of failures, and numbers of trials, that are printed."""

_EVERY = 10.0
"""Seconds between writings of the tables while a search runs."""

_SHARE = 50
"""How many times as long as a writing takes the next one waits."""

_BOUNDS = {
    "max_macs": "macs",
    "max_params": "params",
    "max_bytes": "weight_bytes",
    "max_peak_bytes": "peak_activation_bytes",
}


def _complete_algorithm(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from archdsl.search.algorithms import ALGORITHMS

    return [
        CompletionItem(name, help=line)
        for name, line in ALGORITHMS.items()
        if name.startswith(incomplete)
    ]


def _positive(ctx: click.Context, param: click.Parameter, values: tuple[float, ...]) -> Any:
    check = within(0, 1e9, above=True)
    return tuple(check(ctx, param, value) for value in values)


def _bound(name: str, what: str) -> Callable[[Any], Any]:
    return click.option(
        name,
        type=float,
        callback=within(0, 1e18, above=True),
        metavar="N",
        help=f"No network with more {what}.",
    )


@click.command("search")
@space_argument
@evaluator_options
@device_option
@click.option(
    "--target-ms",
    type=float,
    multiple=True,
    callback=_positive,
    metavar="T",
    help="The latency to come near to; one for all devices, or one for each.",
)
@click.option(
    "--reward",
    type=click.Choice(["soft", "hard", "absolute", "accuracy"]),
    help="How accuracy and latency are one number. Default: soft with a target, else accuracy.",
)
@click.option(
    "--objective",
    "goals",
    multiple=True,
    metavar="NAME",
    help="What the front is of: accuracy, latency, macs, params, bytes, peak; may be repeated.",
)
@click.option(
    "--max-ms",
    type=float,
    multiple=True,
    callback=_positive,
    metavar="T",
    help="No slower network; one for all devices, or one for each.",
)
@_bound("--max-macs", "MACs")
@_bound("--max-params", "parameters")
@_bound("--max-bytes", "bytes of weights")
@_bound("--max-peak-bytes", "bytes of activations at once")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    help="What networks are counted in. Default: the devices'.",
)
@click.option(
    "--batch", type=int, default=1, callback=within(1, 65536), metavar="N", help="Images a run."
)
@click.option(
    "--algorithm",
    metavar="NAME",
    shell_complete=_complete_algorithm,
    help="Who proposes: random, evolution, reinforce, tpe, nsga2, pymoo-nsga2. "
    "Default: pymoo-nsga2 for a front without a target, else evolution.",
)
@click.option(
    "--algorithm-set",
    "algorithm_settings",
    multiple=True,
    callback=key_values,
    metavar="KEY=VALUE",
    help="A setting of the algorithm; may be repeated.",
)
@click.option(
    "--budget",
    type=int,
    default=50,
    show_default=True,
    callback=within(1, _MOST),
    metavar="N",
    help="How many networks are evaluated.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="What is drawn at random.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where evaluations run: on this machine, or on a Ray cluster.",
)
@click.option("--ray-address", metavar="ADDRESS", help="With --engine ray: the cluster.")
@click.option(
    "--cpus",
    type=float,
    callback=within(0, 4096),
    help="With --engine ray: cores of an evaluation. Default: 1.",
)
@click.option(
    "--gpus",
    type=float,
    callback=within(0, 1024),
    help="With --engine ray: GPUs of an evaluation. Default: 0.",
)
@click.option(
    "--retries",
    type=int,
    callback=within(0, 1000),
    help="With --engine ray: how often a trial whose worker died is tried again. Default: 2.",
)
@click.option(
    "--storage",
    metavar="FILE|URL",
    help="Where trials are kept. Default: study.journal in the folder.",
)
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(),
    metavar="FOLDER",
    help="Tables, the front and its picture. Default: NAME-search.",
)
@as_json
def search(
    file: str,
    chosen: Chosen,
    device: tuple[str, ...],
    target_ms: tuple[float, ...],
    reward: Any,
    goals: tuple[str, ...],
    max_ms: tuple[float, ...],
    dtype: Any,
    batch: int,
    algorithm: str | None,
    algorithm_settings: dict[str, str],
    budget: int,
    seed: int,
    engine: str,
    ray_address: str | None,
    cpus: float | None,
    gpus: float | None,
    retries: int | None,
    storage: str | None,
    out: str | None,
    json: bool,
    **bounds: float | None,
) -> Status:
    """Search a space for networks of high accuracy and low cost.

    FILE is a search space, as `archdsl space` takes it. An algorithm proposes networks, the
    evaluator gives their accuracies, and the folder has every trial, the front as `.arch` files
    and a picture of it. Objectives that are all costs need no evaluator. The same command again
    goes on where the last one was ended, and ends with as many evaluations in all.

    \b
    Examples:
      archdsl search mnasnet_space --evaluator digits --device pixel6-cpu-int8 --target-ms 2
      archdsl search space.arch --program ./train.sh --max-params 4e6 --workers 8 --timeout 3600
      archdsl search space.arch --evaluator mine:accuracy --objective accuracy --objective macs
      archdsl search space.arch --objective latency --objective params --device rpi5-cpu-fp32
    """
    from archdsl.search.reports import require_own

    ray_only = {"--ray-address": ray_address, "--cpus": cpus, "--gpus": gpus, "--retries": retries}
    for name, value in ray_only.items():
        if value is not None and engine != "ray":
            raise click.UsageError(f"{name} is for --engine ray")
    space = load_space(file)
    targets = devices(device)
    objectives = _objectives(targets, target_ms, reward, goals, max_ms, dtype, batch, bounds)
    if chosen.evaluator is None and chosen.program is None:
        _require_costs_alone(objectives, chosen, engine)
    folder = results_folder(out or f"{space.name}-search")
    where = storage or str(folder / "study.journal")
    cluster: dict[str, Any] | None = None
    if engine == "ray":
        asked = {"address": ray_address, "cpus": cpus, "gpus": gpus, "retries": retries}
        cluster = {key: value for key, value in asked.items() if value is not None}
        cluster |= {"log": folder / _LOG, "say": say}
    made = _unmade(folder, where)
    study = _study(
        space, objectives, chosen, algorithm, algorithm_settings, seed, where, folder, cluster
    )
    with study:
        # The storage may be elsewhere, and the log is begun before there are results.
        folder.mkdir(exist_ok=True)
        with _taking_back(study, made):
            require_own(study, folder)
        return _run(study, budget, folder, where, json, made)


def _objectives(
    found: list[Device],
    target_ms: tuple[float, ...],
    reward: Any,
    goals: tuple[str, ...],
    max_ms: tuple[float, ...],
    dtype: Any,
    batch: int,
    bounds: dict[str, float | None],
) -> Objectives:
    """What the options ask for.

    Raises:
        Refusal: they do not go together.
    """
    from archdsl.search.objectives import Objectives, latency_of, read_goals

    def of_each(option: str, values: tuple[float, ...]) -> dict[str, float]:
        """Microseconds for each device."""
        if values and not found:
            raise Refusal(f"{option}: a latency is one on a --device")
        if len(values) == 1:
            values *= len(found)
        if values and len(values) != len(found):
            raise Refusal(
                f"{option}: give one for all devices, or one for each of the {len(found)}"
            )
        names = (device.name for device in found)
        return {name: 1000 * value for name, value in zip(names, values, strict=False)}

    most = {_BOUNDS[option]: value for option, value in bounds.items() if value is not None}
    for name, value in of_each("--max-ms", max_ms).items():
        most[latency_of(name)] = value
    wanted = of_each("--target-ms", target_ms)
    if reward not in (None, "accuracy") and not wanted:
        raise Refusal(f"--reward {reward} needs a --device and --target-ms")
    try:
        return Objectives(
            devices=tuple(found),
            goals=read_goals(goals, found),
            bounds=most,
            targets=wanted,
            reward=reward,
            dtype=dtype,
            batch=batch,
        )
    except ValueError as failure:
        raise Refusal(str(failure)) from None


def _require_costs_alone(objectives: Objectives, chosen: Chosen, engine: str) -> None:
    """Refuse what only an evaluator can give, or be told, where there is none.

    Raises:
        UsageError: that is asked for.
    """
    if objectives.reward != "cost":
        raise click.UsageError(
            "whose accuracies? name an --evaluator or a --program, or only costs as --objective, "
            "with --max-ms in place of --target-ms"
        )
    for name, given in {
        "--set": bool(chosen.settings),
        "--workers": chosen.workers > 1,
        "--timeout": chosen.timeout is not None,
        "--engine ray": engine == "ray",
    }.items():
        if given:
            raise click.UsageError(f"{name} is for an --evaluator or a --program")


def _unmade(folder: Path, where: str) -> list[Path]:
    """What a search makes that is not there yet, the folder last."""
    names = (_LOG, "trials.csv", "trials.jsonl")
    places = [*(folder / name for name in names), folder]
    if "://" not in where:
        places.insert(0, Path(where))
    return [place for place in places if not place.exists()]


def _study(
    space: Any,
    objectives: Objectives,
    chosen: Chosen,
    algorithm: str | None,
    algorithm_settings: dict[str, str],
    seed: int,
    where: str,
    folder: Path,
    cluster: dict[str, Any] | None,
) -> Study:
    """The study, begun or continued.

    Raises:
        Refusal: an algorithm, an evaluator or a package is not there, or the study is in use.
        ArchError: what is asked for cannot be had, or the study is one of something else.
    """
    from archdsl.search.algorithms import make
    from archdsl.search.programs import Program
    from archdsl.search.records import Busy
    from archdsl.search.study import Study, usual_algorithm

    if algorithm is None:
        algorithm = usual_algorithm(objectives)
    try:
        # The study makes its own; what is wrong with the words is said here.
        make(algorithm, space, seed, **algorithm_settings)
    except (ImportError, ValueError) as failure:
        raise Refusal(visible(str(failure))) from None
    with refusing():
        evaluator: Any = chosen.evaluator
        if chosen.program is not None:
            evaluator = Program(chosen.program)
        try:
            return Study(
                space,
                objectives,
                evaluator=evaluator,
                settings=chosen.settings,
                algorithm=algorithm,
                algorithm_settings=algorithm_settings,
                seed=seed,
                workers=chosen.workers if cluster is None else _on_cluster(chosen, cluster),
                timeout=chosen.timeout,
                storage=where,
                log=folder / _LOG,
            )
        except (ImportError, Busy) as failure:
            raise Refusal(visible(str(failure))) from None


def _on_cluster(chosen: Chosen, cluster: dict[str, Any]) -> Callable[[], Workers]:
    # As many as there is room for, unless it is said how many.
    source = click.get_current_context().get_parameter_source("workers")
    slots = None if source is ParameterSource.DEFAULT else chosen.workers

    def start() -> Workers:
        from archdsl.search.ray_workers import RayWorkers

        try:
            return RayWorkers(
                chosen.evaluator or "",
                chosen.settings,
                slots=slots,
                timeout=chosen.timeout,
                program=chosen.program,
                **cluster,
            )
        except (ImportError, ValueError, ConnectionError) as failure:
            raise Refusal(visible(str(failure))) from None

    return start


# ------------------------------------------------------------------------------------- running


def _run(
    study: Study, budget: int, folder: Path, where: str, json: bool, made: list[Path]
) -> Status:
    from archdsl.search.records import Busy, without_password

    before = study.evaluated
    if before:
        said = "networks are" if before > 1 else "network is"
        say(f"going on with {visible(without_password(where))}: {before} {said} evaluated")
    failures: list[ArchError] = []
    ending = study.ending()
    try:
        with refusing(), _taking_back(study, made), _progress(study, budget) as watch:
            ending = study.run(budget, _tabling(study, folder, watch))
    except ArchError as failure:
        failures.append(failure)
    except Busy as failure:
        raise Refusal(visible(str(failure))) from None
    except KeyboardInterrupt:
        wrote = _write(study, folder, pictures=False)
        say(
            f"interrupted: {study.evaluated} of {budget} networks are evaluated; "
            "the same command goes on"
        )
        _say_written(wrote, folder)
        # Of an interrupt click makes an empty line.
        raise click.Abort from None
    wrote = _write(study, folder, pictures=not failures)
    if failures:
        # It says of all the same.
        report(failures[0].diagnostics)
        _say_log(folder)
        return 1
    _say_losses(study, ending)
    if ending.failed:
        _say_log(folder)
    if json:
        write_json(_record(study, ending, folder))
    else:
        _summary(study, ending)
    _say_written(wrote, folder)
    if not study.complete:
        judged = study.identity["evaluator"] is not None
        error("no network has an accuracy" if judged else "no network is within the bounds")
        return 1
    return 0


@contextmanager
def _taking_back(study: Study, made: list[Path]) -> Iterator[None]:
    """Leave nothing of a search that was asked wrongly, as its workers or the folder find out."""
    from archdsl.search.outcomes import EvaluatorError

    try:
        yield
    except (ArchError, EvaluatorError, Refusal):
        if not study.evaluated:
            study.close()
            for place in made:
                # What somebody else has put there meanwhile stays.
                with suppress(OSError):
                    place.rmdir() if place.is_dir() else place.unlink()
        raise


def _say_written(wrote: list[str], folder: Path) -> None:
    say(f"wrote {listed(wrote, 'and')} in {visible(str(folder))}")


def _say_log(folder: Path) -> None:
    """Say where to read of failures, if anything was said of them."""
    log = folder / _LOG
    if log.exists():
        say(f"{visible(str(log))} has what the evaluator said, by trial")


def _tabling(
    study: Study, folder: Path, watch: Callable[[Trial], None] | None
) -> Callable[[Trial], None]:
    """What watches, and writes the tables every now and then: a search may take days."""
    from archdsl.search.reports import write_tables

    due = time.monotonic() + _EVERY

    def tabling(trial: Trial) -> None:
        nonlocal due
        if watch is not None:
            watch(trial)
        began = time.monotonic()
        if began < due:
            return
        # A disk that is full now may not be when the results are written.
        with suppress(OSError):
            write_tables(study, folder)
        now = time.monotonic()
        due = now + max(_EVERY, _SHARE * (now - began))

    return tabling


@contextmanager
def _progress(study: Study, budget: int) -> Iterator[Callable[[Trial], None] | None]:
    """A bar on standard error with the best so far, where that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        *(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24)),
        *(MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()),
    )
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        done = study.evaluated
        task = bar.add_task("searching", total=max(budget, done), completed=done)
        failed = 0

        def watch(trial: Trial) -> None:
            nonlocal failed
            failed += trial.state == "failed"
            best = study.best
            said = "searching"
            if best is not None:
                said = f"best {_worth(study, best)}"
                if study.objectives.weighed:
                    said += f" (reward {best.reward:.4g})"
            if failed:
                said += f", {failed} failed"
            bar.update(task, completed=study.evaluated, description=said)

        yield watch


def _worth(study: Study, trial: Trial) -> str:
    """The accuracy of a network, or what it costs where that is all that is wanted."""
    from archdsl.search.objectives import amount

    first = study.objectives.goals[0]
    if study.objectives.reward == "cost":
        return amount(first, trial.figures[first])
    return f"{trial.accuracy:.4g}"


def _write(study: Study, folder: Path, *, pictures: bool) -> list[str]:
    """Write the results; the names of what was written."""
    from archdsl.search import reports

    more: dict[str, bytes] = {}
    if pictures:
        try:
            more = reports.pictures(study)
        except ImportError as missing:
            say(f"no picture: {missing}")
    reports.write_results(study, folder, more)
    count = len(study.front)
    networks = f"{count} network{'s' if count != 1 else ''} in {reports.FRONT}/"
    return ["trials.csv", "trials.jsonl", *more, networks]


def _say_losses(study: Study, ending: Ending) -> None:
    """Say what was asked for and is not there, and why."""
    from archdsl.search.reports import losses
    from archdsl.search.study import IDLE

    found = losses(study.trials)
    for fault, numbers in found[:_SHOWN]:
        shown = ", ".join(map(str, numbers[:_SHOWN])) + (", …" if len(numbers) > _SHOWN else "")
        many = f"trials {shown}" if len(numbers) > 1 else f"trial {shown}"
        say(f"{len(numbers)} failed ({many}): {visible(fault)}")
    if len(found) > _SHOWN:
        rest = sum(len(numbers) for _, numbers in found[_SHOWN:])
        say(f"{rest} failed for other reasons; trials.csv has them")
    if ending.reason == "idle":
        say(
            f"ended after {IDLE:,} proposals running that break a bound or had been evaluated: "
            f"{ending.evaluated} networks are evaluated"
        )
    elif ending.reason == "everything":
        say(f"every network of {study.space.name} has been proposed")


# ------------------------------------------------------------------------------------- results


def _summary(study: Study, ending: Ending) -> None:
    """The front as a table."""
    identity, objectives = study.identity, study.objectives
    said = [f"{ending.evaluated} networks evaluated"]
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
    judged, rewarded = identity["evaluator"] is not None, objectives.weighed
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


def _record(study: Study, ending: Ending, folder: Path) -> dict[str, Any]:
    from archdsl.search.reports import FRONT, losses, network_name, record

    best = study.best
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
        "front": [
            {
                **record(study, trial),
                "file": str(folder / FRONT / f"{network_name(study, trial)}.arch"),
            }
            for trial in study.front
        ],
    }
