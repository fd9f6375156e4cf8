"""Networks whose widths shrink one by one: which there are, to what, and the text that results.

A network is taken apart into its blocks, repeats counted, each with the width that it gives and
the width that it expands to. A width is shrunk by writing another number; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any, Literal

from archdsl.compiler import Arch, State, Unit, block_compiler, parse
from archdsl.ir.node import INPUT
from archdsl.ir.ops import Shape
from archdsl.lang.fields import Width
from archdsl.lang.printer import print_spec
from archdsl.lang.source import SourceText
from archdsl.lang.spec import (
    KINDS,
    AnyBlock,
    ArchSpec,
    Attributes,
    Block,
    Classifier,
    Convolution,
    FusedInvertedResidual,
    InvertedResidual,
    Pool,
    Separable,
    Stage,
    UniversalInvertedBottleneck,
)
from archdsl.lang.widths import rounded, scaled
from archdsl.passes.cost import Totals, Work, add_totals
from archdsl.search.identity import digest, tokens
from archdsl.search.slicing import channel_sets

Kind = Literal["expansion", "bottleneck"]

_EXPANDING = (InvertedResidual, FusedInvertedResidual, UniversalInvertedBottleneck)
_GIVING = (*_EXPANDING, Separable, Convolution)
"""Blocks of a stage whose widths are shrunk; those of others follow them or stay."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A block of the network, repeats counted, as it was written."""

    section: str
    index: int
    """Its number in the text of its section."""
    path: str
    """What its weights' names begin with: `stages.c3.1`."""
    block: Block
    """With the stride of this repeat alone."""
    whole: Block
    """The block of the text."""


@dataclass(frozen=True, slots=True)
class Shrinkable:
    """A width that may shrink: an expansion, or one that the blocks `cells` give or pass on."""

    kind: Kind
    cells: range
    place: str
    """`stages.c3.1`, or for several blocks `stages.c3.0-2`."""


@dataclass(frozen=True, slots=True)
class _Widths:
    """What a cell gives, and what it expands to, None where it does not."""

    out: int
    expanded: int | None


class _Shared:
    """What all networks that are made of one have in common."""

    def __init__(self, arch: Arch) -> None:
        self.spec = arch.spec
        self.name = arch.name if len(arch.name) <= 64 else arch.spec.name
        self.attributes = arch.attributes.model_copy(update={"width": 1.0, "depth": 1.0})
        self.compiler = block_compiler(self.attributes)
        self.cells: list[Cell] = []
        self.units: dict[tuple[int, Shape, _Widths], Unit | None] = {}
        self.words: dict[int, tuple[str, ...]] = {}
        self.shrinkable: tuple[Shrinkable, ...] = ()
        self.structure: tuple[tuple[tuple[str, type], ...], ...] = ()

    def unit(self, number: int, shape: Shape, widths: _Widths) -> Unit | None:
        """A cell on an input, lowered; None where it would not be the same but for its widths."""
        key = (number, shape, widths)
        if key in self.units:
            return self.units[key]
        block = written(self.cells[number].block, shape[-1], widths, self.attributes)
        found = None
        if block is not None:
            run = self.compiler.run(block, State(shape, shape[-1]), deepened=False)
            same = not run.problems and run.after.shape[-1] == widths.out
            if same and self._structure(run.units[0]) == self.structure[number]:
                found = run.units[0]
        self.units[key] = found
        return found

    @staticmethod
    def _structure(unit: Unit) -> tuple[tuple[str, type], ...]:
        return tuple((node.name, type(node.op)) for node in unit.fragment.nodes)

    def words_of(self, unit: Unit) -> tuple[str, ...]:
        found = self.words.get(id(unit))
        if found is None:
            # The units are held, so their ids are not used again.
            found = self.words[id(unit)] = tuple(tokens(unit.fragment))
        return found


