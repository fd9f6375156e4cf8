"""A claim of a paper, what we count instead, and how both stand on docs/claims.md."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import cached_property

import peer_networks

import archdsl
from archdsl.ir.ops import BatchNorm
from archdsl.library import find_member

Number = int | float | Fraction

_UNITS = {"": 1, "%": 1, "K": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class Paper:
    """Where claims come from; `arxiv` is the number, or none."""

    title: str
    arxiv: str = ""

    def __str__(self) -> str:
        return f"{self.title}, arXiv {self.arxiv}" if self.arxiv else self.title


@dataclass(frozen=True)
class Text:
    """A `.arch` text: a published network's, with changes, or one that stands on the page.

    `member` is the network's name, `changes` are pairs of what is written and what stands in its
    place; `width` and `input` are `archdsl.load`'s. `source` is a whole text instead.
    """

    member: str = ""
    changes: tuple[peer_networks.Change, ...] = ()
    width: float | None = None
    input: tuple[int, int, int] | None = None
    source: str = ""

    @cached_property
    def arch(self) -> archdsl.Arch:
        """The network."""
        if self.source:
            return archdsl.parse(self.source)
        if self.changes:
            assert self.width is None and self.input is None, self
            return peer_networks.changed(self.member, self.changes)
        return archdsl.load(self.member, width=self.width, input=self.input)

    def __str__(self) -> str:
        found = find_member(self.member)
        assert found is not None, self.member
        said = [f"`width={self.width:g}`"] if self.width else []
        if self.input:
            said.append(f"`input={'x'.join(map(str, self.input))}`")
        said += [_change(*change) for change in self.changes]
        name = f"[`{self.member}`](../architectures/{found.file})"
        return f"{name} with {', '.join(said)}" if said else name


def _change(written: str, other: str) -> str:
    before, after = (" ".join(text.split()) for text in (written, other))
    return f"`{before}` → `{after}`" if after else f"`{before}` → nothing"


@dataclass(frozen=True)
class Block:
    """A block string on an input of height x width x channels."""

    text: str
    input: tuple[int, int, int]

    def cost(self, dtype: str = "float32") -> archdsl.Cost:
        """What it costs."""
        return archdsl.block(self.text).cost(self.input, dtype=dtype)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"`{self.text}` on {'x'.join(map(str, self.input))}"


@dataclass(frozen=True)
class Figure:
    """A row of a claim: what it is, what the paper has, what we have, and whether they agree.

    `value` is ours, as a number; `agrees` is None where there is nothing to compare.
    """

    what: str
    printed: str
    value: Number
    shown: str
    agrees: bool | None

    def cells(self) -> tuple[str, str, str, str]:
        """The row of the table."""
        return (
            self.what,
            self.printed,
            self.shown,
            {None: "", True: "yes", False: "no"}[self.agrees],
        )


def printed(
    what: str, figure: str, ours: Number, *, to: int | None = None, terms: int = 1
) -> Figure:
    """A figure that is printed: ours agrees where it rounds to it.

    `figure` is a number, with K, M, G or % behind it. It is rounded to its last digit, or to
    multiples of `to` of its unit; a difference of `terms` printed figures is as many times less
    precise.
    """
    match = re.fullmatch(r"([0-9,]+(?:\.[0-9]+)?) ?([KMG%]?)", figure)
    assert match is not None, figure
    number = Decimal(match[1].replace(",", ""))
    last = Fraction(to or Decimal(1).scaleb(int(number.as_tuple().exponent)))
    distance = abs(Fraction(ours) / _UNITS[match[2]] - Fraction(number))
    shown = _shown(ours, "%" if match[2] == "%" else "")
    return Figure(what, figure, ours, shown, distance <= last / 2 * terms)


def near(what: str, figure: str, ours: float, *, unit: str = "") -> Figure:
    """A measured figure beside an estimate: they agree where they are within a tenth."""
    number = float(figure)
    shown = f"{ours:.4g}{unit}"
    return Figure(what, f"{figure}{unit}", ours, shown, abs(ours - number) <= number / 10)


def said(what: str, words: str, ours: Number, holds: bool, *, unit: str = "") -> Figure:
    """A statement in words, and whether our number bears it out."""
    return Figure(what, words, ours, _shown(ours, unit), holds)


def ours(what: str, value: Number, *, unit: str = "") -> Figure:
    """A number that the paper does not have."""
    return Figure(what, "", value, _shown(value, unit), None)


def _shown(value: Number, unit: str) -> str:
    if unit == "%":
        return f"{float(value):.2f} %"
    whole = Fraction(value).denominator == 1
    return f"{int(value):,}{unit}" if whole else f"{float(value):,.4g}{unit}"


@dataclass(frozen=True)
class Claim:
    """What a paper says of what can be counted.

    `name` is for the tests, `headline` what is claimed in a few words, `says` and `why` are
    sentences of the page. The verdict is that of the figures.
    """

    name: str
    title: str
    headline: str
    paper: Paper
    where: str
    says: str
    texts: Sequence[Text | Block]
    figures: Sequence[Figure]
    why: str
    extra: str = field(default="", repr=False)
    """What else stands behind the table."""

    @property
    def verdict(self) -> str:
        """`agrees`, `does not agree`, or how many of the figures do."""
        held = [figure.agrees for figure in self.figures if figure.agrees is not None]
        assert held, self.name
        if len(set(held)) > 1:
            return f"agrees in {sum(held)} of {len(held)}"
        return "agrees" if held[0] else "does not agree"

    def __getitem__(self, what: str) -> Figure:
        """The figure of a name."""
        (found,) = [figure for figure in self.figures if figure.what == what]
        return found

    def section(self) -> str:
        """The claim on the page."""
        listed = [str(text) for text in self.texts if isinstance(text, Block) or text.member]
        whole = [t.source for t in self.texts if isinstance(t, Text) and t.source]
        parts = [f"### {self.title}", _wrapped(f"*{self.paper}, {self.where}:* {self.says}")]
        parts += [f"```arch\n{source.strip()}\n```" for source in whole]
        if listed:
            parts.append(_wrapped(f"Texts: {'; '.join(listed)}."))
        head = ("", "paper", "ours", "agrees")
        parts.append(table(head, [f.cells() for f in self.figures], "lrrl"))
        if self.extra:
            parts.append(self.extra.strip())
        verdict = self.verdict[0].upper() + self.verdict[1:]
        parts.append(_wrapped(f"**{verdict}.** {self.why}"))
        return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def without_norms(arch: archdsl.Arch) -> int:
    """The parameters of kernels and biases alone: what some papers and tables print."""
    norms = (node.op for node in arch.graph() if isinstance(node.op, BatchNorm))
    return arch.cost().params - sum(op.parameter_count for op in norms)


def reduction(before: float, after: float) -> float:
    """By how much less it is, in percent of what it was."""
    return 100 * (1 - after / before)


def _wrapped(paragraph: str) -> str:
    """A paragraph in lines; code keeps its spaces, and no line begins as a list's item."""
    held = re.sub(r"`[^`]+`", lambda code: code[0].replace(" ", "\0"), paragraph)
    held = re.sub(r" (?=[-+=*/] )", "\0", held)
    lines = textwrap.wrap(held, 118, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def table(head: Sequence[str], rows: Iterable[Sequence[object]], sides: str) -> str:
    """A table in Markdown; `sides` has `l` or `r` for each column."""
    rule = ["---:" if side == "r" else "---" for side in sides]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in (head, rule, *rows))
