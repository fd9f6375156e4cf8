"""Accuracies of networks by name, from tables: those of a search's trials, or of one's own."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from archdsl.lang.diagnostics import ArchError, Diagnostic, quoted
from archdsl.lang.dialects.json import KeyTwiceError, unique_keys
from archdsl.lang.source import SourceText
from archdsl.limits import MAX_RESULTS

_NAMES = ("name", "network", "model")
"""What a column of networks may be called."""


class Counts(NamedTuple):
    """A network's name, parameters and MACs, as a search's tables have them."""

    name: str
    params: int
    macs: int


Row = tuple[int, Any, Any, tuple[Any, ...]]
"""The line it begins on, a network's name, its accuracy and its counts; nothing is checked."""


def read_accuracies(path: str | os.PathLike[str]) -> dict[str, float]:
    """The accuracies of a file, as `accuracies_of` reads them.

    Raises:
        OSError: the file cannot be read.
        ArchError: E0110 for one that is larger than such tables are, E1011 for one that is none.
    """
    return accuracies_of(read_table(path))


def read_table(path: str | os.PathLike[str]) -> SourceText:
    """The text of a file with accuracies.

    Raises:
        OSError: the file cannot be read.
        ArchError: E0110 for one that is larger than such tables are.
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        data = file.read(MAX_RESULTS + 1)
    if len(data) > MAX_RESULTS:
        message = f"a file of accuracies has at most {MAX_RESULTS:,} bytes"
        raise ArchError([Diagnostic("E0110", message, SourceText(name, "").span(0, 0))])
    return SourceText(name, data.decode("utf-8-sig", errors="replace"))


def accuracies_of(source: SourceText) -> dict[str, float]:
    """The accuracies of a table, by the names of the networks.

    It is CSV with a line of column names, objects of JSON on a line each or in a list, or one
    object of JSON with a number for each name. The columns are `name` (or `network`, `model`) and
    `accuracy`; others are passed over, and so are rows that have no accuracy.

    >>> accuracies_of(SourceText("trials.csv", "name,state,accuracy\\na,complete,0.5\\nb,failed,"))
    {'a': 0.5}
    >>> accuracies_of(SourceText("mine.json", '{"a": 0.5, "b": 0.625}'))
    {'a': 0.5, 'b': 0.625}

    Raises:
        ArchError: E1011, it is no such table, an accuracy is no number, or a network has two.
    """
    found: dict[str, float] = {}
    for line, name, value, _ in _rows(source):
        if not isinstance(name, str) or not name:
            raise _unreadable(source, line, "there is no network's name")
        if value is None:
            continue
        accuracy = _number(value)
        if accuracy is None:
            shown = quoted(str(value), 40)
            raise _unreadable(source, line, f"the accuracy of {quoted(name)} is no number: {shown}")
        if found.setdefault(name, accuracy) != accuracy:
            two = f"{found[name]:g} and {accuracy:g}"
            raise _unreadable(source, line, f"{quoted(name)} has two accuracies, {two}")
    return found


def counts_of(source: SourceText) -> Iterator[Counts]:
    """The names, parameters and MACs of the networks that a table has accuracies of.

    It is one that `accuracies_of` reads; rows that do not have both as whole numbers are passed
    over. A search counts the MACs of a batch.

    >>> text = "name,accuracy,params,macs\\na,0.5,12,30\\nb,0.5,1.2,3\\nc,,12,30"
    >>> list(counts_of(SourceText("trials.csv", text)))
    [Counts(name='a', params=12, macs=30)]
    """
    for _, name, value, counts in _rows(source):
        texts = [str(count) for count in counts]
        if value is not None and all(re.fullmatch(r"[0-9]{1,18}", text) for text in texts):
            yield Counts(name, *map(int, texts))


def _rows(source: SourceText) -> Iterator[Row]:
    is_json = source.text.lstrip()[:1] in ("{", "[")
    return _json_rows(source) if is_json else _csv_rows(source)


def _csv_rows(source: SourceText) -> Iterator[Row]:
    table = csv.reader(io.StringIO(source.text, newline=""), strict=True)
    try:
        head = [cell.strip().lower() for cell in next(table, [])]
        names = [n for n, cell in enumerate(head) if cell in _NAMES]
        if len(names) != 1 or head.count("accuracy") != 1:
            raise _unreadable(source, 1, "this is no table of accuracies")
        name, accuracy = names[0], head.index("accuracy")
        counts = [head.index(count) if count in head else None for count in Counts._fields[1:]]
        line = table.line_num + 1
        for cells in table:
            if cells and len(cells) != len(head):
                message = f"the line has {len(cells)} cells, and the first one has {len(head)}"
                raise _unreadable(source, line, message)
            if cells:
                counted = tuple(None if n is None else cells[n].strip() for n in counts)
                yield line, cells[name].strip(), cells[accuracy].strip() or None, counted
            line = table.line_num + 1
    except csv.Error as error:
        raise _unreadable(source, table.line_num, f"this is no table: {error}") from None


def _json_rows(source: SourceText) -> Iterator[Row]:
    whole = _json(source, source.text)
    if isinstance(whole, dict) and not any(key in whole for key in _NAMES):
        yield from ((1, name, value, (None, None)) for name, value in whole.items())
        return
    rows: list[tuple[int, Any]] = [(1, whole)]
    if isinstance(whole, list):
        rows = [(1, row) for row in whole]
    elif whole is None:
        lines = enumerate(source.text.split("\n"), 1)
        rows = [(number, _json(source, line, number)) for number, line in lines if line.strip()]
    for line, row in rows:
        key = next((key for key in _NAMES if isinstance(row, dict) and key in row), None)
        if key is None or "accuracy" not in row:
            raise _unreadable(source, line, "this is no table of accuracies")
        yield line, row[key], row["accuracy"], tuple(map(row.get, Counts._fields[1:]))


def _json(source: SourceText, text: str, line: int = 1) -> Any:
    """The value of a JSON text, a line of the source or all of it; None for what is none."""
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except KeyTwiceError as error:
        raise _unreadable(source, line, str(error)) from None
    except (ValueError, RecursionError):
        return None


def _number(value: Any) -> float | None:
    """A finite number, or the one that a text is; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _unreadable(source: SourceText, line: int, why: str) -> ArchError:
    """E1011 at a line."""
    starts = source.text.split("\n")
    start = sum(len(before) + 1 for before in starts[: line - 1])
    start = min(start, max(len(source.text) - 1, 0))
    help_ = "a table has the columns `name` and `accuracy`, in CSV or in objects of JSON"
    return ArchError([Diagnostic("E1011", why, source.span(start, start + 1), help_)])
