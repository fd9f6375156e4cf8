"""`archdsl oneshot`: a search that trains once, with shared weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from archdsl.cli.compiling import progress_bar
from archdsl.cli.options import (
    Command,
    Status,
    as_json,
    device_option,
    one_device,
    require_unmixed,
    results_folder,
    within,
)
from archdsl.cli.output import Refusal, say, visible, write, write_json
from archdsl.cli.spacing import load_space, space_argument

if TYPE_CHECKING:
    from archdsl.search.objectives import Objectives
    from archdsl.search.space import Space

Option = Callable[[Command], Command]

_DIGITS = "digits"
_DIGITS_SIZE = 32
"""Sides of the digits, as the evaluator of that name has them: they come with 8x8 pixels."""


def _number(name: str, kind: Any, low: float, high: float, metavar: str, help: str) -> Option:
    """An option for one of the search's settings; None leaves its default."""
    return click.option(name, type=kind, callback=within(low, high), metavar=metavar, help=help)


@click.command("oneshot")
@space_argument
@click.option(
    "--data",
    default=_DIGITS,
    show_default=True,
    metavar="DATA",
    help="digits, a folder of photos, or a .npz file.",
)
@partial(device_option, many=False)
@click.option(
    "--target-ms",
    type=float,
    callback=within(0, 1e9, above=True),
    metavar="T",
    help="The time on the device that networks are to come near to.",
)
@_number("--steps", int, 1, 10**8, "N", "Batches to learn from. Default: 2,000.")
@_number("--warmup", float, 0, 1, "SHARE", "Of the steps, only weights learn in. Default: 0.25.")
@_number("--batch", int, 2, 65_536, "N", "Images of a batch. Default: 64.")
@_number("--size", int, 8, 4_096, "N", "Sides of the images. Default: 32 for digits, or as given.")
@_number("--lr", float, 0, 100, "X", "Learning rate of the weights. Default: 0.1.")
@_number("--controller-lr", float, 0, 100, "X", "Of the policy, at first. Default: 0.02.")
@_number("--judged", int, 1, 1_024, "N", "Networks judged at each step. Default: 2.")
@_number("--epochs", int, 0, 100_000, "N", "Train the winner anew so long. Default: 0.")
@_number("--seed", int, 0, 2**63 - 1, "N", "What is drawn at random. Default: 0.")
@_number("--threads", int, 1, 1_024, "N", "Threads of PyTorch. Default: 1.")
@click.option("--torch-device", metavar="NAME", help="Where PyTorch computes. Default: cpu.")
@click.option(
    "--fine", is_flag=True, help="Then search the kernels of the winner's blocks (MobileNetV4)."
)
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(),
    metavar="FOLDER",
    help="The winner, its weights, and what was judged. Default: NAME-oneshot.",
)
@as_json
def oneshot(
    file: str,
    data: str,
    device: str | None,
    target_ms: float | None,
    size: int | None,
    torch_device: str | None,
    fine: bool,
    out: str | None,
    json: bool,
    **numbers: float | None,
) -> Status:
    """Search a space by training one supernet, as TuNAS does.

    FILE is a search space, as `archdsl space` takes it. Shared weights and a policy over the
    networks learn in turns; the likeliest network wins. The folder has its text and its weights.
    The same command again goes on where the last one was ended.

    \b
    Examples:
      archdsl oneshot space.arch --device pixel6-cpu-int8 --target-ms 2
      archdsl oneshot mnv4_coarse --data photos --size 96 --epochs 30 --fine -o found
    """
    # numpy's own threads have nothing to do here, and take their time to start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from archdsl.backend import BackendError
    from archdsl.search.outcomes import EvaluatorError, Failed
    from archdsl.search.refining import require_refinable
    from archdsl.search.storages import Busy

    objectives = _objectives(device, target_ms)
    space = load_space(file)
    if fine:
        require_refinable(space)
    folder = results_folder(out or f"{space.name}-oneshot")
    require_unmixed(folder, "oneshot")
    if size is None and data == _DIGITS:
        size = _DIGITS_SIZE
    settings: dict[str, Any] = {key: value for key, value in numbers.items() if value is not None}
    settings["size"] = size
    if torch_device is not None:
        settings["device"] = torch_device
    stages = [("coarse", space), ("fine", None)] if fine else [("", space)]
    found: list[dict[str, Any]] = []
    try:
        folder.mkdir(exist_ok=True)
        for name, stage in stages:
            if stage is None:
                stage = _refined(found[-1]["network"], folder)
            found.append(_stage(stage, name, data, objectives, settings, folder, quiet=json))
    except (BackendError, Busy, EvaluatorError, Failed, ImportError) as failure:
        raise Refusal(str(failure)) from None
    if json:
        write_json(found if fine else found[0])
    return 0


