"""Costs of block strings: one alone, and streams of them as search tools emit them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from archdsl.compiler import Arch, Placed, Run, State, beyond, block_compiler, overridden
from archdsl.lang.decode import decode
from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.printer import print_block
from archdsl.lang.source import SourceText
from archdsl.lang.spec import Attributes, Block
from archdsl.limits import hint, in_force, most
from archdsl.passes.cost import Cost, Dtype, FragmentCost, Totals, add_totals, network_cost


def _read(text: str, name: str) -> Block:
    """The block of a string.

    Raises:
        ArchError: it is not a block string.
    """
    source = SourceText(name, text)
    if len(text) > most("word"):
        message = f"a block string has at most {most('word'):,} characters"
        raise ArchError([Diagnostic("E0110", message, source.span(0, 1), hint("word"))])
    decoded = decode(text)
    if decoded.block is None:
        raise ArchError(
            Diagnostic(p.code, p.message, source.span(p.start, p.end), p.help)
            for p in decoded.problems
        )
    return decoded.block


def _placed_errors(run: Run, text: str, name: str) -> ArchError:
    source = SourceText(name, text)
    places = decode(text).places
    return ArchError(
        Diagnostic(
            p.code, p.message, source.span(*places.get(p.field or "", (0, len(text)))), p.help
        )
        for p in run.problems
    )


@dataclass(frozen=True)
class BlockString:
    """One block string, under a file's attributes or the defaults."""

    text: str
    block: Block
    attributes: Attributes

    def __str__(self) -> str:
        """The canonical string."""
        return print_block(self.block)

    def cost(self, input: Sequence[int] | str, *, dtype: Dtype = "float32", batch: int = 1) -> Cost:
        """The cost of the block, its repeats included, on an input of (height, width, channels).

        Raises:
            ArchError: the block does not fit this input.
        """
        shape = overridden(self.attributes, {"input": input}).input
        state = State(shape, shape[2], "the input has")
        run = block_compiler(self.attributes).run(self.block, state, deepened=False)
        if run.problems:
            raise _placed_errors(run, self.text, "<block>")
        placed = [Placed(self.text, 0, 0, run)]
        costs = [(path, unit.cost) for item in placed for path, unit in item.units()]
        return network_cost(
            self.text,
            state.shape,
            self.attributes.classes,
            run.totals,
            costs,
            dtype,
            batch,
            self.attributes.width,
        )


def block(text: str, arch: Arch | None = None) -> BlockString:
    """A block string alone; with `arch`, under that architecture's attributes.

    Raises:
        ArchError: the text is not a block string.

    >>> block("r3_k5_s22_e6_i40_o80_se0.25").cost(input=(28, 28, 40)).params
    262130
    """
    attributes = arch.attributes if arch else Attributes(input=(224, 224, 3))
    return BlockString(text, _read(text, "<block>"), attributes)


def _too_many(text: str, number: int) -> ArchError:
    message = f"a network has at most {most('blocks'):,} blocks, repeats counted"
    span = SourceText(f"<block {number}>", text).span(0, len(text))
    return ArchError([Diagnostic("E0110", message, span, hint("blocks"))])


class _Position:
    """A state between two blocks, and what is known of the blocks that were put there."""

    __slots__ = ("head", "state", "steps")

    def __init__(self, state: State) -> None:
        self.state = state
        self.steps: dict[str, tuple[Run, Totals, _Position]] = {}
        self.head: tuple[tuple[Run, ...], Totals] | None = None


