"""From characters to syntax trees.

Both grammars are LALR(1) and are fed token by token, so that an unexpected token is recorded and
skipped and the parse goes on: all errors of a text are found, and nesting costs no recursion.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice

from archdsl.lang.diagnostics import Diagnostic, quoted
from archdsl.lang.grammar import Unexpected, grammar
from archdsl.lang.recovery import STARTS, FileErrors
from archdsl.lang.source import SourceText
from archdsl.lang.spec import SECTIONS, STATEMENTS
from archdsl.lang.trees import Document, Item, Part, Word
from archdsl.limits import Raised, in_force, most
from archdsl.limits import hint as limit_of

# The words that the grammar only declares: the vocabulary stands in spec.py.
_RESERVED: Mapping[str, str] = {
    **dict.fromkeys(STATEMENTS, "KEYWORD"),
    **dict.fromkeys(SECTIONS, "SECTION"),
    "variant": "VARIANT",
}


def parse_file(source: SourceText) -> Document:
    """Parse a whole file; syntax errors are in the document's diagnostics."""
    most_tokens = most("tokens")
    if len(source.text) > most("text"):
        message = f"the text has {len(source.text):,} characters; the limit is {most('text'):,}"
        fault = Diagnostic("E0110", message, source.span(0, 1), limit_of("text"))
        return Document(source, (), (), [fault])
    if source.text.lstrip()[:2].rstrip() in {"{", '{"'} and '"' in source.text:
        at = source.text.index("{")
        message, hint = "this is JSON, not an `.arch` text", "`archdsl convert --to arch` reads it"
        fault = Diagnostic("E0102", message, source.span(at, at + 1), hint)
        return Document(source, (), (), [fault], unread=True)
    if len(source.text) > most_tokens:
        scan = grammar("arch.lark", "file").scan
        beyond = next(islice(scan(source.text), most_tokens, None), None)
        if beyond is not None:
            message = f"the text has more than {most_tokens:,} words, signs and spaces"
            span = source.span(*beyond.span())
            fault = Diagnostic("E0110", message, span, limit_of("tokens"))
            return Document(source, (), (), [fault])
    section = _SECTION.search(source.text)
    if section is not None and section.start() <= _LONG_HEAD:
        above = _above(source.text[: section.start()], in_force())
        if above is not None:
            below = _read(source, section.start())
            if not below.diagnostics:
                items, comments = above.items + below.items, above.comments + below.comments
                return Document(source, items, comments)
    return _read(source)


# What is longer is read, and not remembered. A remembered character takes 100 bytes at most.
_LONG_HEAD, _LONG_LINE = 1 << 12, 1 << 8
_SECTION = re.compile(rf"^[ \t]*(?:{'|'.join(SECTIONS)})\b", re.MULTILINE)


@lru_cache(maxsize=1 << 7)
def _above(text: str, _: Raised) -> Document | None:
    """What stands above the first section, which all networks of a search space have in common.

    None where that has errors. Items behind items are items, and no word goes beyond the end of a
    line: a text is what is above and what is below, where neither has an error.
    """
    read = _read(SourceText("", text))
    return None if read.diagnostics else read


def _words(text: str, start: int) -> list[Word]:
    """The words and signs of a text from the start of a line on.

    One that a `=` without a value follows is of the type `NO_VALUE`.
    """
    found: list[Word] = []
    for line in text[start:].split("\n"):
        words = _of_line(line) if len(line) <= _LONG_LINE else _of_line.__wrapped__(line)
        found += [Word(kind, word, start + at) for kind, word, at in words]
        start += len(line) + 1
    return found


@lru_cache(maxsize=1 << 12)
def _of_line(line: str) -> list[Word]:
    """The words and signs of a line. The networks of a search space are made of few lines."""
    found: list[Word] = []
    for match in grammar("arch.lark", "file").scan(line):
        kind, text = match.lastgroup or "", match[0]
        if kind == "WORD":
            kind = _RESERVED.get(text, kind)
            if line.startswith("=", match.end()):
                kind = "NO_VALUE"
        if kind != "SPACE":
            found.append(Word(kind, text, match.start()))
    return found


def _read(source: SourceText, start: int = 0) -> Document:
    """The document of a text from the start of a line on."""
    most_of_word = most("word")
    comments: list[Word] = []
    document_errors: list[Diagnostic] = []
    state = grammar("arch.lark", "file").start()
    feed = state.feed_token
    errors = FileErrors(source, document_errors, state)
    opened: Word | None = None
    last = Word("$END", "", 0)
    for token in _words(source.text, start):
        kind = token.type
        if kind == "COMMENT":
            comments.append(token)
            continue
        if kind in {"WORD", "NO_VALUE"} and len(token.text) > most_of_word:
            message = f"this word is longer than {most_of_word:,} characters"
            errors.add("E0110", token, message, limit_of("word"))
            continue
        if kind == "NO_VALUE":
            last = errors.no_value(token, last)
            continue
        try:
            feed(token)
        except Unexpected:
            if errors.full:
                break
            fed = errors.mend(token, last, opened)
            if fed is None:
                continue
            token = fed
            if token.type in STARTS:
                opened = None
        if token.type == "LBRACE":
            opened = token
        elif token.type == "RBRACE":
            opened = None
        last = token
    items: tuple[Item, ...] = ()
    if errors.full:
        errors.add("E0110", last, "too much in this text fits nowhere: its rest was not read")
    else:
        items = errors.end(last, opened)
    return Document(source, items, tuple(comments), document_errors)


def parse_block(text: str) -> tuple[list[Part], list[tuple[int, int, str]]]:
    """The parts of a block string, and its syntax errors as (start, end, sentence).

    >>> [part.key.text for part in parse_block("k5_se0.25_noskip")[0]]
    ['k', 'se', 'noskip']
    """
    language = grammar("block.lark", "block")
    state = language.start()
    errors: list[tuple[int, int, str]] = []
    skipping = False
    for match in language.scan(text):
        token = Word(match.lastgroup or "", match[0], match.start())
        try:
            state.feed_token(token)
            skipping = False
        except Unexpected:
            if not skipping:
                if token.text == "_":
                    sentence = (
                        "a field is missing between two `_`"
                        if token.start
                        else ("a block string does not start with `_`")
                    )
                else:
                    sentence = f"{quoted(token.text)} does not fit in a block string here"
                errors.append((token.start, token.end, sentence))
            skipping = True
    try:
        parts = state.feed_token(Word("$END", "", len(text)))
    except Unexpected:
        if not errors:
            errors.append((max(len(text) - 1, 0), len(text), "the block string ends too early"))
        parts = []
    return parts, errors