def _stage(
    space: Space,
    name: str,
    data: str,
    objectives: Objectives,
    settings: dict[str, Any],
    folder: Path,
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Search one space; what the folder has of it, as JSON."""
    from archdsl.backend import BackendError, backend
    from archdsl.files import write_whole
    from archdsl.search.objectives import amount, latency_of
    from archdsl.search.outcomes import one_line
    from archdsl.search.reports import signed

    search = getattr(backend("torch"), "oneshot", None)
    if search is None:
        raise BackendError("the backend 'torch' searches no spaces")
    place = folder / name if name else folder
    steps = 0, 0

    def watch(done: int, count: int) -> None:
        nonlocal steps
        steps = done, count
        if progress is not None:
            progress(done, count)

    try:
        with progress_bar(f"searching {space.name}") as progress:
            winner = search(space, data, objectives, settings, folder=place, watch=watch)
    except KeyboardInterrupt:
        if steps[0]:
            say(f"interrupted: {steps[0]:,} of {steps[1]:,} steps; the same command goes on")
        raise
    report: dict[str, Any] = winner.report()
    how = "trained anew" if settings.get("epochs") else "with shared weights"
    report["network"] = signed(
        winner.text,
        [
            f"the likeliest network of a one-shot search of {space.name}, "
            f"seed {settings.get('seed', 0)}",
            f"accuracy {winner.accuracy:.6g} {how}, on {one_line(data)}",
            ", ".join(amount(name, value) for name, value in winner.figures.items()),
            f"counted in {objectives.dtype}, batch {objectives.batch}",
            "vector " + " ".join(map(str, winner.vector)),
        ],
    )
    write_whole(place / "winner.arch", report["network"].encode())
    if not quiet:
        figures = [latency_of(device.name) for device in objectives.devices] or ["macs"]
        shown = ", ".join(amount(figure, winner.figures[figure]) for figure in figures)
        write(
            f"{visible(str(place / 'winner.arch'))}: {shown}, accuracy {winner.accuracy:.1%}"
            f" ({how}), {len(winner.history):,} networks judged in {winner.seconds:,.0f} s\n"
        )
    return {"file": str(place / "winner.arch"), **report}


def _refined(text: str, folder: Path) -> Space:
    """The fine space around a coarse winner, which is written beside it."""
    from archdsl.compiler import parse
    from archdsl.files import write_whole
    from archdsl.lang.source import SourceText
    from archdsl.search.refining import refined
    from archdsl.search.space import parse_space

    made = refined(parse(SourceText(str(folder / "coarse" / "winner.arch"), text)))
    write_whole(folder / "fine_space.arch", made.encode())
    return parse_space(SourceText(str(folder / "fine_space.arch"), made))


def _objectives(device: str | None, target_ms: float | None) -> Objectives:
    """What is wanted of networks.

    Raises:
        Refusal: a device without times.
    """
    from archdsl.search.objectives import Objectives

    if (device is None) != (target_ms is None):
        raise click.UsageError("--device and --target-ms go together: a time on a device")
    if device is None or target_ms is None:
        return Objectives()
    found = one_device(device)
    try:
        return Objectives(
            devices=(found,), targets={found.name: 1000 * target_ms}, reward="absolute"
        )
    except ValueError as failure:
        raise Refusal(str(failure)) from None
