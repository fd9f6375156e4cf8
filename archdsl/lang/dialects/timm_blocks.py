"""One of timm's blocks as ours: which widths it has there, and which ratios give them here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from archdsl.lang.diagnostics import listed, quoted
from archdsl.lang.dialects.reading import Placed, Reading
from archdsl.lang.dialects.strings import BlockWords
from archdsl.lang.dialects.timm_settings import Settings
from archdsl.lang.source import Span
from archdsl.lang.spec import AnyBlock, Attributes
from archdsl.lang.widths import rounded, squeezed
from archdsl.limits import most
from archdsl.rounding import make_divisible

ACTS = {"nre": "relu", "nr6": "relu6", "nhs": "hswish", "nsw": "swish"}
"""timm's words for activations."""

# A ratio that is 1 in all but name: the expansion convolution stays (see `e` in docs/language.md).
_NEARLY_ONE = (1.01, 1.001, 1.0001, 1.00001)


@dataclass
class Context:
    """What the blocks of a network share."""

    reading: Reading
    settings: Settings
    attributes: Attributes
    se_acts: set[str] = field(default_factory=set)
    """The activations inside squeeze-and-excitation: more than one are the blocks' own."""

    def width(self, channels: int) -> int:
        """A written width as timm's `round_chs_fn` has it."""
        return rounded(channels * self.attributes.width, self.attributes)


