"""From a search space to the layers of its supernet, and to what their settings hang on.

The members' blocks stand in slots: a slot is one layer of one block of the text, and holds every
operator that some member has there. An operator is known by its role and kernel, so that pointwise
convolutions are one for all kernels beside them, and depthwise ones stand beside one another. What
members differ in is a setting, read from the lowered blocks; it is kept as a table over the
fewest choices that it hangs on, where the channels that come in count as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from archdsl.compiler import Unit
from archdsl.ir.ops import Activation, Conv2d, Dropout, LayerScale, Linear, Op, Reshape
from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.source import Span
from archdsl.lang.spec import Attributes, Block
from archdsl.limits import hint, most
from archdsl.search.paths import Edge, Node, Paths
from archdsl.search.reading import Pick, Place
from archdsl.search.space import Space

from .torch_calls import stride_of
from .torch_classes import DEPTHWISE

CHANNELS = -1
"""Stands among the columns of choices for the channels that come into a block."""

Value = bool | int | float | str | tuple[int, int] | None


@dataclass(frozen=True)
class Part:
    """One layer of one lowered block.

    `sizes` are what its tensors need at least, `settings` how it computes, and `nodes` what its
    operators that have weights are called inside it.
    """

    name: str
    kind: str
    sizes: Mapping[str, int]
    settings: Mapping[str, Value]
    nodes: Mapping[str, str]


class Table(NamedTuple):
    """A setting's value for each way to decide the choices it hangs on; without any, one value."""

    columns: tuple[int, ...]
    values: Mapping[tuple[int, ...], Value]

    @property
    def constant(self) -> bool:
        return not self.columns

    @property
    def value(self) -> Value:
        """The value of a constant."""
        return self.values[()]


@dataclass
class Layer:
    """A layer of a slot: the largest sizes of its parts, and a table for each setting."""

    name: str
    kind: str
    sizes: dict[str, int] = field(default_factory=dict)
    kernels: set[int] = field(default_factory=set)
    settings: dict[str, Table] = field(default_factory=dict)


@dataclass
class Slot:
    """One layer of a block of the text: `when` a member has it, and what may stand in it."""

    section: str
    number: int
    """Its number in the section."""
    title: str
    span: Span | None
    when: Table
    residual: Table
    layers: dict[str, Layer]

    @property
    def name(self) -> str:
        return f"{self.section}.{self.number}"


# The layers in the order in which they run, whatever block they belong to.
_ROLES = (
    *("conv", "dw", "start", "expand", "depthwise", "middle", "se", "project", "pointwise"),
    *("mqa", "mha", "layer_scale", "pool", "fc", "dropout"),
)


def _rank(name: str) -> tuple[int, str]:
    role = next(role for role in _ROLES if name == role or name.startswith(f"{role}_"))
    return _ROLES.index(role), name


# --------------------------------------------------------------------------------- lowered blocks


def parts_of(block: Block, unit: Unit, attributes: Attributes) -> list[Part]:
    """The layers of a lowered block, in the order in which they run."""
    ops = {node.name: node.op for node in unit.fragment.nodes}
    kind = unit.fragment.kind
    if kind in ("mqa", "mha"):
        return list(_attention(kind, ops, attributes))
    return list(_chain(kind, block, ops, attributes))


def _chain(
    kind: str, block: Block, ops: Mapping[str, Op], attributes: Attributes
) -> Iterator[Part]:
    """The layers of a block whose operators follow each other."""
    for name, op in ops.items():
        part, _, last = name.rpartition(".")
        if name == "se.pool":
            yield _squeeze_excite(ops)
        elif isinstance(op, Conv2d) and last == "conv":
            yield _convolution(kind, block, part, op, ops, attributes)
        elif isinstance(op, LayerScale):
            yield _layer_scale(op)
        elif isinstance(op, Linear):
            sizes = {"inputs": op.in_features, "outputs": op.out_features}
            settings = {"out": op.out_features, "bias": op.bias, "act": _function(ops, "act")}
            yield Part("fc", "Linear", sizes, settings, {name: "linear"})
        elif isinstance(op, Dropout):
            yield Part("dropout", "Dropout", {}, {"rate": op.rate}, {})
        elif kind == "pool":
            yield Part("pool", "Pool", {}, {}, {})


