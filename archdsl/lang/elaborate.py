"""From syntax trees to the typed specification; every fault becomes a diagnostic with a span.

Reading a block string, and reading a file's attributes, are memoised by text: a stream of
architectures from one search space is made of few distinct ones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from archdsl.lang.diagnostics import Diagnostic, did_you_mean, listed, quoted
from archdsl.lang.source import SourceText, Span
from archdsl.lang.spec import (
    ATTRIBUTES,
    KINDS,
    SECTIONS,
    STATEMENTS,
    VARIANT_SETTINGS,
    AnyBlock,
    ArchSpec,
    Attributes,
    Expect,
    Norm,
    Published,
    Rounding,
    SqueezeExcite,
    Stage,
    Variant,
    vocabulary,
)
from archdsl.lang.syntax import (
    Choice,
    Document,
    Item,
    Part,
    Section,
    Setting,
    Statement,
    Word,
    parse_block,
    without_equals,
)
from archdsl.lang.syntax import Variant as VariantTree
from archdsl.limits import MAX_ERRORS, MAX_STATEMENTS

# ---------------------------------------------------------------------------------------- values

_NUMBER = re.compile(r"[0-9][0-9_]{0,39}")
_DECIMAL = re.compile(r"(?:[0-9]{1,40}\.?[0-9]{0,60}|\.[0-9]{1,60})(?:[eE][+-]?[0-9]{1,3})?")

# What pydantic finds wrong, in the words of this language.
_SENTENCES = {
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "greater_than": "must be more than {gt}",
    "less_than": "must be less than {lt}",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "tuple_type": "must be an array",
    "union_tag_not_found": "a block needs its `kind`",
    "union_tag_invalid": "`kind` must be one of {expected_tags}",
}
_CODES = {
    "even_kernel": "E0209",
    "no_heads": "E0211",
    "conflict": "E0210",
    "no_depthwise": "E0304",
    "missing": "E0206",
}


def number(text: str) -> int | float | str:
    """The value a text stands for: a whole number, a decimal, or the text itself.

    >>> number("9_715_512"), number("1e-3"), number("relu"), number("1e999")
    (9715512, 0.001, 'relu', '1e999')
    """
    if _NUMBER.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        value = float(text)
        return value if math.isfinite(value) else text
    return text


def sentence(error: Mapping[str, Any]) -> str:
    """What a pydantic error says, as the end of a sentence ("must be at least 1")."""
    template = _SENTENCES.get(error["type"])
    if template is not None:
        context = dict(error.get("ctx", {}))
        for key in {"expected", "expected_tags"} & set(context):
            context[key] = str(context[key]).replace("'", "`")
        # A limit of 1.0 reads as 1.
        plain = {k: f"{v:g}" if type(v) is float else v for k, v in context.items()}
        return template.format(**plain)
    message = str(error["msg"])
    return message if error["type"] in _CODES else message[0].lower() + message[1:]


# ---------------------------------------------------------------------------------------- blocks


class Problem(NamedTuple):
    """A fault in a block string, at characters `start` to `end` of it."""

    code: str
    message: str
    start: int
    end: int
    help: str | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A block string read: the block if it is valid, where each field stands, the faults."""

    block: AnyBlock | None
    places: Mapping[str, tuple[int, int]]
    problems: tuple[Problem, ...]


@lru_cache(maxsize=1 << 16)
def decode(text: str) -> Decoded:
    """Read a block string. Memoised: equal strings give the same block object."""
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
            block = None
        return Decoded(block, self.places, tuple(self.problems))

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
                self.problem("E0107", message, at, f"write one value, such as `{key}{values[0]}`")
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
            hint = f"`{kind}` takes {', '.join([*words.keys, *words.flags])}"
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
            hint = hint or f"`{kind}` takes {', '.join([*words.keys, *words.flags])}"
            self.problem("E0202", f"unknown field {quoted(whole)}", at, hint)

    def invalid(self, kind: str, error: Mapping[str, Any]) -> None:
        code = _CODES.get(error["type"], "E0207")
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
        hint = None
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


