"""Valid networks by construction: blocks are chosen one by one, each to fit what stands before it.

Channels, resolution and stride are tracked here, and not asked of the compiler: a network of these
that it refuses is a fault, of one or the other.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from archdsl.compiler import Arch, parse
from archdsl.lang.fields import ACTIVATIONS, Width
from archdsl.lang.printer import print_spec
from archdsl.lang.spec import KINDS, ArchSpec, Attributes, Block
from archdsl.lang.widths import deepened, rounded, scaled

T = TypeVar("T")


class Choices(Protocol):
    """Who chooses: hypothesis, or a seed. The first of some options is the simplest."""

    def one_of(self, options: Sequence[T]) -> T:
        """One of some options."""

    def number(self, low: int, high: int) -> int:
        """A whole number, both ends included."""


@dataclass(frozen=True)
class Seeded:
    """Choices from a seed, the same on every machine."""

    source: random.Random

    def one_of(self, options: Sequence[T]) -> T:
        return options[self.number(0, len(options) - 1)]

    def number(self, low: int, high: int) -> int:
        # `random()` alone is promised to stay as it is from one Python to the next.
        return low + int(self.source.random() * (high - low + 1))


@dataclass(frozen=True)
class Wanted:
    """Which networks are wanted.

    `largest`: pixels of an image's side, at most. `most`: blocks of the text, at most. `kinds`:
    those that may stand in it; the others do not. `scalable`: the network stays valid under any
    width multiplier, and a larger multiplier or image costs no less: no block has the expanded
    width itself, which may come to be the input's, nor groups, which must divide it.
    """

    largest: int = 24
    most: int = 8
    kinds: tuple[str, ...] = tuple(KINDS)
    scalable: bool = False

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise ValueError(f"kinds {list(self.kinds)}: must be some of {', '.join(KINDS)}")
        for name in ("largest", "most"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: must be at least 1")
        if set(self.kinds) == {"fc"} and self.largest > 1:
            raise ValueError("kinds ['fc']: a linear layer needs `pool` before it")


def wanted(largest: int, most: int, kinds: Iterable[str] | None, scalable: bool) -> Wanted:
    """The same from the arguments of the public functions.

    Raises:
        ValueError: an unknown kind, or a number below 1.
    """
    return Wanted(largest, most, tuple(KINDS if kinds is None else kinds), scalable)


def random_architecture(
    seed: int,
    *,
    largest: int = 24,
    most: int = 8,
    kinds: Iterable[str] | None = None,
    scalable: bool = False,
) -> Arch:
    """A valid network from a seed, with images of up to `largest` pixels and up to `most` blocks.

    `kinds` says which may stand in it; `scalable` is as in `architectures`. The same seed gives
    the same network everywhere, as long as the version of archdsl is the same.

    Raises:
        ValueError: an unknown kind, or a number below 1.

    >>> print(random_architecture(1, most=2, kinds=["ir", "pool"]).name)
    net
    """
    return parse(grown(Seeded(random.Random(seed)), wanted(largest, most, kinds, scalable)))


def grown(choose: Choices, want: Wanted) -> str:
    """The text of a valid network."""
    return _Growing(choose, want).run()


_BODY = ("conv", "ir", "ir", "sep", "uib", "uib", "fused", "dw", "mqa", "mha", "skip")
"""What takes every feature map and gives one."""

_ENDINGS: tuple[tuple[str, ...], ...] = (
    (),
    ("pool", "fc"),
    ("pool", "dropout", "fc"),
    ("pool", "conv", "fc"),
    ("pool",),
    ("dropout",),
    ("pool", "fc", "skip", "dropout", "fc"),
    ("pool", "pool", "ir", "pool", "fc", "fc"),
)

_NAMES: tuple[tuple[str | None, ...], ...] = (
    ("c1", "c2", "c3"),
    (None, None, "last"),
    ("a", None, None),
)
_WIDTHS = (8, 1, 2, 3, 4, 6, 12, 16, 20, 24, 32)
_STRIDES = ((1, 1), (1, 1), (1, 1), (2, 2), (1, 2), (2, 1), (3, 3), (2, 3))
_RATIOS = (1.0, 2.0, 3.5, 6.0, 0.5, 1.01, 2.7)
_GROUPS = (2, 3, 4, 8, 16)


@dataclass
class _Growing:
    choose: Choices
    want: Wanted
    attributes: Attributes = field(init=False)
    size: tuple[int, int] = field(init=False)
    channels: int = field(init=False)
    """Of what the next block takes."""
    said: int = field(init=False)
    """The same as written: neither scaled nor rounded."""
    vector: bool = False
    """Whether `fc` has left a vector."""
    left: int = field(init=False)
    """Blocks that may still be written."""

    def run(self) -> str:
        self.attributes = self.file()
        height, width, self.channels = self.attributes.input
        self.size, self.said = (height, width), self.channels
        kinds = self.want.kinds
        ending = self.ending()
        self.left = self.choose.number(0 if ending else 1, self.want.most - len(ending))
        body = [kind for kind in _BODY if kind in kinds]
        stem = self.section(body, self.choose.number(0, 2), in_stage=False)
        names = self.choose.one_of(_NAMES)
        stages = []
        for name in names:
            blocks = self.section(body, self.choose.number(0, 4), in_stage=True)
            if blocks:
                stages.append({"name": name, "blocks": blocks})
        head = self.section(body, self.choose.number(0, 2), in_stage=False)
        head += [self.block(kind, in_stage=False) for kind in ending]
        if not (stem or stages or head):
            able = [kind for kind in kinds if kind != "fc" or self.size == (1, 1)]
            head = [self.block(self.choose.one_of(able), in_stage=False)]
        spec = {"name": "net", "attributes": self.attributes, "stem": stem, "stages": stages}
        return print_spec(ArchSpec.model_validate({**spec, "head": head}))

    def section(self, kinds: Sequence[str], count: int, in_stage: bool) -> list[Block]:
        count = min(count, self.left) if kinds else 0
        self.left -= count
        return [self.block(self.choose.one_of(kinds), in_stage) for _ in range(count)]

    def ending(self) -> tuple[str, ...]:
        """The kinds at the end of the network, as often as not a classifier."""
        fitting = [
            kinds
            for kinds in _ENDINGS
            if len(kinds) <= self.want.most and set(kinds) <= set(self.want.kinds)
        ]
        return self.choose.one_of(fitting)

    # -- the file

    def file(self) -> Attributes:
        one_of, number = self.choose.one_of, self.choose.number
        divisor = one_of((8, 1, 2, 4))
        return Attributes.model_validate(
            {
                "input": (
                    number(1, self.want.largest),
                    number(1, self.want.largest),
                    one_of((3, 1, 4, 8)),
                ),
                "act": one_of(ACTIVATIONS),
                "norm": {"eps": one_of((1e-3, 1e-5, 0.1)), "momentum": one_of((0.01, 0.1))},
                "pad": one_of(("same", "symmetric")),
                "round": {
                    "divisor": divisor,
                    "min": one_of((None, divisor, 16)),
                    "limit": one_of((0.9, 0.0)),
                },
                "width": one_of((1.0, 0.35, 0.6, 1.4)),
                "depth": one_of((1.0, 1.0, 1.5)),
                "se": {
                    "base": one_of(("input", "expanded")),
                    "round": one_of((1, 4, 8)),
                    "act": one_of((*ACTIVATIONS, "block")),
                    "gate": one_of(("sigmoid", "hsigmoid")),
                },
                "layer_scale": one_of((0.0, 1e-5, 0.3)),
                "droppath": one_of((0.0, 0.2)),
                "classes": one_of((10, 1, 4)),
            }
        )

    # -- blocks

    def block(self, kind: str, in_stage: bool) -> Block:
        repeats = self.choose.one_of((1, 1, 1, 2, 3))
        # How often it stands there in the end; a depthwise keeps what a repeat may change.
        count = deepened(repeats, self.attributes) if in_stage else repeats
        values: dict[str, Any] = {}
        if repeats > 1 or self.maybe():
            values["repeats"] = repeats
        if self.choose.one_of((False, False, False, True)):
            values["in_channels"] = self.said
        values |= getattr(self, f"_{kind}")(count)
        return KINDS[kind].model_validate({"kind": kind, **values})

    def maybe(self) -> bool:
        return self.choose.one_of((False, True))

    def some(self, **options: Sequence[Any]) -> dict[str, Any]:
        """Some of these fields, each with one of its values."""
        return {name: self.choose.one_of(all_) for name, all_ in options.items() if self.maybe()}

    def strided(self) -> dict[str, Any]:
        values = {**self.some(kernel=(3, 1, 5, 7), act=ACTIVATIONS), "stride": self.stride()}
        return values

    def stride(self) -> tuple[int, int]:
        """A stride that the image is large enough for; the image is what it leaves from then on."""
        height, width = self.size
        fitting = [(down, right) for down, right in _STRIDES if down <= height and right <= width]
        down, right = self.choose.one_of(fitting)
        # Of odd kernels, with either padding.
        self.size = (-(-height // down), -(-width // right))
        return down, right

    def out(self) -> dict[str, Any]:
        """The width that comes out, written or not; it is what the next block takes."""
        if not self.maybe():
            return {}
        width = Width(self.choose.one_of(_WIDTHS), self.choose.one_of(("", "!", "+")))
        self.channels, self.said = scaled(width, self.attributes), width.channels
        return {"out_channels": width}

    def expansion(self, default: float) -> tuple[dict[str, Any], Expansion]:
        """An expansion ratio, or the width itself, or neither."""
        written = self.choose.one_of(("", "ratio") if self.want.scalable else ("", "ratio", "x"))
        if written == "x":
            width = Width(self.choose.one_of(_WIDTHS), self.choose.one_of(("", "!", "+")))
            return {"expanded": width}, Expansion(self.attributes, width)
        if written == "ratio":
            ratio = self.choose.one_of(_RATIOS)
            return {"expansion": ratio}, Expansion(self.attributes, ratio)
        return {}, Expansion(self.attributes, default)

    def grouped(self, *channels: int) -> dict[str, Any]:
        """A group size that divides all of these channels, or none."""
        fitting = [g for g in (1, *_GROUPS) if all(c % g == 0 for c in channels)]
        if self.want.scalable or not self.choose.one_of((False, False, True)):
            return {}
        return {"group_size": self.choose.one_of(fitting)}

    def inputs(self, before: int, count: int) -> tuple[int, ...]:
        """The widths that a block and its repeats take."""
        return (before,) if count == 1 else (before, self.channels)

    def _ir(self, count: int) -> dict[str, Any]:
        before = self.channels
        expansion, of = self.expansion(1.0)
        values = {**self.strided(), **expansion, **self.out()}
        inner = [of.width(c) if of.there(c) else c for c in self.inputs(before, count)]
        return {
            **values,
            **self.some(se=(0.25, 0.5, 0.0), residual=(True, False)),
            **self.grouped(*inner),
        }

    def _fused(self, count: int) -> dict[str, Any]:
        before = self.channels
        expansion, of = self.expansion(4.0)
        values = {**self.strided(), **expansion, **self.out(), **self.some(residual=(True, False))}
        taken = self.inputs(before, count)
        if all(of.there(c) for c in taken):
            values |= self.some(se=(0.25, 0.5))
            fitting = [
                size
                for size in _GROUPS
                if all(of.width(c) % size == 0 and c % (of.width(c) // size) == 0 for c in taken)
            ]
            if fitting and self.maybe() and not self.want.scalable:
                values["group_size"] = self.choose.one_of(fitting)
        return values

    def _uib(self, count: int) -> dict[str, Any]:
        before = self.channels
        expansion, of = self.expansion(4.0)
        values = {**self.some(start_kernel=(0, 3, 5), middle_kernel=(3, 5, 0, 1)), **expansion}
        depthwise = values.get("start_kernel") or values.get("middle_kernel")
        if depthwise:
            values["stride"] = self.stride()
        values |= self.out()
        values |= self.some(
            act=ACTIVATIONS, layer_scale=(True, False, None), residual=(True, False)
        )
        if depthwise:
            taken = self.inputs(before, count)
            values |= self.grouped(*taken, *map(of.width, taken))
        return values

    def _sep(self, count: int) -> dict[str, Any]:
        before = self.channels
        values = {**self.strided(), **self.out(), **self.some(se=(0.25, 0.5, 0.0))}
        return {**values, **self.grouped(*self.inputs(before, count))}

    def _mqa(self, count: int) -> dict[str, Any]:
        one_of = self.choose.one_of
        values = {"heads": one_of((1, 2, 3, 4)), "head_width": one_of((4, 1, 3, 8))}
        fitting = [step for step in (1, 2, 3) if step <= min(self.size)]
        values |= self.some(kv_stride=fitting, kernel=(3, 1, 5), residual=(True, False))
        return {**values, **self.some(layer_scale=(True, False, None)), **self.out()}

    _mha = _mqa

    def _conv(self, count: int) -> dict[str, Any]:
        before = self.channels
        values = {**self.strided(), **self.out()}
        values |= self.some(bias=(True, False), norm=(False, True), residual=(True, False))
        fitting = [
            size
            for size in (1, *_GROUPS)
            if self.channels % size == 0
            and all(c % (self.channels // size) == 0 for c in self.inputs(before, count))
        ]
        if fitting and self.maybe() and not self.want.scalable:
            values["group_size"] = self.choose.one_of(fitting)
        return values

    def _dw(self, count: int) -> dict[str, Any]:
        values = self.strided()
        if not self.want.scalable and self.maybe():
            self.said = self.channels
            values["out_channels"] = Width(self.channels, "!")
        return {**values, **self.some(bias=(True, False), norm=(False,), residual=(True, False))}

    def _skip(self, count: int) -> dict[str, Any]:
        return {}

    def _pool(self, count: int) -> dict[str, Any]:
        self.size = (1, 1)
        return {}

    def _dropout(self, count: int) -> dict[str, Any]:
        return {"rate": self.choose.one_of((0.2, 0.0, 0.5))}

    def _fc(self, count: int) -> dict[str, Any]:
        values = self.some(out_channels=(3, 5, 8), act=ACTIVATIONS, bias=(False, True))
        self.vector = True
        self.channels = self.said = values.get("out_channels", self.attributes.classes)
        return values


@dataclass(frozen=True)
class Expansion:
    """What a ratio, or a width, expands an input to."""

    attributes: Attributes
    by: float | Width

    def width(self, channels: int) -> int:
        """The expanded width of so many channels."""
        if isinstance(self.by, Width):
            return scaled(self.by, self.attributes)
        return rounded(channels * self.by, self.attributes)

    def there(self, channels: int) -> bool:
        """Whether anything is expanded: an `ir` or `fused` block does without where nothing is."""
        return self.width(channels) != channels if isinstance(self.by, Width) else self.by != 1
