"""timm's `arch_def`: stages of block strings, read as timm's builder builds them.

Facts: timm 1.0, in `models/`: `_efficientnet_builder.py` (strings, strides, depth),
`_efficientnet_blocks.py` (what the blocks are made of), `efficientnet.py` and `mobilenetv3.py` (the
two classes whose networks are built so). What timm passes over in silence is an error here: an
unknown field, a stride behind the first block of a stage, a field of another kind of block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from archdsl.lang.diagnostics import did_you_mean, quoted
from archdsl.lang.dialects.literal import Members, Value, read_literal
from archdsl.lang.dialects.reading import Reading
from archdsl.lang.dialects.strings import BlockWords, fields_of, words_of
from archdsl.lang.dialects.timm_blocks import ACTS, Block, Context
from archdsl.lang.dialects.timm_settings import Settings, read_settings
from archdsl.lang.fields import Width
from archdsl.lang.source import SourceText
from archdsl.lang.spec import AnyBlock, Attributes
from archdsl.limits import most

# Which fields a kind has; timm ignores the others.
_KEYS = {
    "ir": ("r", "k", "s", "e", "c", "se", "a", "p", "d", "cc", "gs"),
    "ds": ("r", "k", "s", "e", "c", "se", "p", "d", "gs"),
    "dsa": ("r", "k", "s", "e", "c", "se", "p", "d", "gs"),
    "er": ("r", "k", "s", "e", "c", "se", "p", "fc", "gs"),
    "uir": ("r", "a", "k", "p", "s", "e", "c", "se", "gs"),
    "cn": ("r", "k", "s", "e", "c", "gs"),
    "mqa": ("r", "k", "h", "s", "v", "d", "c"),
    "mha": ("r", "k", "h", "s", "v", "d", "c"),
}
_REQUIRED = {
    **dict.fromkeys(("ir", "er", "uir"), ("r", "k", "s", "e", "c")),
    **dict.fromkeys(("ds", "dsa", "cn"), ("r", "k", "s", "c")),
    **dict.fromkeys(("mqa", "mha"), ("r", "k", "h", "s", "d", "c")),
}
_FLAGS = (*ACTS, "nmi", "noskip", "skip")
_ELSEWHERE = tuple(dict.fromkeys(key for keys in _KEYS.values() for key in keys))
_SAMPLES = {"r": "r1", "k": "k3", "s": "s1", "e": "e6", "c": "c24", "h": "h4", "d": "d64"}
_KINDS_ELSEWHERE = {"uib": "uir", "fused": "er", "conv": "cn", "sep": "dsa", "mbconv": "ir"}


def read_timm(source: SourceText | str) -> SourceText:
    """The `.arch` text of a timm `arch_def`.

    The text is a list of stages, each a list of block strings, or an object that holds it as
    `arch_def` beside timm's other keywords; JSON or Python literals. The defaults are timm's.

    Raises:
        ArchError: E0603 where the text is no literal, E0604 for faulty keywords, E02xx for faulty
            block strings, E0605 for what the language cannot carry.

    >>> text = read_timm("[['ds_r1_k3_s1_e1_c16'], ['ir_r2_k3_s2_e6_c24_nsw']]").text
    >>> print(text[text.index("stem"):text.index("head")].strip())
    stem { conv_k3_s22_o32 }
    stage { r1_k3_s11_e1_o16 }
    stage { r2_k3_s22_e6_o24_swish }
    """
    if isinstance(source, str):
        source = SourceText("<string>", source)
    return _Network(Reading(source)).run()


class _Network:
    """Reads one network, block by block, with the widths that timm gives it."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.channels = 0
        self.reduction = 2

    def run(self) -> SourceText:
        reading = self.reading
        value = read_literal(reading.source, python=True)
        if isinstance(value.data, Members):
            definition, self.settings = read_settings(reading, value)
        else:
            definition, self.settings = value, Settings()
        if definition is None:
            reading.stop()
        settings = self.settings
        attributes = Attributes.model_validate(
            {
                "input": (*settings.input_size[1:], settings.input_size[0]),
                "act": settings.act,
                "norm": {"eps": settings.bn_eps, "momentum": settings.bn_momentum},
                "pad": settings.pad,
                "round": {
                    "divisor": settings.channel_divisor,
                    "min": settings.channel_min,
                    "limit": settings.round_limit,
                },
                "width": settings.channel_multiplier,
                "se": {
                    "base": "expanded" if settings.se_from_exp else "input",
                    "round": settings.squeeze_divisor,
                    "gate": settings.gate,
                },
                "layer_scale": settings.layer_scale or 0.0,
                "droppath": settings.drop_path_rate,
                "classes": settings.num_classes,
            }
        )
        self.context = Context(reading, settings, attributes)
        stem = Width(settings.stem_size, "!" if settings.fix_stem else "")
        self.channels = (
            settings.stem_size if settings.fix_stem else self.context.width(settings.stem_size)
        )
        assert definition is not None
        stages = list(self.stages(definition))
        reading.stop()
        se = Attributes.model_fields["se"].default
        if self.context.se_acts:
            act = "block" if len(self.context.se_acts) > 1 else self.context.se_acts.pop()
            se = attributes.se.model_copy(update={"act": act})
        first = {"kernel": settings.stem_kernel_size, "stride": (2, 2), "out_channels": stem}
        kernel = settings.given.get("stem_kernel_size")
        span = kernel.span if kernel else reading.source.span(0, 1)
        conv = reading.block("conv", {name: (item, span) for name, item in first.items()}, span)
        return reading.finish(
            {
                "name": settings.architecture,
                "attributes": attributes.model_copy(update={"se": se}),
                "stem": [conv],
                "stages": [{"blocks": tuple(blocks)} for blocks in stages],
                "head": self.head(),
            }
        )

    def head(self) -> list[dict[str, Any]]:
        settings = self.settings
        conv: dict[str, Any] = {
            "kind": "conv",
            "kernel": 1,
            "out_channels": Width(settings.num_features, "!") if settings.num_features else None,
        }
        dropout = {"kind": "dropout", "rate": settings.drop_rate}
        ending: list[dict[str, Any]] = [*([dropout] if settings.drop_rate else []), {"kind": "fc"}]
        if settings.model_cls == "EfficientNet":
            return [*([conv] if settings.num_features else []), {"kind": "pool"}, *ending]
        if not settings.head_norm:
            conv |= {"norm": False} | ({"bias": True} if settings.head_bias else {})
        return [{"kind": "pool"}, conv, *ending]

    # -- stages

    def stages(self, definition: Value) -> Iterator[list[AnyBlock]]:
        listed_stages = self.reading.items(definition, "an `arch_def`")
        multipliers = self.settings.depth_multiplier or (1.0,)
        if len(multipliers) == 1:
            multipliers *= len(listed_stages)
        if len(multipliers) != len(listed_stages):
            what = (
                f"`depth_multiplier` has {len(multipliers)} numbers for {len(listed_stages)} stages"
            )
            self.reading.error("E0604", what, self.settings.given["depth_multiplier"].span)
            self.reading.stop()
        if not listed_stages and not self.reading.diagnostics:
            self.reading.error("E0604", "the network has no stages", definition.span)
        for number, stage in enumerate(listed_stages):
            strings = self.reading.items(stage, "a stage")
            if not strings and isinstance(stage.data, tuple):
                self.reading.error("E0604", "the stage has no blocks", stage.span)
            outer = number in (0, len(listed_stages) - 1) and self.settings.fix_first_last
            yield self.stage(strings, 1.0 if outer else multipliers[number])

    def stage(self, strings: Sequence[Value], multiplier: float) -> list[AnyBlock]:
        words = [self.words(value) for value in strings]
        counts = [self.count(block) for block in words]
        blocks: list[AnyBlock] = []
        for number, (block, repeats) in enumerate(
            zip(words, scaled_depth(counts, multiplier, self.settings.depth_trunc), strict=True)
        ):
            if block is not None:
                self.reading.repeats(repeats, block.at("r"))
                blocks += self.block(block, repeats, first=number == 0)
        return blocks

    def count(self, block: BlockWords | None) -> int:
        """How often a block stands, 1 where that is faulty."""
        if block is None:
            return 1
        count = block.number("r")
        if isinstance(count, int) and 1 <= count <= most("repeats"):
            return count
        span = block.at("r")
        message = f"{quoted(span.text)}: must be a whole number from 1 to {most('repeats'):,}"
        self.reading.error("E0207", message, span)
        return 1

    def words(self, value: Value) -> BlockWords | None:
        """A block string, cut into its fields."""
        spans = words_of(self.reading, value)
        if spans is None:
            return None
        kind, *rest = spans
        if kind.text not in _KEYS:
            guess = _KINDS_ELSEWHERE.get(kind.text) or did_you_mean(kind.text, _KEYS)
            hint = f"did you mean `{guess}`?" if guess else f"kinds: {', '.join(_KEYS)}"
            message = f"timm has no block of kind {quoted(kind.text)}"
            self.reading.error("E0201", message, kind, hint)
            return None
        block = BlockWords(kind.text, value.text)
        sound = fields_of(self.reading, block, rest, _KEYS[kind.text], _FLAGS, _ELSEWHERE)
        for key in _REQUIRED[kind.text]:
            if key not in block.fields and sound:
                message = f"a block of kind `{kind.text}` needs `{key}`"
                self.reading.error("E0206", message, kind, f"such as `{_SAMPLES[key]}`")
                sound = False
        acts = [word for word in block.flags if word[0] == "n" and word != "noskip"]
        for one, other in (("skip", "noskip"), *pairwise(acts)):
            if one in block.flags and other in block.flags:
                message = f"`{one}` and `{other}` exclude each other"
                self.reading.error("E0204", message, block.flags[other], "keep one of them")
                sound = False
        return block if sound else None

    # -- blocks

    def block(self, words: BlockWords, repeats: int, *, first: bool) -> list[AnyBlock]:
        before = len(self.reading.diagnostics)
        written = words.number("c")
        if not isinstance(written, int) or not 1 <= written <= most("channels"):
            span = words.at("c")
            message = f"{quoted(span.text)}: must be a whole number from 1 to {most('channels'):,}"
            self.reading.error("E0207", message, span)
            return []
        self.unknown(words)
        self.stride(words, first=first)
        out = self.context.width(written)
        built = Block(self.context, words, self.channels, out, repeats)
        blocks = built.build() if len(self.reading.diagnostics) == before else []
        self.channels = out
        return blocks

    def stride(self, words: BlockWords, *, first: bool) -> None:
        """timm's strides: 1 or 2, the first block's of a stage, 32 in all before it dilates."""
        stride, span = words.number("s"), words.at("s")
        if stride not in (1, 2):
            self.reading.error("E0207", f"{quoted(span.text)}: timm's strides are 1 and 2", span)
        elif stride == 2 and not first:
            message = "only the first block of a stage has a stride; timm passes over this one"
            self.reading.error("E0207", message, span, "begin another stage with it")
        elif stride == 2 and words.kind in ("mqa", "mha"):
            message = "attention keeps the resolution; timm passes over its stride"
            self.reading.error("E0207", message, span)
        elif stride == 2:
            self.reduction *= 2
            if self.reduction > self.settings.output_stride:
                limit = self.settings.output_stride
                message = f"timm turns a stride beyond {limit} in all into dilation"
                hint = "the language has no dilated convolutions"
                self.reading.refuse(message, span, hint)

    def unknown(self, words: BlockWords) -> None:
        """What a block asks for that the language has no operators for, or that means nothing."""
        reading, kind = self.reading, words.kind
        for key, field in words.fields.items():
            value = field.number
            if isinstance(value, str):
                if key in ("k", "a", "p") and all(part.isdigit() for part in value.split(".")):
                    message = "kernels of several sizes in one convolution (MixNet)"
                    reading.refuse(f"{quoted(field.span.text)}: {message}", field.span)
                else:
                    message = f"{quoted(field.span.text)}: must be a number"
                    reading.error("E0207", message, field.span)
            elif isinstance(value, float) and key in ("k", "a", "p"):
                message = "kernels of several sizes in one convolution (MixNet)"
                reading.refuse(f"{quoted(field.span.text)}: {message}", field.span)
            elif isinstance(value, float) and key not in ("s", "e", "se"):
                message = f"{quoted(field.span.text)}: must be a whole number"
                reading.error("E0207", message, field.span)
        for key, least, what in (
            ("cc", 1, "conditional convolutions, whose kernels depend on the image (CondConv)"),
            ("p", 1 if kind == "uir" else 2, "depthwise or larger kernel at the projection"),
            ("a", 2 if kind == "ir" else None, "larger kernel at the expansion"),
            ("d", None if kind in ("mqa", "mha") else 1, "space to depth"),
            ("se", 0 if kind == "uir" else None, "squeeze-and-excitation in a `uir`"),
        ):
            amount = words.number(key)
            if least is None or isinstance(amount, str):
                continue
            if amount and least <= amount:
                span = words.at(key)
                reading.refuse(f"{quoted(span.text)}: the language has no {what}", span)
        if "nmi" in words.flags:
            reading.refuse("`nmi`: the language has no activation mish", words.flags["nmi"])
        if kind in ("ds", "dsa", "cn") and words.number("e") not in (None, 1):
            message = f"a `{kind}` does not expand; timm passes over this ratio"
            reading.error("E0207", message, words.at("e"), "leave it out")
        if kind == "dsa" and "skip" in words.flags:
            reading.error("E0207", "a `dsa` never has a residual", words.flags["skip"])
        if kind == "cn" and "noskip" in words.flags:
            reading.error("E0207", "a `cn` has none unless `skip` says so", words.flags["noskip"])
        for word in words.flags if kind in ("mqa", "mha") else ():
            if word in ACTS:
                what = f"a block of kind `{kind}` has no activation"
                reading.error("E0205", what, words.flags[word])


def scaled_depth(repeats: Sequence[int], multiplier: float, trunc: str) -> list[int]:
    """The repeats of a stage's blocks under timm's depth multiplier.

    It multiplies their sum, and hands the result out from the last block to the first.

    >>> scaled_depth([1, 2], 1.1, "ceil"), scaled_depth([3], 1.4, "round")
    ([1, 3], [4])
    """
    left = sum(repeats)
    total = left * multiplier
    wanted = max(1, round(total)) if trunc == "round" else math.ceil(total)
    result: list[int] = []
    for count in reversed(repeats):
        share = max(1, round(count / left * wanted))
        result.insert(0, share)
        left -= count
        wanted -= share
    return result
