"""The PyTorch backend: one source file that needs torch alone.

What a block is made of is read from its lowered operators: which layers there are, their widths,
kernels and strides. Here stands how PyTorch code says it: a constructor call for each block, and in
`templates/torch_*.py.j2` the classes that are called, with no more options than the network's
blocks use.

A user's text enters the source as a number, as a name that has been checked, or escaped inside the
docstring; the templates refuse to print anything else.
"""

from __future__ import annotations

import builtins
import hashlib
import keyword
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.abc import ExecutionLoader
from importlib.resources import files
from importlib.util import module_from_spec, spec_from_loader
from itertools import groupby
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from jinja2 import Environment, FunctionLoader, StrictUndefined

from archdsl import __version__
from archdsl.backend import Artifact, BackendError
from archdsl.compiler import Arch
from archdsl.ir.node import Fragment
from archdsl.ir.ops import (
    Activation,
    Conv2d,
    Dropout,
    LayerScale,
    Linear,
    Op,
    Pair,
    Reshape,
    Shape,
)
from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.spec import Block, Classifier

_COLUMNS = 100
"""Where a line of the emitted source is broken."""

_T = TypeVar("_T", bound=Op)


class Code(str):
    """Python source that is known to be harmless."""

    __slots__ = ()


class TorchBackend:
    """Writes a network as PyTorch source, and loads it."""

    suffix = ".py"

    def emit(self, arch: Arch) -> bytes:
        """The source of a module that defines the network under its own name and as `Model`.

        Raises:
            ArchError: stages have names that a PyTorch module cannot have.
        """
        _refuse(arch)
        network = _Network(arch)
        body = _render("torch_network.py.j2", network.body())
        body = "\n".join(_broken(line) for line in body.split("\n"))
        return _render("torch_module.py.j2", network.frame(body)).encode()

    def load(self, artifact: Artifact, *, seed: int) -> Any:
        """The network with initial weights drawn from `seed`, ready for inference (`eval()`).

        PyTorch's own random state stays as it was. Equal artefacts share a module in `sys.modules`,
        where TorchScript and tracebacks find its lines.

        Raises:
            BackendError: PyTorch is not installed.
        """
        try:
            import torch
        except ImportError as error:
            message = f'PyTorch cannot be imported ({error}); pip install "archdsl[torch]"'
            raise BackendError(message) from error
        model = _executed(artifact.arch.name, artifact.data).Model
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(seed)
            return model().eval()


# ------------------------------------------------------------------------------------- templates


def _only_code(value: object) -> object:
    """What the templates may print: source, and numbers."""
    if isinstance(value, (Code, int, float)):
        return value
    raise TypeError(f"a template prints {value!r}, which nothing has checked")


def _template(name: str) -> str:
    return files("archdsl.backends").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(_template),
        undefined=StrictUndefined,
        finalize=_only_code,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _render(name: str, context: Mapping[str, Any]) -> str:
    return _environment().get_template(name).render(context)


_CALL = re.compile(r"( *)([^()#]*\()(.*)(\),?)(  #.*)?")


def _broken(line: str) -> str:
    """A line of source, or the lines of a call that is too long for one."""
    match = _CALL.fullmatch(line) if len(line) > _COLUMNS else None
    if match is None:
        return line
    indent, head, inside, tail, comment = match.groups(default="")
    deeper = f"{indent}    "
    if len(deeper + inside) > _COLUMNS:
        inside = inside.replace(" for _ in ", f"\n{deeper}for _ in ")
    return f"{indent}{head}\n{deeper}{inside}\n{indent}{tail}{comment}"


# ----------------------------------------------------------------------------------------- names

# The attributes of nn.ModuleDict (torch 2.10 to 2.13), which it refuses as keys.
_MODULE_DICT = frozenset(
    re.findall(
        r"\w+",
        """
        add_module apply bfloat16 buffers call_super_init children clear compile cpu cuda double
        dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter
        get_submodule half ipu items keys load_state_dict modules mtia named_buffers named_children
        named_modules named_parameters parameters pop register_backward_hook register_buffer
        register_forward_hook register_forward_pre_hook register_full_backward_hook
        register_full_backward_pre_hook register_load_state_dict_post_hook
        register_load_state_dict_pre_hook register_module register_parameter
        register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state
        set_submodule share_memory state_dict to to_empty train training type update values xpu
        zero_grad
        """,
    )
)


