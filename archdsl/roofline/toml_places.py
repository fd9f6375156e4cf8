"""Where each key and value of a TOML text stands: tomllib tells the values alone.

The text is one that tomllib has read, so nothing is checked here.
"""

from __future__ import annotations

import re
import tomllib
from typing import NamedTuple

Path = tuple[str | int, ...]
"""The keys that lead to a value; a number is a place in an array."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*([A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')[ \t]*(\.?)""")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""+|'
    r"'''(?:.|\n)*?'''+|"
    r'"(?:[^"\\\n]|\\.)*"|'
    r"'[^'\n]*'",
    re.S,
)
_OTHER = re.compile(r"[^,\]}#\n]*")


class Place(NamedTuple):
    """Offsets: of a key (or a table's header), and of its value."""

    key: tuple[int, int]
    value: tuple[int, int]


def places(text: str) -> dict[Path, Place]:
    """The place of every table, key and array item of a TOML text.

    >>> found = places('[[profile]]\\nsource.peak = "data sheet"\\n')
    >>> start, end = found["profile", 0, "source", "peak"].value
    >>> (start, end), sorted(found, key=str)[0]
    ((26, 38), ('profile', 0))
    """
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.found: dict[Path, Place] = {}
        self.counts: dict[Path, int] = {}

    def scan(self) -> dict[Path, Place]:
        table: Path = ()
        position = self._blank(0)
        while position < len(self.text):
            if self.text[position] == "[":
                table, position = self._header(position)
            else:
                position = self._pair(position, table)
            position = self._blank(position)
        return self.found

    def _blank(self, position: int) -> int:
        found = _BLANK.match(self.text, position)
        assert found is not None
        return found.end()

    def _keys(self, position: int) -> tuple[list[str], tuple[int, int], int]:
        """The parts of a dotted key, the offsets of all of it, and where it is over."""
        keys, start, end = [], -1, position
        more = True
        while more:
            found = _KEY.match(self.text, position)
            assert found is not None
            word = found[1]
            keys.append(next(iter(tomllib.loads(f"{word} = 0"))) if word[0] in "\"'" else word)
            start = found.start(1) if start < 0 else start
            end, position = found.end(1), found.end()
            more = bool(found[2])
        return keys, (start, end), position

    def _header(self, position: int) -> tuple[Path, int]:
        double = self.text.startswith("[[", position)
        keys, span, position = self._keys(position + 1 + double)
        path: Path = ()
        for number, key in enumerate(keys, 1):
            path = (*path, key)
            if double and number == len(keys):
                self.counts[path] = self.counts.get(path, 0) + 1
            if path in self.counts:
                path = (*path, self.counts[path] - 1)
        self.found[path] = Place(span, span)
        return path, position + 1 + double

    def _pair(self, position: int, table: Path) -> int:
        keys, span, position = self._keys(position)
        for number in range(1, len(keys)):
            self.found.setdefault((*table, *keys[:number]), Place(span, span))
        path = (*table, *keys)
        start = self._blank(position + 1)
        end = self._value(start, path)
        self.found[path] = Place(span, (start, end))
        return end

    def _value(self, position: int, path: Path) -> int:
        """Where the value that begins here is over; what it holds is noted."""
        opening = self.text[position]
        if opening in "\"'":
            found = _STRING.match(self.text, position)
            assert found is not None
            return found.end()
        if opening not in "[{":
            found = _OTHER.match(self.text, position)
            assert found is not None
            return position + len(found[0].rstrip())
        index = 0
        position = self._blank(position + 1)
        while self.text[position] not in "]}":
            if opening == "{":
                position = self._pair(position, path)
            else:
                start = position
                position = self._value(position, (*path, index))
                self.found[*path, index] = Place((start, position), (start, position))
                index += 1
            position = self._blank(position)
            if self.text[position] == ",":
                position = self._blank(position + 1)
        return position + 1
