"""The staircase: from a text to a checked architecture. The only file that knows the whole order.

    text -> parse_file -> elaborate -> ArchSpec -> BlockCompiler (lower, cost) -> Arch
         -> Graph -> passes -> backend

Lowering and costing are memoised for each (block, input), so that a stream of architectures from
one search space costs a table look-up a block.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from operator import gt
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from weakref import WeakSet

from pydantic import ValidationError

from archdsl.ir.lower import LoweringError, Misfit, lower
from archdsl.ir.node import Fragment, Origin
from archdsl.ir.ops import Shape
from archdsl.lang import widths
from archdsl.lang.diagnostics import ArchError, Diagnostic, did_you_mean, listed, quoted
from archdsl.lang.elaborate import Elaborated, elaborate
from archdsl.lang.origins import Origins
from archdsl.lang.printer import print_spec
from archdsl.lang.source import SourceText
from archdsl.lang.spec import ArchSpec, Attributes, Block, Classifier, Expect, Published, Variant
from archdsl.lang.syntax import parse_file
from archdsl.lang.values import limit_hint, sentence
from archdsl.limits import Raised, in_force, most
from archdsl.limits import hint as limit_of
from archdsl.passes.cost import (
    Cost,
    Dtype,
    FragmentCost,
    Latency,
    Totals,
    Work,
    add_totals,
    fragment_cost,
    network_cost,
)
from archdsl.roofline.model import Device, common_dtype, with_latency

if TYPE_CHECKING:
    from archdsl.ir.graph import Graph


class State(NamedTuple):
    """What a block sees of the blocks before it: a shape, and the width as it was written."""

    shape: Shape
    written: int
    giver: str = "the previous block gives"
    """Who gives the channels, for a message."""


class Unit(NamedTuple):
    """One lowered block with its cost."""

    fragment: Fragment
    cost: FragmentCost


# The fields of a block that say nothing of its operators.
_OF_A_RUN = frozenset({"repeats", "in_channels"})


@dataclass(frozen=True, slots=True)
class Run:
    """A block of the text with its repeats: `units`, their totals, and the state behind them."""

    block: Block
    units: tuple[Unit, ...]
    totals: Totals
    after: State
    problems: tuple[Misfit, ...]
    operators: int = 0


class BlockCompiler:
    """Lowers and costs blocks under one set of file-level attributes; remembers each result."""

    # Runs that all compilers together remember: more than a search space has, some 200 MB.
    _LIMIT = 1 << 14
    _held = 0
    _all: ClassVar[WeakSet[BlockCompiler]] = WeakSet()

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes
        self._runs: dict[tuple[int, State, bool], Run] = {}
        self._units: dict[tuple[int, Shape, bool], Unit] = {}
        self._bodies: dict[tuple[Any, ...], Block] = {}
        BlockCompiler._all.add(self)

    def run(self, block: Block, state: State, *, deepened: bool) -> Run:
        """A block with its repeats; `deepened` where the depth multiplier applies (stages)."""
        key = (id(block), state, deepened)
        found = self._runs.get(key)
        # The memo holds the block, so its id is not used again.
        if found is None:
            if BlockCompiler._held >= self._LIMIT:
                self._forget()
            BlockCompiler._held += 1
            found = self._runs[key] = self._make(block, state, deepened)
        return found

    @classmethod
    def _forget(cls) -> None:
        for compiler in list(cls._all):
            compiler._runs.clear()
            compiler._units.clear()
            compiler._bodies.clear()
        cls._held = 0

    def _make(self, block: Block, state: State, deepened: bool) -> Run:
        problems: list[Misfit] = []
        if block.in_channels is not None and block.in_channels != state.written:
            problems.append(
                Misfit(
                    "E0203",
                    "in_channels",
                    f"declared i{block.in_channels}, but {state.giver} {state.written} channels",
                    f"write i{state.written}, or leave i out",
                )
            )
        repeats = block.repeats
        if deepened:
            repeats = widths.deepened(repeats, self.attributes)
        units: list[Unit] = []
        shape = state.shape
        body = self._body(block)
        strided = getattr(block, "stride", (1, 1)) != (1, 1)
        try:
            for index in range(min(repeats, most("blocks") + 1)):
                unit = self._unit(body, shape, index == 0 or not strided)
                units.append(unit)
                shape = unit.fragment.output
        except LoweringError as error:
            problems.append(error.misfit)
        written = state.written
        out = getattr(block, "out_channels", None)
        if isinstance(block, Classifier):
            written = self.attributes.classes if out is None else out
        elif out is not None:
            written = out.channels
        total = add_totals(unit.cost.totals for unit in units)
        operators = sum(len(unit.fragment.nodes) for unit in units)
        after = State(shape, written)
        return Run(block, tuple(units), total, after, tuple(problems), operators)

    def _body(self, block: Block) -> Block:
        """The one block that stands for all that differ from it in `r` or `i` alone."""
        fields = block.__dict__
        values = [value for name, value in fields.items() if name not in _OF_A_RUN]
        return self._bodies.setdefault((type(block), *values), block)

    def _unit(self, block: Block, shape: Shape, first: bool) -> Unit:
        key = (id(block), shape, first)
        found = self._units.get(key)
        if found is None:
            fragment = lower(block, shape, self.attributes, first=first)
            found = self._units[key] = Unit(fragment, fragment_cost(fragment))
        return found


def block_compiler(attributes: Attributes) -> BlockCompiler:
    """The compiler for these attributes: shared by all architectures that have them."""
    return _block_compiler(attributes, in_force())


@lru_cache(maxsize=256)
def _block_compiler(attributes: Attributes, _: Raised) -> BlockCompiler:
    return BlockCompiler(attributes)


_COUNTED = {
    "operators": "operators",
    "params": "parameters",
    "weight_bytes": "bytes of kernels",
    "activation_bytes": "bytes of activations at once",
    "macs": "multiply-accumulates",
}
"""What a network is counted in, by the name of its limit."""


@lru_cache(maxsize=16)
def _highest(_: Raised) -> tuple[int, ...]:
    return tuple(map(most, _COUNTED))


def beyond(total: Totals, operators: int) -> tuple[str, str] | None:
    """The first limit of a network that these counts are beyond: a sentence, and its help."""
    macs = total.macs_conv_linear + total.macs_attention
    counts = (operators, total.params, 4 * total.weights, 4 * total.peak, macs)
    highest = _highest(in_force())
    if not any(map(gt, counts, highest)):
        return None
    name = next(n for n, c, h in zip(_COUNTED, counts, highest, strict=True) if c > h)
    return f"the network has more than {most(name):,} {_COUNTED[name]}", limit_of(name)


class Placed(NamedTuple):
    """A block of the text in its place: its section's path, its number in the text, its run."""

    section: str
    position: int
    first: int
    run: Run

    def units(self) -> Iterable[tuple[str, Unit]]:
        """The lowered blocks, repeats counted, under the paths that name their weights."""
        for number, unit in enumerate(self.run.units, self.first):
            yield f"{self.section}.{number}", unit


