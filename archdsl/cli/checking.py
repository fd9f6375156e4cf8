"""`archdsl check` proves files."""

from __future__ import annotations

import sys
from typing import Any

import click

from archdsl.cli.options import (
    Overrides,
    Status,
    as_json,
    files_argument,
    overridable,
    read,
)
from archdsl.cli.output import (
    error,
    paint,
    refused,
    report,
    say,
    visible,
    write,
    write_json,
)
from archdsl.lang.diagnostics import ArchError, Diagnostic


@click.command()
@files_argument
@overridable
@as_json
def check(files: tuple[str, ...], overrides: Overrides, json: bool) -> Status:
    """Prove files: syntax, shapes, declared widths and figures.

    Prints every error and warning; exits 1 if there is an error.

    \b
    Examples:
      archdsl check net.arch
      archdsl check architectures/*.arch --json
    """
    if files.count("-") > 1:
        raise click.UsageError("standard input can be read once")
    status = 0
    records: list[dict[str, Any]] = []
    for file in files:
        try:
            diagnostics, summary = _check(file, overrides)
        except OSError as failure:
            error(refused(failure))
            status = 2
            continue
        errors = sum(d.severity == "error" for d in diagnostics)
        status = max(status, int(errors > 0))
        if json:
            # A fault without a place in a text is the file's all the same.
            records += ({**(r := d.to_json()), "file": r["file"] or file} for d in diagnostics)
            continue
        report(diagnostics)
        label = "<stdin>" if file == "-" else visible(file)
        counted = _counted(errors, len(diagnostics) - errors)
        if errors:
            say(f"{label}: {counted}")
        else:
            write(f"{label}: {_ok()}{f' with {counted}' if counted else ''}, {summary}\n")
    if json:
        write_json(records)
    return status


def _check(file: str, overrides: Overrides) -> tuple[list[Diagnostic], str]:
    """The diagnostics of a file and, where no error is among them, its figures."""
    from archdsl.compiler import parse
    from archdsl.proofs import check as prove

    try:
        source, chosen = read(file, overrides)
        diagnostics = prove(source, **chosen)
        if any(d.code == "E0107" for d in diagnostics):
            from archdsl.search.space import parse_space

            if any(value is not None for value in chosen.values()):
                return diagnostics, ""
            count = parse_space(source).count
            return [], f"a space of {count:,} network{'s' if count > 1 else ''}"
        if any(d.severity == "error" for d in diagnostics):
            return diagnostics, ""
        cost = parse(source, **chosen).cost()
    except ArchError as failure:
        return list(failure.diagnostics), ""
    return diagnostics, f"{cost.params:,} parameters, {cost.macs:,} MACs"


def _ok() -> str:
    return paint("ok", "1;32", sys.stdout)


def _counted(errors: int, warnings: int) -> str:
    """How many of each, as a phrase.

    >>> _counted(1, 2)
    '1 error and 2 warnings'
    """
    counts = ((errors, "error"), (warnings, "warning"))
    return " and ".join(f"{n} {what}{'s' if n > 1 else ''}" for n, what in counts if n)
