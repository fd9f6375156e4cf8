"""The typed specification of an architecture: one pydantic class for each block kind.

A field's alias is its letter in the language, its name is its key in JSON. These classes are the
only place that says which fields a kind has, what they mean and their defaults; fields.py says
what their values may be. The parser, the printer, the JSON Schema and the tables in
docs/language.md all read them.
"""

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

from archdsl.lang.fields import (
    Activation,
    ActivationName,
    Channels,
    Classes,
    Expansion,
    FactName,
    Flags,
    Heads,
    Image,
    Kernel,
    Name,
    OptionalKernel,
    OutWidth,
    Rate,
    Ratio,
    Repeats,
    Scale,
    Stride,
    Text,
    VariantName,
)
from archdsl.limits import MAX_STRIDE


class _Spec(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        defer_build=True,
        ser_json_inf_nan="null",
    )


# ---------------------------------------------------------------------------------------- blocks


class Block(_Spec):
    """What every block has."""

    title: ClassVar[str]
    kind: str
    repeats: Repeats = Field(1, alias="r", description="repeats; only the first has the stride")
    in_channels: Channels | None = Field(
        None, alias="i", description="input channels: not needed; where given, proved"
    )


class _Out(Block):
    out_channels: OutWidth | None = Field(
        None, alias="o", description="output channels (default: the input's)"
    )


class _Strided(_Out):
    kernel: Kernel = Field(3, alias="k", description="kernel (odd)")
    stride: Stride = Field((1, 1), alias="s", description="stride, height then width")
    act: Activation = Field(None, description="activation (default: the file's)")


class _Expanded(_Out):
    """A block with an inner, expanded width: given as a ratio or as the width itself."""

    expansion: Expansion = Field(4.0, alias="e", description="expansion ratio")
    expanded: OutWidth | None = Field(
        None, alias="x", description="the expanded width itself, instead of `e`"
    )
    residual: Annotated[bool, Flags({"noskip": False})] = Field(
        True, description="`noskip`: no residual"
    )

    @model_validator(mode="after")
    def _one_expansion(self) -> Self:
        if self.expanded is not None and "expansion" in self.model_fields_set:
            raise PydanticCustomError(
                "conflict", "`e` and `x` both give the expanded width", {"field": "expanded"}
            )
        return self


_GROUP = "channels of a group of the kxk convolution"


class _Grouped(Block):
    """A block whose depthwise convolutions become grouped ones where a group has more channels."""

    group_size: Channels = Field(1, alias="g", description=_GROUP)


class InvertedResidual(_Grouped, _Expanded, _Strided):
    """[1x1 expand, norm, act], depthwise, norm, act, [SE], 1x1 project, norm, residual.

    With ratio 1 there is no expansion.
    """

    title = "inverted residual (MobileNetV2, V3, MnasNet)"
    kind: Literal["ir"]
    expansion: Expansion = Field(1.0, alias="e", description="expansion ratio")
    se: Ratio = Field(0.0, alias="se", description="squeeze-and-excitation ratio, 0 for none")


class FusedInvertedResidual(_Expanded, _Strided):
    """Full convolution to the expanded width, norm, act, [SE], 1x1 project, norm, residual.

    With ratio 1 only a 1x1 convolution and its norm are left (tensorflow/models `mobilenet.py`).
    """

    title = "fused inverted residual (EdgeTPU, V4)"
    kind: Literal["fused"]
    se: Ratio = Field(0.0, alias="se", description="squeeze-and-excitation ratio, 0 for none")
    group_size: Channels | None = Field(None, alias="g", description=_GROUP)

    @model_validator(mode="after")
    def _expands(self) -> Self:
        if self.expanded is None and self.expansion == 1:
            for field, letter in (("se", "se"), ("group_size", "g")):
                if getattr(self, field):
                    raise PydanticCustomError(
                        "conflict",
                        "with ratio 1 the block is a 1x1 convolution: there is nothing for `{key}`",
                        {"field": field, "key": letter},
                    )
        return self


