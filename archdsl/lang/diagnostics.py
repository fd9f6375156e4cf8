"""Diagnostics as data, and the one renderer that prints them.

A diagnostic has a stable code, one plain sentence, the narrowest span that shows the fault and,
where a repair exists, a help line. `ArchError` carries all the diagnostics of a text at once.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from archdsl.lang.source import Span

Severity = Literal["error", "warning"]

# Source lines longer than this are shown as a window around the span.
_WINDOW = 96


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing that is wrong, or doubtful, in a source text.

    `code` starts with E (error) or W (warning) and is explained by `archdsl explain CODE`; it is
    empty where a place is shown that is not at fault itself.
    `span` is None where no place in a text is to blame.
    """

    code: str
    message: str
    span: Span | None = None
    help: str | None = None
    label: str = "here"

    @property
    def severity(self) -> Severity:
        return "warning" if self.code.startswith("W") else "error"

    def to_json(self) -> dict[str, Any]:
        """The diagnostic as `--json` prints it; line and column count from 1."""
        place: dict[str, Any] = {"file": None, "line": None, "column": None, "end_column": None}
        if self.span is not None:
            line, column = self.span.source.position(self.span.start)
            width = len(self.span.text.split("\n", 1)[0])
            place = {
                "file": self.span.source.name,
                "line": line,
                "column": column,
                "end_column": column + width,
            }
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            **place,
            "help": self.help,
        }


class ArchError(Exception):
    """Raised for input that is not a valid architecture; carries every diagnostic.

    `str(error)` is the rendered text that the command line prints.
    """

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(in_order(diagnostics))
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return "\n".join(render(diagnostic) for diagnostic in self.diagnostics)


def in_order(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Diagnostics in the order of their places; each fault once."""
    seen = dict.fromkeys(diagnostics)
    return sorted(seen, key=lambda d: (d.span is None, d.span.start if d.span else 0))


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate a user most likely meant, or None.

    >>> did_you_mean("inptu", ["input", "act"])
    'input'
    """
    # Comparing is quadratic in the length: a word that long is no typing slip.
    if len(word) > 40:
        return None
    matches = difflib.get_close_matches(word.lower(), list(candidates), n=1, cutoff=0.6)
    return matches[0] if matches else None


def listed(words: Sequence[str], joiner: str = "or") -> str:
    """Words as a phrase.

    >>> listed(["a", "b", "c"])
    'a, b or c'
    """
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {joiner} {words[-1]}"


def quoted(text: str, limit: int = 40) -> str:
    """A user's text inside a message: in backticks, on one line, of bounded length."""
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return "`" + "".join(_visible(c) for c in shown) + "`"


def render(diagnostic: Diagnostic, *, color: bool = False) -> str:
    """The diagnostic as text: headline, place, source line with carets, help."""
    paint = _paint if color else _plain
    tone = "1;31" if diagnostic.severity == "error" else "1;33"
    code = f"[{diagnostic.code}]" if diagnostic.code else ""
    head = paint(f"{diagnostic.severity}{code}", tone)
    lines = [head + paint(f": {_clean(diagnostic.message)}", "1")]
    gutter = " "
    if diagnostic.span is not None:
        span = diagnostic.span
        number, column = span.source.position(span.start)
        gutter = " " * len(str(number))
        source_line, before, width = _window(span, number, column)
        bar = paint("|", "1;34")
        lines += [
            paint(f"{gutter}-->", "1;34") + f" {_clean(str(span))}",
            f"{gutter} {bar}",
            paint(str(number), "1;34") + f" {bar} {source_line}".rstrip(),
            f"{gutter} {bar} {' ' * before}"
            + paint(f"{'^' * width} {diagnostic.label}".rstrip(), tone),
        ]
    if diagnostic.help:
        first, *rest = map(_clean, diagnostic.help.split("\n"))
        lines.append(f"{gutter} {paint('=', '1;34')} {paint('help', '1')}: {first}")
        lines += [f"{gutter}         {line}" for line in rest]
    return "\n".join(lines) + "\n"


def _window(span: Span, number: int, column: int) -> tuple[str, int, int]:
    """The part of the source line to show, the columns before the carets, and their count."""
    line = span.source.line(number)
    start = column - 1
    end = min(start + span.end - span.start, len(line))
    left = 0
    if len(line) > _WINDOW:
        left = max(0, min(start - _WINDOW // 3, len(line) - _WINDOW))
    right = left + _WINDOW
    prefix = "…" if left else ""
    suffix = "…" if right < len(line) else ""
    shown = prefix + "".join(_visible(c) for c in line[left:right]) + suffix
    before = len(prefix) + sum(_columns(c) for c in line[left:start])
    width = sum(_columns(c) for c in line[start : min(end, right)])
    return shown, before, max(width, 1)


def _clean(text: str) -> str:
    """A message as it may stand in a terminal, whatever names and words it quotes."""
    return text if text.isprintable() else "".join(_visible(c) for c in text)


def _visible(character: str) -> str:
    """A character as it may stand in a terminal: controls never reach it."""
    if character == "\t":
        return "    "
    # Cc controls, Cf formatting (bidirectional overrides), Cs lone surrogates, Zl/Zp separators.
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return "\N{REPLACEMENT CHARACTER}"
    return character


def _columns(character: str) -> int:
    if character == "\t":
        return 4
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _plain(text: str, _tone: str) -> str:
    return text


def _paint(text: str, tone: str) -> str:
    return f"\x1b[{tone}m{text}\x1b[0m"
