"""From characters to syntax trees: the lark grammars, and what is done after an error.

Both grammars are LALR(1) and are fed token by token, so that an unexpected token is recorded and
skipped and the parse goes on: all errors of a text are found, and nesting costs no recursion.
The tokens are found by one regular expression made of the grammar's own terminals.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, Protocol, cast

from lark import Lark, Token, Transformer, UnexpectedToken
from lark.lexer import Lexer

from archdsl.lang.diagnostics import Diagnostic, did_you_mean, quoted
from archdsl.lang.source import SourceText
from archdsl.lang.spec import SECTIONS, STATEMENTS
from archdsl.limits import MAX_TEXT, MAX_WORD

# After this many errors a text is not an architecture with slips in it but something else.
_MAX_ERRORS = 100


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


def _setting(token: Word) -> Setting:
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
    """`( block | block )`: a search space's alternatives."""

    start: int
    blocks: tuple[Word, ...]
    end: int


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


Item = Statement | Section | Variant


@dataclass(frozen=True)
class Document:
    """A parsed file: its items in order, its comments, and the errors found on the way."""

    source: SourceText
    items: tuple[Item, ...]
    comments: tuple[Word, ...] = ()
    diagnostics: list[Diagnostic] = field(default_factory=list)


class Part(NamedTuple):
    """One field of a block string; `values` is None for a flag, longer than 1 for a set."""

    key: Word
    values: tuple[str, ...] | None


class _Trees(Transformer[Any, Any]):
    """Builds the syntax trees during the parse (lark calls a method per rule)."""

    def file(self, children: list[Any]) -> tuple[Item, ...]:
        return tuple(children[0])

    def statement(self, children: list[Any]) -> Statement:
        value = children[1] if len(children) == 3 else None
        return Statement(children[0], value, tuple(children[-1]))

    def section(self, children: list[Any]) -> Section:
        name = children[1] if len(children) == 5 else None
        kind, (brace, blocks, closing) = children[0], children[-3:]
        return Section(kind, name, tuple(blocks), brace.start, closing.start)

    def variant(self, children: list[Any]) -> Variant:
        keyword, name, brace, settings, statements, closing = children
        return Variant(
            keyword, name, tuple(settings), tuple(statements), brace.start, closing.start
        )

    def choice(self, children: list[Any]) -> Choice:
        opening, first, _, second, others, closing = children
        return Choice(opening.start, (first, second, *others), closing.end)

    # Lists grow in place: each rule is `list: | list element`.

    def items(self, children: list[Any]) -> list[Any]:
        if not children:
            return []
        grown: list[Any] = children[0]
        grown.append(children[-1])
        return grown

    statements = body = more = items

    def settings(self, children: list[Any]) -> list[Setting]:
        if not children:
            return []
        grown: list[Setting] = children[0]
        grown.append(_setting(children[1]))
        return grown

    def block(self, children: list[Any]) -> list[Part]:
        return [child for child in children if type(child) is Part]

    def part(self, children: list[Any]) -> Part:
        return Part(children[0], children[1] if len(children) > 1 else None)

    def value(self, children: list[Word]) -> tuple[str, ...]:
        return ("".join(child.text for child in children),)

    def set(self, children: list[Any]) -> tuple[str, ...]:
        # A set of one value is still a choice.
        values = tuple(child[0] for child in children if type(child) is tuple)
        return values if len(values) > 1 else values * 2


class _NoLexer(Lexer):
    """Tokens are found by `_Grammar.scan` and fed one by one: lark need not make a lexer."""

    __future_interface__ = 2

    def __init__(self, _conf: object) -> None:
        pass

    def lex(self, _lexer_state: object, _parser_state: object) -> Iterator[Token]:
        return iter(())


class _Feed(Protocol):
    """lark's interactive parser, which takes our small tokens as well as its own."""

    def feed_token(self, token: Word) -> Any: ...

    def accepts(self) -> set[str]: ...


class _Grammar(NamedTuple):
    start: Callable[[], _Feed]
    scan: Callable[[str], Iterator[re.Match[str]]]


@cache
def _grammar(name: str, start: str) -> _Grammar:
    data = pkgutil.get_data("archdsl.grammars", name)
    assert data is not None, "the loader of archdsl.grammars gives no data"
    parser = Lark(
        data.decode("utf-8"),
        start=start,
        parser="lalr",
        lexer=_NoLexer,
        keep_all_tokens=True,
        transformer=_Trees(visit_tokens=False),
    )
    terminals = [t for t in parser.terminals if t.pattern is not None]
    terminals.sort(key=lambda t: (-t.priority, -len(t.pattern.value)))
    groups = [f"(?P<{t.name}>{t.pattern.to_regexp()})" for t in terminals]
    scan = re.compile("|".join([*groups, r"(?P<UNEXPECTED>.)"]), re.DOTALL).finditer
    return _Grammar(cast(Callable[[], _Feed], parser.parse_interactive), scan)