# ----------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class Origins:
    """Where the parts of a specification stand in the text they came from."""

    document: Document

    @property
    def source(self) -> SourceText:
        return self.document.source

    def span(self, word: Word) -> Span:
        return Span(self.source, word.start, word.end)

    @cached_property
    def sections(self) -> dict[str, Section]:
        """The sections under the paths that `ArchSpec.sections` gives them."""
        found: dict[str, Section] = {}
        number = 0
        for item in self.document.items:
            if type(item) is Section:
                path = item.kind.text
                if path == "stage":
                    number += 1
                    path = f"stages.{item.name.text if item.name else f'stage{number}'}"
                found[path] = item
        return found

    @cached_property
    def _statements(self) -> dict[tuple[str | None, str], list[Statement]]:
        found: dict[tuple[str | None, str], list[Statement]] = {}
        for item in self.document.items:
            if type(item) is Statement:
                found.setdefault((None, item.keyword.text), []).append(item)
            elif type(item) is VariantTree:
                for statement in item.statements:
                    found.setdefault((item.name.text, statement.keyword.text), []).append(statement)
        return found

    def block(self, path: str, index: int) -> Word | None:
        """The block string number `index` of the section that `ArchSpec.sections` calls `path`."""
        section = self.sections.get(path)
        word = section.blocks[index] if section else None
        return word if type(word) is Word else None

    def field(self, path: str, index: int, name: str | None) -> Span | None:
        """The span of a block's field, or of the whole block where the field is not written."""
        word = self.block(path, index)
        if word is None:
            return None
        place = decode(word.text).places.get(name or "")
        return self.span(word).part(*place) if place else self.span(word)

    def variant(self, name: str | None) -> Span | None:
        """The span of a variant's name."""
        for item in self.document.items:
            if type(item) is VariantTree and item.name.text == name:
                return self.span(item.name)
        return None

    def statements(self, keyword: str, variant: str | None = None) -> list[Statement]:
        """The statements `keyword` of the file, or of one of its variants."""
        return self._statements.get((variant, keyword), [])

    def setting(
        self, keyword: str, key: str, variant: str | None = None, index: int = 0
    ) -> Span | None:
        """The span of `key=value` in the statement number `index` of that keyword."""
        statements = self.statements(keyword, variant)
        for setting in statements[index].settings if index < len(statements) else ():
            if setting.name == key:
                return Span(self.source, setting.key.start, setting.value.end)
        return None


class Elaborated(NamedTuple):
    """A text's specification (None where it has errors), its places and its diagnostics."""

    spec: ArchSpec | None
    origins: Origins
    diagnostics: list[Diagnostic]


def elaborate(document: Document) -> Elaborated:
    """The typed specification of a parsed file."""
    elaboration = _Elaboration(document)
    spec = elaboration.run()
    return Elaborated(spec, elaboration.origins, elaboration.diagnostics)


class _TooManyErrors(Exception):
    """The text has more errors than anyone reads."""


