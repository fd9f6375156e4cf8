"""From characters to syntax trees.

Both grammars are LALR(1) and are fed token by token, so that an unexpected token is recorded and
skipped and the parse goes on: all errors of a text are found, and nesting costs no recursion.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from archdsl.lang.diagnostics import Diagnostic, quoted
from archdsl.lang.grammar import Unexpected, grammar
from archdsl.lang.recovery import STARTS, FileErrors
from archdsl.lang.source import SourceText
from archdsl.lang.spec import SECTIONS, STATEMENTS
from archdsl.lang.trees import Document, Item, Part, Word
from archdsl.limits import hint as limit_of
from archdsl.limits import most

# The words that the grammar only declares: the vocabulary stands in spec.py.
_RESERVED: Mapping[str, str] = {
    **dict.fromkeys(STATEMENTS, "KEYWORD"),
    **dict.fromkeys(SECTIONS, "SECTION"),
    "variant": "VARIANT",
}


def parse_file(source: SourceText) -> Document:
    """Parse a whole file; syntax errors are in the document's diagnostics."""
    most_tokens, most_of_word = most("tokens"), most("word")
    if len(source.text) > most("text"):
        message = f"the text has {len(source.text):,} characters; the limit is {most('text'):,}"
        fault = Diagnostic("E0110", message, source.span(0, 1), limit_of("text"))
        return Document(source, (), (), [fault])
    if source.text.lstrip()[:2].rstrip() in {"{", '{"'} and '"' in source.text:
        at = source.text.index("{")
        message, hint = "this is JSON, not an `.arch` text", "`archdsl convert --to arch` reads it"
        fault = Diagnostic("E0102", message, source.span(at, at + 1), hint)
        return Document(source, (), (), [fault], unread=True)
    language = grammar("arch.lark", "file")
    if len(source.text) > most_tokens:
        beyond = next(islice(language.scan(source.text), most_tokens, None), None)
        if beyond is not None:
            message = f"the text has more than {most_tokens:,} words, signs and spaces"
            span = source.span(*beyond.span())
            fault = Diagnostic("E0110", message, span, limit_of("tokens"))
            return Document(source, (), (), [fault])
    comments: list[Word] = []
    document_errors: list[Diagnostic] = []
    state = language.start()
    errors = FileErrors(source, document_errors, state)
    opened: Word | None = None
    last = Word("$END", "", 0)
    for match in language.scan(source.text):
        kind = match.lastgroup
        if kind == "SPACE":
            continue
        text = match[0]
        token = Word(kind or "", text, match.start())
        if kind == "WORD":
            kind = _RESERVED.get(text)
            if kind is not None:
                token = Word(kind, text, token.start)
            elif len(text) > most_of_word:
                message = f"this word is longer than {most_of_word:,} characters"
                errors.add("E0110", token, message, limit_of("word"))
                continue
            if source.text.startswith("=", match.end()):
                last = errors.no_value(token, last)
                continue
        elif kind == "COMMENT":
            comments.append(token)
            continue
        try:
            state.feed_token(token)
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