class Network:
    """A network taken apart. Made by `Network.of`; `shrunk` gives another one."""

    def __init__(self, shared: _Shared, widths: tuple[_Widths, ...], units: tuple[Unit, ...]):
        self._shared = shared
        self._widths = widths
        self._units = units

    @classmethod
    def of(cls, arch: Arch) -> Network:
        """The network of an architecture, its width and depth multipliers written out."""
        shared = _Shared(arch)
        units: list[Unit] = []
        widths: list[_Widths] = []
        for item in arch.placed:
            for repeat, (path, unit) in enumerate(item.units()):
                whole = item.run.block
                dropped = {"repeats", "in_channels"} | ({"stride"} if repeat else set())
                block = _with(whole, drop=dropped)
                shared.cells.append(Cell(item.section, item.position, path, block, whole))
                units.append(unit)
                widths.append(_widths_of(unit))
        shared.structure = tuple(shared._structure(unit) for unit in units)
        network = cls(shared, tuple(widths), tuple(units))
        shared.shrinkable = tuple(network._shrinkable())
        return network

    # ------------------------------------------------------------------------------ its widths

    @property
    def widths(self) -> tuple[Shrinkable, ...]:
        """The widths that may shrink, in the order of the text."""
        return self._shared.shrinkable

    def count(self, width: Shrinkable) -> int:
        """The channels of a width."""
        found = self._widths[width.cells[0]]
        count = found.expanded if width.kind == "expansion" else found.out
        assert count is not None
        return count

    def smaller(self, width: Shrinkable) -> Sequence[int]:
        """The channels that a width may shrink to by the file's `round`, the most first."""
        attributes = self._shared.attributes
        step = attributes.round.divisor
        least = attributes.round.min or step
        below = self.count(width) - 1
        multiples = range(below // step * step, least - 1, -step)
        # The least may be no multiple, and then stands for all counts below it.
        odd = least % step and least <= below and rounded(least, attributes) == least
        return [*multiples, least] if odd else multiples

    def shrunk(self, width: Shrinkable, count: int) -> Network | None:
        """The network with a width of `count` channels.

        None where it would then not be the same network but for its widths: a group of channels
        that no longer divides evenly, or two widths that become equal and so get a residual.
        """
        widths = list(self._widths)
        for number in width.cells:
            change = {"expanded": count} if width.kind == "expansion" else {"out": count}
            widths[number] = replace(widths[number], **change)
        units = list(self._units)
        # What comes in is another width for the block behind the last one.
        shape = units[width.cells[0]].fragment.input
        for number in range(width.cells[0], len(units)):
            if number > width.cells[-1] and shape == units[number].fragment.input:
                break
            unit = self._shared.unit(number, shape, widths[number])
            if unit is None:
                return None
            units[number] = unit
            shape = unit.fragment.output
        return Network(self._shared, tuple(widths), tuple(units))

    def least(
        self, width: Shrinkable, reached: Callable[[Network], bool]
    ) -> tuple[int, Network] | None:
        """The least shrinking of a width with which something is reached, by bisection.

        More shrinking is taken to reach no less: a narrower network is no slower in the cost
        model, but for what a device may say of classes of operators.
        """
        counts = self.smaller(width)
        low, high = 0, len(counts)
        best = None
        while low < high:
            middle = (low + high) // 2
            # Counts that are not possible lie anywhere between those that are.
            found = None
            for place in range(middle, high):
                found = self.shrunk(width, counts[place])
                if found is not None:
                    break
            if found is None:
                high = middle
            elif reached(found):
                best = counts[place], found
                high = middle
            else:
                low = place + 1
        return best

    def narrowest(self) -> Network:
        """The network with all widths at their least, one after the other."""
        network = self
        for width in self.widths:
            made = (network.shrunk(width, count) for count in reversed(network.smaller(width)))
            network = next((found for found in made if found is not None), network)
        return network

    # ------------------------------------------------------------------------------ its figures

    @cached_property
    def work(self) -> Work:
        """What the network computes and moves; equal to that of its text's `Arch.work`."""
        return Work(row for unit in self._units for row in unit.cost.rows)

    @cached_property
    def totals(self) -> Totals:
        """Its counts, of elements, for one image."""
        return add_totals(unit.cost.totals for unit in self._units)

    @property
    def blocks(self) -> Iterator[tuple[str, Unit]]:
        """The blocks with their paths."""
        return ((c.path, u) for c, u in zip(self._shared.cells, self._units, strict=True))

    @cached_property
    def hash(self) -> str:
        """Its canonical hash (`archdsl.search.identity`)."""
        words = (word for unit in self._units for word in self._shared.words_of(unit))
        return digest(self._shared.attributes.input, words)

    # ------------------------------------------------------------------------------ its text

    def spec(self, source: str | None = None) -> ArchSpec:
        """Its specification, with another `source`; figures and variants are the old network's."""
        shared = self._shared
        sections: dict[str, list[AnyBlock]] = {path: [] for path, _ in shared.spec.sections()}
        said = shared.attributes.input[2]
        cells = zip(shared.cells, self._widths, self._units, strict=True)
        for (section, _), group in groupby(cells, lambda entry: (entry[0].section, entry[0].index)):
            entries = [
                (cell, written(cell.block, unit.fragment.input[-1], widths, shared.attributes))
                for cell, widths, unit in group
            ]
            whole = entries[0][0].whole
            for number, run in enumerate(_runs([block for _, block in entries if block])):
                fields: dict[str, Any] = {}
                if len(run) > 1 or (len(run) == len(entries) and "repeats" in _told(whole)):
                    fields["repeats"] = len(run)
                if whole.in_channels is not None and number == 0:
                    fields["in_channels"] = said
                block = _with(run[0], **fields)
                sections[section].append(block)  # type: ignore[arg-type]
                out = getattr(block, "out_channels", None)
                if isinstance(block, Classifier):
                    said = shared.attributes.classes if out is None else out
                elif out is not None:
                    said = out.channels
        stages = (path for path in sections if path.startswith("stages."))
        update = {
            "name": shared.name,
            "source": source,
            "attributes": shared.attributes,
            "stem": tuple(sections["stem"]),
            "stages": tuple(
                Stage.model_construct(name=stage.name, blocks=tuple(sections[path]))
                for stage, path in zip(shared.spec.stages, stages, strict=True)
            ),
            "head": tuple(sections["head"]),
            "expect": None,
            "published": (),
            "variants": (),
        }
        return shared.spec.model_copy(update=update)

    def text(self, source: str | None = None) -> str:
        """Its text, in canonical form."""
        return print_spec(self.spec(source))

    def arch(self, source: str | None = None) -> Arch:
        """The architecture of its text."""
        return parse(SourceText("<netadapt>", self.text(source)))

    # ------------------------------------------------------------------------------ what shrinks

    def _shrinkable(self) -> Iterator[Shrinkable]:
        cells = self._shared.cells
        pooled = next((n for n, c in enumerate(cells) if isinstance(c.block, Pool)), len(cells))
        groups = {group[0]: group for group in self._groups()}
        for number, cell in enumerate(cells):
            staged = cell.section.startswith("stages.") and number < pooled
            expanding = isinstance(cell.block, _EXPANDING)
            if staged and expanding and self._widths[number].expanded is not None:
                yield Shrinkable("expansion", range(number, number + 1), cell.path)
            group = groups.get(number)
            if group is not None and any(
                cells[n].section.startswith("stages.") and n < pooled and self._gives(n)
                for n in group
            ):
                giving = [cells[n].path for n in group if not _follows(cells[n].block)]
                yield Shrinkable("bottleneck", group, _place(giving))

    def _gives(self, number: int) -> bool:
        block = self._shared.cells[number].block
        return isinstance(block, _GIVING) and block.out_channels is not None

    def _groups(self) -> Iterator[range]:
        """Runs of cells that give one width; without that of the image, which cannot shrink."""
        start: int | None = None
        for number in range(len(self._units)):
            if not self._goes_on(number):
                if start is not None:
                    yield range(start, number)
                start = number
        if start is not None:
            yield range(start, len(self._units))

    def _goes_on(self, number: int) -> bool:
        """Whether a cell gives the width that it takes, and has to."""
        cell, unit = self._shared.cells[number], self._units[number]
        fragment = unit.fragment
        sets = channel_sets(fragment.nodes, {INPUT: fragment.input})
        if sets[fragment.result] == sets[INPUT]:
            return True
        if _follows(cell.block):
            return True
        before = self._shared.cells[number - 1] if number else None
        # Blocks of a stage that give one width share it, also where one has no residual.
        return (
            before is not None
            and before.section == cell.section
            and isinstance(cell.block, _EXPANDING)
            and isinstance(before.block, _EXPANDING)
            and fragment.output[-1] == fragment.input[-1]
        )


# ---------------------------------------------------------------------------------------- cells


def _told(block: Block) -> frozenset[str]:
    return frozenset(block.model_fields_set)


def _with(block: Block, drop: Sequence[str] | set[str] = (), **fields: Any) -> Block:
    """A block with some fields other or left out; what was written stays written."""
    told = {name: getattr(block, name) for name in _told(block) if name not in drop}
    return KINDS[block.kind].model_validate({**told, "kind": block.kind, **fields})


def _widths_of(unit: Unit) -> _Widths:
    expanded = next((n.shape[-1] for n in unit.fragment.nodes if n.name == "expand.conv"), None)
    return _Widths(unit.fragment.output[-1], expanded)


def _follows(block: Block) -> bool:
    """Whether a block has no width of its own."""
    return not isinstance(block, Classifier) and getattr(block, "out_channels", None) is None


def written(block: Block, channels: int, widths: _Widths, attributes: Attributes) -> Block | None:
    """A block that gives these widths on so many channels, as near to the old text as can be.

    None where the language cannot say it. The width multiplier is 1.
    """
    fields: dict[str, Any] = {}
    out = getattr(block, "out_channels", None)
    if isinstance(out, Width) and scaled(out, attributes) != widths.out:
        fields["out_channels"] = _exactly(widths.out, attributes)
    if not isinstance(block, _EXPANDING):
        return _with(block, **fields) if fields else block
    drop: set[str] = set()
    if not _expands_to(block, channels, widths.expanded, attributes):
        drop = {"expansion", "expanded"}
        if widths.expanded is None:
            fields["expansion"] = 1.0
        elif widths.expanded != channels or isinstance(block, UniversalInvertedBottleneck):
            fields["expanded"] = _exactly(widths.expanded, attributes)
        else:
            # An `x` of the input's width would be no expansion: a ratio that rounds to it is one.
            ratio = next((r for r in _NEAR_ONE if rounded(channels * r, attributes) == channels), 0)
            if not ratio:
                return None
            fields["expansion"] = ratio
    return _with(block, drop, **fields) if fields else block


_NEAR_ONE = (1.01, 1.001, 1.0001, 1.00001, 1.000001, 1.0000001, 0.99, 0.999, 0.9999)


def _exactly(count: int, attributes: Attributes) -> Width:
    return Width(count, "" if rounded(count, attributes) == count else "!")


def _expands_to(block: Block, channels: int, expanded: int | None, attributes: Attributes) -> bool:
    """Whether an expanding block, as it is written, expands so many channels to `expanded`."""
    assert isinstance(block, _EXPANDING)
    if block.expanded is not None:
        width = scaled(block.expanded, attributes)
        there = width != channels
    else:
        width = rounded(channels * block.expansion, attributes)
        there = block.expansion != 1
    there = there or isinstance(block, UniversalInvertedBottleneck)
    return (width if there else None) == expanded


def _runs(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Neighbours that one block with repeats stands for: alike, but for the first one's stride."""
    run: list[Block] = []
    for block in blocks:
        if run and _unstrided(run[0]) != _unstrided(block):
            yield run
            run = []
        run.append(block)
    if run:
        yield run


def _unstrided(block: Block) -> Block:
    return _with(block, drop={"stride"})


def _place(paths: Sequence[str]) -> str:
    """The blocks of a width, briefly: `stages.c3.0-2`; across sections `stem.0 - stages.c1.0`."""
    if len(paths) == 1:
        return paths[0]
    section, _, _ = paths[0].rpartition(".")
    other, _, last = paths[-1].rpartition(".")
    return f"{paths[0]}-{last}" if section == other else f"{paths[0]} - {paths[-1]}"