@dataclass
class _Elaboration:
    document: Document
    diagnostics: list[Diagnostic] = field(init=False)
    origins: Origins = field(init=False)
    equated: set[str] = field(default_factory=set)
    """Statements that were written as `key=value`."""
    sources: int = 0
    """The `published` statements so far."""

    def __post_init__(self) -> None:
        self.diagnostics = list(self.document.diagnostics)
        self.origins = Origins(self.document)

    def error(
        self, code: str, message: str, at: Word | Span | None, help: str | None = None
    ) -> None:
        span = self.origins.span(at) if type(at) is Word else at
        if len(self.diagnostics) >= MAX_ERRORS:
            code, help = "E0110", None
            message = f"the text has more than {MAX_ERRORS} errors: the others are not shown"
        self.diagnostics.append(Diagnostic(code, message, span, help))  # type: ignore[arg-type]
        if len(self.diagnostics) > MAX_ERRORS:
            raise _TooManyErrors

    def run(self) -> ArchSpec | None:
        try:
            return self.read()
        except _TooManyErrors:
            return None

    def read(self) -> ArchSpec | None:
        fields: dict[str, Any] = {}
        attributes: dict[str, Statement] = {}
        published: list[Published] = []
        sections: list[Section] = []
        variants: dict[str, Variant] = {}
        nameless = self.nameless()
        for item in self.document.items:
            if item is nameless:
                continue
            if type(item) is Section:
                sections.append(item)
            elif type(item) is VariantTree:
                self.variant(item, variants)
            elif type(item) is Statement:
                keyword = item.keyword.text
                if keyword == "published":
                    published.append(self.published(item))
                elif keyword in attributes or keyword in fields:
                    message = f"`{keyword}` stands a second time"
                    self.error("E0402", message, item.keyword, "keep one of them")
                elif keyword == "expect":
                    fields["expect"] = self.expect(item)
                elif keyword == "arch":
                    fields["arch"] = self.name(item)
                elif keyword == "source":
                    fields["source"] = self.source(item)
                else:
                    attributes[keyword] = item
        if "arch" not in fields:
            self.missing("arch", "names the architecture", "arch my_net")
        read = self.attributes(attributes)
        stem, stages, head = self.sections(sections)
        if any(d.severity == "error" for d in self.diagnostics) or read is None:
            return None
        return ArchSpec.model_construct(
            name=fields["arch"],
            source=fields.get("source"),
            attributes=read,
            stem=stem,
            stages=stages,
            head=head,
            expect=fields.get("expect"),
            published=tuple(published),
            variants=tuple(variants.values()),
        )

    def missing(self, keyword: str, what: str, example: str) -> None:
        if self.attempted(keyword):
            return
        start = Span(self.document.source, 0, 0)
        if self.document.items:
            first = self.document.items[0]
            start = self.origins.span(first.kind if type(first) is Section else first.keyword)  # type: ignore[union-attr]
        message = f"the file has no `{keyword}` statement, which {what}"
        self.error("E0401", message, start, f"write `{example}` at the top")

    def attempted(self, keyword: str) -> bool:
        """Whether a statement was meant by what has been reported as something else."""
        for diagnostic in self.document.diagnostics:
            if diagnostic.code == "E0110":
                return True
            if diagnostic.span is not None and diagnostic.code in {"E0102", "E0104"}:
                word = re.match(r"\w*", diagnostic.span.text)
                if word and did_you_mean(word[0], [*STATEMENTS, *SECTIONS]) == keyword:
                    return True
        return keyword in self.equated

    def nameless(self) -> Item | None:
        """The statement whose keyword stands where the name of the architecture should."""
        for item, behind in pairwise(self.document.items):
            if type(item) is Statement and item.keyword.text == "arch":
                if item.value is not None or type(behind) is not Statement:
                    return None
                between = self.document.source.text[item.end : behind.start]
                alone = behind.end == behind.keyword.end and "\n" not in between
                return behind if alone else None
        return None

    # -- statements

    def name(self, item: Statement) -> str:
        self.no_settings(item)
        if item.value is None:
            word = self.nameless()
            if type(word) is Statement:
                message = f"`{word.keyword.text}` is a word of the language and cannot be a name"
                self.error("E0102", message, word.keyword)
            else:
                self.error("E0405", "`arch` needs a name", item.keyword, "such as `arch my_net`")
            return ""
        return self.identifier(item.value, "an architecture's name")

    def identifier(self, word: Word, what: str, first: str = "a-z") -> str:
        if not re.fullmatch(rf"[{first}][a-z0-9_]{{0,63}}", word.text):
            cleaned = re.sub(r"[^a-z0-9]+", "_", word.text.lower()).strip("_")[:64]
            usable = re.fullmatch(rf"[{first}][a-z0-9_]*", cleaned)
            hint = f"write `{cleaned}`: " if usable else ""
            hint += "a name is made of small letters, digits and `_`"
            hint += ", a letter first" if first == "a-z" else ""
            hint += ", 64 at most" if len(word.text) > 64 else ""
            self.error("E0408", f"{quoted(word.text)} cannot be {what}", word, hint)
        return word.text

    def source(self, item: Statement) -> str | None:
        self.no_settings(item)
        if item.value is None:
            self.error("E0405", "`source` needs a text in quotes", item.keyword)
            return None
        return unquoted(item.value)

    def no_settings(self, item: Statement) -> None:
        for setting in item.settings:
            self.unknown_key(item.keyword.text, setting, ())

    def unknown_key(self, owner: str, setting: Setting, known: Iterable[str]) -> None:
        keys = tuple(known)
        if setting.name in STATEMENTS and setting.name not in keys:
            self.equated.add(setting.name)
            message, hint = without_equals(setting.name, setting.value.text)
            self.error("E0404", message, setting.key, hint)
            return
        guess = did_you_mean(setting.name, keys)
        if guess:
            hint = f"did you mean `{guess}`?"
        else:
            hint = f"`{owner}` takes {', '.join(keys) if keys else 'no keys'}"
        message = f"`{owner}` has no key {quoted(setting.name)}"
        self.error("E0404", message, setting.key, hint)

    def attributes(self, statements: Mapping[str, Statement]) -> Attributes | None:
        raw: list[tuple[str, Any]] = []
        for keyword, item in statements.items():
            model = _MODELS.get(keyword)
            if model is None:
                self.no_settings(item)
                if item.value is None:
                    hint = f"such as `{keyword} {_EXAMPLES[keyword]}`"
                    self.error("E0405", f"`{keyword}` needs a value", item.keyword, hint)
                    if keyword == "input":
                        raw.append(("input", (224, 224, 3)))  # reported: read on with some image
                else:
                    raw.append((keyword, _scalar(item.value)))
                continue
            pairs: dict[str, Any] = {}
            positional = str(model.positional)  # type: ignore[attr-defined]
            keys = [f.alias or n for n, f in model.model_fields.items() if n != positional]
            if item.value is not None:
                if positional:
                    pairs[positional] = _scalar(item.value)
                else:
                    hint = f"`{keyword}` takes {', '.join(f'{key}=' for key in keys)}"
                    self.error("E0403", f"`{keyword}` takes only `key=value`", item.value, hint)
            self.pairs(keyword, item.settings, keys, pairs)
            raw.append((keyword, tuple(pairs.items())))
        if "input" not in statements:
            self.missing("input", "gives the image's size and channels", "input 224x224x3")
            raw.append(("input", (224, 224, 3)))
        result, errors = _read_attributes(tuple(raw))
        for error in errors:
            self.bad_value(statements, error)
        return result

    def pairs(
        self,
        owner: str,
        settings: Iterable[Setting],
        known: Iterable[str],
        into: dict[str, Any],
    ) -> None:
        keys = tuple(known)
        for setting in settings:
            if setting.name not in keys:
                self.unknown_key(owner, setting, keys)
            elif setting.name in into:
                message = f"`{setting.name}` stands a second time"
                self.error("E0409", message, setting.key, "keep one of them")
            else:
                into[setting.name] = _scalar(setting.value)

    def bad_value(self, statements: Mapping[str, Statement], error: Mapping[str, Any]) -> None:
        keyword = str(error["loc"][0])
        item = statements[keyword]
        at = item.value
        if len(error["loc"]) > 1:
            key = str(error["loc"][1])
            at = next((s.value for s in item.settings if s.name == key), item.value)
        self.bad_word(at or item.keyword, error)

    def bad_word(self, word: Word, error: Mapping[str, Any]) -> None:
        says = sentence(error)
        hint = None
        allowed = re.findall(r"`([^`]+)`", says)
        guess = did_you_mean(word.text, allowed)
        if guess:
            hint = f"did you mean `{guess}`?"
        elif error["type"] == "image" and re.fullmatch(r"[0-9]{1,5}(x[0-9]{1,5})?", word.text):
            height, _, width = word.text.partition("x")
            hint = f"write `{height}x{width or height}x3`"
        self.error("E0403", f"{quoted(word.text)}: {says}", word, hint)

    def expect(self, item: Statement) -> Expect | None:
        if item.value is not None:
            self.error("E0403", "`expect` takes only `key=value`", item.value)
        pairs: dict[str, Any] = {}
        self.pairs("expect", item.settings, Expect.model_fields, pairs)
        if not item.settings and item.value is None and not self.unvalued(item):
            hint = "such as `expect params=3_504_872 macs=300_774_272`"
            self.error("E0405", "`expect` needs figures", item.keyword, hint)
        try:
            return Expect.model_validate(pairs)
        except ValidationError as errors:
            self.invalid_settings(item.settings, errors)
            return None

    def unvalued(self, item: Statement) -> bool:
        """Whether a `key=` without a value follows, which the parser has reported."""
        text = self.document.source.text[item.end : item.end + 1000].lstrip()
        return re.match(r"\w+[ \t]*=", text) is not None

    def invalid_settings(self, settings: Iterable[Setting], errors: ValidationError) -> None:
        values = {setting.name: setting.value for setting in settings}
        for error in errors.errors(include_url=False, include_input=False):
            self.bad_word(values[str(error["loc"][0])], error)

    def published(self, item: Statement) -> Published:
        self.sources += 1
        if self.sources > MAX_STATEMENTS:
            if self.sources == MAX_STATEMENTS + 1:
                message = f"there are more than {MAX_STATEMENTS} `published` statements"
                self.error("E0110", message, item.keyword)
            return Published()
        if item.value is not None:
            self.error("E0403", "`published` takes only `key=value`", item.value)
        elif not item.settings and not self.unvalued(item):
            hint = "such as `published params=3.4M macs=300M top1=72.0`"
            self.error("E0405", "`published` needs figures", item.keyword, hint)
        fields: dict[str, Any] = {"facts": {}}
        for setting in item.settings:
            text = unquoted(setting.value)
            into = fields if setting.name in {"params", "macs", "source"} else fields["facts"]
            if setting.name in into or setting.name == "facts":
                message = f"`{setting.name}` stands a second time"
                self.error("E0409", message, setting.key, "keep one of them")
            into[setting.name] = text
        try:
            return Published.model_validate(fields)
        except ValidationError as errors:
            values = {s.name: s.value for s in item.settings}
            for error in errors.errors(include_url=False, include_input=False):
                word = values.get(str(error["loc"][0]), item.keyword)
                message = f"{quoted(word.text)}: must be a number such as 3.4M, 300M or 1.2G"
                self.error("E0403", message, word)
            return Published()

    def variant(self, item: VariantTree, variants: dict[str, Variant]) -> None:
        name = self.identifier(item.name, "a variant's name", first="a-z0-9")
        if name in variants:
            message = f"variant {quoted(name)} stands a second time"
            self.error("E0501", message, item.name, "give it another name")
        if len(variants) == MAX_STATEMENTS:
            self.error("E0110", f"there are more than {MAX_STATEMENTS} variants", item.name)
        pairs: dict[str, Any] = {}
        self.pairs("variant", item.settings, VARIANT_SETTINGS, pairs)
        published: list[Published] = []
        for statement in item.statements:
            keyword = statement.keyword.text
            if keyword == "expect":
                if "expect" in pairs:
                    message = "`expect` stands a second time"
                    self.error("E0402", message, statement.keyword, "keep one of them")
                pairs["expect"] = self.expect(statement)
            elif keyword == "published":
                for setting in statement.settings:
                    if setting.name in VARIANT_SETTINGS:
                        message = f"`{setting.name}=` belongs to the variant, not to `published`"
                        self.error("E0404", message, setting.key, "put it before `published`")
                published.append(self.published(statement))
            else:
                takes = ", ".join(f"{key}=" for key in VARIANT_SETTINGS)
                hint = f"a variant takes {takes}, `expect` and `published`"
                if keyword in VARIANT_SETTINGS and statement.value is not None:
                    hint = f"write {quoted(f'{keyword}={statement.value.text}')}"
                message = f"a variant has no statement `{keyword}`"
                self.error("E0404", message, statement.keyword, hint)
        try:
            read = Variant.model_validate({"name": name, **pairs, "published": published})
            variants.setdefault(name, read)
        except ValidationError as errors:
            listed_errors = errors.errors(include_url=False, include_input=False)
            values = {setting.name: setting.value for setting in item.settings}
            for error in listed_errors:
                word = values.get(str(error["loc"][0]))
                if word is not None:
                    self.bad_word(word, error)

    # -- sections

    def sections(
        self, sections: list[Section]
    ) -> tuple[tuple[AnyBlock, ...], tuple[Stage, ...], tuple[AnyBlock, ...]]:
        order = {"stem": 0, "stage": 1, "head": 2}
        called = {"stem": "the stem", "stage": "a stage", "head": "the head"}
        found: dict[str, list[tuple[AnyBlock, ...]]] = {"stem": [], "stage": [], "head": []}
        stages: list[Stage] = []
        reached = "stem"
        names: set[str] = set()
        for section in sections:
            kind = section.kind.text
            blocks = tuple(self.blocks(section))
            if kind not in order:
                continue  # an unknown section, reported by the parser
            if order[kind] < order[reached]:
                message = f"{called[kind]} cannot stand after {called[reached]}"
                self.error("E0406", message, section.kind, "the order is stem, stages, head")
            elif kind != "stage" and found[kind]:
                message = f"a second {kind}: a file has one"
                self.error("E0406", message, section.kind, f"join the two {kind}s")
            else:
                reached = kind
            found[kind].append(blocks)
            if kind == "stage":
                name = self.identifier(section.name, "a stage's name") if section.name else None
                shown = name or f"stage{len(stages) + 1}"
                if shown in names:
                    message = f"a second stage has the name {quoted(shown)}"
                    hint = "give it another name"
                    if name is None:
                        message = f"this stage would be called `{shown}`, and another is"
                        hint = "give it a name"
                    self.error("E0407", message, section.name or section.kind, hint)
                names.add(shown)
                stages.append(Stage.model_construct(name=name, blocks=blocks))
            elif section.name is not None and self._braced(section):
                self.error("E0408", f"a {kind} has no name", section.name, "only stages have names")
        if not any(section.blocks for section in sections) and not self.diagnostics:
            places = [item.kind for item in sections] + [Word("", "", 0)]
            hint = "write `stem { conv_k3_s22_o32 }` and go on"
            self.error("E0306", "the file has no blocks", places[0], hint)
        stem = found["stem"][0] if found["stem"] else ()
        head = found["head"][0] if found["head"] else ()
        return stem, tuple(stages), head

    def _braced(self, section: Section) -> bool:
        """Whether the brace is in the text, and not one that the parser thought up."""
        return self.document.source.text.startswith("{", section.opened)

    def blocks(self, section: Section) -> Iterator[AnyBlock]:
        for word in section.blocks:
            if isinstance(word, Choice):
                at = Span(self.document.source, word.start, word.end)
                message = "alternatives make a search space, and this must be one architecture"
                self.error("E0107", message, at, "keep one of the blocks")
                continue
            decoded = decode(word.text)
            if decoded.block is not None:
                yield decoded.block
            for problem in decoded.problems:
                span = self.origins.span(word).part(problem.start, problem.end)
                self.error(problem.code, problem.message, span, problem.help)


_MODELS: dict[str, type[BaseModel]] = {"norm": Norm, "round": Rounding, "se": SqueezeExcite}

_EXAMPLES = {
    "input": "224x224x3",
    "act": "relu",
    "pad": "same",
    "width": "0.75",
    "depth": "1.2",
    "layer_scale": "1e-5",
    "droppath": "0.2",
    "classes": "1000",
}


def unquoted(word: Word) -> str:
    """A word's text, or a string's without its quotes."""
    return word.text[1:-1] if word.type == "STRING" else word.text


def _scalar(word: Word) -> int | float | str:
    return word.text if word.type == "STRING" else number(word.text)


@lru_cache(maxsize=1 << 12)
def _read_attributes(
    raw: tuple[tuple[str, Any], ...],
) -> tuple[Attributes | None, tuple[Mapping[str, Any], ...]]:
    values = {name: dict(value) if name in _MODELS else value for name, value in raw}
    try:
        return Attributes.model_validate(values), ()
    except ValidationError as errors:
        return None, tuple(
            dict(error) for error in errors.errors(include_url=False, include_input=False)
        )


# Statements that are not attributes are read one by one above.
assert set(_EXAMPLES) | set(_MODELS) == set(ATTRIBUTES), listed(ATTRIBUTES)