class UniversalInvertedBottleneck(_Grouped, _Expanded):
    """[depthwise, norm], 1x1 expand, norm, act, [depthwise, norm, act], 1x1 project, norm.

    Then layer scale where wanted, and the residual. Without both depthwise convolutions it is an
    FFN, with the start one ConvNext-like, with the middle one an inverted bottleneck, with both
    ExtraDW (arXiv 2404.10518, section 3).
    """

    title = "universal inverted bottleneck (V4)"
    kind: Literal["uib"]
    start_kernel: OptionalKernel = Field(
        0, alias="s", description="start depthwise kernel (odd), 0 for none"
    )
    middle_kernel: OptionalKernel = Field(
        0, alias="m", description="middle depthwise kernel (odd), 0 for none"
    )
    stride: Stride = Field((1, 1), alias="st", description="stride, height then width")
    act: Activation = Field(None, description="activation (default: the file's)")
    layer_scale: Annotated[bool | None, Flags({"ls": True, "nols": False})] = Field(
        None, description="`ls` layer scale, `nols` none (default: the file's)"
    )

    @model_validator(mode="after")
    def _strides_somewhere(self) -> Self:
        if self.stride != (1, 1) and not (self.start_kernel or self.middle_kernel):
            raise PydanticCustomError(
                "no_depthwise",
                "a stride needs a depthwise convolution, and this block has neither `s` nor `m`",
                {"field": "stride"},
            )
        return self

    @model_validator(mode="after")
    def _groups_something(self) -> Self:
        if self.group_size != 1 and not (self.start_kernel or self.middle_kernel):
            raise PydanticCustomError(
                "conflict",
                "the block has neither `s` nor `m`: there is nothing for `g`",
                {"field": "group_size"},
            )
        return self


class Separable(_Grouped, _Strided):
    """Depthwise, norm, act, [SE], 1x1 convolution, norm, act."""

    title = "depthwise separable convolution (V1)"
    kind: Literal["sep"]
    se: Ratio = Field(0.0, alias="se", description="squeeze-and-excitation ratio, 0 for none")


def _unstrided(stride: tuple[int, int]) -> tuple[int, int]:
    if stride != (1, 1):
        raise PydanticCustomError("attention_stride", "must be 1: attention keeps the resolution")
    return stride


class _Attention(_Out):
    stride: Annotated[Stride, AfterValidator(_unstrided)] = Field(
        (1, 1), alias="s", description="stride, which is 1"
    )
    heads: Heads = Field(alias="h", description="attention heads")
    head_width: Channels = Field(alias="d", description="key/value width of a head")
    kv_stride: Annotated[int, Field(strict=True, ge=1, le=MAX_STRIDE)] = Field(
        1, alias="kv", description="stride of the key/value reduction, 1 for none"
    )
    kernel: Kernel = Field(3, alias="k", description="kernel of the key/value reduction (odd)")
    residual: Annotated[bool, Flags({"noskip": False})] = Field(
        True, description="`noskip`: no residual"
    )
    layer_scale: Annotated[bool | None, Flags({"ls": True, "nols": False})] = Field(
        None, description="`ls` layer scale, `nols` none (default: the file's)"
    )


class MultiQueryAttention(_Attention):
    """Norm, 1x1 query/key/value, attention, 1x1 output, [layer scale], residual.

    Keys and values have one head, shared by all query heads (arXiv 2404.10518, section 4). With a
    `kv` stride each is reduced by its own depthwise convolution and norm first.
    """

    title = "multi-query attention: keys and values shared by all heads (V4 hybrid)"
    kind: Literal["mqa"]


class MultiHeadAttention(_Attention):
    """As multi-query attention, but every head has its own keys and values."""

    title = "multi-head attention"
    kind: Literal["mha"]


class _Convolution(_Strided):
    bias: Annotated[bool, Flags({"bias": True})] = Field(False, description="`bias`: with a bias")
    norm: Annotated[bool, Flags({"nonorm": False})] = Field(
        True, description="`nonorm`: no normalisation"
    )
    residual: Annotated[bool, Flags({"residual": True})] = Field(
        False, description="`residual`: the input is added to the output"
    )


class Convolution(_Convolution):
    """Convolution, norm, act, where wanted the residual."""

    title = "convolution, norm, activation"
    kind: Literal["conv"]
    group_size: Channels | None = Field(None, alias="g", description=_GROUP)