def _refuse(arch: Arch) -> None:
    """Report every stage whose name cannot be one in PyTorch."""
    diagnostics = []
    for stage in arch.spec.stages:
        name = stage.name or ""
        if name in _MODULE_DICT:
            why = "nn.ModuleDict, which holds the stages, has an attribute of that name"
        elif keyword.iskeyword(name):
            why = "it is a word of Python, and torch.export writes the names of stages as Python"
        elif name == "torch":
            why = "TorchScript keeps that name for itself"
        else:
            continue
        section = arch.origins.sections.get(f"stages.{name}")
        span = arch.origins.span(section.name) if section and section.name else None
        message = f"a PyTorch module cannot have a stage `{name}`: {why}"
        diagnostics.append(Diagnostic("E0702", message, span, "rename the stage"))
    if diagnostics:
        raise ArchError(diagnostics)


def _checked(name: str) -> Code:
    """A name of the user's: the language allows small letters, digits and underscores."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"{name!r} is not a name of the language")
    return Code(name)


def _class_name(name: str) -> Code:
    """The class of the network called `name`.

    >>> _class_name("mnv4_conv_m"), _class_name("mnv2_140"), _class_name("inverted_residual")
    ('Mnv4ConvM', 'Mnv2_140', 'InvertedResidualNet')
    """
    camel = ""
    for part in filter(None, _checked(name).split("_")):
        if camel[-1:].isdigit() and part[0].isdigit():
            camel += "_"
        camel += part.capitalize()
    return Code(f"{camel}Net" if camel in _TAKEN else camel)


def _escaped(text: str) -> str:
    r"""A user's text as it may stand in a docstring.

    >>> print(_escaped('back\\slash, "quotes", a bell \a, a reversal \u202e'))
    back\\slash, \"quotes\", a bell \x07, a reversal \u202e
    """
    return "".join(
        f"\\{c}" if c in '\\"' else c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text
    )


# ------------------------------------------------------------------------------- blocks as calls

_ACTIVATIONS = {
    "relu": Code("nn.ReLU"),
    "relu6": Code("nn.ReLU6"),
    "hswish": Code("nn.Hardswish"),
    "swish": Code("nn.SiLU"),
    "gelu": Code("nn.GELU"),
    "sigmoid": Code("nn.Sigmoid"),
    "hsigmoid": Code("nn.Hardsigmoid"),
}
_NONE = Code("None")
_NUM_CLASSES = Code("num_classes")


class _Block:
    """A lowered block: its operators under their names in the block."""

    def __init__(self, path: str, spec: Block, fragment: Fragment) -> None:
        self.path, self.spec = path, spec
        self.input, self.output = fragment.input, fragment.output
        self.ops: dict[str, Op] = {node.name: node.op for node in fragment.nodes}

    def __contains__(self, name: str) -> bool:
        return name in self.ops

    def op(self, name: str, kind: type[_T]) -> _T:
        op = self.ops[name]
        if not isinstance(op, kind):
            raise TypeError(f"{self.path}.{name} is {op}, not a {kind.__name__}")
        return op

    def conv(self, name: str) -> Conv2d:
        return self.op(name, Conv2d)

    def act(self, name: str) -> Code:
        return _ACTIVATIONS[self.op(name, Activation).function] if name in self else _NONE

    def convs(self) -> Iterable[tuple[str, Conv2d]]:
        """The convolutions that belong to a ConvNormAct, each with the name of that."""
        for name, op in self.ops.items():
            part, _, last = name.rpartition(".")
            if last == "conv" and isinstance(op, Conv2d):
                yield part, op


@dataclass(frozen=True)
class _Call:
    """A constructor call; `traits` are what else this block asks of its class."""

    name: str
    arguments: tuple[object, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    traits: frozenset[str] = frozenset()


def _conv_norm_act(b: _Block) -> _Call:
    conv = b.conv("conv")
    options = {
        "kernel": conv.kernel[0],
        "stride": _stride(conv),
        "groups": conv.groups,
        "bias": conv.bias,
        "norm": "norm" in b,
        "act": b.act("act"),
    }
    return _Call("ConvNormAct", (conv.in_channels, conv.out_channels), options)


def _depthwise_separable(b: _Block) -> _Call:
    conv = b.conv("depthwise.conv")
    options = {"kernel": conv.kernel[0], "stride": _stride(conv), "act": b.act("depthwise.act")}
    return _Call("DepthwiseSeparable", (b.input[-1], b.output[-1]), options)


def _inverted_residual(b: _Block) -> _Call:
    conv = b.conv("depthwise.conv")
    options = {"kernel": conv.kernel[0], "act": b.act("depthwise.act")}
    return _expanding("InvertedResidual", b, conv.in_channels, conv, options)


def _fused_inverted_residual(b: _Block) -> _Call:
    name = "FusedInvertedResidual"
    if "expand.conv" not in b:
        return _expanding(name, b, b.input[-1], b.conv("project.conv"), {})
    conv = b.conv("expand.conv")
    options = {"kernel": conv.kernel[0], "groups": conv.groups, "act": b.act("expand.act")}
    return _expanding(name, b, conv.out_channels, conv, options)


def _universal_inverted_bottleneck(b: _Block) -> _Call:
    options: dict[str, object] = {"act": b.act("expand.act")}
    strided = expand = b.conv("expand.conv")
    for part in ("start", "middle"):
        if f"{part}.conv" in b:
            strided = b.conv(f"{part}.conv")
            options[part] = strided.kernel[0]
    name = "UniversalInvertedBottleneck"
    return _expanding(name, b, expand.out_channels, strided, options)


def _expanding(
    name: str, b: _Block, hidden: int, strided: Conv2d, options: Mapping[str, object]
) -> _Call:
    """A call of one of the classes that expand to a hidden width and project from it."""
    stride = _stride(strided)
    more = {
        "stride": stride,
        "se": b.conv("se.reduce").out_channels if "se.reduce" in b else 0,
        # A ratio near 1 may be rounded to no expansion, which then keeps its convolution.
        "expand": "expand.conv" in b and hidden == b.input[-1],
        "layer_scale": "layer_scale" in b,
        "residual": "add" in b or stride != 1 or b.input != b.output,
    }
    traits = {"scaled": "layer_scale" in b, "bare": "expand.conv" not in b}
    return _Call(name, (b.input[-1], hidden, b.output[-1]), {**options, **more}, _true(traits))


def _attention(b: _Block) -> _Call:
    query, key = b.conv("query"), b.conv("key")
    if "query.split" in b:
        name = "MultiHeadAttention"
        _, heads, width = b.op("query.split", Reshape).shape
    else:
        name = "MultiQueryAttention"
        heads, width = query.out_channels // key.out_channels, key.out_channels
    options: dict[str, object] = {
        "heads": heads,
        "head_width": width,
        "out_channels": None if b.input == b.output else b.output[-1],
        "layer_scale": "layer_scale" in b,
        "residual": "add" in b or b.input != b.output,
    }
    if "key_reduce.conv" in b:
        conv = b.conv("key_reduce.conv")
        options |= {"kv_stride": conv.stride[0], "kernel": conv.kernel[0]}
    traits = {"scaled": "layer_scale" in b}
    return _Call(name, (b.input[-1],), options, _true(traits))


def _classifier(b: _Block) -> _Call:
    linear, spec = b.op("", Linear), b.spec
    exact = not isinstance(spec, Classifier) or spec.out_channels is not None
    arguments = (linear.in_features, linear.out_features if exact else _NUM_CLASSES)
    plain = "flatten" not in b and "act" not in b
    options = {"bias": linear.bias, "act": b.act("act")}
    return _Call("nn.Linear" if plain else "Classifier", arguments, options)


_READERS: dict[str, Callable[[_Block], _Call]] = {
    "ir": _inverted_residual,
    "fused": _fused_inverted_residual,
    "uib": _universal_inverted_bottleneck,
    "sep": _depthwise_separable,
    "mqa": _attention,
    "mha": _attention,
    "conv": _conv_norm_act,
    "dw": _conv_norm_act,
    "pool": lambda b: _Call("nn.AdaptiveAvgPool2d", (1,)),
    "fc": _classifier,
    "dropout": lambda b: _Call("nn.Dropout", (b.op("", Dropout).rate,)),
    "skip": lambda b: _Call("nn.Identity"),
}


def _stride(conv: Conv2d) -> int | Pair:
    height, width = conv.stride
    return height if height == width else conv.stride


def _true(traits: Mapping[str, bool]) -> frozenset[str]:
    return frozenset(trait for trait, holds in traits.items() if holds)


# --------------------------------------------------------------------------------------- classes

_FILE_ACT = Code("")
"""Stands for the file's activation among the defaults."""

