"""What a timm network has beside its `arch_def`: timm's own keywords, with timm's own defaults.

Facts: timm 1.0 `models/efficientnet.py`, `models/mobilenetv3.py` (the constructors' defaults) and
`models/_efficientnet_builder.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from archdsl.lang.dialects.literal import Value
from archdsl.lang.dialects.reading import Reading, arch_name
from archdsl.limits import most

CLASSES = ("EfficientNet", "MobileNetV3")
ACTIVATIONS = {
    "relu": "relu",
    "relu6": "relu6",
    "hard_swish": "hswish",
    "swish": "swish",
    "silu": "swish",
    "gelu": "gelu",
}
"""timm's names of activations, and ours."""
GATES = {"sigmoid": "sigmoid", "hard_sigmoid": "hsigmoid"}
SE_KEYS = ("gate_layer", "force_act_layer", "rd_round_fn")
ROUNDINGS = ("round", "round_channels", "round_chs_fn")

KEYS = (
    "arch_def",
    "architecture",
    "model_cls",
    "input_size",
    "num_classes",
    "depth_multiplier",
    "depth_trunc",
    "fix_first_last",
    "group_size",
    "channel_multiplier",
    "channel_divisor",
    "channel_min",
    "round_limit",
    "stem_size",
    "stem_kernel_size",
    "fix_stem",
    "num_features",
    "head_bias",
    "head_norm",
    "output_stride",
    "pad_type",
    "act_layer",
    "bn_eps",
    "bn_momentum",
    "se_layer",
    "se_from_exp",
    "layer_scale_init_value",
    "drop_rate",
    "drop_path_rate",
)
# Keywords of timm that make networks this language has no operators for, and what is harmless.
_REFUSED: dict[str, tuple[str, object]] = {
    "aa_layer": ("anti-aliasing between stride and norm", None),
    "norm_layer": ("a norm but batch norm, whose settings are `bn_eps` and `bn_momentum`", None),
    "experts_multiplier": ("conditional convolutions (`cc`)", 1),
    "pruned": ("pruned widths, which timm keeps in a file and not in the `arch_def`", False),
    "global_pool": ("another pooling than the mean", "avg"),
}
_ONLY_MOBILENETV3 = ("head_bias", "head_norm", "se_from_exp", "layer_scale_init_value")
_ONLY_EFFICIENTNET = ("stem_kernel_size", "output_stride")


@dataclass
class Settings:
    """A timm network's keywords; the defaults are those of timm's class `EfficientNet`."""

    architecture: str | None = None
    model_cls: str = "EfficientNet"
    input_size: Sequence[int] = (3, 224, 224)
    num_classes: int = 1000
    depth_multiplier: tuple[float, ...] = ()
    depth_trunc: Literal["ceil", "round"] = "ceil"
    fix_first_last: bool = False
    group_size: int | None = None
    channel_multiplier: float = 1.0
    channel_divisor: int = 8
    channel_min: int | None = None
    round_limit: float = 0.9
    stem_size: int = 32
    stem_kernel_size: int = 3
    fix_stem: bool = False
    num_features: int = 1280
    head_bias: bool = True
    head_norm: bool = False
    output_stride: int = 32
    pad: Literal["same", "symmetric"] = "symmetric"
    act: str = "relu"
    bn_eps: float = 1e-5
    bn_momentum: float = 0.1
    gate: str = "sigmoid"
    force_act: str | None = None
    rd_round_fn: str = "round"
    se_from_exp: bool = False
    layer_scale: float | None = None
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    given: dict[str, Value] = field(default_factory=dict)

    @property
    def squeeze_divisor(self) -> int:
        """What squeezed widths are a multiple of."""
        divisors = {"round": 1, "round_channels": 8, "round_chs_fn": self.channel_divisor}
        return divisors[self.rd_round_fn]


def read_settings(reading: Reading, value: Value) -> tuple[Value | None, Settings]:
    """The `arch_def` of an object of keywords, and the others."""
    found = reading.members(value, (*KEYS, *_REFUSED), "a timm network", ("arch_def",))
    for name, (what, harmless) in _REFUSED.items():
        data = found[name].data if name in found else None
        if data is not None and (data != harmless or type(data) is not type(harmless)):
            reading.refuse(f"`{name}`: the language has no place for {what}", found[name].span)
    # timm's functions leave out what they set to None; without a definition there is no network.
    found = {
        name: member
        for name, member in found.items()
        if member.data is not None or name == "arch_def"
    }
    settings = Settings(given=found)
    reader = _Reader(reading, found, settings)
    reader.run()
    return found.get("arch_def"), settings


