"""The classes an emitted module may define, with the options that its blocks ask for."""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Sequence

from .torch_calls import (
    NONE,
    Call,
)
from .torch_code import Code, checked

FILE_ACT = Code("")
"""Stands for the file's activation among the defaults."""

# The optional parameters of the templates' classes, in their order: type and default.
OPTIONS: dict[str, tuple[str, object]] = {
    "out_channels": ("int | None", None),
    "start": ("int", 0),
    "middle": ("int", 0),
    "kv_stride": ("int", 1),
    "kernel": ("int", 3),
    "stride": ("int", 1),
    "groups": ("int", 1),
    "group_size": ("int", 1),
    "se": ("int", 0),
    "bias": ("bool", False),
    "norm": ("bool", True),
    "act": ("type[nn.Module] | None", FILE_ACT),
    "expand": ("bool", False),
    "layer_scale": ("bool", True),
    "residual": ("bool", True),
}
OWN_DEFAULTS: dict[tuple[str, str], object] = {
    ("ConvNormAct", "kernel"): 1,
    ("ConvNormAct", "residual"): False,
    ("Classifier", "bias"): True,
    ("Classifier", "act"): NONE,
    ("nn.Linear", "bias"): True,
    ("nn.Linear", "act"): NONE,
}

# What a module may define, in order, each with the options that it always has.
DEFINITIONS: dict[str, set[str]] = {
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
RESIDUALS = ("InvertedResidual", "FusedInvertedResidual", "UniversalInvertedBottleneck")
ATTENTIONS = ("MultiQueryAttention", "MultiHeadAttention")
LINEARS = ("Classifier", "nn.Linear")

# Parts that the templates always write as depthwise, and those without an activation.
DEPTHWISE = {"depthwise", "start", "middle", "key_reduce", "value_reduce"}
LINEAR = {"project", "start", "key_reduce", "value_reduce"}

# What an emitted module may define or use: a network's name must be another one.
TAKEN = {
    *keyword.kwlist,
    *keyword.softkwlist,
    *dir(builtins),
    *("math", "torch", "F", "nn", "Tensor", "same_padding"),
    *DEFINITIONS,
}


class Definition:
    """An emitted class as its template sees it: `"se" in o` where a block asks for that."""

    def __init__(self, name: str, calls: Sequence[Call], act: Code, stride: Code) -> None:
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
        value = OWN_DEFAULTS.get((self.name, option), OPTIONS[option][1])
        return self._act if value is FILE_ACT else value

    def _set(self, call: Call) -> list[str]:
        """The options that a call does not leave at their defaults."""
        given = [option for option in OPTIONS if option in call.options]
        return [option for option in given if call.options[option] != self._default(option)]

    def code(self, call: Call) -> Code:
        required = [option for option in call.options if option not in OPTIONS]
        chosen = [option for option in self._set(call) if option in self.varied]
        arguments = [str(argument) for argument in call.arguments]
        arguments += [f"{option}={call.options[option]}" for option in (*required, *chosen)]
        return Code(f"{self.name}({', '.join(arguments)})")

    def __contains__(self, feature: str) -> bool:
        return feature in self.varied or feature in self.traits

    @property
    def template(self) -> str:
        return f"torch_{'attention' if self.name in ATTENTIONS else self.name}.py.j2"

    @property
    def options(self) -> list[Code]:
        """The optional parameters of the signature."""
        types = {"stride": self._stride}
        return [
            Code(f"{option}: {types.get(option, kind)} = {self._default(option)}")
            for option, (kind, _) in OPTIONS.items()
            if option in self.varied | DEFINITIONS[self.name]
        ]

    @property
    def act(self) -> Code:
        """Hands the activation on, where it is a parameter."""
        return Code(", act=act" if "act" in self else "")

    @property
    def groups(self) -> Code:
        return Code(", groups=groups" if "groups" in self else "")

    @property
    def group_size(self) -> Code:
        """Makes groups of the channels, one each, where larger groups are a parameter."""
        return Code(" // group_size" if "group_size" in self else "")

    @property
    def out(self) -> Code:
        """The output width of an attention."""
        return Code("out_channels" if "out_channels" in self else "channels")


def class_name(name: str) -> Code:
    """The class of the network called `name`.

    >>> class_name("mnv4_conv_m"), class_name("mnv2_140"), class_name("inverted_residual")
    ('Mnv4ConvM', 'Mnv2_140', 'InvertedResidualNet')
    """
    camel = ""
    for part in filter(None, checked(name).split("_")):
        if camel[-1:].isdigit() and part[0].isdigit():
            camel += "_"
        camel += part.capitalize()
    return Code(f"{camel}Net" if camel in TAKEN else camel)
