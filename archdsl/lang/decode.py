"""Block strings: read into the typed block of their kind, memoised by text.

Equal strings give the same block object: a stream of architectures from one search space is made
of few distinct ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import ValidationError

from archdsl.lang.diagnostics import did_you_mean, listed, quoted
from archdsl.lang.spec import KINDS, AnyBlock, vocabulary
from archdsl.lang.syntax import parse_block
from archdsl.lang.trees import Part
from archdsl.lang.values import CODES, limit_hint, number, sentence
from archdsl.limits import Raised, in_force

DRAWS = "`archdsl space sample` draws networks"
"""What else to do with a text that has choices."""


class Problem(NamedTuple):
    """A fault in a block string, at characters `start` to `end` of it."""

    code: str
    message: str
    start: int
    end: int
    help: str | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A block string read: the block if it is valid, where each field stands, the faults.

    `guess` is the block without its faulty fields, where that is one: what the blocks behind it
    are checked with, so that one slip hides no other.
    """

    block: AnyBlock | None
    places: Mapping[str, tuple[int, int]]
    problems: tuple[Problem, ...]
    guess: AnyBlock | None = None


def decode(text: str) -> Decoded:
    """Read a block string. Memoised: equal strings give the same block object."""
    return _decode(text, in_force())


@lru_cache(maxsize=1 << 16)
def _decode(text: str, _: Raised) -> Decoded:
    parts, errors = parse_block(text)
    if errors:
        hints = {",": "blocks are parted by spaces", "-": "fields are joined by `_`"}
        problems = (Problem("E0212", m, a, b, hints.get(text[a:b])) for a, b, m in errors)
        return Decoded(None, {}, tuple(problems))
    return _Decoding(text).run(parts)


