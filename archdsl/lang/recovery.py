"""What is done after a syntax error: a diagnostic, and the parser back on its way."""

from __future__ import annotations

import re
import textwrap

from archdsl.lang.diagnostics import Diagnostic, did_you_mean, listed, quoted
from archdsl.lang.grammar import Feed, Unexpected
from archdsl.lang.source import SourceText
from archdsl.lang.spec import SECTIONS, STATEMENTS, VARIANT_SETTINGS
from archdsl.lang.trees import Item, Word
from archdsl.limits import MAX_ERRORS, MAX_SKIPPED, MAX_WORD

# The tokens that begin an item.
STARTS = frozenset({"KEYWORD", "SECTION", "VARIANT"})

# What stands between an unknown word and its blocks: `body {`, `body NAME {`.
_OPENS_SECTION = re.compile(r"[ \t]*[^\s{}()|=\"#]{0,80}\s*\{")


class FileErrors:
    """Turns unexpected tokens into diagnostics, and brings the parser back on its way."""

    def __init__(self, source: SourceText, into: list[Diagnostic], state: Feed) -> None:
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
        span = self.source.span(at.start, min(at.end, len(self.source.text)))
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
        self.seen.clear()
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
        fits_nowhere = kind in self.seen or (again and kind not in STARTS and kind != "RBRACE")
        if fits_nowhere and not (first_of_line and kind in {"WORD", "SETTING"}):
            self.skipped += 1
            return None
        self.seen.add(kind)
        accepts = self.state.accepts()
        if fits_nowhere and "SECTION" not in accepts:
            return None
        if kind in STARTS:
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
        except Unexpected:
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
    return listed(names)