class Arch:
    """A checked architecture: every shape is known, every declared width is proved.

    Made by `archdsl.load` and `archdsl.parse`. `name` is the member's (`mnv2_140` for variant
    140 of mnv2), `spec` what the text says, `attributes` the file-level statements with variant
    and overrides applied.
    """

    def __init__(
        self,
        spec: ArchSpec,
        origins: Origins,
        *,
        variant: str | None = None,
        width: float | None = None,
        input: Sequence[int] | str | None = None,
        classes: int | None = None,
    ) -> None:
        self.spec = spec
        self.origins = origins
        self.variant = _variant(spec, variant)
        overrides: dict[str, Any] = dict(self.variant.overrides) if self.variant else {}
        given = {"width": width, "input": input, "classes": classes}
        asked = {name: value for name, value in given.items() if value is not None}
        self.overridden = bool(asked)
        """Whether width, input or classes were asked for: `expect` speaks of the text's own."""
        overrides |= asked
        self.attributes = overridden(spec.attributes, overrides) if overrides else spec.attributes
        self.name = f"{spec.name}_{self.variant.name}" if self.variant else spec.name
        self.placed, self.total = self._place()

    def __repr__(self) -> str:
        height, width, channels = self.attributes.input
        return f"Arch({self.name!r}, input={height}x{width}x{channels})"

    @property
    def input(self) -> Shape:
        """The image: height, width, channels."""
        return self.attributes.input

    @property
    def classes(self) -> int:
        return self.attributes.classes

    @property
    def output(self) -> Shape:
        """The shape of the last block's output, without a batch dimension."""
        return self.placed[-1].run.after.shape

    @property
    def expect(self) -> Expect | None:
        return self.variant.expect if self.variant else self.spec.expect

    @property
    def published(self) -> tuple[Published, ...]:
        return self.variant.published if self.variant else self.spec.published

    @property
    def member(self) -> ArchSpec:
        """The specification of the file, or of the one network that was asked for.

        The network of a variant, or with another width, image or number of classes, is a file of
        its own then, which has no variants.
        """
        if self.variant is None and not self.overridden:
            return self.spec
        # Figures speak of the member as it is published.
        kept = not self.overridden
        return self.spec.model_copy(
            update={
                "name": self.name,
                "attributes": self.attributes,
                "expect": self.expect if kept else None,
                "published": self.published if kept else (),
                "variants": (),
            }
        )

    def _place(self) -> tuple[tuple[Placed, ...], Totals]:
        compiler = block_compiler(self.attributes)
        state = State(self.attributes.input, self.attributes.input[2], "the image has")
        placed: list[Placed] = []
        diagnostics: list[Diagnostic] = []
        told: set[str] = set()
        blocks = operators = 0
        most_blocks, most_operators = most("blocks"), most("operators")
        for path, section in self.spec.sections():
            first = 0
            deepened = path.startswith("stages.")
            for index, block in enumerate(section):
                run = compiler.run(block, state, deepened=deepened)
                placed.append(Placed(path, index, first, run))
                first += len(run.units)
                blocks += len(run.units)
                operators += run.operators
                for problem in run.problems:
                    if problem.code in told:
                        continue
                    # What is left of the image is the same for all that follows.
                    told |= {problem.code} & {"E0301"}
                    span = self.origins.field(path, index, problem.field)
                    message, hint = problem.message, problem.help
                    diagnostics.append(Diagnostic(problem.code, message, span, hint))
                if blocks > most_blocks:
                    span = self.origins.field(path, index, "repeats")
                    message = f"the network has more than {most_blocks:,} blocks"
                    fault = Diagnostic("E0110", message, span, limit_of("blocks"))
                    raise ArchError([*diagnostics, fault])
                if operators > most_operators:
                    # Making more of them would take its time.
                    raise ArchError([*diagnostics, self._beyond(placed)])
                state = run.after
        if diagnostics:
            raise ArchError(diagnostics)
        total = add_totals(item.run.totals for item in placed)
        if beyond(total, operators):
            raise ArchError([self._beyond(placed)])
        return tuple(placed), total

    def _beyond(self, placed: Iterable[Placed]) -> Diagnostic:
        """The fault of a network beyond a limit, at the block that leads beyond it."""
        total, operators, found = Totals(), 0, None
        for item in placed:
            total = add_totals([total, item.run.totals])
            operators += item.run.operators
            found = beyond(total, operators)
            if found:
                break
        assert found is not None
        message, help = found
        span = self.origins.field(item.section, item.position, None)
        return Diagnostic("E0110", message, span, help)

    def blocks(self) -> Iterable[tuple[Origin, Unit]]:
        """The lowered blocks in order, repeats counted, each with its origin."""
        for item in self.placed:
            span = self.origins.field(item.section, item.position, None)
            for path, unit in item.units():
                yield Origin(path, item.run.block, span), unit

    @cached_property
    def work(self) -> Work:
        """What the network computes and moves, layer by layer; made when first asked for."""
        return Work.of(_Layers(self.placed))

    def cost(
        self, *, dtype: Dtype | None = None, batch: int = 1, devices: Iterable[Device] = ()
    ) -> Cost:
        """Parameters, MACs, bytes and, for each device given, latency.

        Without a dtype it is the devices' one, or float32 where they have none or differ.

        Raises:
            ValueError: an unknown dtype, one that a device's profile is not for, or a batch
                below 1.
        """
        devices = tuple(devices)
        dtype = common_dtype(devices, dtype)
        placed = _Layers(self.placed)
        width = self.attributes.width
        cost = network_cost(
            self.name, self.input, self.classes, self.total, placed, dtype, batch, width
        )
        return with_latency(cost, devices, self.work) if devices else cost

    def latency(self, device: Device, batch: int = 1) -> Latency:
        """The estimated time on a device: some microseconds' work once it was asked for before."""
        return device.estimate(self.work, batch=batch)

    def graph(self) -> Graph:
        """The operator graph, verified."""
        # Costs and checks do without the graph.
        from archdsl.ir.graph import Graph

        return Graph.of_blocks(
            self.name, self.attributes, ((o, u.fragment) for o, u in self.blocks())
        )

    def resized(self, input: Sequence[int]) -> Arch:
        """The same architecture for another image (height, width, channels).

        Raises:
            ArchError: the image is too small for it.
        """
        variant = self.variant.name if self.variant else None
        return Arch(
            self.spec,
            self.origins,
            variant=variant,
            width=self.attributes.width,
            input=input,
            classes=self.attributes.classes,
        )

    def to_text(self) -> str:
        """The canonical text of the whole file, as it was read: without variant and overrides."""
        return print_spec(self.spec)

    def to_json(self) -> dict[str, Any]:
        """The typed specification as JSON data (see `archdsl.json_schema`)."""
        return self.spec.to_data()


