"""`archdsl search`: the networks of a space that are worth having."""

from __future__ import annotations

from collections.abc import Callable
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
    require_unmixed,
    results_folder,
    within,
)
from archdsl.cli.output import Refusal, say, visible
from archdsl.cli.search_running import LOG, run, taking_back, unmade
from archdsl.cli.spacing import load_space, space_argument

if TYPE_CHECKING:
    from archdsl.roofline.model import Device
    from archdsl.search.objectives import Objectives
    from archdsl.search.study import Study
    from archdsl.search.trials import Workers

_MOST = 1_000_000
"""Evaluations of one search."""

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
    require_unmixed(folder, "search")
    where = storage or str(folder / "study.journal")
    cluster: dict[str, Any] | None = None
    if engine == "ray":
        asked = {"address": ray_address, "cpus": cpus, "gpus": gpus, "retries": retries}
        cluster = {key: value for key, value in asked.items() if value is not None}
        cluster |= {"log": folder / LOG, "say": say}
    made = unmade(folder, where)
    study = _study(
        space, objectives, chosen, algorithm, algorithm_settings, seed, where, folder, cluster
    )
    with study:
        # The storage may be elsewhere, and the log is begun before there are results.
        folder.mkdir(exist_ok=True)
        with taking_back(study, made):
            require_own(study, folder)
        return run(study, budget, folder, where, json, made)


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
    from archdsl.search.storages import Busy
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
                log=folder / LOG,
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
