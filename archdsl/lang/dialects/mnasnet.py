"""MnasNet's list of block strings, as its official decoder reads them.

Facts: tensorflow/tpu models/official/mnasnet, `mnasnet_models.py` (the strings) and
`mnasnet_model.py` (what is built of them). The list stands alone or as `blocks_args` beside the
other parameters of the network, which have the names of `GlobalParams`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from archdsl.lang.diagnostics import quoted
from archdsl.lang.dialects.literal import Members, Value, read_literal
from archdsl.lang.dialects.reading import Placed, Reading, arch_name
from archdsl.lang.dialects.strings import BlockWords, fields_of, words_of
from archdsl.lang.dialects.walking import Item, Writing, Written, expanded, se_width
from archdsl.lang.fields import Width
from archdsl.lang.origins import Origins
from archdsl.lang.printer import block_value
from archdsl.lang.source import SourceText, Span
from archdsl.lang.spec import ArchSpec, Convolution, InvertedResidual
from archdsl.limits import hint as limit_of
from archdsl.limits import most
from archdsl.rounding import make_divisible

_KEYS = ("r", "k", "s", "e", "i", "o", "se")
_REQUIRED = ("r", "k", "s", "e", "i", "o")
_PARAMS = (
    "architecture",
    "input_size",
    "blocks_args",
    "batch_norm_momentum",
    "batch_norm_epsilon",
    "dropout_rate",
    "num_classes",
    "depth_multiplier",
    "depth_divisor",
    "min_depth",
    "stem_size",
    "data_format",
    "use_keras",
)
# How a list or an object begins, behind comments and the name it is given; else it is lines.
_LITERAL = re.compile(r"(?:\s|#[^\n]*(?:\n|$))*(?:[A-Za-z_]\w*[ \t]*=\s*)?[\[{(]")
_FORMATS = ("channels_first", "channels_last")
_HEAD = 1280
_SQUEEZE = {"base": "input", "round": 1, "act": "relu", "gate": "sigmoid"}


def read_mnasnet(source: SourceText | str) -> SourceText:
    """The `.arch` text of a list of MnasNet's block strings.

    The list is JSON or Python literals, or one string a line; or it is `blocks_args` of an object
    that holds the network's other parameters. Without them they are MnasNet-A1's.

    Raises:
        ArchError: E0603 where the text is no literal, E0604 for faulty parameters, E02xx for faulty
            block strings, E0203 where `i` is not what comes in.

    >>> text = read_mnasnet("r1_k3_s11_e1_i32_o16_noskip").text
    >>> text[text.index("stage"):text.index("head")]
    'stage { r1_k3_s11_e1_i32_o16_noskip }\\n'
    """
    if isinstance(source, str):
        source = SourceText("<string>", source)
    return _Reader(Reading(source)).run()


class _Reader:
    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.width: float | None = None
        self.divisor = 8
        self.minimum: int | None = None

    def run(self) -> SourceText:
        reading = self.reading
        strings, params = self.parts()
        stem = self.whole(params, "stem_size", 1, most("channels"))
        self.width = self.number(params, "depth_multiplier", 0, most("scale"), above=True)
        self.divisor = self.whole(params, "depth_divisor", 1, most("channels")) or 8
        self.minimum = self.whole(params, "min_depth", 1, most("channels"))
        eps = self.number(params, "batch_norm_epsilon", 0, 1, above=True) or 1e-3
        decay = self.number(params, "batch_norm_momentum", 0, 1, below=True)
        dropout = self.number(params, "dropout_rate", 0, 1, below=True)
        classes = self.whole(params, "num_classes", 1, most("classes")) or 1000
        order = ("height", "width", "channels")
        size = reading.image(params["input_size"], order) if "input_size" in params else None
        self.harmless(params)
        if not strings:
            reading.stop()
            reading.error("E0604", "the network has no blocks", reading.source.span(0, 1))
        blocks = [self.words(value) for value in strings]
        stem = stem or self.first_input(blocks)
        stages = self.stages(blocks, stem, exact="stem_size" in params)
        reading.stop()
        plain = self.width is None
        outs = [block.out_channels.channels for block in stages if block.out_channels]
        fits = all(width % 8 == 0 for width in (stem, *outs))
        rule: dict[str, Any] = {"divisor": self.divisor, "min": self.minimum}
        if plain and (not fits or self.divisor != 8 or self.minimum):
            rule = {"divisor": 1}  # without a multiplier nothing is rounded
        drop = 0.2 if dropout is None else dropout
        name = params.get("architecture")
        return reading.finish(
            {
                "name": arch_name(str(name.data)) if name else None,
                "attributes": {
                    "input": size or (224, 224, 3),
                    "act": "relu",
                    "norm": {"eps": eps, "momentum": _other(0.99 if decay is None else decay)},
                    "pad": "same",
                    "round": rule,
                    "width": self.width or 1.0,
                    "se": _SQUEEZE,
                    "classes": classes,
                },
                "stem": [{"kind": "conv", "kernel": 3, "stride": (2, 2), "out_channels": stem}],
                "stages": [{"blocks": (block,)} for block in stages],
                "head": [
                    {"kind": "conv", "kernel": 1, "out_channels": Width(_HEAD, "!")},
                    {"kind": "pool"},
                    *([{"kind": "dropout", "rate": drop}] if drop else []),
                    {"kind": "fc"},
                ],
            }
        )

    def parts(self) -> tuple[tuple[Value, ...], dict[str, Value]]:
        """The block strings and the parameters."""
        source = self.reading.source
        if not _LITERAL.match(source.text):
            if len(source.text) > most("text"):
                message = f"the text has more than {most('text'):,} characters"
                self.reading.error("E0110", message, source.span(0, 1), limit_of("text"))
                self.reading.stop()
            lines, at = [], 0
            for line in source.text.split("\n"):
                word = line.partition("#")[0].strip().strip(",").strip("\"'")
                if word:
                    start = at + line.index(word)
                    lines.append(_Line(source.span(start, start + len(word)), word))
                at += len(line) + 1
            return tuple(lines), {}
        value = read_literal(source, python=True)
        if not isinstance(value.data, Members):
            return self.reading.items(value, "MnasNet's blocks"), {}
        params = self.reading.members(value, _PARAMS, "a MnasNet", ("blocks_args",))
        # What the official parameters leave at None is as if it were not there.
        params = {name: member for name, member in params.items() if member.data is not None}
        strings = params.get("blocks_args")
        return (self.reading.items(strings, "`blocks_args`") if strings else ()), params

    def whole(self, params: dict[str, Value], name: str, low: int, high: int) -> int | None:
        return self.reading.whole(params[name], name, low, high) if name in params else None

    def number(
        self, params: dict[str, Value], name: str, low: float, high: float, **ends: bool
    ) -> float | None:
        if name not in params:
            return None
        return self.reading.number(params[name], name, low, high, **ends)

    def harmless(self, params: dict[str, Value]) -> None:
        """What `GlobalParams` has besides, and changes nothing of the network."""
        if "data_format" in params:
            self.reading.word(params["data_format"], "data_format", _FORMATS)
        if "use_keras" in params:
            self.reading.truth(params["use_keras"], "use_keras")

    def words(self, value: Value) -> BlockWords | None:
        spans = words_of(self.reading, value)
        if spans is None:
            return None
        block = BlockWords("", value.text)
        sound = fields_of(self.reading, block, spans, _KEYS, ("noskip",))
        for key in _REQUIRED:
            if key not in block.fields and sound:
                message = f"a MnasNet block needs `{key}`"
                self.reading.error("E0206", message, block.span, f"such as `{_SAMPLES[key]}`")
                sound = False
        return block if sound else None

    def first_input(self, blocks: list[BlockWords | None]) -> int:
        """The stem's width: what the first block says comes in."""
        return _width(blocks[0].number("i")) or 32 if blocks and blocks[0] else 32

    def rounded(self, width: int) -> int:
        if self.width is None:
            return width
        return make_divisible(width * self.width, self.divisor, self.minimum)

    def stages(
        self, blocks: list[BlockWords | None], stem: int, *, exact: bool
    ) -> list[InvertedResidual]:
        found: list[InvertedResidual] = []
        before: int | None = stem
        for number, words in enumerate(blocks):
            if words is None:
                before = None
                continue
            block, before = self.block(words, before, first=number == 0 and exact)
            if block is not None:
                found.append(block)
        return found

    def block(
        self, words: BlockWords, before: int | None, *, first: bool
    ) -> tuple[InvertedResidual | None, int | None]:
        reading, faults = self.reading, len(self.reading.diagnostics)
        fields: dict[str, Placed] = {
            name: words.placed(key)
            for name, key in {"repeats": "r", "kernel": "k", "expansion": "e", "se": "se"}.items()
        }
        given, out = words.number("i"), words.number("o")
        stride = words.fields["s"]
        if len(stride.value) != 2 or not stride.value.isdigit() or "0" in stride.value:
            message = f"{quoted(stride.span.text)}: the stride has two digits, height then width"
            reading.error("E0207", message, stride.span, "such as `s22`")
        else:
            fields["stride"] = (tuple(map(int, stride.value)), stride.span)
        for key in ("e", "o"):
            if not isinstance(words.number(key), int):
                span = words.at(key)
                reading.error("E0207", f"{quoted(span.text)}: must be a whole number", span)
        if "noskip" in words.flags:
            fields["residual"] = (False, words.flags["noskip"])
        fields["in_channels"] = (given, words.at("i"))
        fields["out_channels"] = (out if isinstance(out, int) else None, words.at("o"))
        came = _width(given)
        if came and before is not None and came != before:
            if first and words.number("e") == 1 and "se" not in words.fields:
                # Nothing is made of `i` then but the test for a residual (MnasNet-small).
                fields["in_channels"] = (None, words.at("i"))
                if self.rounded(came) != self.rounded(before):
                    fields["residual"] = (False, words.at("i"))
            else:
                giver = "the stem gives" if first else "the block before gives"
                message = f"declared i{given}, but {giver} {before} channels"
                reading.error("E0203", message, words.at("i"), f"write i{before}")
        block = reading.block("ir", fields, words.span)
        if len(reading.diagnostics) > faults or not isinstance(block, InvertedResidual):
            return None, _width(out)
        reading.repeats(block.repeats, words.at("r"))
        return block, _width(out)


