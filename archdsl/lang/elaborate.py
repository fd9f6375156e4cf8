"""From syntax trees to the typed specification; every fault becomes a diagnostic with a span.

Reading a file's attributes is memoised by text, as reading a block string is (decode.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter, ValidationError

from archdsl.lang.decode import DRAWS, decode
from archdsl.lang.diagnostics import Diagnostic, did_you_mean, listed, quoted
from archdsl.lang.fields import Text
from archdsl.lang.origins import Origins
from archdsl.lang.recovery import without_equals
from archdsl.lang.source import Span
from archdsl.lang.spec import (
    ATTRIBUTES,
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
)
from archdsl.lang.trees import (
    Choice,
    Document,
    Item,
    OpenStatement,
    Section,
    Setting,
    Statement,
    Word,
)
from archdsl.lang.trees import Variant as VariantTree
from archdsl.lang.values import limit_hint, number, sentence
from archdsl.limits import MAX_ERRORS, Raised, in_force, most
from archdsl.limits import hint as limit_of


class Elaborated(NamedTuple):
    """A text's specification (None where it has errors), its places and its diagnostics.

    Where the text has errors in blocks or figures, `draft` is what it says without them, up to the
    first block that cannot be guessed: shapes and declared widths can be proved on it.
    """

    spec: ArchSpec | None
    origins: Origins
    diagnostics: list[Diagnostic]
    draft: ArchSpec | None = None


def elaborate(document: Document) -> Elaborated:
    """The typed specification of a parsed file."""
    elaboration = _Elaboration(document)
    spec = elaboration.run()
    diagnostics = elaboration.diagnostics
    if any(d.severity == "error" for d in diagnostics):
        draft = None if elaboration.unplaceable else spec
        return Elaborated(None, elaboration.origins, diagnostics, draft)
    return Elaborated(spec, elaboration.origins, diagnostics)


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
    cut: bool = False
    """Whether a block was reached that cannot be guessed: what is behind it is unknown."""
    unplaceable: bool = False
    """Whether the order of the blocks is in doubt."""

    def __post_init__(self) -> None:
        self.diagnostics = list(self.document.diagnostics)
        self.origins = Origins(self.document)
        # Words that the parser skipped may have been blocks.
        self.unplaceable = bool(self.diagnostics)

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
                continue
            if type(item) is OpenStatement:
                item = self.decided(item)
            if type(item) is Statement:
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
        if read is None:
            return None
        return ArchSpec.model_construct(
            name=fields.get("arch", ""),
            source=fields.get("source"),
            attributes=read,
            stem=stem,
            stages=stages,
            head=head,
            expect=fields.get("expect"),
            published=tuple(published),
            variants=tuple(variants.values()),
        )

    def decided(self, item: OpenStatement) -> Statement:
        """What is read on with of a statement that is left open, which is reported."""
        first = item.value.blocks[0]
        message = f"`{item.keyword.text}` is left open, and this must be one architecture"
        help = f"write one value, such as `{item.keyword.text} {first.text}`; {DRAWS}"
        self.error("E0107", message, self.origins.span(item.value), help)
        return Statement(item.keyword, first, ())

    def missing(self, keyword: str, what: str, example: str) -> None:
        if self.document.unread or self.attempted(keyword):
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
        if not _NAMES[first].fullmatch(word.text):
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
        try:
            return _TEXT.validate_python(unquoted(item.value))
        except ValidationError as errors:
            (error,) = errors.errors(include_url=False, include_input=False)
            self.error("E0403", f"{quoted(item.value.text)}: {sentence(error)}", item.value)
            return None

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
            keys = _KEYS[keyword]
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
        result, errors = _read_attributes(tuple(raw), in_force())
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
        if not self.document.source.text.startswith(word.text, word.start):
            return  # the parser thought up its end, and has reported that
        says = sentence(error)
        hint = limit_hint(error)
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
        highest = most("statements")
        if self.sources > highest:
            if self.sources == highest + 1:
                message = f"there are more than {highest:,} `published` statements"
                self.error("E0110", message, item.keyword, limit_of("statements"))
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
            if setting.name in into:
                message = f"`{setting.name}` stands a second time"
                self.error("E0409", message, setting.key, "keep one of them")
            into[setting.name] = text
        try:
            return Published.model_validate(fields)
        except ValidationError as errors:
            settings = {setting.name: setting for setting in item.settings}
            for error in errors.errors(include_url=False, include_input=False):
                name = next(str(part) for part in reversed(error["loc"]) if part in settings)
                setting = settings[name]
                word = setting.key if error["loc"][-1] == "[key]" else setting.value
                says = sentence(error)
                if setting.name in {"params", "macs"}:
                    says = "must be a number such as 3.4M, 300M or 1.2G"
                self.error("E0403", f"{quoted(word.text)}: {says}", word)
            return Published()

    def variant(self, item: VariantTree, variants: dict[str, Variant]) -> None:
        name = self.identifier(item.name, "a variant's name", first="a-z0-9")
        if name in variants:
            message = f"variant {quoted(name)} stands a second time"
            self.error("E0501", message, item.name, "give it another name")
        if len(variants) == most("statements"):
            message = f"there are more than {most('statements'):,} variants"
            self.error("E0110", message, item.name, limit_of("statements"))
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
                self.unplaceable = True
            elif kind != "stage" and found[kind]:
                message = f"a second {kind}: a file has one"
                self.error("E0406", message, section.kind, f"join the two {kind}s")
                self.unplaceable = True
            else:
                reached = kind
            if section.blocks == () and self._braced(section) and not self._faulty_inside(section):
                message = f"{called[kind]} has no blocks"
                self.error("E0306", message, section.kind, "leave the section out")
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
                    self.unplaceable = True
                names.add(shown)
                stages.append(Stage.model_construct(name=name, blocks=blocks))
            elif section.name is not None and self._braced(section):
                self.error("E0408", f"a {kind} has no name", section.name, "only stages have names")
        if not sections and not self.diagnostics:
            hint = "write `stem { conv_k3_s22_o32 }` and go on"
            self.error("E0306", "the file has no blocks", Word("", "", 0), hint)
        stem = found["stem"][0] if found["stem"] else ()
        head = found["head"][0] if found["head"] else ()
        return stem, tuple(stages), head

    def _faulty_inside(self, section: Section) -> bool:
        """Whether the parser skipped something between the braces."""
        return any(
            d.span is not None and section.opened < d.span.start < section.closed
            for d in self.document.diagnostics
        )

    def _braced(self, section: Section) -> bool:
        """Whether the brace is in the text, and not one that the parser thought up."""
        return self.document.source.text.startswith("{", section.opened)

    def blocks(self, section: Section) -> Iterator[AnyBlock]:
        for word in section.blocks:
            if isinstance(word, Choice):
                at = self.origins.span(word)
                message = "alternatives make a search space, and this must be one architecture"
                self.error("E0107", message, at, f"keep one of the blocks; {DRAWS}")
                self.cut = True
                continue
            decoded = decode(word.text)
            block = decoded.block or decoded.guess
            self.cut = self.cut or block is None
            if block is not None and not self.cut:
                yield block
            for problem in decoded.problems:
                span = self.origins.span(word).part(problem.start, problem.end)
                self.error(problem.code, problem.message, span, problem.help)


_NAMES = {first: re.compile(rf"[{first}][a-z0-9_]{{0,63}}") for first in ("a-z", "a-z0-9")}

_TEXT: TypeAdapter[str] = TypeAdapter(Text)

_MODELS: dict[str, type[BaseModel]] = {"norm": Norm, "round": Rounding, "se": SqueezeExcite}

_KEYS = {
    keyword: [f.alias or n for n, f in model.model_fields.items() if n != model.positional]  # type: ignore[attr-defined]
    for keyword, model in _MODELS.items()
}

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
    raw: tuple[tuple[str, Any], ...], _: Raised
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
