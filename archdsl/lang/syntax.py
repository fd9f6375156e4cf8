"""From characters to syntax trees: the lark grammars, and what is done after an error.

Both grammars are LALR(1) and are fed token by token, so that an unexpected token is recorded and
skipped and the parse goes on: all errors of a text are found, and nesting costs no recursion.
The tokens are found by one regular expression made of the grammar's own terminals.
"""

from __future__ import annotations

import pkgutil
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Any, NamedTuple, Protocol, cast

from lark import Lark, Token, Transformer, UnexpectedToken
from lark.lexer import Lexer

from archdsl.lang.diagnostics import Diagnostic, did_you_mean, listed, quoted
from archdsl.lang.source import SourceText
from archdsl.lang.spec import SECTIONS, STATEMENTS, VARIANT_SETTINGS
from archdsl.limits import MAX_ERRORS, MAX_SKIPPED, MAX_TEXT, MAX_TOKENS, MAX_WORD


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
    # A quote that is not closed takes the rest of its line.
    groups.append(r'(?P<UNEXPECTED>"[^\n]*|.)')
    scan = re.compile("|".join(groups), re.DOTALL).finditer
    return _Grammar(cast(Callable[[], _Feed], parser.parse_interactive), scan)


def parse_file(source: SourceText) -> Document:
    """Parse a whole file; syntax errors are in the document's diagnostics."""
    if len(source.text) > MAX_TEXT:
        message = f"the text has {len(source.text):,} characters; the limit is {MAX_TEXT:,}"
        return Document(source, (), (), [Diagnostic("E0110", message, source.span(0, 1))])
    grammar = _grammar("arch.lark", "file")
    if len(source.text) > MAX_TOKENS:
        beyond = next(islice(grammar.scan(source.text), MAX_TOKENS, None), None)
        if beyond is not None:
            message = f"the text has more than {MAX_TOKENS:,} words, signs and spaces"
            span = source.span(*beyond.span())
            return Document(source, (), (), [Diagnostic("E0110", message, span)])
    comments: list[Word] = []
    document_errors: list[Diagnostic] = []
    state = grammar.start()
    errors = _FileErrors(source, document_errors, state)
    opened: Word | None = None
    last = Word("$END", "", 0)
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
            if source.text.startswith("=", match.end()):
                last = errors.no_value(token, last)
                continue
        elif kind == "COMMENT":
            comments.append(token)
            continue
        try:
            state.feed_token(token)
        except UnexpectedToken:
            if errors.full:
                break
            fed = errors.mend(token, last, opened)
            if fed is None:
                continue
            token = fed
            if token.type in _STARTS:
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


# The words that the grammar only declares: the vocabulary stands in spec.py.
_RESERVED: Mapping[str, str] = {
    **dict.fromkeys(STATEMENTS, "KEYWORD"),
    **dict.fromkeys(SECTIONS, "SECTION"),
    "variant": "VARIANT",
}


# The tokens that begin an item.
_STARTS = frozenset({"KEYWORD", "SECTION", "VARIANT"})

# What stands between an unknown word and its blocks: `body {`, `body NAME {`.
_OPENS_SECTION = re.compile(r"[ \t]*[^\s{}()|=\"#]{0,80}\s*\{")