_SAMPLES = {"r": "r1", "k": "k3", "s": "s11", "e": "e6", "i": "i16", "o": "o24"}


class _Line(Value):
    """A block string that stands on a line of its own, without quotes."""

    @property
    def text(self) -> Span:
        return self.span


def _width(value: object) -> int | None:
    """A number of channels, if it is one that can be."""
    return value if isinstance(value, int) and 1 <= value <= most("channels") else None


def _other(momentum: float) -> float:
    """TensorFlow's momentum for ours, and ours for TensorFlow's: together they are 1."""
    return round(1 - momentum, 12)


# --------------------------------------------------------------------------------------- writing


def write_mnasnet(spec: ArchSpec, origins: Origins | None = None) -> Written:
    """A specification as MnasNet's block strings, with the network's other parameters.

    Raises:
        ArchError: E0606, each thing that the notation cannot carry.
    """
    return _Writer(Writing(spec, origins, "MnasNet's list")).run()


class _Writer:
    def __init__(self, writing: Writing) -> None:
        self.writing = writing
        self.attributes = writing.attributes
        self.before = 0

    def run(self) -> Written:
        writing, attributes = self.writing, self.attributes
        items = list(writing.items())
        stem = [item for item in items if item.path == "stem"]
        head = [item for item in items if item.path == "head"]
        blocks = [item for item in items if item.path.startswith("stages.")]
        stem, rest = stem[:1], stem[1:]
        self.rules()
        exact = attributes.width == 1 or not all(item.plain for item in (*stem, *blocks))
        stem_size = self.before = self.stem(stem, exact=exact)
        dropout = self.head(head)
        strings = [text for item in (*rest, *blocks) if (text := self.block(item, exact=exact))]
        if not strings and not writing.errors:
            writing.refuse_statement("MnasNet's list has blocks, and the network none", "arch")
        data = {
            "architecture": writing.spec.name,
            "input_size": list(attributes.input),
            "blocks_args": strings,
            "batch_norm_momentum": _other(attributes.norm.momentum),
            "batch_norm_epsilon": attributes.norm.eps,
            "dropout_rate": dropout,
            "num_classes": attributes.classes,
            "depth_multiplier": None if exact else attributes.width,
            "depth_divisor": attributes.round.divisor,
            "min_depth": attributes.round.min,
            "stem_size": stem_size,
        }
        return writing.finish(json.dumps(data, indent=2) + "\n")

    def rules(self) -> None:
        """What MnasNet's networks have in common."""
        attributes, refuse = self.attributes, self.writing.refuse_statement
        if attributes.pad != "same":
            refuse("MnasNet pads as TensorFlow does, `pad same`", "pad")
        if attributes.round.limit != 0.9:
            refuse("MnasNet's rounding loses at most a tenth, `limit=0.9`", "round")
        if _other(_other(attributes.norm.momentum)) != attributes.norm.momentum:
            refuse("MnasNet's momentum is 1 less ours, to twelve decimals", "norm")
        self.writing.leave_out_droppath()

    def stem(self, stem: list[Item], *, exact: bool) -> int:
        if not stem:
            self.writing.refuse_statement("MnasNet begins with a stem", "arch")
            return 0
        item = stem[0]
        if not self.plain(item, 3, (2, 2)):
            self.writing.refuse("MnasNet's stem is `conv_k3_s22` with relu", item)
        return item.out_channels if exact else item.written

    def plain(self, item: Item, kernel: int, stride: tuple[int, int]) -> bool:
        """Whether it is one convolution with its norm and relu, and nothing else."""
        block = item.block
        return isinstance(block, Convolution) and (
            *(block.kernel, item.stride, block.bias, block.norm, block.residual),
            *(block.group_size, item.act(self.attributes), item.repeats),
        ) == (kernel, stride, False, True, False, None, "relu", 1)

    def head(self, head: list[Item]) -> float:
        kinds = [item.block.kind for item in head if item.block.kind != "dropout"]
        rates = [item.block.rate for item in head if item.block.kind == "dropout"]  # type: ignore[attr-defined]
        if kinds != ["conv", "pool", "fc"] or len(rates) > 1:
            what = f"MnasNet's head is `conv_k1_o{_HEAD}!`, `pool`, `dropout`, `fc`"
            if head:
                self.writing.refuse(what, head[0])
            else:
                self.writing.refuse_statement(what, "arch")
            return 0.0
        if head[0].out_channels != _HEAD or not self.plain(head[0], 1, (1, 1)):
            what = f"MnasNet's last convolution is `conv_k1_o{_HEAD}!` with relu"
            self.writing.refuse(what, head[0])
        last: Any = head[-1].block
        if last.out_channels is not None or not last.bias or last.act not in (None, "linear"):
            self.writing.refuse("MnasNet's classifier has `classes` outputs and a bias", head[-1])
        return rates[0] if rates else 0.0

    def block(self, item: Item, *, exact: bool) -> str | None:
        writing, block, attributes = self.writing, item.block, self.attributes
        if not isinstance(block, InvertedResidual):
            writing.refuse(f"MnasNet's blocks are `ir`, and this is `{block.kind}`", item)
            return None
        if item.act(attributes) != "relu":
            writing.refuse("MnasNet's activation is relu", item, "act")
        if block.group_size != 1:
            what = "MnasNet's convolutions are depthwise, of groups of 1"
            writing.refuse(what, item, "group_size")
        ratio: float | None = None
        for width in item.inputs:
            hidden = expanded(block, width, attributes)
            here = 1.0 if hidden is None else hidden / width
            if not here.is_integer() or (hidden == width and hidden is not None):
                what = f"MnasNet expands by whole numbers, not {width} channels to {hidden}"
                writing.refuse(what, item, "expanded" if block.expanded else "expansion")
                return None
            if ratio not in (None, here):
                what = "the repeats of this block expand by different ratios"
                writing.refuse(what, item, "expanded", "write them as blocks of their own")
                return None
            ratio = here
            squeezed = se_width(block, width, attributes)
            if squeezed and squeezed != max(1, int(width * block.se)):
                what = (
                    "MnasNet squeezes to the ratio times the block's input, cut to a whole number: "
                    f"{max(1, int(width * block.se))} channels here, and not {squeezed}"
                )
                writing.refuse(what, item, "se")
        if block.se and (attributes.se.act, attributes.se.gate) != ("relu", "sigmoid"):
            what = "MnasNet squeezes with relu and sigmoid"
            writing.refuse(what, item, "se")
        parts = [f"r{item.repeats}", f"k{block.kernel}", "s{}{}".format(*item.stride)]
        out = item.out_channels if exact else item.written
        parts += [f"e{int(ratio or 1)}", f"i{self.before}", f"o{out}"]
        if block.se:
            parts.append(f"se{block_value(block.se)}")
        if not block.residual:
            parts.append("noskip")
        self.before = out
        return "_".join(parts)
