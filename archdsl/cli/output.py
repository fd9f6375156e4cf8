"""The two streams: a command's result goes to standard output, all else to standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import IO, Any

import click

from archdsl.lang.diagnostics import Diagnostic, render


class Refusal(click.ClickException):
    """What cannot be done as asked, in one sentence; exit status 2."""

    exit_code = 2


def colored(stream: IO[str] | None) -> bool:
    """Whether to colour what is written to a stream (https://no-color.org)."""
    if stream is None or os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return os.environ.get("TERM") != "dumb" and stream.isatty()


def write(result: str | bytes) -> None:
    """Write a result as it stands; bytes where they matter, as in a source text.

    Raises:
        OSError: standard output is closed, or does not take it.
    """
    if sys.stdout is None:
        raise OSError("standard output is closed")
    click.echo(result, nl=False, color=True)


def write_json(value: Any) -> None:
    """Write a result as JSON, a record to a line."""
    write(json_text(value) + "\n")


def say(text: str) -> None:
    """Write a line to standard error."""
    click.echo(text, err=True, color=True)


def paint(text: str, tone: str, stream: IO[str] | None) -> str:
    """The text in a tone (an SGR code), where the stream shows colours."""
    return f"\x1b[{tone}m{text}\x1b[0m" if colored(stream) else text


def error(message: str) -> None:
    """Say what is wrong where no place in a text is to blame."""
    say(paint("error", "1;31", sys.stderr) + f": {message}")


def report(diagnostics: Iterable[Diagnostic]) -> None:
    """Print diagnostics to standard error."""
    color = colored(sys.stderr)
    for diagnostic in diagnostics:
        say(render(diagnostic, color=color))


def refused(failure: OSError) -> str:
    """What the system refused, and for which file."""
    if failure.strerror is None:
        return str(failure)
    if failure.filename is None:
        return failure.strerror
    return f"{visible(os.fsdecode(failure.filename))}: {failure.strerror}"


def visible(text: str) -> str:
    """A user's text as it may stand in a terminal: no control character reaches it.

    >>> visible("net\\x1b[2J.arch")
    'net\ufffd[2J.arch'
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def json_text(value: Any) -> str:
    """JSON with the keys of the outer object, and each record of an array, on its own line.

    >>> print(json_text({"name": "net", "layers": [{"op": "conv2d", "output": [8, 8]}]}))
    {
      "name": "net",
      "layers": [
        {"op": "conv2d", "output": [8, 8]}
      ]
    }
    """
    if isinstance(value, Mapping):
        inner = [
            f"{json.dumps(key)}: {_records(item, '  ') or _line(item)}"
            for key, item in value.items()
        ]
        return _wrapped("{}", inner, "")
    return _records(value, "") or _line(value)


def _records(value: Any, indent: str) -> str | None:
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
        return _wrapped("[]", [_line(item) for item in value], indent)
    return None


def _wrapped(brackets: str, items: list[str], indent: str) -> str:
    body = ",\n".join(f"{indent}  {item}" for item in items)
    return f"{brackets[0]}\n{body}\n{indent}{brackets[1]}" if items else brackets


def _line(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def shape(sizes: Iterable[int]) -> str:
    """A shape as the language writes it: `224x224x3`."""
    return "x".join(map(str, sizes))


def size(count: int) -> str:
    """A count of bytes with three digits, in decimal units.

    >>> size(999), size(1_000), size(38_862_048), size(999_900)
    ('999 B', '1.00 kB', '38.9 MB', '1.00 MB')
    """
    if count < 1000:
        return f"{count} B"
    digits, exponent = f"{count:.2e}".split("e")
    thousands, place = divmod(int(exponent), 3)
    if thousands > 5:
        return f"{count:.2e} B"
    return f"{float(digits) * 10**place:.{2 - place}f} {'kMGTP'[thousands - 1]}B"