class _FileErrors:
    """Turns unexpected tokens into diagnostics, and brings the parser back on its way."""

    def __init__(self, source: SourceText, into: list[Diagnostic], state: _Feed) -> None:
        self.source = source
        self.into = into
        self.state = state
        self.stuck_after: Word | None = None
        """The last good token, where what follows it is being skipped."""
        self.seen: set[str] = set()
        self.seen_end = 0
        self.skipped = 0

    @property
    def full(self) -> bool:
        return len(self.into) >= MAX_ERRORS or self.skipped >= MAX_SKIPPED

    def add(self, code: str, at: Word, message: str, help: str | None = None) -> None:
        span = self.source.span(at.start, at.end)
        self.into.append(Diagnostic(code, message, span, help))

    def no_value(self, key: Word, last: Word) -> Word:
        """Report `key=` without a value; the last token that was taken.

        What else stands there is skipped in silence.
        """
        if not self.misused_equals(key.end):
            at = Word("", f"{key.text}=", key.start)
            self.add("E0405", at, "a value is missing after `=`")
        elif self.into[-1].code == "E0105" and "SETTING" in self.state.accepts():
            last = self.take(Word("SETTING", f'{key.text}=""', key.start)) or last
        self.stuck_after = last
        self.seen = {"UNEXPECTED"}
        return last

    def misused_equals(self, start: int) -> bool:
        """Report a `=` that something but a value follows."""
        behind = self.source.text[start + 1 : start + MAX_WORD].lstrip(" \t")
        if behind.startswith('"'):
            quote = self.source.text.index('"', start)
            self.unclosed(Word("", behind.partition("\n")[0], quote))
        elif behind.startswith("="):
            self.add("E0102", Word("", "==", start), "unexpected `==`", "write `key=value`")
        else:
            return False
        return True

    def unclosed(self, text: Word) -> None:
        at = Word("", text.text.rstrip(), text.start)
        self.add("E0105", at, "this text has no closing quote on its line")

    def mend(self, token: Word, last: Word, opened: Word | None) -> Word | None:
        """Report a token that does not fit; the token that was taken in its place, if any.

        What follows a bad token is skipped in silence until a token fits again, or until a line
        begins with another word that is no statement.
        """
        previous_end = max(last.end, self.seen_end)
        self.seen_end = token.end
        first_of_line = "\n" in self.source.text[previous_end : token.start]
        again = self.stuck_after is last
        if not again:
            self.stuck_after = last
            self.seen.clear()
        kind = token.type
        fits_nowhere = kind in self.seen or (again and kind not in _STARTS and kind != "RBRACE")
        if fits_nowhere and not (first_of_line and kind in {"WORD", "SETTING"}):
            self.skipped += 1
            return None
        self.seen.add(kind)
        accepts = self.state.accepts()
        if fits_nowhere and "SECTION" not in accepts:
            return None
        if kind in _STARTS:
            if opened is not None:
                # A section starts inside an open one: its brace was forgotten.
                self.never_closed(opened, before=token)
                return self.take(token)
            if "WORD" in accepts and self.names(token, last, first_of_line):
                message = f"`{token.text}` is a word of the language and cannot be a name"
                self.add("E0102", token, message)
                return self.take(Word("WORD", token.text, token.start))
            if "LBRACE" in accepts:
                message = f"{quoted(last.text)} has no blocks: `{{ }}` should follow it"
                self.add("E0103", last, message)
                return self.take(token)
        elif kind in {"WORD", "RBRACE"} and last.type == "WORD" and accepts == {"LBRACE"}:
            self.add("E0103", last, "a `{` is missing: blocks stand in braces")
            return self.take(token)
        elif kind == "RBRACE" and accepts & {"VBAR", "RPAR"}:
            self.unexpected(token, accepts)
            return self.take(token)
        elif kind == "WORD" and "SECTION" in accepts and self.opens_section(token):
            guess = did_you_mean(token.text, [*SECTIONS, "variant"])
            hint = f"did you mean `{guess}`?" if guess else "sections: stem, stage NAME, head"
            self.add("E0104", token, f"unknown section {quoted(token.text)}", hint)
            return self.take(Word("SECTION", token.text, token.start))
        elif kind == "UNEXPECTED" and token.text != "=" and "STRING" in accepts:
            self.unclosed(token)
            return self.take(Word("STRING", f'{token.text}"', token.start))
        if not again or first_of_line or kind == "RBRACE":
            after = last.type not in {"RBRACE", "$END"} and not first_of_line and not again
            self.unexpected(token, accepts, after_value=after)
        return None

    def names(self, token: Word, last: Word, first_of_line: bool) -> bool:
        """Whether a word of the language stands where a name should."""
        opens = self.source.text[token.end : token.end + 80].lstrip().startswith("{")
        return last.type == "VARIANT" or (opens and not first_of_line)

    def opens_section(self, token: Word) -> bool:
        behind = self.source.text[token.end : token.end + 200]
        return _OPENS_SECTION.match(behind) is not None

    def take(self, token: Word) -> Word | None:
        """Feed a token, and before it those that must stand between; None where it never fits."""
        while token.type not in (accepts := self.state.accepts()):
            lacking = next((kind for kind in _CLOSING if kind in accepts), None)
            if lacking is None:
                return None
            self.state.feed_token(Word(lacking, _CLOSING[lacking], token.start))
        self.state.feed_token(token)
        return token

    def end(self, last: Word, opened: Word | None) -> tuple[Item, ...]:
        """The items of the text; what is open at its end is reported and closed."""
        end = Word("$END", "", last.end)
        try:
            items: tuple[Item, ...] = self.state.feed_token(end)
            return items
        except UnexpectedToken:
            accepts = self.state.accepts()
        if opened is not None:
            self.never_closed(opened)
        else:
            message = f"the text ends where {_expected(accepts)} should follow"
            self.add("E0103", last, message)
        while "$END" not in accepts:
            lacking = next(kind for kind in _CLOSING if kind in accepts)
            self.state.feed_token(Word(lacking, _CLOSING[lacking], last.end))
            accepts = self.state.accepts()
        items = self.state.feed_token(end)
        return items

    def never_closed(self, brace: Word, before: Word | None = None) -> None:
        hint = "add a `}` after the last block"
        if before is not None:
            line, _ = self.source.position(before.start)
            hint = f"write a `}}` before `{before.text}` in line {line}"
        self.add("E0103", brace, "this brace is never closed", hint)

    def unexpected(self, token: Word, accepts: set[str], *, after_value: bool = False) -> None:
        shown = quoted(token.text)
        top = "SECTION" in accepts
        if token.type == "UNEXPECTED":
            if token.text != "=":
                self.unclosed(token)
            elif not self.misused_equals(token.start):
                self.add("E0102", token, "unexpected `=`", "a setting is written `key=value`")
        elif token.text.startswith(("//", "/*", ";", "--")):
            self.add("E0102", token, f"unexpected {shown}", "a comment starts with `#`")
        elif token.type in {"WORD", "STRING"} and top and after_value:
            message = f"unexpected {shown} after a statement's value"
            self.add("E0102", token, message, "a value is one word, or a text in quotes")
        elif token.type in {"WORD", "SETTING"} and "KEYWORD" in accepts:
            self.unknown_statement(token, top)
        elif token.type == "RBRACE" and top:
            self.add("E0102", token, "this `}` closes nothing", "leave it out")
        elif token.type == "STRING" and "LPAR" in accepts:
            self.add("E0102", token, f"unexpected {shown}", "blocks stand without quotes")
        elif token.type == "VBAR":
            self.add("E0102", token, "unexpected `|`", "alternatives stand in `( a | b )`")
        else:
            self.add("E0102", token, f"unexpected {shown}; {_expected(accepts)} should stand here")

    def unknown_statement(self, token: Word, top: bool) -> None:
        name, equals, value = token.text.partition("=")
        name = name.rstrip()
        known = [*STATEMENTS, *SECTIONS, "variant"]
        words = textwrap.wrap(f"statements: {', '.join(STATEMENTS)}", 88)
        lists = "\n".join([*words, f"sections: {', '.join(SECTIONS)}; variant"])
        if not top:
            known = [f"{key}=" for key in VARIANT_SETTINGS] + ["expect", "published"]
            lists = f"a variant takes {', '.join(known)}"
        guess = did_you_mean(name, known)
        # `activation` is closer to `act` than its letters say.
        guess = guess or next((word for word in known if name.startswith(word)), None)
        hint: str | None
        if top and equals and name in SECTIONS:
            self.add("E0102", token, f"`{name}` is a section: `{{ }}` should follow it")
            return
        if top and equals and name in STATEMENTS:
            message, hint = without_equals(name, value.strip())
            self.add("E0102", token, message, hint)
            return
        if top and (name in {"skip", "pool", "fc"} or "_" in name):
            hint = "blocks stand inside `stem { }`, `stage NAME { }` or `head { }`"
        else:
            hint = f"did you mean `{guess}`?" if guess else lists
        self.add("E0104", token, f"unknown statement {quoted(name)}", hint)


def without_equals(statement: str, value: str) -> tuple[str, str]:
    """What to say of `act=relu`, and its repair."""
    message = f"`{statement}` is a statement: its value follows it without a `=`"
    return message, f"write {quoted(f'{statement} {value}')}"


# What closes an unfinished construct, in the order in which it is tried.
_CLOSING = {"RBRACE": "}", "RPAR": ")", "VBAR": "|", "LBRACE": "{", "WORD": "skip"}

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
    return listed(names) or "nothing"


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
