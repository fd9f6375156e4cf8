"""A search space as one PyTorch module with shared weights, as TuNAS has it (arXiv 2008.06120).

The emitted source is the members' lowered blocks side by side (`torch_supernet_plan.py`): what a
member has is chosen by tables over its vector, and what is narrower takes the first channels of
what is widest. So the weights of a member are slices of the supernet's, under other names.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from archdsl import __version__
from archdsl.files import write_whole
from archdsl.ir.ops import LayerScale
from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.limits import hint, most
from archdsl.search.space import Space

from .torch_classes import class_name
from .torch_code import COLUMNS, Code, checked, escaped, render, wrapped
from .torch_supernet_plan import (
    CHANNELS,
    Key,
    Layer,
    Slot,
    Table,
    Value,
    droppath_of,
    parts_of,
    reduced,
    slots_of,
    steps_of,
)

if TYPE_CHECKING:
    from archdsl.ir.execute import Array

_FUNCTIONS = {
    "relu": Code("F.relu"),
    "relu6": Code("F.relu6"),
    "hswish": Code("F.hardswish"),
    "swish": Code("F.silu"),
    "gelu": Code("F.gelu"),
    "sigmoid": Code("torch.sigmoid"),
    "hsigmoid": Code("F.hardsigmoid"),
}

_ABOUT = (
    "Members share their weights. A block of the text is a Block here, with all layers that a "
    "member may have there: depthwise convolutions one for each kernel, pointwise ones one for all "
    "blocks around them. What is narrower has the first channels of the widest. Norms are shared "
    "in the same way, their running statistics too, which belong to no member after members took "
    "turns: in training each batch is normalised by its own."
)


_WIDTH = COLUMNS - 12
"""The columns that the body of the network's constructor has."""

_GLUE = "\u00a0"
"""A space that no line is broken at."""

_DEFAULTS = {
    "ConvNormAct": {"stride": "1", "bias": "False", "norm": "True"},
    "Attention": {"kv_stride": "1", "kernel": "0"},
    "Linear": {"bias": "True", "act": "None"},
}
"""The settings that a class has where none is given."""

_NAMES = {"heads": "chosen_heads"}
"""What a setting is called as an argument."""


