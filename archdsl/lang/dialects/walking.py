"""What the writers of other libraries' notations have in common: blocks in place, and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.fields import Width
from archdsl.lang.origins import Origins
from archdsl.lang.source import Span
from archdsl.lang.spec import ArchSpec, Attributes, Block
from archdsl.lang.widths import deepened, rounded, scaled, squeezed
from archdsl.limits import most


class Written(NamedTuple):
    """A text in another notation, and warnings of what it leaves out that is no part of the net."""

    text: str
    warnings: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """A block in its place, with the widths that it really has; `repeats` are as built."""

    path: str
    index: int
    block: Block
    repeats: int
    in_channels: int
    out_channels: int
    written: int
    """Its output width as written, or as the blocks before it wrote it."""

    plain: bool
    """Whether the width multiplier makes `out_channels` of `written`."""

    @property
    def stride(self) -> tuple[int, int]:
        return getattr(self.block, "stride", (1, 1))

    @property
    def inputs(self) -> tuple[int, ...]:
        """What comes into the first repeat, and into the others."""
        rest = (self.out_channels,) if self.repeats > 1 else ()
        return tuple(dict.fromkeys((self.in_channels, *rest)))

    def act(self, attributes: Attributes) -> str:
        act: str | None = getattr(self.block, "act", None)
        return act or attributes.act


def expanded(block: Any, in_channels: int, attributes: Attributes) -> int | None:
    """The expanded width of a block, or None where it has no expansion."""
    if block.kind == "sep":
        return None
    if block.expanded is not None:
        width = scaled(block.expanded, attributes)
        return None if block.kind != "uib" and width == in_channels else width
    if block.kind != "uib" and block.expansion == 1:
        return None
    return rounded(in_channels * block.expansion, attributes)


def se_width(block: Any, in_channels: int, attributes: Attributes) -> int:
    """The inner width of a block's squeeze-and-excitation, 0 for none."""
    if not getattr(block, "se", 0):
        return 0
    hidden = expanded(block, in_channels, attributes) or in_channels
    return squeezed(block.se, in_channels, hidden, attributes)


@dataclass
class Writing:
    """A specification on its way into another notation; gathers all that has no place there."""

    spec: ArchSpec
    origins: Origins | None
    notation: str
    errors: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)

    @property
    def attributes(self) -> Attributes:
        return self.spec.attributes

    def at(self, item: Item, name: str | None = None) -> Span | None:
        return self.origins.field(item.path, item.index, name) if self.origins else None

    def refuse(
        self, what: str, item: Item, name: str | None = None, help: str | None = None
    ) -> None:
        """Say that the notation cannot carry something of a block."""
        self.errors.append(Diagnostic("E0606", what, self.at(item, name), help))

    def statement(self, keyword: str) -> Span | None:
        if self.origins and (found := self.origins.statements(keyword)):
            return self.origins.span(found[0].keyword)
        return None

    def refuse_statement(self, what: str, keyword: str) -> None:
        self.errors.append(Diagnostic("E0606", what, self.statement(keyword)))

    def leave_out(self, what: str, at: Span | None) -> None:
        """Say that something is left out that changes nothing of the network's function."""
        self.warnings.append(Diagnostic("W0601", f"left out: {what}", at))

    def items(self) -> Iterator[Item]:
        """The blocks in order, with the widths and repeats that they come to."""
        channels = written = self.attributes.input[2]
        for path, section in self.spec.sections():
            for index, block in enumerate(section):
                out = getattr(block, "out_channels", None)
                after = channels
                if block.kind == "fc":
                    after = written = self.attributes.classes if out is None else out
                elif out is not None:
                    after, written = scaled(out, self.attributes), out.channels
                plain = scaled(Width(written), self.attributes) == after
                repeats = block.repeats
                if path.startswith("stages."):
                    repeats = deepened(repeats, self.attributes)
                if block.kind != "skip":
                    count = min(repeats, most("blocks"))
                    yield Item(path, index, block, count, channels, after, written, plain)
                channels = after

    def leave_out_droppath(self) -> None:
        """Say that stochastic depth is left out, where the notation has no place for it."""
        if self.attributes.droppath:
            what = f"`droppath` has no place in {self.notation}: it acts in training only"
            self.leave_out(what, self.statement("droppath"))

    def finish(self, text: str) -> Written:
        """The text with its warnings.

        Raises:
            ArchError: E0606, all that the notation cannot carry.
        """
        if self.errors:
            raise ArchError(self.errors)
        self._leave_out_facts()
        return Written(text, tuple(self.warnings))

    def _leave_out_facts(self) -> None:
        spec = self.spec
        facts = {"source": spec.source, "expect": spec.expect, "published": spec.published}
        for keyword, value in facts.items():
            if value:
                self.leave_out(f"`{keyword}` has no place in {self.notation}", None)
        if spec.variants:
            what = f"one network has a place in {self.notation}, so the variants stay behind"
            at = self.origins.variant(spec.variants[0].name) if self.origins else None
            self.leave_out(what, at)
        if any(stage.name for stage in spec.stages):
            self.leave_out(f"stages have no names in {self.notation}", None)
        # No specification holds comments.
        if self.origins and (comments := self.origins.document.comments):
            says = "a comment" if len(comments) == 1 else f"{len(comments)} comments"
            self.leave_out(says, self.origins.span(comments[0]))
