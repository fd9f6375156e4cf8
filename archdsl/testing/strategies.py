"""Strategies for hypothesis: networks, block strings, specifications and texts.

All of them are small first, so that what hypothesis shows is the least that fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import currently_in_test_context, note
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from archdsl.compiler import Arch, parse
from archdsl.lang.fields import ACTIVATIONS, Width
from archdsl.lang.printer import print_block, print_spec
from archdsl.lang.spec import (
    KINDS,
    SECTIONS,
    STATEMENTS,
    VARIANT_SETTINGS,
    ArchSpec,
    Attributes,
    Block,
    vocabulary,
)
from archdsl.testing.growing import Wanted, grown, wanted

T = TypeVar("T")


# -------------------------------------------------------------------------------------- networks


@dataclass(frozen=True)
class _Drawn:
    """Choices that hypothesis makes, and makes simpler."""

    draw: DrawFn

    def one_of(self, options: Sequence[T]) -> T:
        return self.draw(st.sampled_from(options))

    def number(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))


@st.composite
def _architectures(draw: DrawFn, want: Wanted) -> Arch:
    text = grown(_Drawn(draw), want)
    if currently_in_test_context():
        # The network alone says its name.
        note(text)
    return parse(text)


def architectures(
    *,
    largest: int = 24,
    most: int = 8,
    kinds: Iterable[str] | None = None,
    scalable: bool = False,
) -> SearchStrategy[Arch]:
    """Valid networks: of all block kinds, fields, activations, paddings, odd and uneven images.

    Their images have up to `largest` pixels a side, their texts up to `most` blocks; `kinds` says
    which may stand in them. A `scalable` one stays valid under any width multiplier, and a wider
    one or one with a larger image costs no less: it has neither `x` nor `g`. A failing test shows
    the text.

    Raises:
        ValueError: an unknown kind, or a number below 1.
    """
    return _architectures(wanted(largest, most, kinds, scalable))


# ---------------------------------------------------------------------------------------- blocks

_kernels = st.sampled_from([3, 1, 5, 7, 31])
_strides = st.tuples(st.integers(1, 9), st.integers(1, 9))
_widths = st.builds(Width, st.integers(1, 1 << 20), st.sampled_from(["", "!", "+"]))
_channels = st.integers(1, 1 << 20)
_activations = st.sampled_from(ACTIVATIONS)


def _decimals(lowest: float, highest: float, **options: Any) -> SearchStrategy[float]:
    """Numbers as people write them, and the awkward ones between."""
    written = st.sampled_from([0.05, 0.2, 0.25, 0.5, 0.75, 1.0, 1.4, 3.5, 6.0, 1e-5, 1e-3])
    inside = written.filter(lambda value: lowest < value < highest)
    return inside | st.floats(lowest, highest, allow_nan=False, **options)


_EXPANDED = {
    "out_channels": _widths,
    "expanded": _widths,
    "residual": st.booleans(),
    "expansion": _decimals(0, 128, exclude_min=True),
    "group_size": _channels,
}
_STRIDED = {"out_channels": _widths, "kernel": _kernels, "stride": _strides, "act": _activations}
_ATTENTION = {
    "out_channels": _widths,
    "kv_stride": st.integers(1, 9),
    "kernel": _kernels,
    "residual": st.booleans(),
    "layer_scale": st.booleans(),
}
_HEADS = {"heads": st.integers(1, 1024), "head_width": _channels}
_CONVOLUTION = {
    **_STRIDED,
    "bias": st.booleans(),
    "norm": st.booleans(),
    "residual": st.booleans(),
}
_FIELDS: dict[str, dict[str, SearchStrategy[Any]]] = {
    "ir": {**_EXPANDED, **_STRIDED, "se": _decimals(0, 1)},
    "fused": {**_EXPANDED, **_STRIDED, "se": _decimals(0, 1)},
    "uib": {
        **_EXPANDED,
        "start_kernel": st.just(0) | _kernels,
        "middle_kernel": st.just(0) | _kernels,
        "stride": _strides,
        "act": _activations,
        "layer_scale": st.booleans(),
    },
    "sep": {**_STRIDED, "se": _decimals(0, 1), "group_size": _channels},
    "mqa": _ATTENTION,
    "mha": _ATTENTION,
    "conv": {**_CONVOLUTION, "group_size": _channels},
    "dw": _CONVOLUTION,
    "pool": {},
    "fc": {"out_channels": _channels, "act": _activations, "bias": st.booleans()},
    "dropout": {},
    "skip": {},
}
"""The optional fields of each kind; every kind has repeats and input channels besides."""
_REQUIRED: dict[str, dict[str, SearchStrategy[Any]]] = {
    "mqa": _HEADS,
    "mha": _HEADS,
    "dropout": {"rate": _decimals(0, 1, exclude_max=True)},
}
assert set(_FIELDS) == set(KINDS)


@st.composite
def _block(draw: DrawFn, kinds: Sequence[str]) -> Block:
    """A block with any valid fields, whatever it stands behind."""
    kind = draw(st.sampled_from(kinds))
    common = {"repeats": st.integers(1, 1000), "in_channels": _channels}
    optional = {**common, **_FIELDS[kind]}
    values = draw(st.fixed_dictionaries(_REQUIRED.get(kind, {}), optional=optional))
    if values.get("expanded"):
        values.pop("expansion", None)
    elif kind == "fused" and values.get("expansion") == 1:
        values.pop("se", None)
        values.pop("group_size", None)
    if kind == "uib" and not (values.get("start_kernel") or values.get("middle_kernel")):
        values.pop("stride", None)
        values.pop("group_size", None)
    return KINDS[kind].model_validate({"kind": kind, **values})


@st.composite
def _respelled(draw: DrawFn, kinds: Sequence[str]) -> str:
    """A block's string with its fields in any order, and strides in any spelling."""
    block = draw(_block(kinds))
    parts = print_block(block).split("_")
    kind = [parts.pop(0)] if parts[0] in KINDS else []
    if block.kind == "ir" and not kind and parts and draw(st.booleans()):
        kind = ["ir"]
    letters = vocabulary(block.kind).keys
    spelled = []
    for part in draw(st.permutations(parts)):
        stride = re.fullmatch(r"(s|st)([1-9])([1-9])", part)
        if stride and letters[stride[1]] == "stride":
            letter, down, right = stride.groups()
            if letter == "s" and draw(st.booleans()):
                letter = "st"
            part = f"{letter}{down}{'' if down == right and draw(st.booleans()) else right}"
        spelled.append(part)
    return "_".join([*kind, *spelled])


