"""A search under way: its progress, what it leaves in its folder, and what is said of losses."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archdsl.cli.evaluators import refusing
from archdsl.cli.options import Status
from archdsl.cli.output import Refusal, error, report, say, visible, write_json
from archdsl.cli.search_results import print_results, results_as_json, worth
from archdsl.lang.diagnostics import ArchError, listed

if TYPE_CHECKING:
    from archdsl.search.study import Ending, Study
    from archdsl.search.trials import Trial

LOG = "evaluator.log"
"""The file in the folder that has what evaluators said."""

_SHOWN = 5
"""Reasons of failures, and numbers of trials, that are printed."""

_EVERY = 10.0
"""Seconds between writings of the tables while a search runs."""

_SHARE = 50
"""How many times as long as a writing takes the next one waits."""


def unmade(folder: Path, where: str) -> list[Path]:
    """What a search makes that is not there yet, the folder last."""
    names = (LOG, "trials.csv", "trials.jsonl")
    places = [*(folder / name for name in names), folder]
    if "://" not in where:
        places.insert(0, Path(where))
    return [place for place in places if not place.exists()]


def run(
    study: Study, budget: int, folder: Path, where: str, json: bool, made: list[Path]
) -> Status:
    """Run a study, write its results, and print them; 1 where there are none.

    `made` is taken away again where the search was asked wrongly.

    Raises:
        Refusal: it was, or another process is at work on the study.
        Abort: it was interrupted.
    """
    from archdsl.search.storages import Busy, without_password

    before = study.evaluated
    if before:
        said = "networks are" if before > 1 else "network is"
        say(f"going on with {visible(without_password(where))}: {before} {said} evaluated")
    failures: list[ArchError] = []
    ending = study.ending()
    try:
        with refusing(), taking_back(study, made), _progress(study, budget) as watch:
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
        write_json(results_as_json(study, ending, folder))
    else:
        print_results(study, ending)
    _say_written(wrote, folder)
    if not study.complete:
        error("no network has an accuracy" if study.judged else "no network is within the bounds")
        return 1
    return 0


@contextmanager
def taking_back(study: Study, made: list[Path]) -> Iterator[None]:
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
    log = folder / LOG
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
                said = f"best {worth(study, best)}"
                if study.objectives.weighed:
                    said += f" (reward {best.reward:.4g})"
            if failed:
                said += f", {failed} failed"
            bar.update(task, completed=study.evaluated, description=said)

        yield watch


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
