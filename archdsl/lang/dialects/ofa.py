"""Once-for-All's and ProxylessNAS's `net.config`: a network as the JSON of its layers.

Facts: mit-han-lab/once-for-all, `ofa/imagenet_classification/networks/` (`mobilenet_v3.py`,
`proxyless_nets.py`) and `ofa/utils/layers.py`; mit-han-lab/proxylessnas, in
`proxyless_nas/layers.py`, whose blocks are called `MobileInvertedResidualBlock` and
`MBInvertedConvLayer`, and have relu6 alone.
"""

from __future__ import annotations

import json
from typing import Any

from archdsl.lang.diagnostics import ArchError, Diagnostic, did_you_mean, listed, quoted
from archdsl.lang.dialects.literal import Members, Value, read_literal
from archdsl.lang.dialects.reading import Placed, Reading
from archdsl.lang.fields import Width
from archdsl.lang.source import SourceText
from archdsl.lang.spec import AnyBlock, Attributes
from archdsl.lang.widths import rounded, squeezed
from archdsl.limits import most
from archdsl.rounding import make_divisible

ACTIVATIONS = {"relu": "relu", "relu6": "relu6", "h_swish": "hswish", "swish": "swish"}
"""Their names of activations, and ours."""
FAMILIES = {
    "ProxylessNASNets": ("first_conv", "blocks", "feature_mix_layer", "classifier"),
    "MobileNetV3": (
        *("first_conv", "blocks", "final_expand_layer", "feature_mix_layer", "classifier"),
    ),
}
BLOCKS = ("ResidualBlock", "MobileInvertedResidualBlock")
CONVS = ("MBConvLayer", "MBInvertedConvLayer")
_BASIC = ("name", "in_channels", "out_channels", "use_bn", "act_func", "dropout_rate", "ops_order")
_CONV = (*_BASIC, "kernel_size", "stride", "dilation", "groups", "bias", "has_shuffle", "use_se")
_MOBILE = (
    *("name", "in_channels", "out_channels", "kernel_size", "stride", "expand_ratio"),
    *("mid_channels", "act_func", "use_se", "groups"),
)
_LINEAR = (
    *("name", "in_features", "out_features", "bias", "use_bn", "act_func"),
    *("dropout_rate", "ops_order"),
)
# What their constructors take null for; elsewhere it is a fault.
_MAY_BE_NULL = ("act_func", "expand_ratio", "mid_channels", "groups")
_SQUEEZE = {"base": "expanded", "round": 8, "act": "relu", "gate": "hsigmoid"}
_SE_RATIO = 0.25


def read_ofa(source: SourceText | str) -> SourceText:
    """The `.arch` text of a `net.config`.

    The file does not say the image's size, which is 224x224; another is asked for with `--input`.

    Raises:
        ArchError: E0601 where the text is no JSON, E0604 for faulty keys and values, E0203 for
            widths that do not meet, E0605 for layers the language has not, E0607 for the
            configuration of another family.
    """
    if isinstance(source, str):
        source = SourceText("<string>", source)
    return _Config(Reading(source)).run()


