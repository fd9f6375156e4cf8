"""A file in canonical form: same items in the same order, comments kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from archdsl.lang.decode import decode
from archdsl.lang.diagnostics import ArchError
from archdsl.lang.printer import INDENT, LINE, print_block
from archdsl.lang.source import SourceText
from archdsl.lang.spec import (
    ATTRIBUTES,
)
from archdsl.lang.syntax import parse_file
from archdsl.lang.trees import (
    Choice,
    Document,
    Item,
    OpenStatement,
    Section,
    Setting,
    Statement,
    Word,
)
from archdsl.lang.trees import Variant as VariantTree
from archdsl.lang.values import number

_SPACES = re.compile(r"[^\S\n]*")
_EMPTY_LINE = re.compile(r"\n[ \t\r]*\n")


def format_source(source: SourceText) -> str:
    """A file's text in canonical form: same items in the same order, comments kept.

    Raises:
        ArchError: the text has errors of syntax or in a block string.
    """
    document = parse_file(source)
    errors = [d for d in document.diagnostics if d.severity == "error"]
    if errors:
        raise ArchError(errors)
    return _Formatter(document).run()


@dataclass
class _Line:
    text: str
    comment: str = ""
    depth: int = 0
    opens: bool = False
    """Whether a body follows."""


class _Element(NamedTuple):
    """A piece of a braced body, and its canonical text."""

    start: int
    end: int
    text: str


class _Formatter:
    """Lays out a document; `comments` holds those not yet written, in order."""

    def __init__(self, document: Document) -> None:
        self.text = document.source.text
        self.items = document.items
        self.comments = list(reversed(document.comments))
        self.lines: list[_Line] = []

    def run(self) -> str:
        runs = self._key_widths()
        for number_, item in enumerate(self.items):
            self._leading(item.start, 0)
            self._gap(item.start)
            if type(item) is Section:
                self._body(_title(item), item, [_element(word) for word in item.blocks])
            elif type(item) is VariantTree:
                elements = [*_settings(item), *(_statement(s) for s in item.statements)]
                self._body(f"variant {item.name.text}", item, elements)
            elif isinstance(item, (Statement, OpenStatement)):
                # A comment inside a statement moves above it.
                for comment in self._take(item.end):
                    self.lines.append(_Line(comment))
                text = _statement(item, runs.get(number_, 0)).text
                self.lines.append(_Line(text, self._trailing(item.end)))
        self._leading(len(self.text), 0)
        return "\n".join(self._aligned()) + "\n" if self.lines else ""

    # -- layout

    def _body(self, title: str, item: Section | VariantTree, elements: list[_Element]) -> None:
        has_comment = self._comment_before(item.closed)
        line = " ".join([title, "{", *(e.text for e in elements), "}"])
        several = len(elements) > 1 and type(item) is Section
        # What was written on several lines stays so.
        whole = "\n" not in self.text[item.opened : item.closed]
        if whole and not has_comment and not several and len(line) <= LINE:
            self.lines.append(_Line(line, self._trailing(item.end)))
            return
        for comment in self._take(item.opened):
            self.lines.append(_Line(comment))
        self.lines.append(_Line(f"{title} {{", self._trailing(item.opened + 1), opens=True))
        if type(item) is VariantTree and not self._comment_before(item.closed):
            elements = list(_joined_settings(item, elements))
        for element in elements:
            self._leading(element.start, 1)
            self._gap(element.start)
            for comment in self._take(element.end):
                self.lines.append(_Line(comment, depth=1))
            self.lines.append(_Line(element.text, self._trailing(element.end), 1))
        self._leading(item.closed, 1)
        self.lines.append(_Line("}", self._trailing(item.end)))

    def _comment_before(self, end: int) -> bool:
        return bool(self.comments) and self.comments[-1].start < end

    def _take(self, before: int) -> Iterator[str]:
        while self._comment_before(before):
            yield self.comments.pop().text

    def _leading(self, start: int, depth: int) -> None:
        while self._comment_before(start):
            comment = self.comments.pop()
            self._gap(comment.start)
            self.lines.append(_Line(comment.text, depth=depth))

    def _trailing(self, end: int) -> str:
        """The comment that follows on the same line, if any."""
        if self.comments:
            comment = self.comments[-1]
            spaces = _SPACES.match(self.text, end)
            if spaces is not None and spaces.end() == comment.start:
                return self.comments.pop().text.rstrip()
        return ""

    def _gap(self, start: int) -> None:
        """An empty line where one stands right before this place, but not at the top of a body."""
        if not self.lines or self.lines[-1].opens:
            return
        end = start
        while end and self.text[end - 1].isspace():
            end -= 1
        if self.text.count("\n", end, start) > 1:
            self.lines.append(_Line(""))

    def _parted(self, item: Item, following: Item | None) -> bool:
        """Whether an empty line stands between two items, be it before or behind a comment."""
        end = len(self.text) if following is None else following.start
        return _EMPTY_LINE.search(self.text, item.end, end) is not None

    def _key_widths(self) -> dict[int, int]:
        """For each attribute statement the width its keyword is padded to in its run."""
        widths: dict[int, int] = {}
        run: list[int] = []
        for index, item in enumerate([*self.items, None]):
            is_attribute = (
                isinstance(item, (Statement, OpenStatement)) and item.keyword.text in ATTRIBUTES
            )
            if run and (not is_attribute or self._parted(self.items[run[-1]], item)):
                longest = max(len(_keyword(self.items[i])) for i in run)
                widths.update(dict.fromkeys(run, longest + 2))
                run = []
            if is_attribute:
                run.append(index)
        return widths

    def _aligned(self) -> Iterator[str]:
        """The lines, with the trailing comments of a paragraph in one column.

        A paragraph ends at an empty line, a brace and a comment with a line of its own.
        """

        def parting(line: _Line) -> bool:
            return line.text.endswith(("{", "}")) or line.text.startswith("#") or not line.text

        for parted, paragraph in groupby(self.lines, parting):
            if parted:
                for line in paragraph:
                    yield f"{INDENT * line.depth}{line.text}  {line.comment}".rstrip()
                continue
            lines = list(paragraph)
            texts = [INDENT * line.depth + line.text for line in lines]
            pairs = list(zip(texts, lines, strict=True))
            column = max((len(text) for text, line in pairs if line.comment), default=0)
            for text, line in pairs:
                yield f"{text:<{column}}  {line.comment}" if line.comment else text.rstrip()


def _keyword(item: Item) -> str:
    assert isinstance(item, (Statement, OpenStatement))
    return item.keyword.text


def _title(section: Section) -> str:
    return section.kind.text if section.name is None else f"{section.kind.text} {section.name.text}"


def _element(word: Word | Choice) -> _Element:
    if type(word) is Choice:
        text = _alternatives(_canonical(inner) for inner in word.blocks)
        return _Element(word.start, word.end, text)
    assert type(word) is Word
    return _Element(word.start, word.end, _canonical(word))


def _alternatives(texts: Iterable[str]) -> str:
    return f"( {' | '.join(texts)} )"


def _canonical(word: Word) -> str:
    block = decode(word.text).block
    # A faulty block, or one with choices, is left as it is written.
    return word.text if block is None else print_block(block)


def _grouped(word: Word) -> str:
    """A count with its thousands grouped."""
    value = number(word.text)
    return f"{value:_}" if word.type == "WORD" and isinstance(value, int) else word.text


def _setting(setting: Setting, keyword: str = "") -> str:
    # Other numbers are kept to the digit: the precision of a printed figure is its meaning.
    value = _grouped(setting.value) if keyword == "expect" else setting.value.text
    return f"{setting.name}={value}"


def _statement(statement: Statement | OpenStatement, width: int = 0) -> _Element:
    keyword = statement.keyword.text
    if isinstance(statement, OpenStatement):
        parts = [_alternatives(word.text for word in statement.value.blocks)]
    else:
        parts = [] if statement.value is None else [statement.value.text]
        parts += [_setting(setting, keyword) for setting in statement.settings]
    text = f"{keyword:<{width}}" if width else f"{keyword} "
    return _Element(statement.start, statement.end, text + " ".join(parts))


def _settings(variant: VariantTree) -> list[_Element]:
    return [_Element(s.start, s.end, _setting(s)) for s in variant.settings]


def _joined_settings(variant: VariantTree, elements: list[_Element]) -> Iterator[_Element]:
    """A variant's settings on one line, its statements below."""
    count = len(variant.settings)
    if count:
        first, last = elements[0], elements[count - 1]
        yield _Element(first.start, last.end, " ".join(e.text for e in elements[:count]))
    yield from elements[count:]