class _Layers(Sequence[tuple[str, FragmentCost]]):
    """The lowered blocks' costs by path, listed only when the layers are asked for."""

    def __init__(self, placed: tuple[Placed, ...]) -> None:
        self._placed = placed

    def _list(self) -> list[tuple[str, FragmentCost]]:
        return [(path, unit.cost) for item in self._placed for path, unit in item.units()]

    def __len__(self) -> int:
        return len(self._list())

    def __getitem__(self, index: Any) -> Any:
        return self._list()[index]

    def __iter__(self) -> Any:
        return iter(self._list())


def _variant(spec: ArchSpec, name: str | None) -> Variant | None:
    """The variant of a name, short (`140`) or whole (`mnv2_140`)."""
    if name is None or name == spec.name:
        return None
    for variant in spec.variants:
        if name in (variant.name, f"{spec.name}_{variant.name}"):
            return variant
    names = [variant.name for variant in spec.variants]
    guess = did_you_mean(name, names)
    has = f"variants: {listed(names, 'and')}" if names else "the file has no variants"
    hint = f"did you mean `{guess}`?" if guess else has
    message = f"`{spec.name}` has no variant {quoted(name, 64)}"
    raise ArchError([Diagnostic("E0502", message, None, hint)])


def overridden(attributes: Attributes, overrides: Mapping[str, Any]) -> Attributes:
    """The attributes with some replaced.

    Raises:
        ArchError: a value that an attribute cannot have.
    """
    # What cannot be a key of the memo is not a value of an attribute either: its text is refused.
    pairs = (
        (k, tuple(v) if isinstance(v, list) else v if isinstance(v, Hashable) else repr(v))
        for k, v in overrides.items()
    )
    return _validated(attributes, tuple(pairs), in_force())