class _Reader:
    def __init__(self, reading: Reading, found: dict[str, Value], settings: Settings) -> None:
        self.reading, self.found, self.settings = reading, found, settings

    def run(self) -> None:
        found, reading, settings = self.found, self.reading, self.settings
        kind = (
            reading.word(found["model_cls"], "model_cls", CLASSES) if "model_cls" in found else None
        )
        if kind == "MobileNetV3":
            # The other constructor has other defaults.
            settings.model_cls, settings.stem_size, settings.se_from_exp = kind, 16, True
        others = _ONLY_EFFICIENTNET if kind == "MobileNetV3" else _ONLY_MOBILENETV3
        for name in others:
            if name in found:
                what = f"timm's {settings.model_cls} takes no `{name}`"
                reading.error("E0604", what, found[name].span)
        if "architecture" in found:
            settings.architecture = arch_name(str(found["architecture"].data))
        if "input_size" in found:
            order = ("channels", "height", "width")
            self.set("input_size", reading.image(found["input_size"], order))
        self.depth()
        low = 1 if settings.model_cls == "MobileNetV3" else 0
        self.whole("num_classes", 1, most("classes"))
        self.whole("group_size", 0, most("channels"))
        self.whole("channel_divisor", 1, most("channels"))
        self.whole("channel_min", 1, most("channels"))
        self.whole("stem_size", 1, most("channels"))
        self.whole("stem_kernel_size", 1, most("kernel"))
        self.whole("num_features", low, most("channels"))
        self.whole("output_stride", 1, most("channels"))
        self.number("channel_multiplier", 0, most("scale"), above=True)
        self.number("round_limit", 0, 1)
        self.number("bn_eps", 0, 1, above=True)
        self.number("bn_momentum", 0, 1, above=True)
        self.number("drop_rate", 0, 1, below=True)
        self.number("drop_path_rate", 0, 1, below=True)
        self.number("layer_scale_init_value", 0, 1, above=True, to="layer_scale")
        for name in ("fix_first_last", "fix_stem", "head_bias", "head_norm", "se_from_exp"):
            if name in found:
                self.set(name, reading.truth(found[name], name))
        self.choose("depth_trunc", {"ceil": "ceil", "round": "round"}, "depth_trunc")
        self.choose("pad_type", {"": "symmetric", "same": "same"}, "pad")
        self.choose("act_layer", ACTIVATIONS, "act")
        if "se_layer" in found:
            self.squeeze(found["se_layer"])

    def set(self, name: str, value: Any) -> None:
        if value is not None:
            setattr(self.settings, name, value)

    def whole(self, name: str, low: int, high: int) -> None:
        if name in self.found:
            self.set(name, self.reading.whole(self.found[name], name, low, high))

    def number(
        self, name: str, low: float, high: float, *, to: str | None = None, **ends: bool
    ) -> None:
        if name in self.found:
            self.set(to or name, self.reading.number(self.found[name], name, low, high, **ends))

    def choose(self, name: str, words: dict[str, str], to: str) -> None:
        if name in self.found:
            word = self.reading.word(self.found[name], name, tuple(words))
            self.set(to, words.get(word) if word is not None else None)

    def depth(self) -> None:
        """One multiplier for all stages, or one for each."""
        value = self.found.get("depth_multiplier")
        if value is None:
            return
        each = value.data if isinstance(value.data, tuple) and value.data else (value,)
        numbers = [
            self.reading.number(one, "depth_multiplier", 0, most("scale"), above=True)
            for one in each
        ]
        self.settings.depth_multiplier = tuple(number or 1.0 for number in numbers)

    def squeeze(self, value: Value) -> None:
        """`se_layer`: what timm binds to its class SqueezeExcite."""
        if isinstance(value.data, str):
            message = f"`se_layer` {value.data!r} is another attention than squeeze-and-excitation"
            self.reading.refuse(message, value.span)
            return
        found = self.reading.members(value, SE_KEYS, "`se_layer`")
        self.found |= {name: member for name, member in found.items() if member.data is not None}
        self.choose("gate_layer", GATES, "gate")
        self.choose("force_act_layer", ACTIVATIONS, "force_act")
        self.choose("rd_round_fn", {name: name for name in ROUNDINGS}, "rd_round_fn")