class Depthwise(_Convolution):
    """Depthwise convolution, norm, act, where wanted the residual."""

    title = "depthwise convolution, norm, activation"
    kind: Literal["dw"]


class Pool(Block):
    """The mean over height and width, kept as a 1x1 map."""

    title = "global average pool"
    kind: Literal["pool"]


class Classifier(Block):
    """A linear layer on a pooled map or a vector."""

    title = "linear layer; without `o` it has the file's `classes` outputs"
    kind: Literal["fc"]
    out_channels: Channels | None = Field(
        None, alias="o", description="outputs, exactly (default: the file's `classes`)"
    )
    act: Activation = Field(None, description="activation (default: none)")
    bias: Annotated[bool, Flags({"bias": True, "nobias": False})] = Field(
        True, description="`nobias`: no bias"
    )
    norm: Annotated[Literal[False], Flags({"nonorm": False})] = Field(
        False, description="`nonorm`: said for clearness; it never has one"
    )


class Dropout(Block):
    """Dropout, in training only."""

    title = "dropout (training only)"
    kind: Literal["dropout"]
    rate: Rate = Field(alias="p", description="rate")


class Skip(Block):
    """No operators."""

    title = "nothing (a choice in a search space)"
    kind: Literal["skip"]


AnyBlock = Annotated[
    InvertedResidual
    | FusedInvertedResidual
    | UniversalInvertedBottleneck
    | Separable
    | MultiQueryAttention
    | MultiHeadAttention
    | Convolution
    | Depthwise
    | Pool
    | Classifier
    | Dropout
    | Skip,
    Field(discriminator="kind"),
]

KINDS: dict[str, type[Block]] = {
    get_args(cls.model_fields["kind"].annotation)[0]: cls for cls in get_args(get_args(AnyBlock)[0])
}
"""The class of each block kind, under the word that names it."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """How the fields of a kind are spelled: letters, and bare words with their values."""

    keys: dict[str, str]
    flags: dict[str, tuple[str, Any]]

    def listed(self) -> str:
        """All of them in a line, without a second letter of the same field."""
        letters = {name: letter for letter, name in reversed(self.keys.items())}
        return ", ".join([*(x for x in self.keys if letters[self.keys[x]] == x), *self.flags])


# An alias of `s` where `s` is the stride, so that `st22` works on every kind.
_STRIDE_ALIAS = "st"


@cache
def vocabulary(kind: str) -> Vocabulary:
    """The spelling of a kind's fields: letter to field, word to (field, value)."""
    keys: dict[str, str] = {}
    flags: dict[str, tuple[str, Any]] = {}
    for name, field in KINDS[kind].model_fields.items():
        if field.alias:
            keys[field.alias] = name
        for meta in field.metadata:
            if isinstance(meta, Flags):
                flags.update({word: (name, value) for word, value in meta.words.items()})
    if keys.get("s") == "stride":
        keys[_STRIDE_ALIAS] = "stride"
    return Vocabulary(keys, flags)


# ------------------------------------------------------------------------------------ attributes


class Norm(_Spec):
    """`norm batch eps=1e-3 momentum=0.01`; momentum is PyTorch's, the share of the new batch."""

    positional: ClassVar[str] = "kind"
    kind: Literal["batch"] = "batch"
    eps: Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)] = 1e-3
    momentum: Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)] = 0.01


class Rounding(_Spec):
    """`round 8 min=8 limit=0.9`: channel counts go to a multiple of the divisor."""

    positional: ClassVar[str] = "divisor"
    divisor: Channels = 8
    min: Channels | None = None
    limit: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)] = 0.9


class SqueezeExcite(_Spec):
    """`se from=expanded round=8 act=relu gate=hsigmoid`: what the SE ratio is taken from.

    `act=block` is the activation of the block around it.
    """

    positional: ClassVar[str] = ""
    base: Literal["input", "expanded"] = Field("input", alias="from")
    round: Channels = 1
    act: Literal[ActivationName, "block"] = "relu"
    gate: Literal["sigmoid", "hsigmoid"] = "sigmoid"


