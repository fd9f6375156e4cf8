"""`archdsl check` proves files; `archdsl explain` says what a code means."""

from __future__ import annotations

import sys
from textwrap import indent
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from archdsl.cli.options import (
    Overrides,
    Status,
    as_json,
    files_argument,
    overridable,
    read,
)
from archdsl.cli.output import (
    Refusal,
    colored,
    error,
    paint,
    refused,
    report,
    say,
    visible,
    write,
    write_json,
)
from archdsl.lang.diagnostics import ArchError, Diagnostic, did_you_mean, render

if TYPE_CHECKING:
    from archdsl.lang.codes import Code


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
    from archdsl.check import check as prove
    from archdsl.compiler import parse

    try:
        source, chosen = read(file, overrides)
        diagnostics = prove(source, **chosen)
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


def _complete_code(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from archdsl.lang.codes import CODES

    found = (code for code in CODES.values() if code.code.startswith(incomplete.upper()))
    return [CompletionItem(code.code, help=code.title) for code in found]


@click.command()
@click.argument("code", required=False, shell_complete=_complete_code)
@as_json
def explain(code: str | None, json: bool) -> Status:
    """Say what an error code means, with an example.

    Without a code, list them all.

    \b
    Examples:
      archdsl explain E0203
    """
    from archdsl.lang.codes import CODES

    if code is None:
        if json:
            write_json([_record(entry) for entry in CODES.values()])
        else:
            write("".join(f"{entry.code}  {entry.title}\n" for entry in CODES.values()))
        return 0
    found = CODES.get(code.upper())
    if found is None:
        guess = did_you_mean(code.upper(), [name.upper() for name in CODES])
        hint = f"did you mean {guess}?" if guess else "`archdsl explain` lists them"
        raise Refusal(f"no code is called `{visible(code[:40])}`; {hint}")
    if json:
        write_json({**_record(found), "diagnostics": [d.to_json() for d in _shown(found)]})
    else:
        write(_explanation(found))
    return 0


def _record(code: Code) -> dict[str, Any]:
    return {
        "code": code.code,
        "title": code.title,
        "explanation": code.explanation,
        "example": code.example,
    }


def _shown(code: Code) -> list[Diagnostic]:
    """What the code's example gives, of this code."""
    from archdsl.check import check as prove
    from archdsl.lang.source import SourceText

    try:
        found = prove(SourceText("example.arch", code.example))
    except ArchError as failure:
        found = list(failure.diagnostics)
    return [diagnostic for diagnostic in found if diagnostic.code == code.code]


def _explanation(code: Code) -> str:
    color = colored(sys.stdout)
    shown = "\n".join(render(diagnostic, color=color) for diagnostic in _shown(code))
    parts = [paint(f"{code.code}: {code.title}", "1", sys.stdout), code.explanation.strip()]
    if code.example.strip():
        parts += ["For example", indent(code.example.strip("\n"), "    ")]
    if shown:
        parts += ["gives", indent(shown.rstrip("\n"), "    ")]
    return "\n\n".join(parts) + "\n"
