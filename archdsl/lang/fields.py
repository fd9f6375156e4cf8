"""The types of the fields: what a value may be, how it is written, and its limits."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from archdsl.limits import (
    MAX_CHANNELS,
    MAX_CLASSES,
    MAX_EXPANSION,
    MAX_HEADS,
    MAX_KERNEL,
    MAX_REPEATS,
    MAX_SCALE,
    MAX_STRIDE,
    most,
)

from .values import is_vast


@dataclass(frozen=True, slots=True)
class Width:
    """A channel count as written: `o80`, `o1280!` (not scaled), `o1280+` (never scaled below)."""

    channels: int
    mark: Literal["", "!", "+"] = ""

    def __str__(self) -> str:
        return f"{self.channels}{self.mark}"


@dataclass(frozen=True, slots=True)
class Flags:
    """The bare words that set a field, and the value each of them stands for."""

    words: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AtMost:
    """A limit of a field's value that can be raised, and its value where it is not."""

    limit: str
    default: float

    def check(self, value: object, handler: ValidatorFunctionWrapHandler) -> object:
        highest = most(self.limit)
        if is_vast(value) or (number := handler(value)) > highest:
            raise PydanticCustomError(
                "limit", "must be at most {most}", {"most": highest, "limit": self.limit}
            )
        return number

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "maximum": self.default}


_WIDTH = re.compile(r"([0-9]{1,999})([!+]?)")


def _width(value: object) -> Width:
    if isinstance(value, Width):
        return value
    vast = is_vast(value)
    if isinstance(value, int) and not isinstance(value, bool) and not vast:
        value = str(value)
    match = _WIDTH.fullmatch(value) if isinstance(value, str) else None
    if match is None and not vast:
        raise PydanticCustomError(
            "width", "must be a whole number, or one with `!` or `+` after it"
        )
    if match is None or not 1 <= int(match[1]) <= most("channels"):
        beyond = match is None or int(match[1])
        context = {"most": most("channels")} | ({"limit": "channels"} if beyond else {})
        raise PydanticCustomError("width", "must be from 1 to {most} channels", context)
    return Width(int(match[1]), match[2])  # type: ignore[arg-type]  # the pattern allows these marks


def _stride(value: object) -> tuple[int, int]:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 99:
        pair = divmod(value, 10) if value > MAX_STRIDE else (value, value)
    elif isinstance(value, (list, tuple)) and len(value) == 2:
        pair = (value[0], value[1])
    else:
        pair = (0, 0)
    if not all(type(step) is int and 1 <= step <= MAX_STRIDE for step in pair):
        raise PydanticCustomError(
            "stride",
            "must be one digit, or two for height and width, each from 1 to {most}",
            {"most": MAX_STRIDE},
        )
    return pair


def _odd(value: object) -> object:
    if type(value) is int and value % 2 == 0 and value > 0:
        raise PydanticCustomError("even_kernel", "must be odd")
    return value


def _heads(value: object) -> object:
    if value == 0:
        raise PydanticCustomError("no_heads", "must be at least 1")
    return value


_SHAPE = re.compile(r"([0-9]{1,999})x([0-9]{1,999})x([0-9]{1,999})")


def _image(value: object) -> tuple[int, int, int]:
    if isinstance(value, str):
        match = _SHAPE.fullmatch(value)
        value = [int(side) for side in match.groups()] if match else None
    if not (
        isinstance(value, (list, tuple))
        and len(value) == 3
        and all(type(side) is int for side in value)
    ):
        raise PydanticCustomError("image", "must be HEIGHTxWIDTHxCHANNELS, such as 224x224x3")
    height, width, channels = value
    side, deep = most("side"), most("channels")
    if not (1 <= height <= side and 1 <= width <= side and 1 <= channels <= deep):
        beyond = "side" if max(height, width) > side else "channels" if channels > deep else None
        raise PydanticCustomError(
            "image",
            "sides must be from 1 to {side} pixels, channels from 1 to {channels}",
            {"side": side, "channels": deep} | ({"limit": beyond} if beyond else {}),
        )
    return height, width, channels


_WIDTH_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": MAX_CHANNELS},
        {"type": "string", "pattern": "^[0-9]+[!+]?$"},
    ],
    "description": "channels; a string may mark them `!` (not scaled) or `+` (a lower bound)",
}
_PAIR_SCHEMA = {
    "type": "array",
    "items": {"type": "integer", "minimum": 1, "maximum": MAX_STRIDE},
    "minItems": 2,
    "maxItems": 2,
}
_IMAGE_SCHEMA = {
    "type": "array",
    "items": {"type": "integer", "minimum": 1},
    "minItems": 3,
    "maxItems": 3,
    "description": "height, width, channels",
}

OutWidth = Annotated[
    Width,
    PlainValidator(_width),
    PlainSerializer(lambda w: str(w) if w.mark else w.channels),
    WithJsonSchema(_WIDTH_SCHEMA),
]
Stride = Annotated[tuple[int, int], BeforeValidator(_stride), WithJsonSchema(_PAIR_SCHEMA)]
Image = Annotated[tuple[int, int, int], BeforeValidator(_image), WithJsonSchema(_IMAGE_SCHEMA)]
_KERNEL = (AtMost("kernel", MAX_KERNEL), BeforeValidator(_odd))
_CHANNELS = AtMost("channels", MAX_CHANNELS)
Kernel = Annotated[int, Field(strict=True, ge=1), *_KERNEL]
OptionalKernel = Annotated[int, Field(strict=True, ge=0), *_KERNEL]
Channels = Annotated[int, Field(strict=True, ge=1), _CHANNELS]
Repeats = Annotated[int, Field(strict=True, ge=1), AtMost("repeats", MAX_REPEATS)]
Heads = Annotated[
    int, Field(strict=True, ge=1), AtMost("heads", MAX_HEADS), BeforeValidator(_heads)
]
Classes = Annotated[int, Field(strict=True, ge=1), AtMost("classes", MAX_CLASSES)]
Expansion = Annotated[
    float, Field(strict=True, gt=0, allow_inf_nan=False), AtMost("expansion", MAX_EXPANSION)
]
Ratio = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Rate = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]
Scale = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False), AtMost("scale", MAX_SCALE)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
VariantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,63}$")]

Text = Annotated[str, Field(pattern=r'^[^"\n\r]*$', max_length=1000)]
FactName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z_0-9]{0,63}$")]

ActivationName = Literal["relu", "relu6", "hswish", "swish", "gelu", "linear"]
ACTIVATIONS = ("relu", "relu6", "hswish", "swish", "gelu", "linear")

_ACT_FLAGS = Flags({name: name for name in ACTIVATIONS})
Activation = Annotated[ActivationName | None, _ACT_FLAGS]