def _function(ops: Mapping[str, Op], name: str) -> str | None:
    op = ops.get(name)
    return op.function if isinstance(op, Activation) else None


def _layer_scale(op: LayerScale) -> Part:
    return Part("layer_scale", "LayerScale", {"outputs": op.channels}, {}, {"layer_scale": ""})


def _squeeze_excite(ops: Mapping[str, Op]) -> Part:
    reduce = ops["se.reduce"]
    assert isinstance(reduce, Conv2d)
    return Part(
        "se",
        "SqueezeExcite",
        {"inputs": reduce.in_channels, "outputs": reduce.out_channels},
        {
            "squeezed": reduce.out_channels,
            "act": _function(ops, "se.act"),
            "gate": _function(ops, "se.gate"),
        },
        {"se.reduce": "reduce", "se.expand": "expand"},
    )


def _convolution(
    kind: str,
    block: Block,
    part: str,
    op: Conv2d,
    ops: Mapping[str, Op],
    attributes: Attributes,
) -> Part:
    depthwise = part in DEPTHWISE or kind == "dw"
    group_size = 0
    if depthwise:
        group_size = getattr(block, "group_size", None) or 1
    elif kind == "conv" or (kind == "fused" and part == "expand"):
        group_size = getattr(block, "group_size", None) or 0
    name, kernel = part or kind, op.kernel[0]
    if kernel > 1 or depthwise or kind == "conv":
        name += f"_k{kernel}"
    if group_size > depthwise:
        name += f"_g{group_size}"
    prefix = f"{part}." if part else ""
    settings: dict[str, Value] = {
        "out": 0 if depthwise else op.out_channels,
        "stride": stride_of(op),
        "bias": op.bias,
        "norm": f"{prefix}norm" in ops,
        "act": _function(ops, f"{prefix}act"),
        "same": attributes.pad == "same",
    }
    sizes = {"inputs": op.in_channels // op.groups, "outputs": op.out_channels}
    sizes |= {"kernel": kernel, "group_size": group_size}
    nodes = {f"{prefix}conv": "conv", f"{prefix}norm": "norm"}
    return Part(name, "ConvNormAct", sizes, settings, nodes)


def _attention(kind: str, ops: Mapping[str, Op], attributes: Attributes) -> Iterator[Part]:
    query, key, output = ops["query"], ops["key"], ops["output"]
    assert isinstance(query, Conv2d)
    assert isinstance(key, Conv2d)
    assert isinstance(output, Conv2d)
    width = key.out_channels
    split = ops.get("query.split")
    if isinstance(split, Reshape):
        width = split.shape[-1]
    nodes = {name: name for name in ("norm", "query", "key", "value", "output")}
    settings: dict[str, Value] = {
        "out": output.out_channels,
        "heads": query.out_channels // width,
        "kv_stride": 1,
        "kernel": 0,
        "same": attributes.pad == "same",
    }
    reduce = ops.get("key_reduce.conv")
    if isinstance(reduce, Conv2d):
        kernel = reduce.kernel[0]
        settings |= {"kv_stride": reduce.stride[0], "kernel": kernel}
        for part in ("key_reduce", "value_reduce"):
            nodes |= {f"{part}.{last}": f"{part}.k{kernel}.{last}" for last in ("conv", "norm")}
    sizes = {"inputs": query.in_channels, "outputs": output.out_channels, "head_width": width}
    sizes |= {"heads": query.out_channels // width, "keys": key.out_channels}
    # Heads of another width are other heads.
    yield Part(f"{kind}_d{width}", "Attention", sizes, settings, nodes)
    if "layer_scale" in ops:
        scale = ops["layer_scale"]
        assert isinstance(scale, LayerScale)
        yield _layer_scale(scale)


# --------------------------------------------------------------------------------- the whole space

Key = tuple[int, int, int]
"""A slot: the number of its place in the text, of its layer there, of its repeat."""


class _Row(NamedTuple):
    """What a slot holds under one way to decide: nothing, or a lowered block."""

    chosen: Mapping[int, int]
    block: Block | None
    unit: Unit | None
    attributes: Attributes


class Step(NamedTuple):
    """A block of a member: its slot, and what stands in it."""

    section: str
    key: Key
    block: Block
    unit: Unit


def steps_of(paths: Paths, path: Iterable[Edge]) -> Iterator[Step]:
    """The blocks of a member in order, repeats counted."""
    place, layer, last = -1, 0, None
    for at, edge in zip(paths.places, path, strict=True):
        place, layer = (place, layer + 1) if at is last else (place + 1, 0)
        last = at
        if edge.run is not None:
            for number, unit in enumerate(edge.run.units):
                yield Step(at.section, (place, layer, number), edge.run.block, unit)


def slots_of(space: Space) -> dict[Key, Slot]:
    """The slots of a space, in the order of the text.

    Raises:
        ArchError: there are too many ways to fill them (E0110).
    """
    rows: dict[Key, list[_Row]] = {}
    places: list[Place] = []
    count, most_rows = 0, _ROWS * most("steps")
    for paths in space.graphs:
        if paths.ways:
            places = list(_distinct(paths.places))
            for key, row in _rows(paths):
                rows.setdefault(key, []).append(row)
                count += 1
                if count > most_rows:
                    raise ArchError([_too_many(places[key[0]], most_rows)])
    slots: dict[Key, Slot] = {}
    counts: dict[str, int] = {}
    titles = _titles(places)
    for key in sorted(rows):
        place, layer, number = key
        section = places[place].section
        layer = max(layer - 1, 0) + number
        title = titles[place] + (f", layer {layer}" if layer or places[place].layers else "")
        span = places[place].menu.options[0].span
        slot = _slot(section, counts.get(section, 0), title, span, rows[key])
        if slot.layers:  # `skip` has none
            slots[key] = slot
            counts[section] = slot.number + 1
    return slots


_ROWS = 4
"""The ways to fill the slots, for each step that a space may have."""


def _too_many(place: Place, most_rows: int) -> Diagnostic:
    message = f"the supernet has more than {most_rows:,} ways to fill its blocks"
    help = f"leave less open, or repeat less; {hint('steps')}"
    return Diagnostic("E0110", message, place.menu.options[0].span, help)


def _distinct(places: Iterable[Place]) -> Iterator[Place]:
    last = None
    for place in places:
        if place is not last:
            yield place
        last = place


def _titles(places: Sequence[Place]) -> list[str]:
    """The paths of the text's blocks."""
    counts: dict[str, int] = {}
    titles = []
    for place in places:
        number = counts[place.section] = counts.get(place.section, -1) + 1
        titles.append(f"{place.section}.{number}")
    return titles


def _rows(paths: Paths) -> Iterator[tuple[Key, _Row]]:
    """What every slot holds, for every way to decide what it hangs on."""
    level = 0
    for number, place in enumerate(_distinct(paths.places)):
        # Nodes, each with the choices of this place that lead to it and reach beyond a layer.
        frontier: dict[tuple[Node, tuple[Pick, ...]], None] = {
            (node, ()): None for node in paths.levels[level]
        }
        for layer in range(1 + place.layers):
            following: dict[tuple[Node, tuple[Pick, ...]], None] = {}
            found: list[tuple[dict[int, int], int, Edge]] = []
            for node, picks in frontier:
                for edge in node.edges:
                    if edge.target.ways:
                        chosen = dict((*paths.picks, *picks, *edge.option.picks))
                        found.append((chosen, node.state.shape[-1], edge))
                        kept = edge.option.picks if layer == 0 else picks
                        following[edge.target, kept] = None
            most = max((len(edge.run.units) for _, _, edge in found if edge.run), default=0)
            for chosen, channels, edge in found:
                units = edge.run.units if edge.run else ()
                after = edge.run.after.shape[-1] if edge.run else channels
                for n in range(most):
                    unit = units[n] if n < len(units) else None
                    entering = unit.fragment.input[-1] if unit else after
                    columns = {**chosen, CHANNELS: entering}
                    block = edge.option.block if unit else None
                    yield (number, layer, n), _Row(columns, block, unit, paths.attributes)
            frontier = following
        level += 1 + place.layers


def _slot(section: str, count: int, title: str, span: Span | None, rows: Sequence[_Row]) -> Slot:
    columns = sorted({column for row in rows for column in row.chosen} - {CHANNELS})
    columns.append(CHANNELS)

    def key(row: _Row) -> tuple[int, ...]:
        return tuple(row.chosen.get(column, 0) for column in columns)

    parts: dict[tuple[int, ...], dict[str, Part]] = {}
    there: dict[tuple[int, ...], Value] = {}
    residual: dict[tuple[int, ...], Value] = {}
    for row in rows:
        if row.unit is None or row.block is None:
            there[key(row)] = False
            continue
        found = parts[key(row)] = {
            part.name: part for part in parts_of(row.block, row.unit, row.attributes)
        }
        there[key(row)] = bool(found)
        if found:
            residual[key(row)] = any(n.name == "add" for n in row.unit.fragment.nodes)
    parts = {place: found for place, found in parts.items() if found}
    layers: dict[str, Layer] = {}
    for name in sorted({name for found in parts.values() for name in found}, key=_rank):
        used = {place: found[name] for place, found in parts.items() if name in found}
        first = next(iter(used.values()))
        layer = layers[name] = Layer(name, first.kind)
        for part in used.values():
            for size, value in part.sizes.items():
                layer.sizes[size] = max(layer.sizes.get(size, 0), value)
            kernel = part.settings.get("kernel")
            if type(kernel) is int and kernel:
                layer.kernels.add(kernel)
        layer.settings["when"] = reduced(columns, {p: name in found for p, found in parts.items()})
        for setting in first.settings:
            values = {place: part.settings[setting] for place, part in used.items()}
            layer.settings[setting] = reduced(columns, values)
        # Norms and biases that no member has are not made.
        for setting in ("bias", "norm"):
            if setting in first.settings:
                layer.sizes[setting] = any(part.settings[setting] for part in used.values())
    return Slot(
        section,
        count,
        title,
        span,
        reduced(columns, there),
        reduced(columns, residual or {(): False}),
        layers,
    )


def reduced(columns: Sequence[int], values: Mapping[tuple[int, ...], Value]) -> Table:
    """The same table over no more columns than it takes, those of the least interest first.

    >>> reduced([4, 5], {(0, 8): 3, (1, 8): 5, (0, 16): 3})
    Table(columns=(4,), values={(0,): 3, (1,): 5})
    """
    if values.keys() == {()}:
        return Table((), dict(values))
    kept = list(columns)
    table = dict(values)
    for column in reversed(columns):
        place = kept.index(column)
        shorter: dict[tuple[int, ...], Value] = {}
        for key, value in table.items():
            if shorter.setdefault((*key[:place], *key[place + 1 :]), value) != value:
                break
        else:
            del kept[place]
            table = shorter
    return Table(tuple(kept), dict(sorted(table.items())))


def settings_of(slots: Iterable[Slot]) -> Iterator[tuple[Layer, str, Table]]:
    """All settings of all layers."""
    for slot in slots:
        for layer in slot.layers.values():
            for name, table in layer.settings.items():
                yield layer, name, table


def droppath_of(space: Space) -> Table:
    """The rate of stochastic depth, which a statement may leave open."""
    found: dict[tuple[int, ...], Any] = {}
    columns: list[int] = []
    for paths in space.graphs:
        columns = [column for column, _ in paths.picks]
        found[tuple(index for _, index in paths.picks)] = paths.attributes.droppath
    return reduced(columns, found)
