"""A specification as Once-for-All's `net.config`."""

from __future__ import annotations

import json
from typing import Any

from archdsl.lang.dialects.ofa import ACTIVATIONS
from archdsl.lang.dialects.walking import Item, Writing, Written, expanded, se_width
from archdsl.lang.origins import Origins
from archdsl.lang.spec import ArchSpec, InvertedResidual
from archdsl.rounding import make_divisible

_NAMES = {ours: theirs for theirs, ours in ACTIVATIONS.items()}


def write_ofa(spec: ArchSpec, origins: Origins | None = None) -> Written:
    """A specification as a `net.config`: a `MobileNetV3` or, by its head, a `ProxylessNASNets`.

    Multipliers are worked out: each repeat is a block with the widths it has. The image's size has
    no place in the file.

    Raises:
        ArchError: E0606, each thing that the configuration cannot carry.
    """
    return _Writer(Writing(spec, origins, "a net.config")).run()


class _Writer:
    def __init__(self, writing: Writing) -> None:
        self.writing, self.attributes = writing, writing.attributes

    def run(self) -> Written:
        writing, attributes = self.writing, self.attributes
        items = list(writing.items())
        stem = [item for item in items if item.path == "stem"]
        head = [item for item in items if item.path == "head"]
        blocks = [item for item in items if item not in (*stem[:1], *head)]
        if attributes.pad != "symmetric":
            what = "these networks pad as PyTorch does, `pad symmetric`"
            writing.refuse_statement(what, "pad")
        squeeze = attributes.se
        squeezes = any(getattr(item.block, "se", 0) for item in blocks)
        if squeezes and (squeeze.act, squeeze.gate) != ("relu", "hsigmoid"):
            what = "these networks squeeze with relu and hsigmoid"
            writing.refuse_statement(what, "se")
        height, width, _ = attributes.input
        if (height, width) != (224, 224):
            what = f"a net.config does not say the image's size, {height}x{width}"
            writing.leave_out(what, writing.statement("input"))
        writing.leave_out_droppath()
        if not stem:
            writing.refuse_statement("these networks begin with a convolution", "arch")
        data: dict[str, Any] = {
            "name": "",
            "bn": {"momentum": attributes.norm.momentum, "eps": attributes.norm.eps},
            "first_conv": self.conv(stem[0]) if stem else None,
            "blocks": [block for item in blocks for block in self.blocks(item)],
            **self.head(head),
        }
        return writing.finish(json.dumps(data, indent=2) + "\n")

    def head(self, head: list[Item]) -> dict[str, Any]:
        """Pooled behind the last convolution (ProxylessNASNets) or before it (MobileNetV3)."""
        writing = self.writing
        kinds = [item.block.kind for item in head]
        rates = [item.block.rate for item in head if item.block.kind == "dropout"]  # type: ignore[attr-defined]
        bare = [kind for kind in kinds if kind != "dropout"]
        shapes = (["conv", "pool", "conv", "fc"], ["conv", "pool", "fc"], ["pool", "fc"])
        if bare not in shapes or len(rates) > 1 or (rates and kinds[-2] != "dropout"):
            what = "these networks end in `conv`, `pool`, `conv`, `fc`, or without the second"
            if head:
                writing.refuse(what, head[0])
            else:
                writing.refuse_statement(what, "arch")
            return {}
        convs = [self.conv(item) for item in head if item.block.kind == "conv"]
        last: Any = head[-1].block
        if last.out_channels is not None or last.act not in (None, "linear"):
            writing.refuse("the classifier has `classes` outputs and no activation", head[-1])
        linear = {
            "name": "LinearLayer",
            "in_features": head[-1].in_channels,
            "out_features": self.attributes.classes,
            "bias": last.bias,
            "use_bn": False,
            "act_func": None,
            "dropout_rate": rates[0] if rates else 0,
            "ops_order": "weight_bn_act",
        }
        if len(convs) == 2:
            layers = {"final_expand_layer": convs[0], "feature_mix_layer": convs[1]}
            return {"name": "MobileNetV3", **layers, "classifier": linear}
        layer = convs[0] if convs else None
        return {"name": "ProxylessNASNets", "feature_mix_layer": layer, "classifier": linear}

    def act(self, item: Item) -> str | None:
        act = item.act(self.attributes)
        if act not in (*_NAMES, "linear"):
            self.writing.refuse(f"these networks have no activation {act}", item, "act")
        return _NAMES.get(act)

    def side(self, item: Item) -> int:
        height, width = item.stride
        if height != width:
            what = "the strides of these networks are the same in both directions"
            self.writing.refuse(what, item, "stride")
        return height

    def conv(self, item: Item) -> dict[str, Any]:
        block: Any = item.block
        if block.kind != "conv" or item.repeats != 1:
            self.writing.refuse("one convolution stands here in these networks", item)
            return {}
        if block.residual:
            what = "these networks have no residual around a convolution alone"
            self.writing.refuse(what, item, "residual")
        if block.group_size is not None:
            what = "the convolutions of these networks have one group"
            self.writing.refuse(what, item, "group_size")
        return {
            "name": "ConvLayer",
            "kernel_size": block.kernel,
            "stride": self.side(item),
            "dilation": 1,
            "groups": 1,
            "bias": block.bias,
            "has_shuffle": False,
            "use_se": False,
            "in_channels": item.in_channels,
            "out_channels": item.out_channels,
            "use_bn": block.norm,
            "act_func": self.act(item),
            "dropout_rate": 0,
            "ops_order": "weight_bn_act",
        }

    def blocks(self, item: Item) -> list[dict[str, Any]]:
        """Each repeat of a block, with the widths it has."""
        block = item.block
        if not isinstance(block, InvertedResidual):
            what = f"the blocks of these networks are `ir`, and this is `{block.kind}`"
            self.writing.refuse(what, item)
            return []
        if block.group_size != 1:
            what = "the convolutions of these networks are depthwise, of groups of 1"
            self.writing.refuse(what, item, "group_size")
        stride, act = self.side(item), self.act(item)
        found: list[dict[str, Any]] = []
        channels = item.in_channels
        for number in range(item.repeats):
            step = stride if number == 0 else 1
            hidden = expanded(block, channels, self.attributes)
            inner = se_width(block, channels, self.attributes)
            if inner and inner != make_divisible((hidden or channels) // 4):
                what = f"these networks squeeze {hidden or channels} to a quarter, not {inner}"
                self.writing.refuse(what, item, "se")
                return []
            ratio = 1 if hidden is None else hidden / channels
            exact = hidden is None or (round(ratio * channels) == hidden and ratio != 1)
            conv = {
                "name": "MBConvLayer",
                "in_channels": channels,
                "out_channels": item.out_channels,
                "kernel_size": block.kernel,
                "stride": step,
                # A ratio of 1 would leave the expansion out.
                "expand_ratio": _whole(ratio) if exact else 1.001,
                "mid_channels": hidden,
                "act_func": act,
                "use_se": bool(block.se),
            }
            added = block.residual and step == 1 and channels == item.out_channels
            shortcut = {
                "name": "IdentityLayer",
                "in_channels": channels,
                "out_channels": channels,
                "use_bn": False,
                "act_func": None,
                "dropout_rate": 0,
                "ops_order": "weight_bn_act",
            }
            shown = shortcut if added else None
            found.append({"name": "ResidualBlock", "conv": conv, "shortcut": shown})
            channels = item.out_channels
        return found


def _whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
