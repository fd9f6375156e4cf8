"""`archdsl fmt` rewrites files in the canonical form."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

import click

from archdsl.cli.options import Status, limits_option, read_stdin
from archdsl.cli.output import (
    colored,
    error,
    refused,
    report,
    say,
    visible,
    write,
    write_json,
)
from archdsl.lang.diagnostics import ArchError
from archdsl.limits import most


class Formatted(NamedTuple):
    """A file before and after."""

    file: str
    before: bytes
    after: bytes

    @property
    def changed(self) -> bool:
        return self.before != self.after


@click.command()
@limits_option
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option("--check", is_flag=True, help="Change nothing; name what would change, and exit 1.")
@click.option("--diff", is_flag=True, help="Change nothing; show what would change, and exit 1.")
@click.option("--json", is_flag=True, help="With --check: print the result as JSON.")
def fmt(files: tuple[str, ...], check: bool, diff: bool, json: bool) -> Status:
    """Rewrite files in the canonical form, keeping comments.

    With - for FILE, format standard input to standard output.

    \b
    Examples:
      archdsl fmt net.arch
      archdsl fmt --check --diff *.arch
    """
    if json and (diff or not check):
        raise click.UsageError("--json goes with --check alone")
    if files.count("-") > 1:
        raise click.UsageError("standard input can be read once")
    status = 0
    done: list[Formatted] = []
    for file in files:
        try:
            formatted = _format(file)
            done.append(formatted)
            if check or diff:
                status = max(status, int(formatted.changed))
                if diff:
                    write("".join(_difference(formatted)))
                elif formatted.changed and not json:
                    write(_label(file) + "\n")
            else:
                _save(formatted)
        except ArchError as failure:
            report(failure.diagnostics)
            say(f"{_label(file)}: left as it is")
            status = max(status, 1)
        except OSError as failure:
            error(refused(failure))
            status = 2
    if json:
        write_json([{"file": _label(f.file), "changed": f.changed} for f in done])
    elif files != ("-",) and done:
        changed = sum(f.changed for f in done)
        verb = "would change" if check or diff else "changed"
        say(f"{_files(changed)} {verb}, {_files(len(done) - changed)} in canonical form")
    return status


def _format(file: str) -> Formatted:
    from archdsl.files import decode_source
    from archdsl.lang.formatter import format_source

    if file == "-":
        source = read_stdin()
        before = source.text.encode("utf-8")
    else:
        try:
            with open(file, "rb") as stream:
                before = stream.read(4 * most("text") + 1)
        except FileNotFoundError:
            _refuse_published(file)
            raise
        source = decode_source(file, before)
    return Formatted(file, before, format_source(source).encode("utf-8"))


def _refuse_published(file: str) -> None:
    from archdsl.library import find_member

    if find_member(file):
        message = f"{file} is a published architecture, not a file here, and stays as it is"
        raise FileNotFoundError(message)


def _save(formatted: Formatted) -> None:
    from archdsl.files import write_whole

    if formatted.file == "-":
        write(formatted.after)
    elif formatted.changed:
        write_whole(formatted.file, formatted.after)
        say(f"{_label(formatted.file)}: formatted")


def _difference(formatted: Formatted) -> Iterator[str]:
    from difflib import unified_diff

    if not formatted.changed:
        return
    name = _label(formatted.file)
    before = formatted.before.decode("utf-8").splitlines(keepends=True)
    after = formatted.after.decode("utf-8").splitlines(keepends=True)
    tones = {"-": "31", "+": "32", "@": "36"} if colored(sys.stdout) else {}
    for line in unified_diff(before, after, name, f"{name} (formatted)"):
        text = line.rstrip("\n")
        tone = tones.get(line[0])
        yield (f"\x1b[{tone}m{text}\x1b[0m" if tone else text) + "\n"
        if not line.endswith("\n"):
            yield "\\ No newline at end of file\n"


def _label(file: str) -> str:
    return "<stdin>" if file == "-" else visible(file)


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"
