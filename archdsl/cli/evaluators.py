"""The options that name an evaluator, and the workers that they come to."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from archdsl.cli.options import Command, Status, key_values, within
from archdsl.cli.output import Refusal, visible

if TYPE_CHECKING:
    from archdsl.search.trials import Evaluator, Workers


@dataclass(frozen=True)
class Chosen:
    """Who gives the accuracies: an evaluator with its settings, or a program; None for neither."""

    evaluator: str | None
    program: str | None
    settings: dict[str, str]
    workers: int
    timeout: float | None

    @property
    def title(self) -> str:
        """The evaluator in words."""
        if self.program is not None:
            return f"the program {self.program}"
        given = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.evaluator} ({given})" if given else str(self.evaluator)

    def start(self) -> Workers:
        """Workers on this machine.

        Raises:
            Refusal: there is no such program.
        """
        from archdsl.search.workers import LocalWorkers

        with refusing():
            if self.program is not None:
                from archdsl.search.programs import Program

                # A child would find this out too, but only when it is asked.
                Program(self.program)
            return LocalWorkers(
                self.evaluator,
                self.settings,
                program=self.program,
                slots=self.workers,
                timeout=self.timeout,
            )

    def resolve(self) -> Evaluator:
        """The evaluator in this process.

        Raises:
            Refusal: there is none, or it cannot be had.
        """
        from archdsl.search.evaluators import resolve

        assert self.evaluator is not None
        with refusing():
            return resolve(self.evaluator, self.settings)


@contextmanager
def refusing() -> Iterator[None]:
    """Refuse what an evaluator that cannot be had says of itself."""
    from archdsl.search.outcomes import EvaluatorError

    try:
        yield
    except EvaluatorError as failure:
        raise Refusal(visible(str(failure))) from None


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The installed evaluators that begin so."""
    from archdsl.search.evaluators import available

    return [CompletionItem(name) for name in sorted(available()) if name.startswith(incomplete)]


def evaluator_options(command: Command) -> Command:
    """Give a command `--evaluator --program --set --workers --timeout`, as one argument `chosen`.

    Without the first two it is for the command to say who is asked.
    """

    @functools.wraps(command)
    def call(
        *args: Any,
        evaluator: str | None,
        program: str | None,
        settings: dict[str, str],
        workers: int,
        timeout: float | None,
        **options: Any,
    ) -> Status:
        if evaluator is not None and program is not None:
            raise click.UsageError("--evaluator and --program exclude each other")
        if settings and program is not None:
            raise click.UsageError("--set is for --evaluator: a program has its own arguments")
        chosen = Chosen(evaluator, program, settings, workers, timeout)
        return command(*args, chosen=chosen, **options)

    extended: Command = call
    for option in (
        click.option(
            "--timeout",
            type=float,
            callback=within(0, 1e7, above=True),
            metavar="S",
            help="Seconds that an evaluation may take.",
        ),
        click.option(
            "--workers",
            type=int,
            default=1,
            show_default=True,
            callback=within(1, 256),
            metavar="N",
            help="Evaluations at once.",
        ),
        click.option(
            "--set",
            "settings",
            multiple=True,
            callback=key_values,
            metavar="KEY=VALUE",
            help="A setting of the evaluator; may be repeated.",
        ),
        click.option(
            "--program",
            metavar="COMMAND",
            help="A program that reads an architecture and prints its accuracy.",
        ),
        click.option(
            "--evaluator",
            metavar="NAME|MODULE:FUNCTION",
            shell_complete=_complete,
            help="Who gives the accuracy of a network.",
        ),
    ):
        extended = option(extended)
    return extended
