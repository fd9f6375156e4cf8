"""A specification as timm's `arch_def`, beside the keywords that make the same network of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from archdsl.lang.dialects.timm_blocks import ACTS
from archdsl.lang.dialects.timm_settings import ACTIVATIONS, GATES
from archdsl.lang.dialects.walking import Item, Writing, Written, expanded, se_width
from archdsl.lang.origins import Origins
from archdsl.lang.printer import block_value
from archdsl.lang.spec import ArchSpec, Attributes
from archdsl.limits import most
from archdsl.rounding import make_divisible

_NAMES = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
_GATES = {ours: theirs for theirs, ours in GATES.items()}
_FLAGS = {act: word for word, act in ACTS.items()}


def write_timm(spec: ArchSpec, origins: Origins | None = None) -> Written:
    """A specification as a JSON object of timm's keywords, with the `arch_def` among them.

    The depth multiplier is worked out into repeats; the width multiplier stays, unless a block of
    a stage has an exact width.

    Raises:
        ArchError: E0606, each thing that timm's strings and keywords cannot carry.
    """
    return _Writer(Writing(spec, origins, "timm's strings")).run()


@dataclass(frozen=True)
class _Head:
    keywords: dict[str, Any]
    convs: tuple[Item, ...] = ()
    """1x1 convolutions before those that timm's class has itself: another stage."""


