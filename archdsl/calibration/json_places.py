"""Where a value of a JSON text stands: json tells the values alone.

The text is one that `json` has read, so nothing is checked here.
"""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]

Path = tuple[str | int, ...]
"""The keys and the places in arrays that lead to a value."""

_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def place(text: str, path: Path) -> tuple[int, int]:
    """The offsets of a value; of one that is not there, those of the sign that opens what lacks it.

    >>> text = '{"networks": [{"us": 3.5}]}'
    >>> start, end = place(text, ("networks", 0, "us"))
    >>> text[start:end], place(text, ("networks", 0, "name"))
    ('3.5', (14, 15))
    """
    start = _blank(text, 0)
    for key in path:
        inner = _member(text, start, key)
        if inner is None:
            return start, start + 1
        start = inner
    return start, _end(text, start)


def _blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    assert found is not None
    return found.end()


def _end(text: str, at: int) -> int:
    """Where the value that begins here is over."""
    return _DECODER.raw_decode(text, at)[1]


def _member(text: str, at: int, wanted: str | int) -> int | None:
    """Where the member of an object or an array begins; of a repeated key the last one counts."""
    if text[at] != ("{" if isinstance(wanted, str) else "["):
        return None
    found, index = None, 0
    at = _blank(text, at + 1)
    while text[at] not in "]}":
        key: str | int = index
        if isinstance(wanted, str):
            key, at = scanstring(text, at + 1, True)
            at = _blank(text, _blank(text, at) + 1)
        if key == wanted:
            found = at
            if isinstance(wanted, int):
                break
        index += 1
        at = _blank(text, _end(text, at))
        if text[at] == ",":
            at = _blank(text, at + 1)
    return found
