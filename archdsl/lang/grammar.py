"""The lark grammars, made into parsers that are fed token by token.

The tokens are found by one regular expression made of the grammar's own terminals.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

from lark import Lark, Token, Transformer
from lark.lexer import Lexer
from lark.parsers.lalr_analysis import Shift

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


class Unexpected(Exception):
    """A token that does not fit where it is fed."""


_Step = tuple[int, Callable[[list[Any]], Any] | None, str, int]
"""A state's answer to a token: how many values a rule takes, what makes one of them, and the rule's
name; or no rule, and the next state."""


class _Tables(NamedTuple):
    """lark's tables, with what a rule makes beside the rule: that is found once, not each time."""

    steps: Mapping[int, Mapping[str, _Step]]
    start: int
    end: int


def _tables(parser: Lark) -> _Tables:
    conf = parser.parse_interactive().parser_state.parse_conf
    steps: dict[int, dict[str, _Step]] = {}
    for state, actions in conf.states.items():
        # lark's names are tokens, which take their time to compare.
        steps[state] = {
            str(name): (-1, None, "", to)
            if action is Shift
            else (len(to.expansion), conf.callbacks[to], str(to.origin.name), -1)
            for name, (action, to) in actions.items()
        }
    return _Tables(steps, conf.start_state, conf.end_state)


class Feed:
    """A parse, to which tokens are fed one by one (the algorithm of lark's `ParserState`)."""

    __slots__ = ("_end", "_states", "_steps", "_values")

    def __init__(self, tables: _Tables) -> None:
        self._steps, start, self._end = tables
        self._states = [start]
        self._values: list[Any] = []

    def feed_token(self, token: Word) -> Any:
        """Take a token; what the text is at its end (`$END`), else None.

        Raises:
            Unexpected: it does not fit; the next one may.
        """
        steps, states, values, kind = self._steps, self._states, self._values, token.type
        while True:
            step = steps[states[-1]].get(kind)
            if step is None:
                raise Unexpected(kind)
            size, make, rule, state = step
            if make is None:
                states.append(state)
                values.append(token)
                return None
            children: list[Any] = []
            if size:
                children = values[-size:]
                del states[-size:]
                del values[-size:]
            state = steps[states[-1]][rule][3]
            states.append(state)
            values.append(make(children))
            if state == self._end and kind == "$END":
                return values[-1]

    def accepts(self) -> set[str]:
        """The kinds of tokens that fit."""
        return {
            kind for kind in self._steps[self._states[-1]] if kind.isupper() and self._fits(kind)
        }

    def _fits(self, kind: str) -> bool:
        """Whether a token would be taken: what `feed_token` does, with states alone."""
        steps, states = self._steps, self._states.copy()
        while True:
            step = steps[states[-1]].get(kind)
            if step is None:
                return False
            size, make, rule, _ = step
            if make is None:
                return True
            if size:
                del states[-size:]
            states.append(steps[states[-1]][rule][3])
            if states[-1] == self._end and kind == "$END":
                return True


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
    return Grammar(partial(Feed, _tables(parser)), scan)
