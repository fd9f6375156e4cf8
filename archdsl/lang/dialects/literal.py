"""Values of JSON or Python literals, each with its place in the text; nothing is evaluated.

Configurations of other libraries stand in JSON files or in Python code. Both are read by one small
grammar: objects, arrays, strings, numbers, `true` and `null`; in Python also tuples, comments,
single quotes, trailing commas, the words `True`, `False`, `None`, and a name before the value, as
in `arch_def = [...]`.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from archdsl.lang.diagnostics import ArchError, Diagnostic, quoted
from archdsl.lang.source import SourceText, Span
from archdsl.limits import MAX_NESTING, most
from archdsl.limits import hint as limit_of

Scalar = None | bool | int | float | str


@dataclass(frozen=True, slots=True)
class Value:
    """A value and its place: a scalar, a tuple of values, or the members of an object in order."""

    span: Span
    data: Scalar | tuple[Value, ...] | Members

    @property
    def text(self) -> Span:
        """The inside of a string as it stands, or the whole of it where it has escapes."""
        inside = self.span.part(1, self.span.end - self.span.start - 1)
        return inside if inside.text == self.data else self.span


@dataclass(frozen=True, slots=True)
class Members:
    """The members of an object, as written: a key may stand twice."""

    pairs: tuple[tuple[Value, Value], ...]


_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)|(?P<comment>#[^\n]*)|(?P<sign>[\[\](){},:=])"
    r"|(?P<number>[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![A-Za-z_0-9.]))"
    r"|(?P<string>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')"
    r"|(?P<word>[A-Za-z_][A-Za-z_0-9]*(?![\"']))"
)
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_JSON_WORDS = {"true": True, "false": False, "null": None}
_PYTHON_WORDS = {"True": True, "False": False, "None": None}
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_DIGITS = 40


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


def read_literal(source: SourceText, *, python: bool = False) -> Value:
    """The value that a text writes in JSON, or with `python` in Python's literals or JSON.

    Raises:
        ArchError: E0601 (E0603 with `python`) where the text is no such value, E0110 where it is
            beyond a limit.
    """
    if len(source.text) > most("text"):
        message = f"the text has {len(source.text):,} characters; the limit is {most('text'):,}"
        raise ArchError([Diagnostic("E0110", message, source.span(0, 1), limit_of("text"))])
    return _Reader(source, python).whole()


class _Reader:
    def __init__(self, source: SourceText, python: bool) -> None:
        self.source, self.python = source, python
        self.tokens = self.split()
        self.token = next(self.tokens)
        self.depth = 0

    def fail(self, says: str, token: _Token) -> ArchError:
        start = min(token.start, max(len(self.source.text) - 1, 0))
        span = self.source.span(start, max(start + 1, token.start + len(token.text)))
        code, what = ("E0603", "a Python literal or JSON") if self.python else ("E0601", "JSON")
        return ArchError([Diagnostic(code, f"this is not {what}: {says}", span)])

    def split(self) -> Iterator[_Token]:
        text, at, count = self.source.text, 0, 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                found = _Token("sign", text[at], at)
                unclosed = found.text in "\"'"
                raise self.fail("a string without its end" if unclosed else "a stray sign", found)
            kind, at = str(match.lastgroup), match.end()
            if kind == "comment" and not self.python:
                raise self.fail("it has no comments", _Token(kind, match[0], match.start()))
            if kind in ("space", "comment"):
                continue
            count += 1
            if count > most("tokens"):
                message = f"the text has more than {most('tokens'):,} words and signs"
                span = self.source.span(match.start(), at)
                raise ArchError([Diagnostic("E0110", message, span, limit_of("tokens"))])
            yield _Token(kind, match[0], match.start())
        yield _Token("end", "", len(text))

    def step(self) -> _Token:
        token, self.token = self.token, next(self.tokens, self.token)
        return token

    def whole(self) -> Value:
        first = self.step()
        if self.python and first.kind == "word" and self.token.text == "=":
            self.step()
            first = self.step()
        value = self.value(first)
        if self.token.kind != "end":
            raise self.fail("something follows its end", self.token)
        return value

    def value(self, token: _Token | None = None) -> Value:
        """The value that begins with the token, by default the next one."""
        token = token or self.step()
        if token.kind == "end":
            raise self.fail("a value is missing", token)
        span = self.source.span(token.start, token.start + len(token.text))
        if token.kind == "number":
            return Value(span, self.number(token))
        if token.kind == "string":
            return Value(span, self.string(token))
        if token.kind == "word":
            words = {**_JSON_WORDS, **_PYTHON_WORDS} if self.python else _JSON_WORDS
            if token.text not in words:
                raise self.fail(f"{quoted(token.text)} is not a value", token)
            return Value(span, words[token.text])
        if token.text == "{" or token.text == "[" or (token.text == "(" and self.python):
            return self.several(token)
        raise self.fail(f"{quoted(token.text)} stands where a value is wanted", token)

    def several(self, opening: _Token) -> Value:
        """An object, an array or a tuple, whose first sign has been read."""
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise self.fail("too deeply nested", opening)
        closing = _CLOSING[opening.text]
        items: list[Value] = []
        pairs: list[tuple[Value, Value]] = []
        comma = False
        while self.token.text != closing:
            if opening.text == "{":
                pairs.append(self.pair())
            else:
                items.append(self.value())
            comma = self.token.text == ","
            if not comma and self.token.text != closing:
                raise self.fail(f"a comma or `{closing}` is missing", self.token)
            if comma:
                sign = self.step()
                if self.token.text == closing and not self.python:
                    raise self.fail("a comma stands before the end", sign)
        end = self.step()
        self.depth -= 1
        span = self.source.span(opening.start, end.start + 1)
        if opening.text == "{":
            return Value(span, Members(tuple(pairs)))
        if opening.text == "(" and len(items) == 1 and not comma:
            return Value(items[0].span, items[0].data)  # parentheses around a value
        return Value(span, tuple(items))

    def pair(self) -> tuple[Value, Value]:
        if self.token.kind != "string":
            raise self.fail("a key in quotes is missing", self.token)
        key = self.value()
        if self.token.text != ":":
            raise self.fail("a colon is missing behind the key", self.token)
        self.step()
        return key, self.value()

    def number(self, token: _Token) -> int | float:
        if not self.python and not _JSON_NUMBER.fullmatch(token.text):
            raise self.fail(f"{quoted(token.text)} is not a number of JSON", token)
        if len(token.text) > _DIGITS:
            raise self.fail("a number of too many digits", token)
        if token.text.lstrip("+-").isdigit():
            return int(token.text)
        value = float(token.text)
        if value in (float("inf"), float("-inf")):
            raise self.fail("a number beyond all limits", token)
        return value

    def string(self, token: _Token) -> str:
        if not self.python and token.text[0] == "'":
            raise self.fail("its strings stand in double quotes", token)
        try:
            # One string alone: no structure is left to evaluate. Python warns of `\.` and the
            # like, of a text that is none of the user's own source.
            with warnings.catch_warnings(action="ignore"):
                value = (ast.literal_eval if self.python else json.loads)(token.text)
        except (ValueError, SyntaxError):
            raise self.fail("a string with a faulty escape", token) from None
        return str(value)