class Block:
    """One of timm's blocks with its repeats, as one or two of ours.

    The first repeat has another input than the rest. Where no one ratio gives timm's widths in
    both, they are written as two blocks.
    """

    def __init__(
        self, context: Context, words: BlockWords, channels: int, out: int, repeats: int
    ) -> None:
        self.context, self.words = context, words
        self.reading, self.attributes = context.reading, context.attributes
        self.channels, self.out, self.repeats = channels, out, repeats

    def build(self) -> list[AnyBlock]:
        build = getattr(self, f"_{self.words.kind}")
        whole = self.inputs(self.repeats)
        found: list[AnyBlock | None] = build(whole, self.repeats)
        if not found and len(whole) > 1 and not self.reading.diagnostics:
            found = [*build(whole[:1], 1), *build(whole[1:], self.repeats - 1, rest=True)]
        return [block for block in found if block is not None]

    def inputs(self, repeats: int) -> tuple[int, ...]:
        """The different widths that come in."""
        return tuple(dict.fromkeys((self.channels, *((self.out,) if repeats > 1 else ()))))

    def fields(self, repeats: int, rest: bool, **more: Placed | None) -> dict[str, Placed]:
        words = self.words
        fields: dict[str, Placed] = {"repeats": (repeats, words.at("r"))}
        fields["out_channels"] = words.placed("c")
        fields["stride"] = ((1, 1) if rest else words.number("s"), words.at("s"))
        for word, act in ACTS.items():
            if word in words.flags:
                fields["act"] = (act, words.flags[word])
        if "noskip" in words.flags and words.kind not in ("cn", "dsa"):
            fields["residual"] = (False, words.flags["noskip"])
        if "skip" in words.flags and words.kind == "cn":
            fields["residual"] = (True, words.flags["skip"])
        return {**fields, **{name: value for name, value in more.items() if value is not None}}

    def made(self, kind: str, fields: dict[str, Placed]) -> list[AnyBlock | None]:
        return [self.reading.block(kind, fields, self.words.span)]

    # -- widths

    def ratio(self, inputs: Sequence[int]) -> tuple[str, Any] | None:
        """`e` or `x` for timm's expanded widths, or None where one is not enough."""
        written = self.words.number("e")
        if not isinstance(written, (int, float)) or not 0 < written <= most("expansion"):
            span = self.words.at("e")
            message = f"{quoted(span.text)}: must be more than 0 and at most {most('expansion'):g}"
            self.reading.error("E0207", message, span)
            return None
        widths = [self.hidden(channels) for channels in inputs]
        first = widths[0] / inputs[0]
        tried = [float(written), *(float(f"{first:.{digits}g}") for digits in (2, 3, 4, 6, 9))]
        for ratio in (*tried, *_NEARLY_ONE):
            if (ratio != 1 or self.words.kind == "uir") and 0 < ratio <= most("expansion"):
                ours = [rounded(channels * ratio, self.attributes) for channels in inputs]
                if ours == widths:
                    return "expansion", ratio
        if len(inputs) > 1:
            return None
        if self.words.kind != "uir" and widths[0] == inputs[0]:
            span = self.words.at("e")
            what = f"{quoted(span.text)}: an expansion of {widths[0]} channels to as many"
            hint = "with this rounding, no ratio near 1 keeps the expansion convolution"
            self.reading.refuse(what, span, hint)
            return None
        return "expanded", f"{widths[0]}!"

    def hidden(self, channels: int) -> int:
        """timm's expanded width: rounded to 8 whatever the network's divisor."""
        words = self.words
        if words.kind in ("ds", "dsa"):
            return channels
        forced = words.number("fc")
        if isinstance(forced, int) and forced:
            channels = self.context.width(forced)
        ratio = words.number("e")
        assert isinstance(ratio, (int, float))
        return make_divisible(channels * ratio)

    def se(self, inputs: Sequence[int]) -> tuple[float, Span] | bool | None:
        """The ratio that squeezes to timm's width; None for none, False where there is no one."""
        words, attributes = self.words, self.attributes
        ratio, span = words.number("se"), words.at("se")
        if not ratio:
            return None
        if not isinstance(ratio, (int, float)) or ratio > 1:
            self.reading.error("E0207", f"{quoted(span.text)}: must be at most 1", span)
            return None
        settings = self.context.settings
        self.squeezing()
        targets: list[int] = []
        for channels in inputs:
            hidden = self.hidden(channels)
            share = ratio
            if not settings.se_from_exp and words.kind not in ("ds", "dsa"):
                share = ratio / float(words.number("e") or 1)
            targets.append(self.reduced(hidden * share))
            if not targets[-1]:
                message = f"{quoted(span.text)} squeezes {hidden} channels to none at all"
                self.reading.error("E0207", message, span)
                return None
        base = [self.hidden(c) if attributes.se.base == "expanded" else c for c in inputs]
        # A width that is cut to a whole number is aimed at from above.
        shares = (targets[0] / base[0], (targets[0] + 0.25) / base[0])
        tried = [float(f"{share:.{digits}g}") for digits in (2, 3, 4, 6, 17) for share in shares]
        for one in (float(ratio), *tried):
            ours = [squeezed(one, c, self.hidden(c), attributes) for c in inputs]
            if ours == targets and 0 < one <= 1:
                return one, span
        if len(inputs) == 1:
            what = (
                f"{quoted(span.text)} squeezes to {targets[0]} channels, which no `se` here gives"
            )
            self.reading.refuse(what, span)
        return False

    def reduced(self, width: float) -> int:
        """What timm rounds a squeezed width to."""
        settings = self.context.settings
        if settings.rd_round_fn == "round":
            return round(width)
        if settings.rd_round_fn == "round_channels":
            return make_divisible(width)
        return rounded(width * self.attributes.width, self.attributes)

    def squeezing(self) -> None:
        """Note the activation inside squeeze-and-excitation: the block's own, or a forced one."""
        settings = self.context.settings
        own = next((ACTS[word] for word in self.words.flags if word in ACTS), None)
        self.context.se_acts.add(settings.force_act or own or settings.act)

    def groups(self, inputs: Sequence[int]) -> Placed | Literal[False] | None:
        """`g` for `gs` of this block or the network's `group_size`; None for none.

        False where one number cannot say it for all inputs, or it does not fit.
        """
        words, kind = self.words, self.words.kind
        written = words.number("gs")
        size = self.context.settings.group_size if written is None else written
        span = words.at("gs")
        if not isinstance(size, int) or (not size and kind in ("er", "cn")):
            return None
        found: set[int] = set()
        for channels, out in self.grouped(inputs):
            # timm's groups are of what comes out, those of a `cn` of what goes in; 0 is one group.
            whole = channels if kind == "cn" else out
            groups, rest = divmod(whole, size) if size else (1, 0)
            if rest or channels % groups or out % groups:
                message = (
                    f"groups of {size} do not fit: the convolution takes {channels} channels and "
                    f"gives {out}"
                )
                self.reading.error("E0305", message, span)
                return False
            found.add(out // groups)
        if not found and written is not None:
            message = "the block has no convolution to group; timm passes over this size"
            self.reading.error("E0207", message, span, "leave it out")
        if len(found) > 1 and len(inputs) == 1:
            self.reading.refuse("full convolutions where depthwise ones stand in a `uib`", span)
        if len(found) > 1:
            return False
        return (found.pop(), span) if found else None

    def grouped(self, inputs: Sequence[int]) -> Iterator[tuple[int, int]]:
        """What goes in and comes out of each convolution that has groups."""
        words = self.words
        for channels in inputs:
            if words.kind == "cn":
                yield channels, self.out
            elif words.kind == "er":
                yield channels, self.hidden(channels)
            elif words.kind == "uir":
                if words.number("a"):
                    yield channels, channels
                if words.number("k"):
                    yield self.hidden(channels), self.hidden(channels)
            else:
                yield self.hidden(channels), self.hidden(channels)

    def depthwise(self, inputs: Sequence[int]) -> dict[str, Placed] | None:
        """The `g` of what is a depthwise convolution without one; None as `groups` is False."""
        found = self.groups(inputs)
        if found is False:
            return None
        return {"group_size": found} if found is not None and found[0] != 1 else {}

    # -- kinds

    def _ir(self, inputs: Sequence[int], repeats: int, rest: bool = False) -> Any:
        ratio, se = self.ratio(inputs), self.se(inputs)
        if ratio is None or se is False or (groups := self.depthwise(inputs)) is None:
            return []
        fields = self.fields(repeats, rest, kernel=self.words.placed("k"), se=se)  # type: ignore[arg-type]
        fields[ratio[0]] = (ratio[1], self.words.at("e"))
        return self.made("ir", fields | groups)

    def _ds(self, inputs: Sequence[int], repeats: int, rest: bool = False) -> Any:
        se, groups = self.se(inputs), self.depthwise(inputs)
        if groups is None or se is False:
            return []
        fields = self.fields(repeats, rest, kernel=self.words.placed("k"), se=se)  # type: ignore[arg-type]
        if "e" in self.words.fields:
            fields["expansion"] = (1.0, self.words.at("e"))
        return self.made("ir", fields | groups)

    def _dsa(self, inputs: Sequence[int], repeats: int, rest: bool = False) -> Any:
        se, groups = self.se(inputs), self.depthwise(inputs)
        if groups is None or se is False:
            return []
        fields = self.fields(repeats, rest, kernel=self.words.placed("k"), se=se)  # type: ignore[arg-type]
        return self.made("sep", fields | groups)

    def _er(self, inputs: Sequence[int], repeats: int, rest: bool = False) -> Any:
        ratio, se = self.ratio(inputs), self.se(inputs)
        if ratio is None or se is False or (groups := self.groups(inputs)) is False:
            return []
        fields = self.fields(repeats, rest, kernel=self.words.placed("k"), se=se)  # type: ignore[arg-type]
        fields[ratio[0]] = (ratio[1], self.words.at("e"))
        if groups is not None:
            fields["group_size"] = groups
        return self.made("fused", fields)

    def _uir(self, inputs: Sequence[int], repeats: int, rest: bool = False) -> Any:
        ratio = self.ratio(inputs)
        if ratio is None or (groups := self.depthwise(inputs)) is None:
            return []
        start = self.words.placed("a") if "a" in self.words.fields else None
        fields = self.fields(repeats, rest, start_kernel=start)
        fields["middle_kernel"] = self.words.placed("k")
        fields[ratio[0]] = (ratio[1], self.words.at("e"))
        return self.made("uib", fields | groups)

    def _cn(self, inputs: Sequence[int], repeats: int, rest: bool = False) -> Any:
        fields = self.fields(repeats, rest, kernel=self.words.placed("k"))
        groups = self.groups(inputs)
        if groups is False:
            return []
        if groups is None:
            return self.made("conv", fields)
        if groups[0] == 1 and set(inputs) == {self.out}:
            return self.made("dw", fields)
        return self.made("conv", {**fields, "group_size": groups})

    def _mqa(self, inputs: Sequence[int], repeats: int, rest: bool = False) -> Any:
        return self.made("mqa", self.attention(repeats))

    def _mha(self, inputs: Sequence[int], repeats: int, rest: bool = False) -> Any:
        words = self.words
        heads, width = words.number("h"), words.number("d")
        if not isinstance(heads, int) or not isinstance(width, int) or heads < 1:
            return self.made("mha", self.attention(repeats))
        if any(channels != heads * width for channels in inputs):
            shown = listed([str(channels) for channels in inputs], "and")
            shared = "one head has" if heads == 1 else f"{heads} heads share"
            message = f"timm's `mha` passes over `d`: {shared} its {shown} channels"
            self.reading.error("E0207", message, words.at("d"))
            return []
        if words.number("v") not in (None, 1):
            message = "timm's `mha` passes over `v`: its keys and values are not reduced"
            self.reading.error("E0207", message, words.at("v"), "leave it out")
            return []
        return self.made("mha", self.attention(repeats))

    def attention(self, repeats: int) -> dict[str, Placed]:
        words = self.words
        fields = self.fields(repeats, False, heads=words.placed("h"), kernel=words.placed("k"))
        fields["head_width"] = words.placed("d")
        if "v" in words.fields:
            fields["kv_stride"] = words.placed("v")
        return fields