def parse_file(source: SourceText) -> Document:
    """Parse a whole file; syntax errors are in the document's diagnostics."""
    if len(source.text) > MAX_TEXT:
        message = f"the text has {len(source.text):,} characters; the limit is {MAX_TEXT:,}"
        return Document(source, (), (), [Diagnostic("E0110", message, source.span(0, 1))])
    grammar = _grammar("arch.lark", "file")
    comments: list[Word] = []
    document_errors: list[Diagnostic] = []
    errors = _FileErrors(source, document_errors)
    state = grammar.start()
    opened: Word | None = None
    last = Word("$END", "", 0)
    skipping_after: Word | None = None
    for match in grammar.scan(source.text):
        kind = match.lastgroup
        if kind == "SPACE":
            continue
        text = match[0]
        token = Word(kind or "", text, match.start())
        if kind == "WORD":
            kind = _RESERVED.get(text)
            if kind is not None:
                token = Word(kind, text, token.start)
            elif len(text) > MAX_WORD:
                errors.add("E0110", token, f"this word is longer than {MAX_WORD:,} characters")
                continue
        elif kind == "COMMENT":
            comments.append(token)
            continue
        try:
            state.feed_token(token)
        except UnexpectedToken:
            if errors.full:
                break
            if opened is not None and token.type in {"SECTION", "VARIANT", "KEYWORD"}:
                # A section starts inside an open one: its brace was forgotten; close it.
                try:
                    state.feed_token(Word("RBRACE", "}", token.start))
                    state.feed_token(token)
                    errors.never_closed(opened)
                    opened, last = None, token
                    continue
                except UnexpectedToken:
                    pass
            # The tokens after a bad one are skipped in silence until one fits again.
            if skipping_after != last:
                skipping_after = last
                errors.unexpected(token, state.accepts())
            continue
        if token.type == "LBRACE":
            opened = token
        elif token.type == "RBRACE":
            opened = None
        last = token
    items: tuple[Item, ...] = ()
    if not errors.full:
        try:
            items = state.feed_token(Word("$END", "", last.end))
        except UnexpectedToken:
            if opened is not None:
                errors.never_closed(opened)
            else:
                errors.ends_early(last, state.accepts())
    return Document(source, items or (), tuple(comments), document_errors)


# The words that the grammar only declares: the vocabulary stands in spec.py.
_RESERVED: Mapping[str, str] = {
    **dict.fromkeys(STATEMENTS, "KEYWORD"),
    **dict.fromkeys(SECTIONS, "SECTION"),
    "variant": "VARIANT",
}


class _FileErrors:
    """Turns unexpected tokens into diagnostics; one for each run of skipped tokens."""

    def __init__(self, source: SourceText, into: list[Diagnostic]) -> None:
        self.source = source
        self.into = into

    @property
    def full(self) -> bool:
        return len(self.into) >= _MAX_ERRORS

    def add(self, code: str, at: Word, message: str, help: str | None = None) -> None:
        span = self.source.span(at.start, at.end)
        self.into.append(Diagnostic(code, message, span, help))

    def never_closed(self, brace: Word) -> None:
        self.add("E0103", brace, "this brace is never closed", "add a `}` after the last block")

    def ends_early(self, last: Word, accepts: set[str]) -> None:
        self.add("E0103", last, f"the text ends where {_expected(accepts)} should follow")

    def unexpected(self, token: Word, accepts: set[str]) -> None:
        shown = quoted(token.text)
        if token.text == '"':
            self.add("E0105", token, "this text has no closing quote on its line")
        elif token.text == "=":
            self.add("E0405", token, "a value is missing after `=`")
        elif token.type == "UNEXPECTED":
            self.add("E0101", token, f"{shown} has no meaning here")
        elif token.type in {"WORD", "SETTING"} and "KEYWORD" in accepts:
            name = token.text.partition("=")[0].rstrip()
            known = [*STATEMENTS, *SECTIONS, "variant"]
            guess = did_you_mean(name, known)
            if name in {"skip", "pool", "fc"} or "_" in name:
                hint: str | None = "blocks stand inside `stem { }`, `stage NAME { }` or `head { }`"
            else:
                hint = f"did you mean `{guess}`?" if guess else f"known: {', '.join(known)}"
            self.add("E0104", token, f"unknown statement {quoted(name)}", hint)
        elif token.type in {"KEYWORD", "SECTION", "VARIANT"}:
            message = f"{shown} is a word of the language; {_expected(accepts)} should stand here"
            self.add("E0102", token, message)
        else:
            self.add("E0102", token, f"unexpected {shown}; {_expected(accepts)} should stand here")


_TERMINAL_NAMES = {
    "WORD": "a word",
    "STRING": "a text in quotes",
    "SETTING": "`key=value`",
    "KEYWORD": "a statement",
    "SECTION": "a section",
    "VARIANT": "a variant",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "VBAR": "`|`",
    "$END": "the end",
}


def _expected(accepts: set[str]) -> str:
    names = [name for terminal, name in _TERMINAL_NAMES.items() if terminal in accepts]
    return " or ".join(names) or "nothing"


def parse_block(text: str) -> tuple[list[Part], list[tuple[int, int, str]]]:
    """The parts of a block string, and its syntax errors as (start, end, sentence).

    >>> [part.key.text for part in parse_block("k5_se0.25_noskip")[0]]
    ['k', 'se', 'noskip']
    """
    grammar = _grammar("block.lark", "block")
    state = grammar.start()
    errors: list[tuple[int, int, str]] = []
    skipping = False
    for match in grammar.scan(text):
        token = Word(match.lastgroup or "", match[0], match.start())
        try:
            state.feed_token(token)
            skipping = False
        except UnexpectedToken:
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
    except UnexpectedToken:
        if not errors:
            errors.append((max(len(text) - 1, 0), len(text), "the block string ends too early"))
        parts = []
    return parts, errors