@dataclass(frozen=True)
class Supernet:
    """A space's supernet: its source, and what belongs together of its weights and a member's.

    Raises:
        ArchError: stages have names that a PyTorch module cannot have (E0702); it is beyond the
            limits of networks (E0110).
    """

    space: Space
    slots: Mapping[Key, Slot] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", slots_of(self.space))
        faults = list(self._faults())
        if faults:
            raise ArchError(faults)

    def _faults(self) -> Iterator[Diagnostic]:
        if len(self.slots) > most("blocks"):
            message = f"the supernet has more than {most('blocks'):,} blocks"
            span = next(iter(self.slots.values())).span
            yield Diagnostic("E0110", message, span, hint("blocks"))
        elif self.params > most("params"):
            widest = max(self.slots.values(), key=_params)
            message = f"the supernet has more than {most('params'):,} parameters"
            yield Diagnostic("E0110", message, widest.span, hint("params"))

    @property
    def filename(self) -> str:
        """The default file name."""
        return f"{self.space.name}_supernet.py"

    @cached_property
    def params(self) -> int:
        """Its trainable parameters."""
        return sum(map(_params, self.slots.values()))

    @cached_property
    def source(self) -> str:
        """A Python source that needs torch alone; it defines the network, also as `Model`."""
        return _Source(self).text()

    def write(self, path: str | os.PathLike[str] | None = None) -> str:
        """Write the source, whole or not at all, and return the path.

        Raises:
            OSError: the folder or the disk refuses.
        """
        target = os.fspath(path if path is not None else self.filename)
        write_whole(target, self.source.encode())
        return target

    def load(self, seed: int | None = None) -> Any:
        """The module, with initial weights drawn from a seed, or from PyTorch's own state.

        Raises:
            BackendError: PyTorch is not installed.
        """
        from .to_torch import executed, import_torch

        torch = import_torch()
        model = executed(f"{self.space.name}_supernet", self.source.encode()).Model
        if seed is None:
            return model()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            return model()

    def names_of(self, vector: Sequence[int]) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The weights of a member: for each key of its `state_dict` the supernet's, and the shape.

        The member's tensor is the corner of the supernet's at the first indices of all axes.

        Raises:
            ValueError: it is no member's vector.
        """
        paths, path = self.space.path_of(vector)
        counts: dict[str, int] = {}
        found = {}
        for section, key, block, unit in steps_of(paths, path):
            number = counts[section] = counts.get(section, -1) + 1
            nodes = {
                node: ".".join(filter(None, (self.slots[key].name, part.name, inside)))
                for part in parts_of(block, unit, paths.attributes)
                for node, inside in part.nodes.items()
            }
            for node in unit.fragment.nodes:
                tensors = {**node.op.parameters(), **node.op.buffers()}
                for tensor, shape in tensors.items():
                    own = ".".join(filter(None, (f"{section}.{number}", node.name, tensor)))
                    found[own] = f"{nodes[node.name]}.{tensor}", shape
        return found

    def extract(
        self, vector: Sequence[int], state: Mapping[str, Any]
    ) -> tuple[str, dict[str, Array]]:
        """A member's text, and its weights: those of a supernet's `state_dict`, cut out.

        `state` holds PyTorch's tensors. `archdsl.compile(archdsl.parse(text), to="torch",
        weights=weights)` is the network that the supernet is when this vector was chosen.

        Raises:
            ValueError: it is no member's vector.
            KeyError: the state is of another supernet.
        """
        import numpy as np

        weights = {}
        for own, (shared, shape) in self.names_of(vector).items():
            value = state[shared]
            corner = value[tuple(slice(size) for size in shape)] if shape else value
            # An array of its own: a slice would keep the whole supernet in memory.
            weights[own] = np.array(corner.numpy(force=True))
        return self.space.text_of(vector), weights


def _params(slot: Slot) -> int:
    return sum(map(_layer_params, slot.layers.values()))


def _layer_params(layer: Layer) -> int:
    sizes = layer.sizes
    inputs, outputs = sizes.get("inputs", 0), sizes.get("outputs", 0)
    if layer.kind == "ConvNormAct":
        vectors = sizes["bias"] + 2 * sizes["norm"]
        return outputs * (inputs * sizes["kernel"] ** 2 + vectors)
    if layer.kind == "SqueezeExcite":
        return 2 * inputs * outputs + inputs + outputs
    if layer.kind == "Linear":
        return outputs * (inputs + sizes["bias"])
    if layer.kind == "Attention":
        wide = sizes["heads"] * sizes["head_width"]
        reductions = 2 * sum(inputs * (kernel**2 + 2) for kernel in layer.kernels)
        return inputs * (2 + wide + 2 * sizes["keys"]) + wide * outputs + reductions
    return outputs


# ---------------------------------------------------------------------------------------- source


def _literal(text: str) -> Code:
    """A user's text as a literal: JSON's escapes are Python's, and all but ASCII is escaped.

    Spaces are too: lines are broken at them.
    """
    return Code(json.dumps(text).replace(" ", "\\u0020"))


class _Source:
    """What the template prints of a supernet."""

    def __init__(self, supernet: Supernet) -> None:
        self.space, self.slots = supernet.space, list(supernet.slots.values())
        self.supernet = supernet
        self.attributes = self.space.graphs[0].attributes
        self.act = self.code(self.attributes.act if self.attributes.act != "linear" else None)
        self.cls = Code(f"{class_name(self.space.name).removesuffix('Net')}Supernet")

    def code(self, value: Value) -> Code:
        """A setting's value."""
        if isinstance(value, str):
            return _FUNCTIONS[value]
        assert value is None or isinstance(value, bool | int | float | tuple)
        return Code(repr(value))

    def setting(self, table: Table) -> Code:
        """A setting: its value, or what it hangs on."""
        if table.constant:
            return self.code(table.value)
        one = len(table.columns) == 1
        rows = ", ".join(
            f"{str(key[0] if one else key).replace(' ', _GLUE)}: {self.code(value)}"
            for key, value in table.values.items()
        )
        names = ", ".join(
            '"channels"' if column == CHANNELS else _literal(self.space.choices[column].path)
            for column in table.columns
        )
        return Code(f"By({{{rows}}}, {names})")

    def options(self, layer: Layer) -> Iterator[Code]:
        """The keyword arguments of a layer that are not its class's defaults."""
        same = str(self.attributes.pad == "same")
        defaults = _DEFAULTS.get(layer.kind, {}) | {"same": same, "when": "True"}
        if layer.kind == "ConvNormAct":
            defaults["act"] = self.act
        for name, size in (("out", "outputs"), ("heads", "heads")):
            if size in layer.sizes:
                defaults[name] = str(layer.sizes[size])
        if layer.sizes.get("group_size") and layer.settings["out"].values == {(): 0}:
            defaults["out"] = "0"
        for name, table in layer.settings.items():
            code = self.setting(table)
            if code != defaults.get(name):
                yield Code(f"{_NAMES.get(name, name)}={code}")

    def layer(self, layer: Layer) -> tuple[Code, list[Code]]:
        """The class of a layer and its arguments."""
        sizes = layer.sizes
        wanted = {
            "ConvNormAct": ("inputs", "outputs", "kernel"),
            "SqueezeExcite": ("inputs", "outputs"),
            "Linear": ("inputs", "outputs"),
            "LayerScale": ("outputs",),
            "Attention": ("inputs", "outputs", "heads", "head_width", "keys"),
        }.get(layer.kind, ())
        arguments = [Code(str(sizes[name])) for name in wanted]
        if layer.kind == "ConvNormAct":
            if sizes["kernel"] == 1:
                arguments.pop()
            if sizes["group_size"]:
                arguments.append(Code(f"group_size={sizes['group_size']}"))
        if layer.kind == "Attention":
            if layer.kernels:
                arguments.append(Code(repr(tuple(sorted(layer.kernels)))))
            arguments.append(Code(f"shared={layer.name.startswith('mqa')}"))
        return Code(layer.kind), [*arguments, *self.options(layer)]

    def block(self, slot: Slot) -> list[Code]:
        """The lines of a block."""
        arguments = [
            Code(f"{name}={self.setting(table)}")
            for name, table, default in (
                ("when", slot.when, True),
                ("residual", slot.residual, False),
            )
            if not (table.constant and table.value is default)
        ]
        lines = [Code(f"Block(  # {_place(slot.title)}")]
        for argument in arguments:
            lines += _filled(f"{argument},", 4)
        for layer in slot.layers.values():
            cls, inside = self.layer(layer)
            head, whole = f"{layer.name}={cls}(", ", ".join(inside)
            if len(head + whole) + 2 <= _WIDTH - 4:
                lines.append(Code(f"    {head}{whole}),"))
                continue
            lines.append(Code(f"    {head}"))
            if len(whole) <= _WIDTH - 8:
                lines.append(Code(f"        {whole}"))
            else:
                for argument in inside:
                    lines += _filled(f"{argument},", 8)
            lines.append(Code("    ),"))
        return [Code(line.replace(_GLUE, " ")) for line in (*lines, "),")]

    def sections(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for path, slots in groupby(self.slots, key=lambda slot: slot.section):
            kind, _, name = path.partition(".")
            first = kind == "stages" and not any("stages" in s["target"] for s in found)
            target = Code(f'self.stages["{checked(name)}"]' if name else f"self.{checked(kind)}")
            lines = [line for slot in slots for line in self.block(slot)]
            found.append({"target": target, "lines": lines, "first_stage": first})
        return found

    def choices(self) -> Iterator[Code]:
        for choice in self.space.choices:
            texts = ", ".join(map(_literal, choice.options))
            yield from _filled(f"{_literal(choice.path)}: ({texts}),", 0)

    def text(self) -> str:
        norm, space = self.attributes.norm, self.space
        sections = self.sections()
        targets = {section["target"] for section in sections}
        droppath = droppath_of(space)
        first = next(iter(space))
        scales = [
            node.op.init
            for paths in space.graphs
            for nodes in paths.levels
            for graph_node in nodes
            for edge in graph_node.edges
            if edge.run
            for unit in edge.run.units
            for node in unit.fragment.nodes
            if isinstance(node.op, LayerScale)
        ]
        networks = "1 network" if space.count == 1 else f"all {space.count:,} networks"
        source = space.spec_of(first).source
        usage = [
            f"net = {self.cls}()",
            "net.choices  # the options of each choice, in the order of the vectors' indices",
            f"net.choose({_row(first)})",
            "y = net(images)",
        ]
        channels = _channels(space)
        drops = not droppath.constant or droppath.value
        return render(
            "torch_supernet.py.j2",
            {
                "title": Code(
                    f"{checked(space.name)}: {networks} of a search space in one module, "
                    f"{self.supernet.params:,} parameters."
                ),
                "source": wrapped(f"Source: {escaped(source)}" if source else ""),
                "version": Code(__version__),
                "usage": [Code(line if len(line) < 96 else "net.choose(vector)") for line in usage],
                "about": wrapped(_ABOUT),
                "act": self.act,
                "same": Code(str(self.attributes.pad == "same")),
                "norm": Code(f"eps={norm.eps}, momentum={norm.momentum}"),
                "layer_scale": scales[0] if scales else None,
                "kinds": {layer.kind for slot in self.slots for layer in slot.layers.values()},
                "cls": self.cls,
                "choices": list(self.choices()),
                "sections": sections,
                "first": Code(_row(first)),
                "channels": self.setting(channels),
                "droppath": self.setting(droppath) if drops else None,
                "stem": "self.stem" in targets,
                "head": "self.head" in targets,
                "stages": any(section["first_stage"] for section in sections),
            },
        )


def _row(vector: Sequence[int]) -> str:
    return f"({', '.join(map(str, vector))}{',' if len(vector) == 1 else ''})"


def _channels(space: Space) -> Table:
    """The channels of the image, which a statement may leave open."""
    found: dict[tuple[int, ...], Value] = {}
    columns: list[int] = []
    for paths in space.graphs:
        columns = [column for column, _ in paths.picks]
        found[tuple(index for _, index in paths.picks)] = paths.attributes.input[2]
    return reduced(columns, found)


def _place(title: str) -> Code:
    """A block's path in a comment: words of the language, dots and numbers."""
    path, _, rest = title.partition(",")
    return Code(".".join(w if w.isdigit() else checked(w) for w in path.split(".")) + _rest(rest))


def _rest(rest: str) -> str:
    number = rest.removeprefix(" layer ")
    return f", layer {int(number)}" if number else ""


def _filled(text: str, indent: int) -> list[Code]:
    """A line of code, broken after its commas where it is too long."""
    margin = " " * indent
    lines = textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=margin,
        subsequent_indent=f"{margin}    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [Code(line) for line in lines]