class _Writer:
    exact: bool
    """Whether widths are written as they come, and the multiplier is 1."""

    from_input: bool
    """Whether timm squeezes to a share of the input where we do to one of the expanded width."""

    def __init__(self, writing: Writing) -> None:
        self.writing = writing
        self.attributes = writing.attributes
        self.act: str = self.attributes.act
        self.reduction = 2
        self.divisor = self.attributes.round.divisor

    def run(self) -> Written:
        writing, attributes = self.writing, self.attributes
        items = list(writing.items())
        sections: dict[str, list[Item]] = {}
        for item in items:
            sections.setdefault(item.path, []).append(item)
        stem = sections.pop("stem", [])
        head = self.head(sections.pop("head", []), stem[:1])
        groups = [stem[1:], *sections.values(), list(head.convs)]
        blocks = [item for group in groups for item in group]
        self.exact = not all(item.plain for item in blocks)
        if self.exact and any(item.out_channels % self.divisor for item in blocks):
            self.divisor = 1
        stem_keywords = self.stem(stem[:1])
        efficientnet = head.keywords.get("model_cls") != "MobileNetV3"
        # Its class squeezes to a share of the input: each block's ratio is turned into one.
        self.from_input = efficientnet and attributes.se.base == "expanded"
        stages = [strings for group in groups for strings in self.stages(group)]
        self.check_ends(blocks)
        if not stages and not writing.errors:
            writing.refuse_statement("timm's networks have stages, and this has none", "arch")
        height, width, channels = attributes.input
        keywords: dict[str, Any] = {
            "architecture": writing.spec.name,
            **head.keywords,
            "input_size": [channels, height, width],
            "num_classes": attributes.classes,
            "channel_multiplier": 1.0 if self.exact else attributes.width,
            "channel_divisor": self.divisor,
            # Widths that are written as they come are not rounded again, so no least is held.
            "channel_min": None if self.exact else attributes.round.min,
            "round_limit": attributes.round.limit,
            **stem_keywords,
            "pad_type": {"same": "same", "symmetric": ""}[attributes.pad],
            "act_layer": _NAMES.get(self.act),
            "bn_eps": attributes.norm.eps,
            "bn_momentum": attributes.norm.momentum,
            **self.squeeze(blocks),
            "layer_scale_init_value": self.layer_scale(blocks),
            "drop_path_rate": attributes.droppath,
        }
        if efficientnet:
            self.check_efficientnet(keywords)
        else:
            self.check_mobilenetv3(keywords, stem[:1])
        keywords = {name: value for name, value in keywords.items() if value is not None}
        return writing.finish(_layout(keywords, stages))

    # -- what the two classes have

    def check_ends(self, blocks: list[Item]) -> None:
        """timm cannot build attention where a resolution ends: it asks it for its features there
        (`feature_info`), which in timm 1.0 fails.
        """
        for item, after in zip_longest(blocks, blocks[1:]):
            ends = after is None or after.stride != (1, 1)
            if ends and item.block.kind in ("mqa", "mha"):
                what = "timm cannot build attention that is the last before a stride or the head"
                self.writing.refuse(what, item, None, "let another block follow it")

    def check_mobilenetv3(self, keywords: dict[str, Any], stem: list[Item]) -> None:
        """timm's MobileNetV3 takes no stem kernel, and dilates beyond 32."""
        if keywords.pop("stem_kernel_size", 3) != 3 and stem:
            self.writing.refuse("the stem of timm's MobileNetV3 is 3x3", stem[0], "kernel")
        if self.reduction > 32:
            what = f"timm's MobileNetV3 dilates beyond a stride of 32; this has {self.reduction}"
            self.writing.refuse_statement(what, "arch")

    def check_efficientnet(self, keywords: dict[str, Any]) -> None:
        """timm's EfficientNet has no layer scale."""
        if self.reduction > 32:
            keywords["output_stride"] = self.reduction
        keywords.pop("se_from_exp", None)
        if keywords.pop("layer_scale_init_value", None) is not None:
            what = "timm's EfficientNet, whose head this network has, has no layer scale"
            self.writing.refuse_statement(what, "layer_scale")

    def stem(self, stem: list[Item]) -> dict[str, Any]:
        if not stem or stem[0].block.kind != "conv":
            self.writing.refuse_statement("timm's networks begin with a convolution", "arch")
            return {}
        item = stem[0]
        block: Any = item.block
        self.plain_conv(item, "timm's stem")
        self.convolution_alone(item, "timm's stem")
        if item.stride != (2, 2) or item.repeats != 1:
            self.writing.refuse("timm's stem has a stride of 2", item, "stride")
        self.act = item.act(self.attributes)
        if self.act not in _NAMES:
            self.writing.refuse(f"timm has no `act_layer` for {self.act}", item, "act")
        marked = str(block.out_channels).endswith("!")
        fixed = marked or not item.plain or (self.exact and item.out_channels % self.divisor != 0)
        size = item.out_channels if fixed or self.exact else item.written
        return {"stem_size": size, "stem_kernel_size": block.kernel, "fix_stem": fixed}

    def plain_conv(self, item: Item, what: str) -> None:
        block: Any = item.block
        if block.bias or not block.norm:
            self.writing.refuse(f"{what} has a norm and no bias", item)

    def convolution_alone(self, item: Item, what: str) -> None:
        """No residual, and no groups."""
        block: Any = item.block
        if block.residual:
            self.writing.refuse(f"{what} has no residual", item, "residual")
        if block.group_size is not None:
            self.writing.refuse(f"{what} has one group", item, "group_size")

    def head(self, head: list[Item], stem: list[Item]) -> _Head:
        """timm's class by its head: `conv pool fc` (EfficientNet), `pool conv fc` (MobileNetV3)."""
        writing, act = self.writing, stem[0].act(self.attributes) if stem else "relu"
        kinds = [item.block.kind for item in head]
        if "pool" not in kinds or kinds[-1:] != ["fc"] or any(item.repeats != 1 for item in head):
            what = "timm's heads are `conv`, `pool`, `dropout`, `fc` or `pool`, `conv`, ..."
            if head:
                writing.refuse(what, head[0])
            else:
                writing.refuse_statement(what, "arch")
            return _Head({})
        at = kinds.index("pool")
        before, behind, last = head[:at], head[at + 1 : -1], head[-1]
        fc: Any = last.block
        if fc.out_channels is not None or not fc.bias or fc.act not in (None, "linear"):
            writing.refuse("timm's classifier has `classes` outputs and a bias", last)
        keywords: dict[str, Any] = {"model_cls": "EfficientNet", "num_features": 0}
        if behind and behind[-1].block.kind == "dropout":
            keywords["drop_rate"] = behind.pop().block.rate  # type: ignore[attr-defined]
        if any(item.block.kind != "conv" for item in (*before, *behind)) or len(behind) > 1:
            wrong = next((i for i in (*before, *behind) if i.block.kind != "conv"), head[0])
            writing.refuse("timm's head has no such block here", wrong)
            return _Head(keywords)
        own = (behind or before)[-1:]
        for item in own:
            conv: Any = item.block
            keywords["num_features"] = item.out_channels
            self.convolution_alone(item, "timm's head")
            if behind:
                keywords |= {"model_cls": "MobileNetV3", "head_norm": conv.norm}
                keywords |= {"head_bias": conv.bias} if not conv.norm else {}
                if conv.norm and conv.bias:
                    writing.refuse("timm's head has a norm or a bias", item, "bias")
            else:
                self.plain_conv(item, "timm's head")
            if (conv.kernel, item.stride, item.act(self.attributes)) != (1, (1, 1), act):
                what = f"timm's head is 1x1, with the stem's activation ({act})"
                writing.refuse(what, item)
        convs = before if behind else before[:-1]
        return _Head(keywords, tuple(convs))

    # -- what all blocks share

    def squeeze(self, blocks: list[Item]) -> dict[str, Any]:
        """`se_layer`, where a block squeezes."""
        first = next((item for item in blocks if getattr(item.block, "se", 0)), None)
        if first is None:
            return {}
        rule = self.attributes.se
        for act in {rule.act} - {*_NAMES, "block"}:
            self.writing.refuse_statement(f"timm has no activation {act}", "se")
        layer = {
            "gate_layer": _GATES[rule.gate],
            # Without one, each block's own.
            **({"force_act_layer": _NAMES[rule.act]} if rule.act in _NAMES else {}),
            # Rounded to one, timm has ratios for the multiples of any other number too.
            "rd_round_fn": "round_channels" if rule.round == 8 else "round",
        }
        return {"se_layer": layer, "se_from_exp": rule.base == "expanded"}

    def layer_scale(self, blocks: list[Item]) -> float | None:
        """Its initial value where all blocks have one."""
        value = self.attributes.layer_scale
        scaled: list[tuple[Item, bool]] = []
        for item in blocks:
            if item.block.kind in ("uib", "mqa", "mha"):
                own = item.block.layer_scale  # type: ignore[attr-defined]
                scaled.append((item, bool(value) if own is None else own))
        if len({scale for _, scale in scaled}) > 1:
            first = scaled[0][1]
            other = next(item for item, scale in scaled if scale != first)
            what = "timm gives a layer scale to all blocks or to none"
            self.writing.refuse(what, other, "layer_scale")
        return (value or 1e-5) if any(scale for _, scale in scaled) else None

    # -- stages

    def stages(self, items: list[Item]) -> list[list[str]]:
        """The stages of timm that one of ours comes to: each stride begins another."""
        stages: list[list[str]] = []
        for item in items:
            if not stages or item.stride != (1, 1):
                stages.append([])
            stages[-1] += _Strings(self, item).all()
        return [stage for stage in stages if stage]


