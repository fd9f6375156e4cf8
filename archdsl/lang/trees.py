"""Syntax trees: what a text says, with the place of every word."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from archdsl.lang.diagnostics import Diagnostic
from archdsl.lang.source import SourceText


class Word(NamedTuple):
    """A token: its terminal, its text and where it starts in the source."""

    type: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


class Setting(NamedTuple):
    """`key=value`."""

    key: Word
    value: Word

    @property
    def name(self) -> str:
        return self.key.text

    @property
    def start(self) -> int:
        return self.key.start

    @property
    def end(self) -> int:
        return self.value.end


def setting_of(token: Word) -> Setting:
    """The key and the value of a SETTING token."""
    name, _, value = token.text.partition("=")
    text = value.lstrip()
    kind = "STRING" if text.startswith('"') else "WORD"
    at = token.start + len(token.text) - len(text)
    return Setting(Word("KEY", name.rstrip(), token.start), Word(kind, text, at))


class Statement(NamedTuple):
    """`keyword value key=value ...`."""

    keyword: Word
    value: Word | None
    settings: tuple[Setting, ...]

    @property
    def start(self) -> int:
        return self.keyword.start

    @property
    def end(self) -> int:
        last = self.settings[-1].value if self.settings else self.value or self.keyword
        return last.end


class Choice(NamedTuple):
    """`( block | block )`: a search space's alternatives, of a block or of a statement's value."""

    start: int
    blocks: tuple[Word, ...]
    end: int


class OpenStatement(NamedTuple):
    """`keyword ( value | value )`: a statement that a search space leaves open."""

    keyword: Word
    value: Choice

    @property
    def start(self) -> int:
        return self.keyword.start

    @property
    def end(self) -> int:
        return self.value.end


class Section(NamedTuple):
    """`stem { ... }`, `stage c2 { ... }`, `head { ... }`."""

    kind: Word
    name: Word | None
    blocks: tuple[Word | Choice, ...]
    opened: int
    closed: int

    @property
    def start(self) -> int:
        return self.kind.start

    @property
    def end(self) -> int:
        return self.closed + 1


class Variant(NamedTuple):
    """`variant NAME { key=value ... statement ... }`."""

    keyword: Word
    name: Word
    settings: tuple[Setting, ...]
    statements: tuple[Statement, ...]
    opened: int
    closed: int

    @property
    def start(self) -> int:
        return self.keyword.start

    @property
    def end(self) -> int:
        return self.closed + 1


Item = Statement | OpenStatement | Section | Variant


@dataclass(frozen=True)
class Document:
    """A parsed file: its items in order, its comments, and the errors found on the way."""

    source: SourceText
    items: tuple[Item, ...]
    comments: tuple[Word, ...] = ()
    diagnostics: list[Diagnostic] = field(default_factory=list)
    unread: bool = False
    """Whether the text is of another language, so that nothing is missing in it."""


class Part(NamedTuple):
    """One field of a block string; `values` is None for a flag, longer than 1 for a set."""

    key: Word
    values: tuple[str, ...] | None
