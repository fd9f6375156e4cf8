"""From a text with choices to a plan: which decisions there are, and what each block may become.

A plan is a row of places, a place a menu of options. An option of a block that is not repeated
freely is a block string; one of a block with `each` is followed by a menu for each of its layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import prod
from typing import NamedTuple

from archdsl.lang.decode import decode
from archdsl.lang.diagnostics import ArchError, Diagnostic, in_order, quoted
from archdsl.lang.elaborate import elaborate
from archdsl.lang.source import SourceText, Span
from archdsl.lang.spec import ATTRIBUTES, KINDS, ArchSpec, Block, vocabulary
from archdsl.lang.syntax import parse_block, parse_file
from archdsl.lang.trees import (
    Choice as Alternatives,
)
from archdsl.lang.trees import (
    Document,
    Item,
    OpenStatement,
    Part,
    Section,
    Statement,
    Variant,
    Word,
)
from archdsl.lang.values import number
from archdsl.limits import MAX_CHOICES, MAX_OPTIONS

EACH = "each"
"""The flag of a block whose layers choose for themselves."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A decision of a search space: where it stands, and the texts that it is between.

    `path` is the block's path, with the letter of the field (`stages.c2.0.k`); the alternatives
    of a block are counted from 1 (`stages.c2.0[2].k`), and the layers of one with `each` from 0
    (`stages.c2.0.layer1.k`). `spans` has the place of each option, `span` that of all.
    """

    path: str
    options: tuple[str, ...]
    span: Span
    spans: tuple[Span, ...]


Pick = tuple[int, int]
"""The number of a choice, and that of the option taken."""


class Menu:
    """What can be taken at one point: its options in order, and the choices they decide."""

    __slots__ = ("by_indices", "columns", "options", "refused")

    def __init__(self, options: Iterable[Option], refused: int = 0) -> None:
        self.options = tuple(options)
        self.refused = refused
        """How many ways to decide are no block at all, such as a stride without a kernel."""
        self.columns = tuple(sorted({column for o in self.options for column, _ in o.picks}))
        self.by_indices: dict[tuple[int, ...], int] = {}
        for place, option in enumerate(self.options):
            taken = dict(option.picks)
            key = tuple(taken.get(column, 0) for column in self.columns)
            self.by_indices.setdefault(key, place)


@dataclass(frozen=True, slots=True, eq=False)
class Option:
    """What one way to decide comes to: a block, or menus of layers still to be decided, or nothing.

    `fields` has the place in the text of each field of the block.
    """

    picks: tuple[Pick, ...]
    block: Block | None = None
    layers: tuple[Menu, ...] = ()
    fields: Mapping[str, Span] | None = None
    span: Span | None = None
    fault: Diagnostic | None = None
    """Why it is no block."""


NOTHING = Menu([Option(())])
"""The menu of a point where nothing is left to decide."""


class Place(NamedTuple):
    """A block of the text: its section's path, its menu, and the most layers that follow it."""

    section: str
    menu: Menu
    layers: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A search space as read.

    `members` are the specifications, one for each way to decide the file-level statements (the
    `picks`), in which every block with a choice is a `skip`.
    """

    source: SourceText
    choices: tuple[Choice, ...]
    places: tuple[Place, ...]
    members: tuple[tuple[tuple[Pick, ...], ArchSpec], ...]


def has_choices(document: Document) -> bool:
    """Whether a text is a search space."""
    return any(
        type(item) is OpenStatement
        or (type(item) is Section and any(_is_open(word) for word in item.blocks))
        for item in document.items
    )


def _is_open(word: Word | Alternatives) -> bool:
    return type(word) is Alternatives or (type(word) is Word and "{" in word.text)


def read_plan(source: SourceText) -> Plan:
    """The plan of a text.

    Raises:
        ArchError: the text has errors; all of them are in it.
    """
    document = parse_file(source)
    reading = _Reading(document)
    plan = reading.run()
    if reading.diagnostics or plan is None:
        raise ArchError(in_order(reading.diagnostics))
    return plan


class _Piece(NamedTuple):
    """A field of a block string with its set of values: their texts and places."""

    key: str
    name: str
    values: tuple[str, ...]
    spans: tuple[Span, ...]
    at: Span

    @property
    def open(self) -> bool:
        return len(self.values) > 1


class _Reading:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.diagnostics: list[Diagnostic] = list(document.diagnostics)
        self.choices: list[Choice] = []
        self.told: set[tuple[str, int, int]] = set()
        self.refused = 0
        """The ways to decide the block at hand that are no block."""

    def error(self, code: str, message: str, span: Span, help: str | None = None) -> None:
        key = (code, span.start, span.end)
        if key not in self.told:
            self.told.add(key)
            self.diagnostics.append(Diagnostic(code, message, span, help))

    def span(self, start: int, end: int) -> Span:
        return Span(self.document.source, start, min(end, len(self.document.source.text)))

    def run(self) -> Plan | None:
        open_statements = [i for i in self.document.items if type(i) is OpenStatement]
        for statement in open_statements:
            word = statement.keyword
            if word.text not in ATTRIBUTES:
                message = f"`{word.text}` cannot be left open"
                self.error("E1002", message, self.span(word.start, word.end), "write one value")
                return None
        for statement in open_statements:
            value = statement.value
            whole = self.span(value.start, value.end)
            self.choose(statement.keyword.text, value.blocks, whole)
        for item in self.document.items:
            if type(item) is Variant or (type(item) is Statement and item.keyword.text == "expect"):
                word = item.keyword
                message = f"`{word.text}` speaks of one network, and this is a search space"
                help = "leave it out: a member that is taken out of the space may have it"
                if not has_choices(self.document):
                    message = f"`{word.text}` speaks of one network, and this text is one"
                    help = "a search space has choices, such as `k{3,5}` or `( k3_e6 | skip )`"
                self.error("E1002", message, self.span(word.start, word.end), help)
        combinations = prod(len(item.value.blocks) for item in open_statements)
        if combinations > MAX_OPTIONS:
            first = open_statements[0].keyword
            self.too_many("ways to decide the statements", self.span(first.start, first.end))
            return None
        members = []
        for chosen in product(*(range(len(item.value.blocks)) for item in open_statements)):
            elaborated = elaborate(self.decided(open_statements, chosen))
            for found in elaborated.diagnostics:
                if found.severity == "error" and found not in self.diagnostics:
                    self.diagnostics.append(found)
            if elaborated.spec is not None:
                spec = elaborated.spec.model_copy(update={"published": ()})
                members.append((tuple(enumerate(chosen)), spec))
        if self.diagnostics:
            members = []
        places = list(self.places(members[0][1] if members else None))
        if len(self.choices) > MAX_CHOICES:
            return None
        return Plan(self.document.source, tuple(self.choices), tuple(places), tuple(members))

    def too_many(self, what: str, span: Span, most: int = MAX_OPTIONS) -> None:
        self.error("E0110", f"there are more than {most:,} {what}", span)

    def choose(self, path: str, words: Sequence[Word], whole: Span) -> int:
        """Take down a choice; its number."""
        spans = tuple(self.span(word.start, word.end) for word in words)
        self.choices.append(Choice(path, tuple(word.text for word in words), whole, spans))
        seen: set[object] = set()
        for word, span in zip(words, spans, strict=True):
            value = number(word.text)
            if value in seen:
                self.twice(word.text, span)
            seen.add(value)
        return len(self.choices) - 1

    def twice(self, text: str, span: Span) -> None:
        self.error("E1003", f"{quoted(text)} is an option a second time", span, "keep one of them")

    def decided(self, statements: Sequence[OpenStatement], chosen: Sequence[int]) -> Document:
        """The document with its statements decided, and a `skip` for each block with a choice."""
        values = iter(chosen)
        items: list[Item] = []
        for item in self.document.items:
            if type(item) is OpenStatement:
                items.append(Statement(item.keyword, item.value.blocks[next(values)], ()))
            elif type(item) is Section:
                blocks = tuple(
                    Word("WORD", "skip", word.start) if self.is_place(word) else word
                    for word in item.blocks
                )
                items.append(item._replace(blocks=blocks))
            elif type(item) is not Variant and not (
                type(item) is Statement and item.keyword.text == "expect"
            ):
                items.append(item)
        return replace(self.document, items=tuple(items), diagnostics=[])

    def is_place(self, word: Word | Alternatives) -> bool:
        """Whether a block is read here, and not as in an architecture."""
        return _is_open(word) or (type(word) is Word and EACH in word.text.split("_"))

    # -- blocks

    def places(self, spec: ArchSpec | None) -> Iterator[Place]:
        blocks = dict(spec.sections()) if spec else {}
        sections = [item for item in self.document.items if type(item) is Section]
        number_ = 0
        for section in sections:
            path = section.kind.text
            if path == "stage":
                number_ += 1
                path = f"stages.{section.name.text if section.name else f'stage{number_}'}"
            for index, word in enumerate(section.blocks):
                if len(self.choices) > MAX_CHOICES:
                    self.too_many("choices", self.span(word.start, word.end), MAX_CHOICES)
                    return
                if self.is_place(word):
                    self.refused = 0
                    options = list(self.options(f"{path}.{index}", word))
                    layers = max((len(option.layers) for option in options), default=0)
                    yield Place(path, Menu(options, self.refused), layers)
                elif spec is not None:
                    block = blocks[path][index]
                    assert type(word) is Word
                    at = self.span(word.start, word.end)
                    fields = {
                        name: at.part(*place) for name, place in decode(word.text).places.items()
                    }
                    yield Place(path, Menu([Option((), block, (), fields, at)]), 0)

    def options(self, path: str, word: Word | Alternatives) -> Iterator[Option]:
        if type(word) is Word:
            yield from self.alternative(path, word, ())
            return
        assert type(word) is Alternatives
        column = self.choose(path, word.blocks, self.span(word.start, word.end))
        known: set[object] = set()
        for index, inner in enumerate(word.blocks):
            told = False
            for option in self.alternative(f"{path}[{index + 1}]", inner, ((column, index),)):
                key = None if option.block is None else meaning(option.block)
                if key in known and not told:
                    told = True
                    shown = self.span(inner.start, inner.end)
                    self.twice(inner.text, shown)
                known.add(key or object())
                yield option
            if len(self.choices) > MAX_CHOICES:
                return

    def alternative(self, path: str, word: Word, picks: tuple[Pick, ...]) -> Iterator[Option]:
        """The options that one block string with sets stands for."""
        parts, errors = parse_block(word.text)
        at = self.span(word.start, word.end)
        for start, end, message in errors:
            self.error("E0212", message, at.part(start, end))
        if errors:
            return
        named = parts[0].key.text if parts[0].values is None else ""
        kind = named if named in KINDS else "ir"
        pieces = [self.piece(kind, part, word) for part in parts]
        each = any(piece.key == EACH and not piece.values for piece in pieces)
        pieces = [piece for piece in pieces if piece.key != EACH or piece.values]
        if each and not any(piece.name == "repeats" for piece in pieces):
            help = "write how many layers it has, such as `r{2,3,4}`"
            self.error("E1004", "a block with `each` needs `r`", at, help)
            return
        if not each:
            yield from self.blocks(path, pieces, picks, at)
        else:
            yield from self.repeated(path, pieces, picks, at)

    def piece(self, kind: str, part: Part, word: Word) -> _Piece:
        start = word.start + part.key.start
        behind = word.text.find("_", part.key.start)
        end = word.start + (len(word.text) if behind < 0 else behind)
        text = self.document.source.text[start + len(part.key.text) : end]
        values: tuple[str, ...] = () if part.values is None else (text,)
        spans: tuple[Span, ...] = ()
        whole = self.span(start, end)
        if text.startswith("{"):
            values = tuple(text[1:-1].split(","))
            place = start + len(part.key.text) + 1
            for value in values:
                spans += (self.span(place, place + len(value)),)
                place += len(value) + 1
            if len(values) == 1:
                help = f"write `{part.key.text}{values[0]}`"
                self.error("E1003", "a choice has at least two options", whole, help)
            seen: set[object] = set()
            for value, span in zip(values, spans, strict=True):
                if number(value) in seen:
                    self.twice(value, span)
                seen.add(number(value))
        name = vocabulary(kind).keys.get(part.key.text, "")
        return _Piece(part.key.text, name, values, spans, whole)

    def choose_piece(self, path: str, piece: _Piece) -> int:
        options = tuple(piece.key + value for value in piece.values)
        self.choices.append(Choice(f"{path}.{piece.key}", options, piece.at, piece.spans))
        return len(self.choices) - 1

    def blocks(
        self, path: str, pieces: Sequence[_Piece], picks: tuple[Pick, ...], at: Span
    ) -> Iterator[Option]:
        """An option for every way to decide the sets of a block."""
        if prod(len(piece.values) for piece in pieces if piece.open) > MAX_OPTIONS:
            self.too_many("ways to decide a block", at)
            return
        columns = [self.choose_piece(path, piece) if piece.open else -1 for piece in pieces]
        options = []
        for chosen in product(*(range(max(1, len(piece.values))) for piece in pieces)):
            taken = tuple((c, i) for c, i in zip(columns, chosen, strict=True) if c >= 0)
            options.append(self.option(pieces, chosen, picks + taken, at))
        kept = self.valid(options)
        self.refused += len(options) - len(kept)
        yield from kept

    def repeated(
        self, path: str, pieces: Sequence[_Piece], picks: tuple[Pick, ...], at: Span
    ) -> Iterator[Option]:
        """An option for every depth and width of a block whose layers choose the rest."""
        shared = [piece for piece in pieces if piece.name in ("repeats", "out_channels")]
        free = [piece for piece in pieces if piece not in shared]
        for earlier, piece in combinations(shared, 2):
            if earlier.name == piece.name:
                message = f"{quoted(piece.at.text)} sets `{piece.key}` a second time"
                self.error("E0204", message, piece.at, "keep one of them")
                return
        depths = next(piece for piece in shared if piece.name == "repeats")
        if not depths.values:
            self.error("E0207", f"`{depths.key}` needs a value", depths.at, "such as `r{2,3,4}`")
            return
        counts = []
        for place, text in enumerate(depths.values):
            block = decode(f"r{text}").block
            if block is None:
                span = depths.spans[place] if depths.spans else depths.at
                self.error("E0207", f"`r{text}`: must be a number of layers", span)
                return
            counts.append(block.repeats)
        ways = prod(len(piece.values) for piece in free if piece.open)
        widths = prod(len(piece.values) for piece in shared if piece.open)
        wanted = max(counts) * sum(piece.open for piece in free)
        if ways * widths > MAX_OPTIONS or len(self.choices) + wanted > MAX_CHOICES:
            self.too_many("ways to decide a block, or layers that choose", at)
            return
        columns = [self.choose_piece(path, piece) if piece.open else -1 for piece in shared]
        layered = [
            [self.choose_piece(f"{path}.layer{n}", piece) if piece.open else -1 for piece in free]
            for n in range(max(counts))
        ]
        memo: dict[tuple[int, tuple[int, ...]], Menu] = {}
        for chosen in product(*(range(len(piece.values)) for piece in shared)):
            depth = 0
            widths_taken: list[int] = []
            for piece, index in zip(shared, chosen, strict=True):
                if piece is depths:
                    depth = counts[index]
                else:
                    widths_taken.append(index)
            menus = []
            for n in range(depth):
                key = (n, tuple(widths_taken))
                if key not in memo:
                    memo[key] = self.layer(n, free, layered[n], shared, chosen, at)
                menus.append(memo[key])
            taken = tuple((c, i) for c, i in zip(columns, chosen, strict=True) if c >= 0)
            yield Option(picks + taken, None, tuple(menus), None, at)

    def layer(
        self,
        n: int,
        free: Sequence[_Piece],
        columns: Sequence[int],
        shared: Sequence[_Piece],
        chosen: Sequence[int],
        at: Span,
    ) -> Menu:
        """The menu of a layer: the stride and the declared input are the first one's."""
        kept = [
            (piece, column)
            for piece, column in zip(free, columns, strict=True)
            if n == 0 or piece.name not in ("stride", "in_channels")
        ]
        width = [
            (piece, index)
            for piece, index in zip(shared, chosen, strict=True)
            if piece.name == "out_channels"
        ]
        pieces = [piece for piece, _ in kept] + [piece for piece, _ in width]
        options = []
        for indices in product(*(range(max(1, len(piece.values))) for piece, _ in kept)):
            taken = tuple(
                (column, index)
                for (_, column), index in zip(kept, indices, strict=True)
                if column >= 0
            )
            whole = (*indices, *(index for _, index in width))
            options.append(self.option(pieces, whole, taken, at))
        valid = self.valid(options)
        return Menu(valid, len(options) - len(valid))

    def valid(self, options: Sequence[Option]) -> list[Option]:
        """The options that are blocks; what no block can have is reported."""
        kept = [option for option in options if option.fault is None]
        sound = {pick for option in kept for pick in option.picks}
        for option in options:
            if option.fault is not None and (not kept or not sound.issuperset(option.picks)):
                fault = option.fault
                assert fault.span is not None
                self.error(fault.code, fault.message, fault.span, fault.help)
        return kept

    def option(
        self, pieces: Sequence[_Piece], chosen: Iterable[int], picks: tuple[Pick, ...], at: Span
    ) -> Option:
        """One block string, decoded; its faults are reported where the text has them."""
        texts: list[str] = []
        places: list[tuple[int, int, Span]] = []
        length = 0
        for piece, index in zip(pieces, chosen, strict=True):
            text = piece.key + (piece.values[index] if piece.values else "")
            span = piece.spans[index] if piece.open else piece.at
            places.append((length, length + len(text), span))
            texts.append(text)
            length += len(text) + 1
        decoded = decode("_".join(texts) or "ir")

        def place(start: int, end: int) -> Span:
            inside = [span for first, last, span in places if first <= start and end <= last]
            return inside[0] if inside else at

        fields = {name: place(*found) for name, found in decoded.places.items()}
        fault = None
        if decoded.block is None:
            first = decoded.problems[0]
            span = place(first.start, first.end)
            fault = Diagnostic(first.code, first.message, span, first.help)
        return Option(picks, decoded.block, (), fields, at, fault)


def meaning(block: Block) -> tuple[object, ...]:
    """What is the same for blocks that differ in their spelling alone."""
    return (type(block), *block.__dict__.values())
