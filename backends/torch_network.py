"""An architecture, and what the templates print of it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

from archdsl import __version__
from archdsl.compiler import Arch
from archdsl.ir.ops import (
    LayerScale,
    Shape,
)

from .torch_calls import (
    ACTIVATIONS,
    NONE,
    NUM_CLASSES,
    READERS,
    BlockReader,
    Call,
)
from .torch_classes import (
    ATTENTIONS,
    DEFINITIONS,
    DEPTHWISE,
    LINEAR,
    LINEARS,
    RESIDUALS,
    TAKEN,
    Definition,
    class_name,
)
from .torch_code import COLUMNS, Code, checked, escaped, shape_of, wrapped


class _Section(NamedTuple):
    """A Sequential of the network: what it is assigned to, and the lines of its blocks."""

    target: Code
    lines: list[Code]
    first_stage: bool


class Network:
    """An architecture, and what the templates print of it."""

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        self.blocks = [BlockReader(o.path, o.block, unit.fragment) for o, unit in arch.blocks()]
        self.calls = self._calls()
        self.act = ACTIVATIONS.get(arch.attributes.act, NONE)
        self.convs = [(b, part, op) for b in self.blocks for part, op in b.convs()]
        self.ops = {name for block in self.blocks for name in block.ops}
        self.stride = Code("int")
        if any(conv.stride[0] != conv.stride[1] for _, _, conv in self.convs):
            self.stride = Code("int | tuple[int, int]")
        self.definitions = self._definitions()
        self.name = class_name(arch.name)
        self.takes_classes = any(NUM_CLASSES in call.arguments for call in self.calls)
        self.features = self._features()

    def _calls(self) -> list[Call]:
        calls = [READERS[block.spec.kind](block) for block in self.blocks]
        # A linear layer behind the classifier has the classes as its inputs.
        widths: object = None
        for index in range(len(calls)):
            if calls[index].name in LINEARS:
                inputs, outputs = calls[index].arguments
                calls[index] = replace(calls[index], arguments=(widths or inputs, outputs))
                widths = outputs
        return calls

    def _definitions(self) -> dict[str, Definition]:
        names = dict.fromkeys([*DEFINITIONS, *(call.name for call in self.calls)])
        found = {
            name: Definition(name, [c for c in self.calls if c.name == name], self.act, self.stride)
            for name in names
        }
        parts = found["ConvNormAct"]
        for block, part, conv in self.convs:
            if conv.groups > 1 or part in DEPTHWISE:
                parts.varied.add("groups")
            if part in LINEAR or block.act(f"{part}.act".lstrip(".")) != self.act:
                parts.varied.add("act")
        if "residual" in parts:  # a base stands before its class
            found = {"Residual": found["Residual"], **found}
        if len({block.act("se.act") for block in self.blocks if "se.reduce" in block}) > 1:
            found["SqueezeExcite"].varied.add("act")
        strided = [conv for _, _, conv in self.convs if conv.stride != (1, 1)]
        if any(conv.kernel[0] < max(conv.stride) for conv in strided):
            found["SameConv2d"].traits.add("small_kernels")
        same = self.arch.attributes.pad == "same"
        used = {
            "SameConv2d": same and any(conv.kernel != (1, 1) for conv in strided),
            "ConvNormAct": bool(self.convs),
            "SqueezeExcite": "se.reduce" in self.ops,
            "LayerScale": "layer_scale" in self.ops,
            "DropPath": self.arch.attributes.droppath > 0 and "add" in self.ops,
            "Residual": "residual" in parts or any(found[name].used for name in RESIDUALS),
            "split": any(found[name].used for name in ATTENTIONS),
            "reduction": "key_reduce.conv" in self.ops,
            "initialize": self.arch.total.params > 0,
        }
        for name, wanted in used.items():
            found[name].used = wanted
        return found

    def _features(self) -> dict[str, Shape]:
        """The stages' outputs by name."""
        places = (block.path.split(".") for block in self.blocks)
        return {
            place[1]: block.output
            for place, block in zip(places, self.blocks, strict=True)
            if place[0] == "stages"
        }

    def _sections(self) -> list[_Section]:
        sections: list[_Section] = []
        placed = list(zip(self.blocks, self.calls, strict=True))
        for path, members in groupby(placed, key=lambda item: item[0].path.rpartition(".")[0]):
            kind, _, name = path.partition(".")
            first = kind == "stages" and not any("stages" in s.target for s in sections)
            target = Code(f'self.stages["{checked(name)}"]' if name else f"self.{checked(kind)}")
            sections.append(_Section(target, self._lines(members), first))
        return sections

    def _lines(self, members: Iterable[tuple[BlockReader, Call]]) -> list[Code]:
        """A line for each block; equal ones that follow each other share one."""
        coded = ((self.definitions[call.name].code(call), block) for block, call in members)
        lines = []
        for code, group in groupby(coded, key=lambda item: item[0]):
            blocks = [block for _, block in group]
            before, after = blocks[0].input, blocks[-1].output
            line = f"*({code} for _ in range({len(blocks)}))," if len(blocks) > 1 else f"{code},"
            if after != before and len(after) == 3:
                line += f"  # {after[2]}x{after[0]}x{after[1]}"
            lines.append(Code(line))
        return lines

    def _signature(self) -> Code:
        """The shapes of input and output, in PyTorch's order."""
        widths = [call.arguments[1] for call in self.calls if call.name in LINEARS]
        output = f"(N, {widths[-1]})" if widths else shape_of(self.arch.output)
        return Code(f"{shape_of(self.arch.input)} to {output}")

    def body(self) -> dict[str, Any]:
        """What `torch_network.py.j2` prints."""
        attributes = self.arch.attributes
        squeezes = [block for block in self.blocks if "se.reduce" in block]
        scales = [op for b in self.blocks for op in b.ops.values() if isinstance(op, LayerScale)]
        aliases = [n for n in ("Model", self.arch.name) if n != self.name and n not in TAKEN]
        sections = self._sections()
        targets = {section.target for section in sections}
        column = max(map(len, self.features), default=0)
        return {
            "act": self.act,
            "aliases": Code(" = ".join(aliases)),
            "classes": self.arch.classes if self.takes_classes else None,
            "cls": self.name,
            "definitions": [
                d for name, d in self.definitions.items() if name in DEFINITIONS and d.used
            ],
            "drop_path": attributes.droppath if self.definitions["DropPath"].used else None,
            "features": [
                Code(f"{checked(stage):{column}}  {shape_of(shape)}")
                for stage, shape in self.features.items()
            ],
            "head": "self.head" in targets,
            "initialized": self.definitions["initialize"].used,
            "layer_scale": scales[0].init if scales else None,
            "norm": Code(f"eps={attributes.norm.eps}, momentum={attributes.norm.momentum}"),
            "same_padding": self.definitions["SameConv2d"].used,
            "se": {
                **{role: squeezes[0].act(f"se.{role}") for role in ("act", "gate") if squeezes},
                "varied": "act" in self.definitions["SqueezeExcite"],
            },
            "sections": sections,
            "signature": self._signature(),
            "stem": "self.stem" in targets,
        }

    def frame(self, body: str) -> dict[str, Any]:
        """What `torch_module.py.j2` prints: the docstring, the imports, and the body."""
        arch = self.arch
        height, width, _ = arch.input
        total = arch.total
        macs = total.macs_conv_linear + total.macs_attention
        title = f"{checked(arch.name)}: {total.params:,} parameters, {macs:,} multiply-accumulates"
        scaled = f", width {arch.attributes.width:g}" if arch.attributes.width != 1 else ""
        source = f"Source: {escaped(arch.spec.source)}" if arch.spec.source else ""
        arguments = f"num_classes={arch.classes}" if self.takes_classes else ""
        usage = [f"net = {self.name}({arguments})", "y = net(images)"]
        notes = ["", f"{shape_of(arch.input)} to {shape_of(arch.output)}"]
        if self.features:
            usage.append("features = net.forward_features(images)")
            notes.append(f"by stage: {', '.join(self.features)}")
        pad = max(map(len, usage))
        return {
            "body": Code(body.strip("\n")),
            "key": wrapped(_KEYS.format(key=self._example_key())),
            "layers": self._layers(),
            "modules": set(re.findall(r"\b(math|torch|F)\.", body)),
            "source": wrapped(source),
            "title": Code(f"{title} at {height}x{width} pixels{scaled}."),
            "usage": [
                Code(f"{line:{pad}}  # {note}" if note else line)
                for line, note in zip(usage, notes, strict=True)
            ],
            "version": Code(__version__),
        }

    def _layers(self) -> list[Code]:
        """The layers that have weights, for each class, in the order in which they run."""
        rows: dict[str, list[str]] = {}
        for block, call in zip(self.blocks, self.calls, strict=True):
            row, position = rows.setdefault(call.name, []), 0
            for name in (name for name, op in block.ops.items() if op.parameters()):
                if name not in row:
                    row.insert(position, name)
                position = row.index(name) + 1
        rows = {name: row for name, row in rows.items() if row}
        column = max(map(len, rows), default=0) + 2
        lines = []
        for name, row in rows.items():
            text = re.sub(r"(\S+)\.conv \1\.norm\b", r"\1.{conv,norm}", " ".join(row))
            indent = " " * column
            lines += textwrap.wrap(
                f"{name:{column}}{text or '(the block itself)'}",
                COLUMNS - 4,
                subsequent_indent=indent,
                break_on_hyphens=False,
            )
        return [Code(line) for line in lines]

    def _example_key(self) -> str:
        """The key of a weight: the first of the stages, or of the network where they have none."""
        keys = [
            ".".join(filter(None, (block.path, name, tensor)))
            for block in self.blocks
            for name, op in block.ops.items()
            for tensor in op.parameters()
        ]
        return next((key for key in keys if key.startswith("stages.")), keys[0] if keys else "")


_KEYS = (
    "A key of the state_dict is a block's place (its section, and its number there from 0), a "
    "layer of the block, and PyTorch's name for a tensor of that: `{key}`. The layers, in the "
    "order in which they run:"
)
