"""`archdsl explain` says what a code means."""

from __future__ import annotations

import sys
from textwrap import fill, indent
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from archdsl.cli.options import Status, as_json
from archdsl.cli.output import Refusal, colored, paint, visible, write, write_json
from archdsl.cli.table import columns_wide
from archdsl.lang.diagnostics import Diagnostic, did_you_mean, render

if TYPE_CHECKING:
    from archdsl.lang.codes import Code


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
        write_json(_record(found))
    else:
        write(_explanation(found))
    return 0


def _record(code: Code) -> dict[str, Any]:
    return {
        "code": code.code,
        "title": code.title,
        "explanation": code.explanation,
        "example": code.example,
        "diagnostics": [diagnostic.to_json() for diagnostic in _given(code)],
        "repaired": code.repaired,
    }


def _explanation(code: Code) -> str:
    color = colored(sys.stdout)
    given = "\n".join(render(diagnostic, color=color) for diagnostic in _given(code))
    parts = [
        paint(f"{code.code}: {code.title}", "1", sys.stdout),
        fill(code.explanation, min(columns_wide(), 88), break_on_hyphens=False),
        "Example:",
        indent(code.example.rstrip(), "    "),
        indent(given.rstrip(), "    "),
    ]
    if code.repaired != code.example:
        parts += ["Repaired:", indent(code.repaired.rstrip(), "    ")]
    return "\n\n".join(part for part in parts if part) + "\n"


def _given(code: Code) -> list[Diagnostic]:
    """What the code's example gives, of this code."""
    from archdsl.backend import BackendError
    from archdsl.demonstrations import given

    try:
        found = given(code)
    except BackendError:
        found = []
    return [diagnostic for diagnostic in found if diagnostic.code == code.code]
