"""`archdsl cost --jsonl`: an architecture on each line, and a line for each."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from archdsl.cli.options import Overrides, Status
from archdsl.cli.output import write
from archdsl.limits import hint, most

if TYPE_CHECKING:
    from archdsl.passes.cost import Dtype
    from archdsl.roofline.model import Device


def stream(
    file: str, overrides: Overrides, dtype: Dtype | None, batch: int, devices: Sequence[Device]
) -> Status:
    """Cost the architecture on each line of a file, in order; 1 where one of them is none.

    Raises:
        OSError: the file cannot be read, or standard input is closed.
        ValueError: a dtype that a device's profile is not for.
    """
    from archdsl.roofline.model import common_dtype

    common_dtype(devices, dtype)
    if file != "-":
        with open(file, "rb") as lines:
            return _answers(lines, overrides, dtype, batch, devices)
    if sys.stdin is None:
        raise OSError("standard input is closed")
    return _answers(sys.stdin.buffer, overrides, dtype, batch, devices)


def _answers(
    lines: BinaryIO,
    overrides: Overrides,
    dtype: Dtype | None,
    batch: int,
    devices: Sequence[Device],
) -> Status:
    from archdsl.compiler import parse
    from archdsl.lang.diagnostics import ArchError, Diagnostic
    from archdsl.lang.source import SourceText

    status = 0
    for number, line in _lines(lines):
        answer: dict[str, Any] = {"line": number}
        name = f"line {number}"
        try:
            if line is None:
                message = f"the line is longer than {most('text'):,} characters"
                raise ArchError([Diagnostic("E0110", message, None, hint("text"))])
            arch = parse(SourceText(name, _text(name, line)), **overrides)
            cost = arch.cost(dtype=dtype, batch=batch, devices=devices)
            answer |= cost.to_json(layers=False)
        except ArchError as error:
            status = 1
            answer["errors"] = [found.to_json() for found in error.diagnostics]
        write(json.dumps(answer, allow_nan=False) + "\n")
    return status


def _lines(lines: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """The lines that are not empty, with their numbers; None for one that is too long."""
    longest = 4 * most("text") + 2
    number = 0
    while line := lines.readline(longest):
        number += 1
        whole: bytes | None = line
        while len(line) == longest and not line.endswith(b"\n"):
            whole = None
            line = lines.readline(longest) or b"\n"
        if whole is None or whole.strip():
            yield number, whole


def _text(name: str, line: bytes) -> str:
    """The `.arch` text of a line: itself, a JSON text, or what stands under `text` in an object.

    Raises:
        ArchError: the line is not text, or JSON of something else.
    """
    from archdsl.files import decode_source
    from archdsl.lang.diagnostics import ArchError, Diagnostic

    source = decode_source(name, line.strip())
    if not source.text.startswith(('"', "{")):
        return source.text
    try:
        value = json.loads(source.text)
    except (ValueError, RecursionError):
        value = None
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        message = "a line is an `.arch` text, a JSON text of one, or an object with it as `text`"
        raise ArchError([Diagnostic("E0102", message, source.span(0, 1))])
    return text