def blocks(kinds: Iterable[str] | None = None) -> SearchStrategy[str]:
    """Valid block strings: any fields and values, in any order and spelling.

    `kinds` says which kinds. A block may not fit where it is put: it may have more groups than
    channels, or a stride that is larger than the image.

    Raises:
        ValueError: an unknown kind.
    """
    return _respelled(wanted(1, 1, kinds, False).kinds)


# -------------------------------------------------------------------------------- specifications

_RESERVED = {*STATEMENTS, *SECTIONS, "variant"}


def _worded(pattern: str, but: Iterable[str] = ()) -> SearchStrategy[str]:
    words = {*_RESERVED, *but}
    return st.from_regex(pattern, fullmatch=True).filter(lambda name: name not in words)


_sentences = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters='"\n\r'), max_size=30
)
_scales = _decimals(0, 64, exclude_min=True)
_rates = _decimals(0, 1, exclude_max=True)
_shares = _decimals(0, 1, exclude_min=True)
_counts = st.integers(0, 10**12)
_classes = st.integers(1, 1 << 24)
_sides = st.integers(1, 1 << 15)
_images = st.tuples(_sides, _sides, _channels)
_quantities = st.from_regex(r"[0-9]{1,4}(\.[0-9]{1,3})?[KMGkmg]?", fullmatch=True)
_fact_names = _worded(
    r"[A-Za-z_][A-Za-z_0-9]{0,10}", ("params", "macs", "source", "facts", *VARIANT_SETTINGS)
)