class _Config:
    classes: int
    """The classifier's outputs."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.channels = 3
        self.doubtful = False
        """Whether a fault was told in the layer before, so that `channels` is a guess."""
        self.squeezes = False

    def run(self) -> SourceText:
        reading = self.reading
        value = read_literal(reading.source)
        family = self.family(value)
        layers = FAMILIES[family]
        keys = ("name", "bn", *layers)
        config = reading.members(value, keys, f"a {family}'s configuration", layers)
        eps, momentum = self.norm(config.get("bn"), 1e-3 if family == "ProxylessNASNets" else 1e-5)
        # The layers' own activations are written wherever they differ from the first.
        first = config.get("first_conv", value)
        act = _member(first, "act_func")
        self.act = ACTIVATIONS.get(act, "relu") if isinstance(act, str) else "relu"
        channels = _member(first, "in_channels")
        if type(channels) is int and 1 <= channels <= most("channels"):
            self.channels = channels
        self.attributes = Attributes.model_validate(
            {
                "input": (224, 224, self.channels),
                "act": self.act,
                "norm": {"eps": eps, "momentum": momentum},
                "pad": "symmetric",
                "se": _SQUEEZE,
            }
        )
        stem = self.conv(config.get("first_conv"))
        several = config.get("blocks")
        listed_blocks = reading.items(several, "`blocks`") if several else ()
        blocks = [self.block(block) for block in listed_blocks]
        head: list[AnyBlock | None] = []
        pool = reading.block("pool", {}, value.span)
        last = config.get("feature_mix_layer")
        if family == "MobileNetV3":
            head += [self.conv(config.get("final_expand_layer")), pool]
            head += [self.conv(last)]
        else:
            head += [self.conv(last)] if last is not None and last.data is not None else []
            head += [pool]
        head += self.classifier(config["classifier"]) if "classifier" in config else []
        reading.stop()
        attributes = self.attributes
        if not self.squeezes:
            default = Attributes.model_fields["se"].default
            attributes = attributes.model_copy(update={"se": default})
        return reading.finish(
            {
                "attributes": attributes.model_copy(update={"classes": self.classes}),
                "stem": (stem,),
                "stages": self.staged([block for block in blocks if block is not None]),
                "head": tuple(head),
            }
        )

    def family(self, value: Value) -> str:
        """The family that the configuration names.

        Raises:
            ArchError: it is none that can be read.
        """
        names = listed([f"`{name}`" for name in FAMILIES], "and")
        if not isinstance(value.data, Members):
            message = "a net.config is an object"
            raise ArchError([Diagnostic("E0604", message, value.span)])
        for key, member in value.data.pairs:
            if key.data == "name":
                if isinstance(member.data, str) and member.data in FAMILIES:
                    return member.data
                name = str(member.data) if isinstance(member.data, str) else member.span.text
                guess = did_you_mean(name, FAMILIES)
                hint = f"did you mean `{guess}`?" if guess else f"the families: {names}"
                message = f"a net.config of {quoted(name)} is none of this language's networks"
                raise ArchError([Diagnostic("E0607", message, member.text, hint)])
        message = "a net.config says by `name` of which family it is"
        place = value.span.part(0, 1)
        raise ArchError([Diagnostic("E0607", message, place, f"the families: {names}")])

    def norm(self, value: Value | None, eps: float) -> tuple[float, float]:
        if value is None:
            return eps, 0.1
        found = self.reading.members(value, ("momentum", "eps", "ws_eps"), "`bn`")
        if "ws_eps" in found and found["ws_eps"].data is not None:
            what = "`ws_eps`: the language has no weight standardisation"
            self.reading.refuse(what, found["ws_eps"].span)
        numbers = []
        for name, default in (("eps", eps), ("momentum", 0.1)):
            number = default
            if name in found:
                given = self.reading.number(found[name], name, 0, 1, above=True)
                number = default if given is None else given
            numbers.append(number)
        return numbers[0], numbers[1]

    # -- layers

    def layer(
        self, value: Value, names: tuple[str, ...], keys: tuple[str, ...], required: tuple[str, ...]
    ) -> dict[str, Value]:
        """The members of a layer that has one of these names; those that are null left out."""
        reading = self.reading
        found = reading.members(value, keys, f"a {names[0]}", ("name", *required))
        name = found["name"].data if "name" in found else None
        if isinstance(name, str) and name not in names:
            what = f"a layer {quoted(name)} where `{names[0]}` is wanted"
            reading.refuse(what, found["name"].text)
            return {}
        if "name" in found and not isinstance(name, str):
            reading.error("E0604", "`name` must be a string", found["name"].span)
        for key, member in found.items():
            if member.data is None and key not in (*_MAY_BE_NULL, "name"):
                reading.error("E0604", f"`{key}` must not be null", member.span)
        if "expand_ratio" in found and all(
            name not in found or found[name].data is None
            for name in ("expand_ratio", "mid_channels")
        ):
            message = "without `expand_ratio` the layer needs `mid_channels`"
            reading.error("E0604", message, found["expand_ratio"].span)
        return {
            n: member for n, member in found.items() if member.data is not None or n == "act_func"
        }

    def plain(self, layer: dict[str, Value], **usual: object) -> None:
        """Refuse what is not as usual."""
        for name, value in usual.items():
            if name in layer and layer[name].data != value:
                given, usual_text = quoted(layer[name].span.text), json.dumps(value)
                what = f"`{name}` {given}: only {usual_text} can be said here"
                self.reading.refuse(what, layer[name].span)

    def meets(self, layer: dict[str, Value], name: str) -> None:
        """Prove the width that a layer says comes in."""
        if name in layer:
            given = self.reading.whole(layer[name], name, 1, most("channels"))
            if given not in (None, self.channels) and not self.doubtful:
                message = f"`{name}` is {given}, but the layer before gives {self.channels}"
                self.reading.error("E0203", message, layer[name].span, f"write {self.channels}")
            # One fault is told once: what follows is held against what is written.
            self.channels = given or self.channels
        self.doubtful = False

    def whole(self, layer: dict[str, Value], name: str, default: int, high: int) -> int:
        if name not in layer:
            return default
        return self.reading.whole(layer[name], name, 1, high) or default

    def act_of(self, layer: dict[str, Value], default: str) -> str | None:
        """Our name of a layer's activation where it is not the file's."""
        if "act_func" not in layer:
            return self.own(ACTIVATIONS[default])
        if layer["act_func"].data is None:
            return "linear"
        name = self.reading.word(layer["act_func"], "act_func", tuple(ACTIVATIONS)) or default
        return self.own(ACTIVATIONS[name])

    def own(self, act: str) -> str | None:
        return None if act == self.act else act

    def conv(self, value: Value | None) -> AnyBlock | None:
        if value is None:
            return None  # a key that is missing, which has been said
        layer = self.layer(value, ("ConvLayer",), _CONV, ("in_channels", "out_channels"))
        if not layer:
            self.doubtful = True
            return None
        self.plain(layer, dilation=1, groups=1, has_shuffle=False, use_se=False)
        self.plain(layer, dropout_rate=0, ops_order="weight_bn_act")
        self.meets(layer, "in_channels")
        fields = self.fields(layer)
        fields["act"] = (self.act_of(layer, "relu"), value.span)
        if "use_bn" in layer and self.reading.truth(layer["use_bn"], "use_bn") is False:
            fields["norm"] = (False, layer["use_bn"].span)
        if "bias" in layer and self.reading.truth(layer["bias"], "bias"):
            fields["bias"] = (True, layer["bias"].span)
        return self.reading.block("conv", fields, value.span)

    def fields(self, layer: dict[str, Value]) -> dict[str, Placed]:
        """What all convolutions have: kernel, stride, output width."""
        faults = len(self.reading.diagnostics)
        out = self.whole(layer, "out_channels", self.channels, most("channels"))
        self.doubtful = len(self.reading.diagnostics) > faults
        at = next(iter(layer.values())).span
        stride = self.whole(layer, "stride", 1, 9)
        self.channels = out
        kernel = self.whole(layer, "kernel_size", 3, most("kernel"))
        fields: dict[str, Placed] = {
            "kernel": (kernel, layer["kernel_size"].span if "kernel_size" in layer else at)
        }
        if stride != 1:
            fields["stride"] = ((stride, stride), at)
        exact = rounded(out, self.attributes) != out
        fields["out_channels"] = (Width(out, "!" if exact else ""), at)
        return fields

    def block(self, value: Value) -> AnyBlock | None:
        reading = self.reading
        keys = ("name", "conv", "mobile_inverted_conv", "shortcut")
        found = reading.members(value, keys, "a block", ("name", "shortcut"))
        convs = [found[key] for key in ("conv", "mobile_inverted_conv") if key in found]
        if "name" in found:
            reading.word(found["name"], "name", BLOCKS)
        if len(convs) != 1:
            reading.error("E0604", "a block has one `conv` (or `mobile_inverted_conv`)", value.span)
            return None
        reading.repeats(1, value.span)
        if convs[0].data is None or _named(convs[0]) == "ZeroLayer":
            return None  # what comes in goes out: a block that the search left out
        layer = self.layer(convs[0], CONVS, _MOBILE, ("in_channels", "out_channels"))
        if not layer:
            self.doubtful = True
            return None
        self.plain(layer, groups=None)
        self.meets(layer, "in_channels")
        before = self.channels
        fields = self.fields(layer)
        fields["act"] = (self.act_of(layer, "relu6"), convs[0].span)
        self.expand(layer, before, fields)
        shortcut = self.shortcut(found.get("shortcut"), before)
        changes = self.channels != before and not self.doubtful
        if shortcut and (changes or "stride" in fields):
            what = "a shortcut around a block that changes the shape"
            reading.error("E0604", what, found["shortcut"].span)
        if not shortcut and self.channels == before and "stride" not in fields:
            fields["residual"] = (False, value.span)
        return reading.block("ir", fields, value.span)

    def shortcut(self, value: Value | None, channels: int) -> bool:
        """Whether what comes in is added."""
        if value is None or value.data is None or _named(value) == "ZeroLayer":
            return False
        layer = self.layer(value, ("IdentityLayer",), _BASIC, ())
        self.plain(layer, use_bn=False, act_func=None, dropout_rate=0)
        for name in ("in_channels", "out_channels"):
            if name in layer and _sole(layer[name]) != channels:
                what = f"`{name}` is not the width of the block, {channels}"
                self.reading.error("E0203", what, layer[name].span)
        return True

    def expand(self, layer: dict[str, Value], before: int, fields: dict[str, Placed]) -> None:
        """The expanded width, by ratio where our rounding gives the same, and the squeezing."""
        reading, ratio, at = self.reading, 6.0, next(iter(layer.values())).span
        if "expand_ratio" in layer:
            at = layer["expand_ratio"].span
            given = reading.number(
                layer["expand_ratio"], "expand_ratio", 0, most("expansion"), above=True
            )
            ratio = 1.0 if given is None else given
        hidden = round(before * ratio)
        if "mid_channels" in layer:
            hidden = self.whole(layer, "mid_channels", hidden, most("channels"))
        if ratio == 1:
            if hidden != before:
                what = f"`mid_channels` {hidden} without an expansion of the {before} channels"
                reading.error("E0604", what, layer["mid_channels"].span)
            fields["expansion"] = (1.0, at)
        else:
            first = hidden / before
            tried = [ratio, *(float(f"{first:.{digits}g}") for digits in (2, 3, 4, 6)), 1.001]
            fits = (
                one
                for one in tried
                if one != 1 and rounded(before * one, self.attributes) == hidden
            )
            found = next(fits, None)
            if found is not None and found <= most("expansion"):
                fields["expansion"] = (found, at)
            else:
                fields["expanded"] = (f"{max(hidden, 1)}!", at)
        if "use_se" in layer and reading.truth(layer["use_se"], "use_se"):
            self.squeezes = True
            target = make_divisible(hidden // 4)
            if squeezed(_SE_RATIO, before, hidden, self.attributes) != target:
                what = f"squeeze-and-excitation from {hidden} to {target} channels"
                reading.refuse(what, layer["use_se"].span)
            fields["se"] = (_SE_RATIO, layer["use_se"].span)

    def classifier(self, value: Value) -> list[AnyBlock | None]:
        layer = self.layer(value, ("LinearLayer",), _LINEAR, ("in_features", "out_features"))
        self.plain(layer, use_bn=False, ops_order="weight_bn_act", act_func=None)
        self.meets(layer, "in_features")
        self.classes = self.whole(layer, "out_features", 1000, most("classes"))
        blocks: list[AnyBlock | None] = []
        if "dropout_rate" in layer:
            rate = self.reading.number(layer["dropout_rate"], "dropout_rate", 0, 1, below=True)
            at = layer["dropout_rate"].span
            blocks += [self.reading.block("dropout", {"rate": (rate, at)}, at)] if rate else []
        bias = "bias" not in layer or self.reading.truth(layer["bias"], "bias")
        fields = {} if bias else {"bias": (False, layer["bias"].span)}
        return [*blocks, self.reading.block("fc", fields, value.span)]

    def staged(self, blocks: list[AnyBlock]) -> list[dict[str, Any]]:
        """The blocks in stages, each beginning with a stride."""
        stages: list[list[AnyBlock]] = []
        for block in blocks:
            if not stages or getattr(block, "stride", (1, 1)) != (1, 1):
                stages.append([])
            stages[-1].append(block)
        return [{"blocks": tuple(stage)} for stage in stages]


def _sole(value: Value) -> object:
    """A value, or the one value of a list: ProxylessNAS writes the widths of a shortcut so."""
    several = value.data if isinstance(value.data, tuple) else (value,)
    return several[0].data if len(several) == 1 else None


def _member(value: Value, name: str) -> object:
    """What an object holds under a key."""
    pairs = value.data.pairs if isinstance(value.data, Members) else ()
    return next((member.data for key, member in pairs if key.data == name), None)


def _named(value: Value) -> str | None:
    """The name of a layer."""
    name = _member(value, "name")
    return None if name is None else str(name)