# The optional parameters of the templates' classes, in their order: type and default.
_OPTIONS: dict[str, tuple[str, object]] = {
    "out_channels": ("int | None", None),
    "start": ("int", 0),
    "middle": ("int", 0),
    "kv_stride": ("int", 1),
    "kernel": ("int", 3),
    "stride": ("int", 1),
    "groups": ("int", 1),
    "se": ("int", 0),
    "bias": ("bool", False),
    "norm": ("bool", True),
    "act": ("type[nn.Module] | None", _FILE_ACT),
    "expand": ("bool", False),
    "layer_scale": ("bool", True),
    "residual": ("bool", True),
}
_OWN_DEFAULTS: dict[tuple[str, str], object] = {
    ("ConvNormAct", "kernel"): 1,
    ("Classifier", "bias"): True,
    ("Classifier", "act"): _NONE,
    ("nn.Linear", "bias"): True,
    ("nn.Linear", "act"): _NONE,
}

# What a module may define, in order, each with the options that it always has.
_DEFINITIONS: dict[str, set[str]] = {
    "SameConv2d": set(),
    "ConvNormAct": {"kernel", "stride"},
    "SqueezeExcite": set(),
    "LayerScale": set(),
    "DropPath": set(),
    "DepthwiseSeparable": {"kernel", "stride"},
    "Residual": set(),
    "InvertedResidual": {"kernel", "stride"},
    "FusedInvertedResidual": {"kernel", "stride"},
    "UniversalInvertedBottleneck": {"stride"},
    "split": set(),
    "reduction": set(),
    "MultiQueryAttention": set(),
    "MultiHeadAttention": set(),
    "Classifier": set(),
    "initialize": set(),
}
_RESIDUALS = ("InvertedResidual", "FusedInvertedResidual", "UniversalInvertedBottleneck")
_ATTENTIONS = ("MultiQueryAttention", "MultiHeadAttention")
_LINEARS = ("Classifier", "nn.Linear")