class _Strings:
    """One of our blocks as one of timm's strings, or as two where its repeats differ."""

    def __init__(self, writer: _Writer, item: Item) -> None:
        self.writer, self.writing, self.item = writer, writer.writing, item
        self.attributes: Attributes = writer.attributes
        self.block: Any = item.block

    def refuse(self, what: str, name: str | None = None, help: str | None = None) -> None:
        self.writing.refuse(what, self.item, name, help)

    def all(self) -> list[str]:
        item = self.item
        height, width = item.stride
        if height != width or height > 2:
            self.refuse("timm's strides are 1 and 2, in both directions", "stride")
            return []
        self.writer.reduction *= height
        build = getattr(self, f"_{item.block.kind}", None)
        if build is None:
            self.refuse(f"timm's stages have no block of kind `{item.block.kind}`")
            return []
        errors = len(self.writing.errors)
        whole = self.string(build(item.inputs), item.repeats, height)
        if whole is None and len(item.inputs) > 1 and len(self.writing.errors) == errors:
            first = self.string(build(item.inputs[:1]), 1, height)
            rest = self.string(build(item.inputs[1:]), item.repeats - 1, 1)
            if first is not None and rest is not None:
                return [first, rest]
        if whole is None and len(self.writing.errors) == errors:
            self.refuse("no one ratio gives timm this block's widths")
        return [whole] if whole is not None else []

    def string(self, parts: dict[str, Any] | None, repeats: int, stride: int) -> str | None:
        """A block string of its kind, its fields and its flags."""
        if parts is None:
            return None
        kind = parts.pop("kind")
        flags = [word for word, wanted in parts.pop("flags", {}).items() if wanted]
        channels = self.item.out_channels if self.writer.exact else self.item.written
        act = self.act()
        fields = {"r": repeats, **parts, "s": stride}
        order = ("r", "a", "k", "h", "s", "v", "d", "e", "gs", "c", "se")
        fields["c"] = channels
        words = [f"{key}{block_value(fields[key])}" for key in order if fields.get(key) is not None]
        return "_".join([kind, *words, *([act] if act else []), *flags])

    def act(self) -> str | None:
        own = getattr(self.block, "act", None)
        act = self.item.act(self.attributes)
        if self.block.kind in ("mqa", "mha") or (own is None and act == self.writer.act):
            return None
        if act not in _FLAGS:
            if act != self.writer.act:
                what = f"timm's strings have no letters for {act}: {', '.join(_FLAGS)}"
                self.refuse(what, "act")
            return None
        return _FLAGS[act]

    # -- widths

    def ratio(self, inputs: tuple[int, ...]) -> float | None:
        """`e` that gives timm our expanded widths, which it rounds to 8; None where none does."""
        widths = [expanded(self.block, channels, self.attributes) for channels in inputs]
        targets = [channels if w is None else w for w, channels in zip(widths, inputs, strict=True)]
        if any(width % 8 for width in targets):
            name = "expanded" if self.block.expanded is not None else "expansion"
            what = f"timm rounds expanded widths to 8, and this is {targets[0]}"
            self.refuse(what, name)
            return None
        first = targets[0] / inputs[0]
        tried = [float(f"{first:.{digits}g}") for digits in (2, 3, 4, 6, 9)]
        if self.block.expanded is None:
            nearly = 1.0 < self.block.expansion < 1.02 and first == 1
            tried.insert(0, 1.0 if nearly else self.block.expansion)
        for ratio in tried:
            if 0 < ratio <= most("expansion") and targets == [
                make_divisible(c * ratio) for c in inputs
            ]:
                return float(ratio)
        return None

    def bare(self, inputs: tuple[int, ...]) -> bool:
        """Whether the block has no expansion, in each of its repeats."""
        return all(expanded(self.block, channels, self.attributes) is None for channels in inputs)

    def se(self, inputs: tuple[int, ...], ratio: float) -> float | str | None:
        """timm's ratio for our squeezed widths; a text where there is none."""
        if not self.block.se:
            return None
        rule, writer = self.attributes.se, self.writer
        of_hidden = rule.base == "expanded" and not writer.from_input
        targets = [se_width(self.block, channels, self.attributes) for channels in inputs]
        hidden = [
            make_divisible(channels * ratio) if ratio != 1 else channels for channels in inputs
        ]
        base = hidden[0] if of_hidden else hidden[0] / ratio
        tried = [self.block.se]
        tried += [float(f"{targets[0] / base:.{digits}g}") for digits in (2, 3, 4, 6, 17)]
        for share in tried:
            scale = share if of_hidden else share / ratio
            theirs = [width * scale for width in hidden]
            rounded = [make_divisible(w) if rule.round == 8 else round(w) for w in theirs]
            if rounded == targets and share <= 1:
                return float(share)
        if len(inputs) == 1:
            self.refuse(f"no ratio squeezes to {targets[0]} channels in timm", "se")
        return "none"

    # -- kinds

    def _flags(self) -> dict[str, bool]:
        return {"noskip": not self.block.residual}

    def _ir(self, inputs: tuple[int, ...]) -> dict[str, Any] | None:
        block = self.block
        if self.bare(inputs):
            told = "expansion" in block.model_fields_set or block.expanded is not None
            ratio = 1.0
            parts: dict[str, Any] = {"kind": "ds", "e": 1 if told else None}
        else:
            found = self.ratio(inputs)
            if found is None or any(
                expanded(block, channels, self.attributes) is None for channels in inputs
            ):
                return None
            ratio, parts = found, {"kind": "ir", "e": found}
        se = self.se(inputs, ratio)
        if isinstance(se, str):
            return None
        fields = {**parts, "k": block.kernel, "gs": self._groups(), "se": se}
        return {**fields, "flags": self._flags()}

    def _fused(self, inputs: tuple[int, ...]) -> dict[str, Any] | None:
        block = self.block
        if self.bare(inputs):
            what = "a `fused` block without expansion is a 1x1 convolution without activation"
            self.refuse(what, None, "timm's `cn` has an activation")
            return None
        ratio = self.ratio(inputs)
        if ratio is None:
            return None
        se = self.se(inputs, ratio)
        if isinstance(se, str):
            return None
        fields = {"kind": "er", "e": ratio, "k": block.kernel, "gs": block.group_size, "se": se}
        return {**fields, "flags": self._flags()}

    def _uib(self, inputs: tuple[int, ...]) -> dict[str, Any] | None:
        block, ratio = self.block, self.ratio(inputs)
        if ratio is None:
            return None
        told = "start_kernel" in block.model_fields_set or block.start_kernel
        start = block.start_kernel if told else None
        fields = {"kind": "uir", "a": start, "k": block.middle_kernel, "e": ratio}
        return {**fields, "gs": self._groups(), "flags": self._flags()}

    def _sep(self, inputs: tuple[int, ...]) -> dict[str, Any] | None:
        se = self.se(inputs, 1.0)
        if isinstance(se, str):
            return None
        return {"kind": "dsa", "k": self.block.kernel, "gs": self._groups(), "se": se}

    def _conv(self, inputs: tuple[int, ...]) -> dict[str, Any] | None:
        fields = self._plain()
        if self.block.group_size is None:
            return fields
        # timm's groups of a `cn` are of what goes in.
        groups = self.item.out_channels // self.block.group_size
        sizes = {channels // max(groups, 1) for channels in inputs}
        return {**fields, "gs": sizes.pop()} if len(sizes) == 1 else None

    def _dw(self, inputs: tuple[int, ...]) -> dict[str, Any]:
        return {**self._plain(), "gs": 1}

    def _plain(self) -> dict[str, Any]:
        self.writer.plain_conv(self.item, "timm's `cn`")
        return {"kind": "cn", "k": self.block.kernel, "flags": {"skip": self.block.residual}}

    def _groups(self) -> int | None:
        """Where depthwise convolutions stand, which timm has without a `gs`."""
        return self.block.group_size if self.block.group_size != 1 else None

    def _mqa(self, inputs: tuple[int, ...]) -> dict[str, Any]:
        block = self.block
        stride = block.kv_stride if "kv_stride" in block.model_fields_set else None
        fields = {"k": block.kernel, "h": block.heads, "v": stride, "d": block.head_width}
        return {"kind": block.kind, **fields, "flags": self._flags()}

    def _mha(self, inputs: tuple[int, ...]) -> dict[str, Any] | None:
        block = self.block
        if any(channels != block.heads * block.head_width for channels in inputs):
            what = f"the heads of timm's `mha` share its {inputs[0]} channels"
            self.refuse(what, "head_width")
            return None
        if block.kv_stride != 1:
            self.refuse("timm's `mha` does not reduce keys and values", "kv_stride")
            return None
        return {**self._mqa(inputs), "v": None}


def _layout(keywords: dict[str, Any], stages: list[list[str]]) -> str:
    """JSON with a line for each keyword and each stage."""
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}," for name, value in keywords.items()]
    rows = [f"    {json.dumps(stage)}" for stage in stages]
    return "\n".join(["{", *lines, '  "arch_def": [', ",\n".join(rows), "  ]", "}"]) + "\n"
