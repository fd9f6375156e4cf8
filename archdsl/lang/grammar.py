"""The lark grammars, made into parsers that are fed token by token.

The tokens are found by one regular expression made of the grammar's own terminals.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple, Protocol, cast

from lark import Lark, Token, Transformer
from lark.lexer import Lexer

from archdsl.lang.trees import (
    Choice,
    Item,
    OpenStatement,
    Part,
    Section,
    Setting,
    Statement,
    Variant,
    Word,
    setting_of,
)


class _Trees(Transformer[Any, Any]):
    """Builds the syntax trees during the parse (lark calls a method per rule)."""

    def file(self, children: list[Any]) -> tuple[Item, ...]:
        return tuple(children[0])

    def statement(self, children: list[Any]) -> Statement:
        value = children[1] if len(children) == 3 else None
        return Statement(children[0], value, tuple(children[-1]))

    def open_statement(self, children: list[Any]) -> OpenStatement:
        return OpenStatement(*children)

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
        grown.append(setting_of(children[1]))
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
    """Tokens are found by `Grammar.scan` and fed one by one: lark need not make a lexer."""

    __future_interface__ = 2

    def __init__(self, _conf: object) -> None:
        pass

    def lex(self, _lexer_state: object, _parser_state: object) -> Iterator[Token]:
        return iter(())


class Feed(Protocol):
    """lark's interactive parser, which takes our small tokens as well as its own."""

    def feed_token(self, token: Word) -> Any: ...

    def accepts(self) -> set[str]: ...


class Grammar(NamedTuple):
    """A parser to be fed, and what finds the tokens in a text."""

    start: Callable[[], Feed]
    scan: Callable[[str], Iterator[re.Match[str]]]


@cache
def grammar(name: str, start: str) -> Grammar:
    """The grammar in `grammars/NAME` from its rule `start`; made once."""
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
    return Grammar(cast(Callable[[], Feed], parser.parse_interactive), scan)