# Parts that the templates always write as depthwise, and those without an activation.
_DEPTHWISE = {"depthwise", "start", "middle", "key_reduce", "value_reduce"}
_LINEAR = {"project", "start", "key_reduce", "value_reduce"}

# What an emitted module may define or use: a network's name must be another one.
_TAKEN = {
    *keyword.kwlist,
    *keyword.softkwlist,
    *dir(builtins),
    *("math", "torch", "F", "nn", "Tensor", "same_padding"),
    *_DEFINITIONS,
}


class _Definition:
    """An emitted class as its template sees it: `"se" in o` where a block asks for that."""

    def __init__(self, name: str, calls: Sequence[_Call], act: Code, stride: Code) -> None:
        self.name, self.used = name, bool(calls)
        self._act, self._stride = act, stride
        self.traits = {trait for call in calls for trait in call.traits}
        self.varied = {option for call in calls for option in self._set(call)}
        # Where no block has a layer scale it is no option, nor is an expansion that all have.
        if "scaled" not in self.traits:
            self.varied.discard("layer_scale")
        if "bare" not in self.traits:
            self.varied.discard("expand")

    def _default(self, option: str) -> object:
        value = _OWN_DEFAULTS.get((self.name, option), _OPTIONS[option][1])
        return self._act if value is _FILE_ACT else value

    def _set(self, call: _Call) -> list[str]:
        """The options that a call does not leave at their defaults."""
        given = [option for option in _OPTIONS if option in call.options]
        return [option for option in given if call.options[option] != self._default(option)]

    def code(self, call: _Call) -> Code:
        required = [option for option in call.options if option not in _OPTIONS]
        chosen = [option for option in self._set(call) if option in self.varied]
        arguments = [str(argument) for argument in call.arguments]
        arguments += [f"{option}={call.options[option]}" for option in (*required, *chosen)]
        return Code(f"{self.name}({', '.join(arguments)})")

    def __contains__(self, feature: str) -> bool:
        return feature in self.varied or feature in self.traits

    @property
    def template(self) -> str:
        return f"torch_{'attention' if self.name in _ATTENTIONS else self.name}.py.j2"

    @property
    def options(self) -> list[Code]:
        """The optional parameters of the signature."""
        types = {"stride": self._stride}
        return [
            Code(f"{option}: {types.get(option, kind)} = {self._default(option)}")
            for option, (kind, _) in _OPTIONS.items()
            if option in self.varied | _DEFINITIONS[self.name]
        ]

    @property
    def act(self) -> Code:
        """Hands the activation on, where it is a parameter."""
        return Code(", act=act" if "act" in self else "")

    @property
    def groups(self) -> Code:
        return Code(", groups=groups" if "groups" in self else "")

    @property
    def out(self) -> Code:
        """The output width of an attention."""
        return Code("out_channels" if "out_channels" in self else "channels")