class _Decoding:
    """Reads the parts of one block string."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.problems: list[Problem] = []
        self.places: dict[str, tuple[int, int]] = {}
        self.values: dict[str, Any] = {}

    def problem(
        self, code: str, message: str, at: tuple[int, int], help: str | None = None
    ) -> None:
        self.problems.append(Problem(code, message, *at, help))

    def run(self, parts: list[Part]) -> Decoded:
        kind, parts = self.kind(parts)
        if kind is None:
            return Decoded(None, {}, tuple(self.problems))
        for part in parts:
            if part.values is None and part.key.text in KINDS and part is not parts[0]:
                message = f"the kind `{part.key.text}` follows a field"
                hint = f"the kind comes first: `{part.key.text}_...`"
                if part.key.text == "skip" and "residual" in vocabulary(kind).flags:
                    hint = "a residual is `residual` here"
                self.problem("E0213", message, _at(part, self.text), hint)
                return Decoded(None, {}, tuple(self.problems[-1:]))
            self.part(kind, part)
        block: Any = None
        try:
            block = KINDS[kind].model_validate({"kind": kind, **self.values})
        except ValidationError as errors:
            for error in errors.errors(include_url=False, include_input=False):
                self.invalid(kind, error)
        if self.problems:
            return Decoded(None, self.places, tuple(self.problems), block or self.guess(kind))
        return Decoded(block, self.places, ())

    def guess(self, kind: str) -> Any:
        """The block of the fields that no fault was found in."""
        faulty = {(problem.start, problem.end) for problem in self.problems}
        sound = {n: v for n, v in self.values.items() if self.places[n] not in faulty}
        try:
            return KINDS[kind].model_validate({"kind": kind, **sound})
        except ValidationError:
            return None

    def kind(self, parts: list[Part]) -> tuple[str | None, list[Part]]:
        first = parts[0]
        name = first.key.text
        if first.values is not None or name in vocabulary("ir").flags:
            return "ir", parts
        if name in KINDS:
            return name, parts[1:]
        if name in vocabulary("ir").keys:
            return "ir", parts
        guess = _KINDS_ELSEWHERE.get(name.lower())
        guess = guess or did_you_mean(name, [*KINDS, *vocabulary("ir").flags])
        hint = f"did you mean `{guess}`?" if guess else f"kinds: {', '.join(KINDS)}"
        self.problem("E0201", f"unknown block kind {quoted(name)}", _at(first, self.text), hint)
        return None, parts

    def part(self, kind: str, part: Part) -> None:
        key, values, at = part.key.text, part.values, _at(part, self.text)
        words = vocabulary(kind)
        whole = self.text[at[0] : at[1]]
        if whole in words.flags:
            name, value = words.flags[whole]
        elif key in words.keys:
            name = words.keys[key]
            if values is None:
                self.problem(
                    "E0207", f"`{key}` needs a value", at, f"such as `{key}{_sample(key)}`"
                )
                return
            if len(values) > 1:
                message = f"{quoted(whole)} is a choice, and this is not a search space"
                hint = f"write one value, such as `{key}{values[0]}`; {DRAWS}"
                self.problem("E0107", message, at, hint)
                return
            # No start kernel is even or has two digits: a stride is meant.
            if kind == "uib" and key == "s" and values[0] in {"2", "11", "12", "21", "22"}:
                message = "in a `uib`, `s` is the start kernel, not the stride"
                self.problem("E0208", message, at, f"the stride is `st{values[0]}`")
                return
            value = number(values[0])
        else:
            self.unknown(kind, key, values, whole, at)
            return
        if name in self.places:
            first = self.text[slice(*self.places[name])]
            before = "" if first == whole else f", after {quoted(first)}"
            message = f"{quoted(whole)} sets `{_spelling(name)}` a second time{before}"
            self.problem("E0204", message, at, "keep one of them")
            return
        self.places[name] = at
        self.values[name] = value

    def unknown(
        self, kind: str, key: str, values: tuple[str, ...] | None, whole: str, at: tuple[int, int]
    ) -> None:
        words = vocabulary(kind)
        holders = [
            other
            for other in KINDS
            if whole in vocabulary(other).flags
            or (values is not None and key in vocabulary(other).keys)
        ]
        if key in words.flags and values is not None:
            self.problem("E0207", f"`{key}` is a flag and takes no value", at, f"write `{key}`")
        elif holders:
            field = key if values is not None else whole
            hint = f"`{kind}` takes {words.listed()}"
            if kind == "uib" and field == "k":
                hint = "a `uib` has two kernels: `s` (start) and `m` (middle)"
            elif len(holders) <= 3:
                hint = f"`{field}` is for {listed([f'`{h}`' for h in holders], 'and')}\n{hint}"
            self.problem("E0205", f"a block of kind `{kind}` has no `{field}`", at, hint)
        else:
            hint = ""
            flag = did_you_mean(whole, words.flags)
            letter = _elsewhere(key, kind) or did_you_mean(key, words.keys)
            if flag:
                hint = f"did you mean `{flag}`?"
            elif values is not None and letter:
                hint = f"did you mean `{letter}{values[0]}`?"
            hint = hint or f"`{kind}` takes {words.listed()}"
            self.problem("E0202", f"unknown field {quoted(whole)}", at, hint)

    def invalid(self, kind: str, error: Mapping[str, Any]) -> None:
        code = CODES.get(error["type"], "E0207")
        context = error.get("ctx", {})
        if code == "E0206":
            missing = str(error["loc"][0])
            letters = {name: letter for letter, name in vocabulary(kind).keys.items()}
            letter = letters.get(missing, missing)
            if missing in letters.values():
                letter = missing
            # A field whose own text is faulty has been reported already.
            if any(p.code != "E0206" and self._speaks_of(p, letter) for p in self.problems):
                return
            what = KINDS[kind].model_fields[_field(kind, letter)].description
            message = f"a block of kind `{kind}` needs `{letter}` ({what})"
            self.problem(code, message, self._kind_place(), f"such as `{letter}{_sample(letter)}`")
            return
        name = _field(kind, str(error["loc"][0] if error["loc"] else context.get("field", "")))
        at = self.places.get(name, (0, len(self.text)))
        shown = quoted(self.text[slice(*at)])
        hint = limit_hint(error)
        if code == "E0209":
            value = int(self.values[name])
            key = self.text[at[0] : at[1]].rstrip("0123456789")
            hint = f"write `{key}{value - 1}` or `{key}{value + 1}`"
        elif code == "E0304":
            hint = "add `m3`, or leave the stride out"
        elif code == "E0211":
            hint = f"such as `h{_sample('h')}`"
        elif code == "E0210":
            hint = f"leave {shown} out"
        says = sentence(error)
        message = f"{shown}: {says}" if says.startswith("must") else says
        self.problem(code, message, at, hint)

    def _kind_place(self) -> tuple[int, int]:
        end = self.text.find("_")
        return (0, len(self.text) if end < 0 else end)

    def _speaks_of(self, problem: Problem, letter: str) -> bool:
        return bool(re.fullmatch(rf"{letter}[^a-z]*", self.text[problem.start : problem.end]))


def _at(part: Part, text: str) -> tuple[int, int]:
    end = text.find("_", part.key.start)
    return part.key.start, len(text) if end < 0 else end


def _field(kind: str, name: str) -> str:
    """A field's name from its letter or its name (pydantic reports either)."""
    return vocabulary(kind).keys.get(name, name)


# What papers and other libraries call our kinds and fields.
_KINDS_ELSEWHERE = {"mbconv": "ir", "bneck": "ir", "fusedmbconv": "fused", "er": "fused"}
_KINDS_ELSEWHERE |= {"uir": "uib", "ds": "sep", "dws": "sep", "dsconv": "sep", "dwconv": "dw"}
_KINDS_ELSEWHERE |= {"cn": "conv", "mhsa": "mha", "gap": "pool", "avgpool": "pool"}
_KINDS_ELSEWHERE |= {"dense": "fc", "classifier": "fc", "identity": "skip"}
_FIELDS_ELSEWHERE = {"c": "o", "n": "r", "t": "e", "a": "s"}


def _elsewhere(key: str, kind: str) -> str | None:
    """Our letter for one of MobileNetV2's tables (t, c, n, s) or of timm's strings (a, c)."""
    letter = _FIELDS_ELSEWHERE.get(key)
    return letter if letter in vocabulary(kind).keys and (key != "a" or kind == "uib") else None


_SAMPLES = {"k": "3", "s": "22", "st": "22", "o": "80", "i": "40", "e": "6", "x": "184", "r": "2"}
_SAMPLES |= {"se": "0.25", "m": "3", "h": "4", "d": "64", "kv": "2", "p": "0.2", "g": "64"}


def _sample(letter: str) -> str:
    return _SAMPLES.get(letter, "1")


def _spelling(name: str) -> str:
    return {"act": "activation"}.get(name, name.replace("_", " "))