class Attributes(_Spec):
    """The file-level statements that say what the blocks mean."""

    input: Image = Field(description="image: height x width x channels")
    act: ActivationName = Field("relu", description="default activation")
    norm: Norm = Field(
        Norm.model_construct(), description="normalisation: `batch`, `eps`, `momentum`"
    )
    pad: Literal["same", "symmetric"] = Field(
        "same", description="`same` (TensorFlow) or `symmetric` (PyTorch)"
    )
    round: Rounding = Field(
        Rounding.model_construct(), description="channel rounding: divisor, `min`, `limit`"
    )
    width: Scale = Field(1.0, description="width multiplier")
    depth: Scale = Field(1.0, description="multiplies the repeats of stages, rounded up")
    se: SqueezeExcite = Field(
        SqueezeExcite.model_construct(),
        description="squeeze-and-excitation: `from`, `round`, `act`, `gate`",
    )
    layer_scale: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)] = Field(
        0.0, description="initial layer scale of uib, mqa and mha blocks, 0 for none"
    )
    droppath: Rate = Field(0.0, description="peak stochastic depth rate (training only)")
    classes: Classes = Field(1000, description="outputs of the classifier")


# -------------------------------------------------------------------------------------- sections


class Stage(_Spec):
    """Blocks between two feature maps; its name names its output."""

    name: Name | None = None
    blocks: tuple[AnyBlock, ...] = ()


Count = Annotated[int, Field(strict=True, ge=0)]


class Expect(_Spec):
    """Exact figures that `archdsl check` proves."""

    params: Count | None = None
    macs: Count | None = None
    macs_conv_linear: Count | None = None
    macs_attention: Count | None = None


Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?[KMGkmg]?$", max_length=24)]


class Published(_Spec):
    """Rounded figures as a paper prints them; `facts` holds those that cannot be computed."""

    params: Quantity | None = None
    macs: Quantity | None = None
    source: Text | None = None
    facts: dict[FactName, Text] = Field(default_factory=dict)


class Variant(_Spec):
    """Another published member of the family in the same file."""

    name: VariantName
    input: Image | None = None
    width: Scale | None = None
    depth: Scale | None = None
    droppath: Rate | None = None
    classes: Classes | None = None
    expect: Expect | None = None
    published: tuple[Published, ...] = ()

    @property
    def overrides(self) -> dict[str, Any]:
        """The file-level attributes that the variant replaces."""
        names = ("input", "width", "depth", "droppath", "classes")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class ArchSpec(_Spec):
    """A whole architecture, as its text says it: nothing scaled or derived yet."""

    name: Name
    source: Text | None = None
    attributes: Attributes
    stem: tuple[AnyBlock, ...] = ()
    stages: tuple[Stage, ...] = ()
    head: tuple[AnyBlock, ...] = ()
    expect: Expect | None = None
    published: tuple[Published, ...] = ()
    variants: tuple[Variant, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """The specification as JSON data: what is at its default is left out, but in a block.

        What a block's string writes at its default stays written.
        """
        data = self.model_dump(mode="json", exclude_defaults=True)
        for section in ("stem", "head"):
            if section in data:
                data[section] = _blocks_data(getattr(self, section))
        for stage, stage_data in zip(self.stages, data.get("stages", ()), strict=True):
            stage_data["blocks"] = _blocks_data(stage.blocks)
        return data

    def sections(self) -> list[tuple[str, tuple[Block, ...]]]:
        """The blocks in the order of the data, under the paths that name nodes and weights."""
        stages = [
            (f"stages.{stage.name or f'stage{number}'}", stage.blocks)
            for number, stage in enumerate(self.stages, 1)
        ]
        return [("stem", self.stem), *stages, ("head", self.head)]


def _blocks_data(blocks: tuple[Block, ...]) -> list[dict[str, Any]]:
    return [block.model_dump(mode="json", exclude_unset=True) for block in blocks]


ATTRIBUTES: tuple[str, ...] = tuple(Attributes.model_fields)
SECTIONS: tuple[str, ...] = ("stem", "stage", "head")
STATEMENTS: tuple[str, ...] = ("arch", "source", *ATTRIBUTES, "expect", "published")
VARIANT_SETTINGS: tuple[str, ...] = ("input", "width", "depth", "droppath", "classes")
