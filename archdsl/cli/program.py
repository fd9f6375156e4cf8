"""The program `archdsl`: its commands in groups, and what becomes of every kind of failure."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from archdsl.cli import interrupts
from archdsl.cli.adapting import netadapt
from archdsl.cli.benching import bench_kit
from archdsl.cli.calibrating import calibrate
from archdsl.cli.checking import check
from archdsl.cli.comparing import rank, sweep
from archdsl.cli.compiling import compile_
from archdsl.cli.completion import completion
from archdsl.cli.converting import convert, schema
from archdsl.cli.devices import devices
from archdsl.cli.explaining import explain
from archdsl.cli.figures import cost, list_
from archdsl.cli.formatting import fmt
from archdsl.cli.layers import show
from archdsl.cli.oneshot import oneshot
from archdsl.cli.output import Refusal, error, refused, report, say, visible
from archdsl.cli.pictures import plot
from archdsl.cli.searching import search
from archdsl.cli.spacing import space
from archdsl.cli.verifying import verify
from archdsl.cli.weights import weights
from archdsl.lang.diagnostics import ArchError, did_you_mean

DONE, REJECTED, MISUSED, INTERNAL, PIPE_CLOSED = 0, 1, 2, 70, 141
"""Exit statuses; the last is what a shell reports of a program that SIGPIPE ended."""

_GROUPS: tuple[tuple[str, tuple[click.Command, ...]], ...] = (
    ("Write and check", (check, fmt, explain)),
    ("Look", (show, cost, list_)),
    ("Search", (space, search, oneshot, netadapt)),
    ("Latency", (devices, sweep, rank, plot, bench_kit, calibrate)),
    ("Translate", (compile_, verify, weights, convert, schema)),
    ("Shell", (completion,)),
)


class Program(click.Group):
    """A group of commands that lists them by purpose and ends no input in a traceback."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for _, commands in _GROUPS:
            for command in commands:
                self.add_command(command)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [str(command.name) for _, commands in _GROUPS for command in commands]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(len(name) for name in self.list_commands(ctx))
        for title, commands in _GROUPS:
            with formatter.section(title):
                limit = formatter.width - width - 6
                formatter.write_dl(
                    [(f"{c.name:<{width}}", c.get_short_help_str(limit)) for c in commands]
                )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in self.commands or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        guess = did_you_mean(name, self.commands)
        hint = f"did you mean `{guess}`?" if guess else "`archdsl --help` lists the commands"
        raise Refusal(f"no command is called `{visible(name[:40])}`; {hint}")

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Left to click, this would be exit status 1: an error of the input.
            _discard_output()
            ctx.exit(PIPE_CLOSED)

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run the program and exit with its status."""
        extra["standalone_mode"] = False
        sys.exit(_status(lambda: super(Program, self).main(args, **extra)))


@click.command(
    cls=Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="FILE is a path, - for standard input, or a published name such as mnv4_conv_m.",
)
@click.option("--version", is_flag=True, is_eager=True, help="Print the version.")
@click.pass_context
def program(ctx: click.Context, version: bool) -> None:
    """A language for mobile vision networks, and its compiler.

    \b
    Examples:
      archdsl show mnv4_conv_m
      archdsl compile mnv4_conv_m --to torch
    """
    if version:
        from archdsl import __version__

        click.echo(f"archdsl {__version__}")
        ctx.exit()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, on `sys.argv` unless arguments are given, and exit."""
    # A command is over before its garbage matters: collecting it early costs a tenth of a `check`.
    gc.set_threshold(100_000, 20, 100)
    # Looking for plug-ins of pydantic reads every installed package's metadata.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    for stream in (sys.stdout, sys.stderr):
        # Under an encoding that has not every character, a result is escaped and not refused.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    interrupts.raise_once()
    try:
        program.main(args=arguments, prog_name="archdsl")
    finally:
        interrupts.finish()
    raise AssertionError("Program.main exits")


def _status(run: Callable[[], Any]) -> int:
    """Run, turn every failure into a message, and return the exit status."""
    try:
        return _explained(run)
    except BrokenPipeError:
        status = PIPE_CLOSED
    except OSError:
        # Standard error itself takes nothing.
        status = MISUSED
    _discard_output()
    return status


def _explained(run: Callable[[], Any]) -> int:
    try:
        status = _interruptible(run)
        if sys.stdout is not None:
            sys.stdout.flush()
    except ArchError as failure:
        report(failure.diagnostics)
        return REJECTED
    except click.ClickException as failure:
        _misuse(failure)
        return failure.exit_code
    except (click.Abort, KeyboardInterrupt):
        return interrupts.INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as failure:
        _discard_output()
        error(refused(failure))
        return MISUSED
    except RecursionError:
        error("the input is nested too deeply")
        return REJECTED
    except MemoryError:
        error("out of memory")
        return MISUSED
    except Exception as failure:
        _internal(failure)
        return INTERNAL
    return status if isinstance(status, int) else DONE


def _interruptible(run: Callable[[], Any]) -> Any:
    """Run; an interrupt is one, whatever a library has made of it."""
    try:
        return run()
    finally:
        if interrupts.came():
            raise KeyboardInterrupt


def _misuse(failure: click.ClickException) -> None:
    first, *rest = failure.format_message().expandtabs(2).split("\n")
    # click begins with a capital; a name such as PyTorch keeps its own.
    if not any(map(str.isupper, first.partition(" ")[0][1:])):
        first = first[:1].lower() + first[1:]
    error("\n".join(map(visible, [first, *rest])))
    context = getattr(failure, "ctx", None)
    if isinstance(context, click.Context):
        say(f"Try `{context.command_path} --help`.")


def _internal(failure: Exception) -> None:
    """Say that this is a fault of archdsl's, and how to report it."""
    if os.environ.get("ARCHDSL_DEBUG"):
        import traceback

        say("".join(traceback.format_exception(failure)))
    what = visible(f"{type(failure).__name__}: {failure}"[:200])
    error(f"a fault in archdsl itself ({what}); please report it with what ARCHDSL_DEBUG=1 shows")


def _discard_output() -> None:
    """Let nobody read what is still buffered, or Python complains of the pipe once more at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