# --------------------------------------------------------------------------------------- network


class _Section(NamedTuple):
    """A Sequential of the network: what it is assigned to, and the lines of its blocks."""

    target: Code
    lines: list[Code]
    first_stage: bool


class _Network:
    """An architecture, and what the templates print of it."""

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        self.blocks = [_Block(o.path, o.block, unit.fragment) for o, unit in arch.blocks()]
        self.calls = self._calls()
        self.act = _ACTIVATIONS.get(arch.attributes.act, _NONE)
        self.convs = [(b, part, op) for b in self.blocks for part, op in b.convs()]
        self.ops = {name for block in self.blocks for name in block.ops}
        self.stride = Code("int")
        if any(conv.stride[0] != conv.stride[1] for _, _, conv in self.convs):
            self.stride = Code("int | tuple[int, int]")
        self.definitions = self._definitions()
        self.name = _class_name(arch.name)
        self.takes_classes = any(_NUM_CLASSES in call.arguments for call in self.calls)
        self.features = self._features()

    def _calls(self) -> list[_Call]:
        calls = [_READERS[block.spec.kind](block) for block in self.blocks]
        # A linear layer behind the classifier has the classes as its inputs.
        widths: object = None
        for index in range(len(calls)):
            if calls[index].name in _LINEARS:
                inputs, outputs = calls[index].arguments
                calls[index] = replace(calls[index], arguments=(widths or inputs, outputs))
                widths = outputs
        return calls

    def _definitions(self) -> dict[str, _Definition]:
        names = dict.fromkeys([*_DEFINITIONS, *(call.name for call in self.calls)])
        found = {
            name: _Definition(
                name, [c for c in self.calls if c.name == name], self.act, self.stride
            )
            for name in names
        }
        parts = found["ConvNormAct"]
        for block, part, conv in self.convs:
            if conv.groups > 1 or part in _DEPTHWISE:
                parts.varied.add("groups")
            if part in _LINEAR or block.act(f"{part}.act".lstrip(".")) != self.act:
                parts.varied.add("act")
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
            "Residual": any(found[name].used for name in _RESIDUALS),
            "split": any(found[name].used for name in _ATTENTIONS),
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
            target = Code(f'self.stages["{_checked(name)}"]' if name else f"self.{_checked(kind)}")
            sections.append(_Section(target, self._lines(members), first))
        return sections

    def _lines(self, members: Iterable[tuple[_Block, _Call]]) -> list[Code]:
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
        widths = [call.arguments[1] for call in self.calls if call.name in _LINEARS]
        output = f"(N, {widths[-1]})" if widths else _shape(self.arch.output)
        return Code(f"{_shape(self.arch.input)} to {output}")

    def body(self) -> dict[str, Any]:
        """What `torch_network.py.j2` prints."""
        attributes = self.arch.attributes
        squeezes = [block for block in self.blocks if "se.reduce" in block]
        scales = [op for b in self.blocks for op in b.ops.values() if isinstance(op, LayerScale)]
        aliases = [n for n in ("Model", self.arch.name) if n != self.name and n not in _TAKEN]
        sections = self._sections()
        targets = {section.target for section in sections}
        column = max(map(len, self.features), default=0)
        return {
            "act": self.act,
            "aliases": Code(" = ".join(aliases)),
            "classes": self.arch.classes if self.takes_classes else None,
            "cls": self.name,
            "definitions": [d for name in _DEFINITIONS if (d := self.definitions[name]).used],
            "drop_path": attributes.droppath if self.definitions["DropPath"].used else None,
            "features": [
                Code(f"{_checked(stage):{column}}  {_shape(shape)}")
                for stage, shape in self.features.items()
            ],
            "head": "self.head" in targets,
            "initialized": self.definitions["initialize"].used,
            "layer_scale": scales[0].init if scales else None,
            "norm": Code(f"eps={attributes.norm.eps}, momentum={attributes.norm.momentum}"),
            "same_padding": self.definitions["SameConv2d"].used,
            "se": {role: squeezes[0].act(f"se.{role}") for role in ("act", "gate") if squeezes},
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
        title = f"{_checked(arch.name)}: {total.params:,} parameters, {macs:,} multiply-accumulates"
        source = f"Source: {_escaped(arch.spec.source)}" if arch.spec.source else ""
        arguments = f"num_classes={arch.classes}" if self.takes_classes else ""
        usage = [f"net = {self.name}({arguments})", "y = net(images)"]
        notes = ["", f"{_shape(arch.input)} to {_shape(arch.output)}"]
        if self.features:
            usage.append("features = net.forward_features(images)")
            notes.append(f"by stage: {', '.join(self.features)}")
        pad = max(map(len, usage))
        return {
            "body": Code(body.strip("\n")),
            "key": _wrapped(_KEYS.format(key=self._example_key())),
            "layers": self._layers(),
            "modules": set(re.findall(r"\b(math|torch|F)\.", body)),
            "source": _wrapped(source),
            "title": Code(f"{title} at {height}x{width} pixels."),
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
                _COLUMNS - 4,
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


def _shape(shape: Shape) -> Code:
    """A shape of the core as PyTorch has it: the batch, then the channels."""
    return Code(f"(N, {', '.join(map(str, (shape[-1], *shape[:-1])))})")


def _wrapped(text: str) -> list[Code]:
    """A paragraph of a docstring; the text is harmless already."""
    lines = textwrap.wrap(text, _COLUMNS, break_long_words=False, break_on_hyphens=False)
    return [Code(line) for line in lines]


# --------------------------------------------------------------------------------------- loading


_KEPT = 256
"""Modules that are kept; a search may load thousands."""

_loaded: dict[str, ModuleType] = {}


class _EmittedLoader(ExecutionLoader):
    """Gives the import system, and through it `inspect`, the source of an emitted module."""

    def __init__(self, source: str) -> None:
        self.source = source

    def get_filename(self, fullname: str) -> str:
        # There is no such file, and each source has a name of its own, as linecache needs it.
        return f"<archdsl>/{fullname}.py"

    def get_source(self, fullname: str) -> str:
        return self.source

    def is_package(self, fullname: str) -> bool:
        return False


def _executed(name: str, data: bytes) -> ModuleType:
    """The module that emitted source defines; the oldest gives way where there are many."""
    key = f"_archdsl_{name}_{hashlib.sha256(data).hexdigest()[:16]}"
    if key not in _loaded:
        loader = _EmittedLoader(data.decode())
        spec = spec_from_loader(key, loader, origin=loader.get_filename(key))
        assert spec is not None
        module = module_from_spec(spec)
        loader.exec_module(module)
        sys.modules[key] = _loaded[key] = module
        if len(_loaded) > _KEPT:
            oldest = next(iter(_loaded))
            del _loaded[oldest], sys.modules[oldest]
    return _loaded[key]