class Coster:
    """Costs many networks that share a file's attributes, stem and head.

    Call it with the stages as a flat list of block strings. Each (block string, input) is read,
    lowered and costed once, so that a stream from one search space costs a look-up a block.

    >>> import archdsl
    >>> coster = Coster(archdsl.load("mnasnet_a1"))
    >>> coster(["r1_k3_s11_e1_o16_noskip", "r3_k3_s22_e3_o24"]).macs
    158832640
    """

    # More steps than this are another search space: the memo starts anew.
    _LIMIT = 1 << 17

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        self._limits = in_force()
        self._compiler = block_compiler(arch.attributes)
        stem = [item.run for item in arch.placed if item.section == "stem"]
        self._stem = tuple(stem)
        self._stem_totals = add_totals(run.totals for run in stem)
        image = arch.attributes.input
        self._start = stem[-1].after if stem else State(image, image[2], "the image has")
        self._positions: dict[State, _Position] = {}
        self._steps = 0

    def __call__(self, blocks: Iterable[str], *, dtype: Dtype = "float32", batch: int = 1) -> Cost:
        """The cost of the network whose stages are `blocks`.

        Raises:
            ArchError: a string is no block, or a block does not fit where it stands; the
                diagnostics' source is named after the block's number, counted from 1.
            TypeError: `blocks` is one string.
        """
        if isinstance(blocks, str):
            raise TypeError("the stages are a list of block strings, not one string")
        if in_force() is not self._limits:
            self._under_other_limits()
        total = self._stem_totals
        params, conv, attention = total.params, total.macs_conv_linear, total.macs_attention
        weights, activations, peak = total.weights, total.activations, total.peak
        position = self._position(self._start)
        runs: list[Run] = []
        most_blocks = most("blocks")
        count = operators = 0
        for text in blocks:
            step = position.steps.get(text)
            if step is None:
                step = self._step(position, text, len(runs) + 1)
            run, total, position = step
            runs.append(run)
            count += len(run.units)
            operators += run.operators
            if count > most_blocks:
                raise _too_many(text, len(runs))
            params += total.params
            conv += total.macs_conv_linear
            attention += total.macs_attention
            weights += total.weights
            activations += total.activations
            if total.peak > peak:
                peak = total.peak
        head, total = position.head or self._head(position)
        whole = Totals(
            params + total.params,
            conv + total.macs_conv_linear,
            attention + total.macs_attention,
            weights + total.weights,
            activations + total.activations,
            max(peak, total.peak),
        )
        arch = self.arch
        fault = beyond(whole, operators)
        if fault:
            raise ArchError([Diagnostic("E0110", fault[0], None, fault[1])])
        layers = _StreamLayers(self._stem, runs, head)
        width = arch.attributes.width
        return network_cost(arch.name, arch.input, arch.classes, whole, layers, dtype, batch, width)

    def _under_other_limits(self) -> None:
        """Forget what is known of blocks: more, or fewer, of them are valid now."""
        self._limits = in_force()
        self._compiler = block_compiler(self.arch.attributes)
        self._positions.clear()
        self._steps = 0

    def _position(self, state: State) -> _Position:
        found = self._positions.get(state)
        if found is None:
            found = self._positions[state] = _Position(state)
        return found

    def _step(self, position: _Position, text: str, number: int) -> tuple[Run, Totals, _Position]:
        name = f"<block {number}>"
        if self._steps >= self._LIMIT:
            self._positions.clear()
            self._steps = 0
        self._steps += 1
        run = self._compiler.run(_read(text, name), position.state, deepened=True)
        if run.problems:
            raise _placed_errors(run, text, name)
        step = position.steps[text] = (run, run.totals, self._position(run.after))
        return step

    def _head(self, position: _Position) -> tuple[tuple[Run, ...], Totals]:
        runs: list[Run] = []
        state = position.state
        diagnostics: list[Diagnostic] = []
        for item in self.arch.placed:
            if item.section != "head":
                continue
            run = self._compiler.run(item.run.block, state, deepened=False)
            for p in run.problems:
                span = self.arch.origins.field("head", item.position, p.field)
                diagnostics.append(Diagnostic(p.code, p.message, span, p.help))
            runs.append(run)
            state = run.after
        if diagnostics:
            raise ArchError(diagnostics)
        position.head = (tuple(runs), add_totals(run.totals for run in runs))
        return position.head


class _StreamLayers(Sequence[tuple[str, FragmentCost]]):
    """A streamed network's blocks by path, listed only when its layers are asked for."""

    def __init__(self, stem: tuple[Run, ...], stages: list[Run], head: tuple[Run, ...]) -> None:
        self._sections = (("stem", stem), ("stages.stage1", stages), ("head", head))

    def _list(self) -> list[tuple[str, FragmentCost]]:
        found: list[tuple[str, FragmentCost]] = []
        for path, runs in self._sections:
            units = [unit for run in runs for unit in run.units]
            found += [(f"{path}.{number}", unit.cost) for number, unit in enumerate(units)]
        return found

    def __len__(self) -> int:
        return len(self._list())

    def __getitem__(self, index: Any) -> Any:
        return self._list()[index]

    def __iter__(self) -> Iterator[tuple[str, FragmentCost]]:
        return iter(self._list())
