"""Block strings of other libraries, cut into their words."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from archdsl.lang.diagnostics import did_you_mean, quoted
from archdsl.lang.dialects.literal import Value
from archdsl.lang.dialects.reading import Reading
from archdsl.lang.source import Span
from archdsl.lang.values import number
from archdsl.limits import most

# What other notations call a field.
_SYNONYMS = {"o": ("c",), "c": ("o",), "n": ("r",), "t": ("e",), "st": ("s",), "m": ("k",)}
_FIELD = re.compile(r"([a-z]+)([0-9][0-9.]*)")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a block string: its key, the text of its value, and where it stands."""

    key: str
    value: str
    span: Span

    @property
    def number(self) -> int | float | str:
        return number(self.value)


@dataclass
class BlockWords:
    """A block string: its kind if it has one, its fields by key, its flags, its place."""

    kind: str
    span: Span
    fields: dict[str, Field] = field(default_factory=dict)
    flags: dict[str, Span] = field(default_factory=dict)

    def number(self, key: str) -> int | float | str | None:
        found = self.fields.get(key)
        return found.number if found else None

    def at(self, key: str) -> Span:
        """A field's place; without the field, the block's."""
        found = self.fields.get(key)
        return found.span if found else self.span

    def placed(self, key: str) -> tuple[object, Span]:
        """A field's value and its place; without the field, None."""
        return self.number(key), self.at(key)


def words_of(reading: Reading, value: Value) -> list[Span] | None:
    """The words of a block string, parted by `_`."""
    text = value.data
    if not isinstance(text, str):
        reading.error("E0604", "a block must be a string", value.span)
        return None
    if not text or len(text) > most("word") or value.text.text != text:
        what = "a block string cannot be read: it is empty, too long or has escapes"
        reading.error("E0212", what, value.span)
        return None
    spans, at = [], 0
    for word in text.split("_"):
        spans.append(value.text.part(at, at + len(word)))
        at += len(word) + 1
    return spans


def fields_of(
    reading: Reading,
    block: BlockWords,
    words: Iterable[Span],
    keys: Collection[str],
    flags: Collection[str],
    elsewhere: Collection[str] = (),
) -> bool:
    """Read the fields and flags of a block; false where a word is faulty.

    `elsewhere` are the keys that blocks of other kinds have.
    """
    sound = True
    for span in words:
        word = span.text
        match = _FIELD.fullmatch(word)
        key = match[1] if match else word
        seen = block.flags.get(word) or (block.fields[key].span if key in block.fields else None)
        who = f"`{block.kind}`" if block.kind else "a block"
        hint = f"{who} takes {', '.join([*keys, *flags])}"
        if seen is not None and (match or word in flags):
            message = f"{quoted(word)} stands a second time, after {quoted(seen.text)}"
            reading.error("E0204", message, span, "keep one of them")
        elif word in flags:
            block.flags[word] = span
            continue
        elif match and key in keys:
            block.fields[key] = Field(key, match[2], span)
            continue
        elif not word:
            reading.error("E0212", "two `_` in a row, or one at an end", block.span)
        elif key in keys:
            reading.error("E0207", f"{quoted(word)}: `{key}` needs a number behind it", span)
        elif match and key in elsewhere:
            message = f"a block of kind `{block.kind}` has no `{key}`"
            reading.error("E0205", message, span, hint)
        else:
            lower = _FIELD.fullmatch(word.lower())
            guess = did_you_mean(word, flags)
            if guess is None and word != word.lower() and lower and lower[1] in keys:
                guess = word.lower()
            near = next((one for one in _SYNONYMS.get(key, ()) if one in keys), None)
            near = near or did_you_mean(key, keys)
            if guess is None and near and match:
                guess = near + match[2]
            hint = f"did you mean `{guess}`?" if guess else hint
            reading.error("E0202", f"unknown field {quoted(word)}", span, hint)
        sound = False
    return sound