@lru_cache(maxsize=1024)
def _validated(
    attributes: Attributes, overrides: tuple[tuple[str, Any], ...], _: Raised
) -> Attributes:
    try:
        return Attributes.model_validate({**dict(attributes), **dict(overrides)})
    except ValidationError as errors:
        raise ArchError(
            Diagnostic("E0403", f"`{error['loc'][0]}`: {sentence(error)}", None, limit_hint(error))
            for error in errors.errors(include_url=False, include_input=False)
        ) from None


def parse(
    text: str | SourceText,
    *,
    variant: str | None = None,
    width: float | None = None,
    input: Sequence[int] | str | None = None,
    classes: int | None = None,
) -> Arch:
    """Read an architecture from the text of a `.arch` file.

    `variant` names a member of the file; `width`, `input` (height, width, channels) and
    `classes` replace what the text says.

    Raises:
        ArchError: the text is not a valid architecture; it carries every diagnostic.

    >>> net = parse("arch tiny input 8x8x3 stem { conv_k3_s22_o16 } head { pool fc_o10 }")
    >>> net.cost().params
    634
    """
    source = text if isinstance(text, SourceText) else SourceText("<string>", text)
    elaborated = elaborate(parse_file(source))
    spec, origins = elaborated.spec, elaborated.origins
    if spec is None:
        raise ArchError(faults(elaborated))
    return Arch(spec, origins, variant=variant, width=width, input=input, classes=classes)


def faults(elaborated: Elaborated) -> list[Diagnostic]:
    """The diagnostics of a text with errors, those of shapes and declared widths included.

    They are found on the text's draft; what is said of a block that has other faults is left out,
    since it may follow from them.
    """
    found = list(elaborated.diagnostics)
    if elaborated.draft is not None:
        source = elaborated.origins.source.text
        faulty = {_word_start(source, d.span.start) for d in found if d.span is not None}
        try:
            Arch(elaborated.draft, elaborated.origins)
        except ArchError as error:
            found += [
                d
                for d in error.diagnostics
                if d.span is not None and _word_start(source, d.span.start) not in faulty
            ]
    return found


def _word_start(text: str, offset: int) -> int:
    """Where the word around a place begins."""
    while offset and not text[offset - 1].isspace():
        offset -= 1
    return offset