def _some(**fields: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    """A dictionary with some of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


_attributes = st.builds(
    lambda image, rest: Attributes.model_validate({"input": image, **rest}),
    _images,
    _some(
        act=_activations,
        norm=_some(eps=_shares, momentum=_shares),
        pad=st.sampled_from(["same", "symmetric"]),
        round=_some(divisor=st.integers(1, 64), min=st.integers(1, 64), limit=_decimals(0, 1)),
        width=_scales,
        depth=_scales,
        se=_some(
            base=st.sampled_from(["input", "expanded"]),
            round=st.integers(1, 64),
            act=st.sampled_from([*ACTIVATIONS, "block"]),
            gate=st.sampled_from(["sigmoid", "hsigmoid"]),
        ),
        layer_scale=_decimals(0, 1),
        droppath=_rates,
        classes=_classes,
    ),
)
_expectations = _some(
    params=_counts, macs=_counts, macs_conv_linear=_counts, macs_attention=_counts
).filter(bool)
_publications = st.lists(
    _some(
        params=_quantities,
        macs=_quantities,
        source=_sentences,
        facts=st.dictionaries(_fact_names, _sentences, min_size=1, max_size=3),
    ).filter(bool),
    max_size=2,
)
_variants = st.lists(
    st.builds(
        lambda name, rest: {"name": name, **rest},
        _worded(r"[a-z0-9][a-z0-9_]{0,9}"),
        _some(
            input=_images,
            width=_scales,
            depth=_scales,
            droppath=_rates,
            classes=_classes,
            expect=_expectations,
            published=_publications,
        ),
    ),
    max_size=2,
    unique_by=lambda variant: variant["name"],
)
_names = _worded(r"[a-z][a-z0-9_]{0,20}")


@st.composite
def specifications(draw: DrawFn) -> ArchSpec:
    """Anything that the language can write, with at least one block; they need not fit together."""
    any_block = _block(tuple(KINDS))
    stages = st.lists(
        st.builds(
            lambda name, body: {"name": name, "blocks": body},
            st.none() | _names.filter(lambda name: not name.startswith("stage")),
            st.lists(any_block, min_size=1, max_size=3),
        ),
        max_size=3,
        unique_by=lambda stage: stage["name"] or object(),
    )
    return ArchSpec.model_validate(
        {
            "name": draw(_names),
            "source": draw(st.none() | _sentences),
            "attributes": draw(_attributes),
            "stem": draw(st.lists(any_block, min_size=1, max_size=2)),
            "stages": draw(stages),
            "head": draw(st.lists(any_block, max_size=3)),
            "expect": draw(st.none() | _expectations),
            "published": draw(_publications),
            "variants": draw(_variants),
        }
    )


# ----------------------------------------------------------------------------------------- texts

_TOKENS = re.compile(r'\w+="[^"]*"|"[^"]*"|[{}]|[^\s{}"]+')

WORDS = st.sampled_from(
    [
        *["arch", "input", "act", "norm", "expect", "published", "variant", "stem", "stage"],
        *["{", "}", "(", ")", "|", "=", '"', "#", "\n", " ", "_", "!", "+", ",", "\0", "\x1b[31m"],
        *["net", "8x8x3", "relu", "eps=1e-3", "params=1", "top1=3", 'source="x"', "0.5", "width=0"],
        *["k3_o16", "r2_k3_s22_e6_o24", "uib_m3_e4_o16", "mqa_h4_d8", "pool", "fc", "skip", "conv"],
        *["k{3,5}", "k4", "s22", "q9", "o0", "e4_x9", "i7_o8", "se0.25", "1e999", "head", "1e400"],
        *["²", "٣", "\ufeff", "\u202e", "r999999999", "o99999999999", "{{", "1_000", "0x10", "-1"],
    ]
)
"""Words and signs, right and wrong, of the language and near it."""


@st.composite
def _untidy(draw: DrawFn, text: SearchStrategy[str]) -> str:
    """The text with line ends, spaces and comments wherever they may stand."""
    number = 0
    parts: list[str] = []
    for token in _TOKENS.findall(draw(text)):
        space = draw(st.sampled_from([" ", " ", " ", "\n", "\n", "\n\n\n", "\t", " \r\n", "#"]))
        if space == "#":
            number += 1
            forms = [" # {}\n", "\n# {}\n", "\n\n    #{}  \n\n", "#{} }} {{\n"]
            space = draw(st.sampled_from(forms)).format(number)
        parts += [token, space]
    return "".join(parts)


def texts(*, valid: bool | None = None) -> SearchStrategy[str]:
    """Texts of files: written untidily by the grammar, of its words in any order, or any at all.

    `valid=True` gives only the first: files whose every statement and block is sound, with
    comments wherever they may stand. Their blocks need not fit together.
    """
    written = _untidy(specifications().map(print_spec))
    if valid:
        return written
    return st.lists(WORDS, max_size=60).map(" ".join) | st.text(max_size=200) | written


@st.composite
def _mutated(draw: DrawFn, text: SearchStrategy[str]) -> str:
    parts = re.findall(r"[a-z]+|[0-9]+|\s+|.", draw(text), re.S)
    # Any part of the text may be hit, and most often one of the blocks.
    place = draw(st.integers(0, len(parts) - 1))
    other = draw(st.integers(0, len(parts) - 1))
    part = parts[place]
    how = draw(st.sampled_from(["drop", "double", "swap", "replace", "insert", "number", "cut"]))
    if how == "drop":
        parts[place] = ""
    elif how == "double":
        parts[place] = part + part
    elif how == "swap":
        parts[place], parts[other] = parts[other], part
    elif how == "replace":
        parts[place] = draw(WORDS | st.characters())
    elif how == "insert":
        parts[place] += draw(WORDS | st.characters())
    elif how == "number":
        numbers = [index for index, word in enumerate(parts) if word.isdigit()]
        if numbers:
            index = numbers[place % len(numbers)]
            parts[index] = str(draw(st.integers(0, 20) | st.integers(0, 10**12)))
    else:
        del parts[place:]
    return "".join(parts)


def nearly_valid(
    *, largest: int = 24, most: int = 8, kinds: Iterable[str] | None = None
) -> SearchStrategy[str]:
    """The text of a valid network (`architectures`) with one slip in it.

    A word, number or sign is left out, doubled, replaced, or swapped with another, or the text
    ends early. Some of them are valid still.
    """
    return _mutated(architectures(largest=largest, most=most, kinds=kinds).map(Arch.to_text))
