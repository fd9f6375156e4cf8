"""Laws that hold for every specification, every network and every text, tried on random ones.

`specifications` makes any specification that the language can write, whether its blocks fit
together or not; `networks` makes those that do. In CI the examples are the same in each run.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import archdsl
from archdsl.compiler import Arch
from archdsl.ir.node import INPUT
from archdsl.lang.diagnostics import ArchError, render
from archdsl.lang.dialects.json import read_json, write_json
from archdsl.lang.elaborate import elaborate
from archdsl.lang.fields import ACTIVATIONS, Width
from archdsl.lang.formatter import format_source
from archdsl.lang.printer import print_block, print_spec
from archdsl.lang.source import SourceText
from archdsl.lang.spec import (
    KINDS,
    SECTIONS,
    STATEMENTS,
    VARIANT_SETTINGS,
    AnyBlock,
    ArchSpec,
    Attributes,
    Block,
)
from archdsl.lang.syntax import parse_file
from archdsl.passes.cost import Totals
from archdsl.passes.fuse import schedule
from archdsl.passes.memory import peak_elements

settings.register_profile(
    "repository",
    max_examples=int(os.environ.get("ARCHDSL_EXAMPLES", 60)),
    deadline=None,
    derandomize=os.environ.get("CI", "").lower() in {"1", "true"},
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("repository")

# -------------------------------------------------------------------------- strategies: any block

WORDS = {*STATEMENTS, *SECTIONS, "variant"}

activations = st.sampled_from(ACTIVATIONS)
kernels = st.sampled_from([1, 3, 5, 7, 31])
strides = st.tuples(st.integers(1, 9), st.integers(1, 9))
widths = st.builds(Width, st.integers(1, 1 << 20), st.sampled_from(["", "!", "+"]))
flags = st.booleans()
layer_scales = st.booleans()
groups = st.integers(1, 1 << 20)


def decimals(lowest: float, highest: float, **options: Any) -> st.SearchStrategy[float]:
    """Numbers as people write them, and the awkward ones between."""
    written = st.sampled_from([0.05, 0.2, 0.25, 0.5, 0.75, 1.0, 1.4, 3.5, 6.0, 1e-5, 1e-3])
    inside = written.filter(lambda value: lowest < value < highest)
    return inside | st.floats(lowest, highest, allow_nan=False, **options)


_EXPANDED = {"out_channels": widths, "expanded": widths, "residual": flags}
_EXPANDED["expansion"] = decimals(0, 128, exclude_min=True)
_STRIDED = {"out_channels": widths, "kernel": kernels, "stride": strides, "act": activations}
_ATTENTION = {
    "out_channels": widths,
    "kv_stride": st.integers(1, 9),
    "kernel": kernels,
    "residual": flags,
    "layer_scale": layer_scales,
}
_CONVOLUTION = {**_STRIDED, "bias": flags, "norm": flags, "residual": flags}

# The optional fields of each kind; every kind has repeats and in_channels besides.
FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "ir": {**_EXPANDED, **_STRIDED, "se": decimals(0, 1), "group_size": groups},
    "fused": {
        **_EXPANDED,
        **_STRIDED,
        "se": decimals(0, 1),
        "group_size": groups,
    },
    "uib": {
        **_EXPANDED,
        "start_kernel": st.just(0) | kernels,
        "middle_kernel": kernels,
        "stride": strides,
        "act": activations,
        "layer_scale": layer_scales,
        "group_size": groups,
    },
    "sep": {**_STRIDED, "se": decimals(0, 1), "group_size": groups},
    "mqa": _ATTENTION,
    "mha": _ATTENTION,
    "conv": {**_CONVOLUTION, "group_size": groups},
    "dw": _CONVOLUTION,
    "pool": {},
    "fc": {"out_channels": st.integers(1, 1 << 20), "act": activations, "bias": flags},
    "dropout": {},
    "skip": {},
}
REQUIRED: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "mqa": {"heads": st.integers(1, 1024), "head_width": st.integers(1, 1 << 20)},
    "mha": {"heads": st.integers(1, 1024), "head_width": st.integers(1, 1 << 20)},
    "dropout": {"rate": decimals(0, 1, exclude_max=True)},
}


@st.composite
def blocks(draw: st.DrawFn, kind: str | None = None) -> AnyBlock:
    """A block of any kind with any valid fields."""
    kind = kind or draw(st.sampled_from(list(KINDS)))
    common = {"repeats": st.integers(1, 1000), "in_channels": st.integers(1, 1 << 20)}
    optional = {**common, **FIELDS[kind]}
    values = draw(st.fixed_dictionaries(REQUIRED.get(kind, {}), optional=optional))
    if values.get("expanded"):
        values.pop("expansion", None)
    elif kind == "fused" and values.get("expansion") == 1:
        values.pop("se", None)
        values.pop("group_size", None)
    if kind == "uib" and "middle_kernel" not in values and not values.get("start_kernel"):
        values.pop("stride", None)
        values.pop("group_size", None)
    block: AnyBlock = KINDS[kind].model_validate({"kind": kind, **values})  # type: ignore[assignment]
    return block


# ---------------------------------------------------------------------- strategies: any text file

names = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True).filter(lambda n: n not in WORDS)
variant_names = st.from_regex(r"[a-z0-9][a-z0-9_]{0,9}", fullmatch=True).filter(
    lambda n: n not in WORDS
)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='"\n\r'), max_size=30)
scales = decimals(0, 64, exclude_min=True)
rates = decimals(0, 1, exclude_max=True)
shares = decimals(0, 1, exclude_min=True)
counts = st.integers(0, 10**12)
classes = st.integers(1, 1 << 24)
images = st.tuples(st.integers(1, 1 << 15), st.integers(1, 1 << 15), st.integers(1, 1 << 20))
quantities = st.from_regex(r"[0-9]{1,4}(\.[0-9]{1,3})?[KMGkmg]?", fullmatch=True)
fact_names = st.from_regex(r"[A-Za-z_][A-Za-z_0-9]{0,10}", fullmatch=True).filter(
    lambda name: name not in {"params", "macs", "source", "facts", *VARIANT_SETTINGS}
)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A dictionary with some of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


attributes = st.builds(
    lambda image, rest: Attributes.model_validate({"input": image, **rest}),
    images,
    some(
        act=st.sampled_from(ACTIVATIONS),
        norm=some(eps=shares, momentum=shares),
        pad=st.sampled_from(["same", "symmetric"]),
        round=some(divisor=st.integers(1, 64), min=st.integers(1, 64), limit=decimals(0, 1)),
        width=scales,
        depth=scales,
        se=some(
            base=st.sampled_from(["input", "expanded"]),
            round=st.integers(1, 64),
            act=st.sampled_from(ACTIVATIONS),
            gate=st.sampled_from(["sigmoid", "hsigmoid"]),
        ),
        layer_scale=decimals(0, 1),
        droppath=rates,
        classes=classes,
    ),
)
expectations = some(
    params=counts, macs=counts, macs_conv_linear=counts, macs_attention=counts
).filter(bool)
publications = st.lists(
    some(
        params=quantities,
        macs=quantities,
        source=texts,
        facts=st.dictionaries(fact_names, texts, min_size=1, max_size=3),
    ).filter(bool),
    max_size=2,
)
variants = st.lists(
    st.builds(
        lambda name, rest: {"name": name, **rest},
        variant_names,
        some(
            input=images,
            width=scales,
            depth=scales,
            droppath=rates,
            classes=classes,
            expect=expectations,
            published=publications,
        ),
    ),
    max_size=2,
    unique_by=lambda variant: variant["name"],
)
stages = st.lists(
    st.builds(
        lambda name, body: {"name": name, "blocks": body},
        st.none() | names.filter(lambda name: not name.startswith("stage")),
        st.lists(blocks(), min_size=1, max_size=3),
    ),
    max_size=3,
    unique_by=lambda stage: stage["name"] or object(),
)


@st.composite
def specifications(draw: st.DrawFn) -> ArchSpec:
    """A specification with anything that the language can write, and at least one block."""
    return ArchSpec.model_validate(
        {
            "name": draw(names),
            "source": draw(st.none() | texts),
            "attributes": draw(attributes),
            "stem": draw(st.lists(blocks(), min_size=1, max_size=2)),
            "stages": draw(stages),
            "head": draw(st.lists(blocks(), max_size=3)),
            "expect": draw(st.none() | expectations),
            "published": draw(publications),
            "variants": draw(variants),
        }
    )


# -------------------------------------------------------------- strategies: networks that fit

narrow = st.builds(Width, st.sampled_from([8, 12, 16, 20, 24, 32]), st.sampled_from(["", "!", "+"]))


@st.composite
def fitting_blocks(draw: st.DrawFn, monotone: bool) -> Block:
    """A block that takes every feature map of 1x1 pixels or more: its stride is 1.

    `monotone`: without the expanded width itself, which may or may not be the input's, as the
    width multiplier has it; a block loses its expansion then.
    """
    kind = draw(st.sampled_from(["ir", "fused", "uib", "sep", "mqa", "mha", "conv", "dw", "skip"]))
    fields = dict(FIELDS[kind])
    for name in ("stride", "in_channels", "group_size", "kv_stride", "repeats"):
        fields.pop(name, None)
    small: dict[str, st.SearchStrategy[Any]] = {
        "out_channels": narrow,
        "expanded": narrow,
        "expansion": st.sampled_from([0.5, 1.0, 2.0, 3.5, 6.0]),
        "kernel": st.sampled_from([1, 3, 5]),
        "se": st.sampled_from([0.0, 0.25]),
        "repeats": st.integers(1, 3),
    }
    fields |= {name: small[name] for name in small if name in fields or name == "repeats"}
    if monotone:
        fields.pop("expanded", None)
    if kind == "dw":
        fields.pop("out_channels")
    required = {name: st.integers(1, 8) for name in REQUIRED.get(kind, {})}
    values = draw(st.fixed_dictionaries(required, optional=fields))
    if values.get("expanded"):
        values.pop("expansion", None)
    if kind == "fused":
        # Where nothing is expanded there is nothing to squeeze.
        values.pop("se", None)
    return KINDS[kind].model_validate({"kind": kind, **values})


@st.composite
def networks(draw: st.DrawFn, monotone: bool = False) -> Arch:
    """A network whose blocks fit together: strided ones first, where the image is still large."""

    def section() -> list[Block]:
        return draw(st.lists(fitting_blocks(monotone), min_size=1, max_size=3))

    strided = [
        {"kind": "conv", "stride": (2, 1), "out_channels": 16},
        {"kind": "ir", "stride": (2, 2), "expansion": 3, "out_channels": 24, "repeats": 2},
        {"kind": "fused", "stride": (1, 2), "kernel": 5, "expansion": 4, "out_channels": 16},
        {"kind": "uib", "stride": (2, 2), "start_kernel": 3, "middle_kernel": 5},
        {"kind": "uib", "stride": (2, 2), "start_kernel": 3, "layer_scale": True},
        {"kind": "sep", "stride": (2, 2), "out_channels": 32},
        {"kind": "mqa", "heads": 4, "head_width": 8, "kv_stride": 2},
        {"kind": "mha", "heads": 2, "head_width": 8, "kv_stride": 2, "residual": False},
        {"kind": "skip"},
    ]
    head = [
        [],
        [{"kind": "pool"}],
        [{"kind": "pool"}, {"kind": "dropout", "rate": 0.2}, {"kind": "fc"}],
        [{"kind": "pool"}, {"kind": "fc", "out_channels": 32, "act": "relu"}, {"kind": "fc"}],
    ]
    spec = {
        "name": "net",
        "attributes": {
            "input": (draw(st.integers(24, 40)), draw(st.integers(24, 40)), 8),
            "act": draw(st.sampled_from(ACTIVATIONS)),
            "pad": draw(st.sampled_from(["same", "symmetric"])),
            "round": {"divisor": draw(st.sampled_from([1, 8]))},
            "width": 1.0 if monotone else draw(st.sampled_from([0.5, 1.0, 1.0, 1.4])),
            "depth": draw(st.sampled_from([1.0, 1.0, 1.5])),
            "se": {"base": draw(st.sampled_from(["input", "expanded"])), "round": 8},
            "layer_scale": draw(st.sampled_from([0.0, 1e-5])),
            "classes": 10,
        },
        "stem": draw(st.lists(st.sampled_from(strided), min_size=1, max_size=2)),
        "stages": [
            {"name": name, "blocks": [draw(st.sampled_from(strided)), *section()]}
            for name in draw(st.sampled_from([["a"], [None, "b"], []]))
        ],
        "head": [*section(), *draw(st.sampled_from(head))],
    }
    return archdsl.parse(print_spec(ArchSpec.model_validate(spec)))


def read(text: str) -> ArchSpec:
    """The specification of a text that has no errors; its blocks need not fit together."""
    elaborated = elaborate(parse_file(SourceText("net.arch", text)))
    assert elaborated.spec is not None, "".join(map(render, elaborated.diagnostics))
    return elaborated.spec


# --------------------------------------------------------------------- texts and specifications


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_printed_block_reads_back(kind: str, data: st.DataObject) -> None:
    block = data.draw(blocks(kind))
    text = print_block(block)
    assert archdsl.block(text).block == block
    assert str(archdsl.block(text)) == text


@given(specifications())
def test_a_printed_specification_reads_back(spec: ArchSpec) -> None:
    assert read(print_spec(spec)) == spec


@given(specifications())
def test_the_printed_form_is_canonical(spec: ArchSpec) -> None:
    text = print_spec(spec)
    assert format_source(SourceText("net.arch", text)) == text


@given(specifications())
def test_json_reads_back(spec: ArchSpec) -> None:
    def cycle(spec: ArchSpec) -> ArchSpec:
        return read(read_json(SourceText("net.json", write_json(spec))).text)

    once = cycle(spec)
    assert once == spec
    # What a text cannot say (a flag at its default) is gone after one cycle, and nothing else.
    assert write_json(cycle(once)) == write_json(once)


_TOKENS = re.compile(r'\w+="[^"]*"|"[^"]*"|[{}]|[^\s{}"]+')


@st.composite
def untidy_texts(draw: st.DrawFn) -> str:
    """A file with line ends, spaces and comments wherever they may stand."""
    number = 0
    parts: list[str] = []
    for token in _TOKENS.findall(print_spec(draw(specifications()))):
        space = draw(st.sampled_from([" ", " ", " ", "\n", "\n", "\n\n\n", "\t", " \r\n", "#"]))
        if space == "#":
            number += 1
            space = draw(
                st.sampled_from([" # {}\n", "\n# {}\n", "\n\n    #{}  \n\n", "#{} }} {{\n"])
            )
            space = space.format(number)
        parts += [token, space]
    return "".join(parts)


def comments(text: str) -> list[str]:
    return [word.text.strip() for word in parse_file(SourceText("net.arch", text)).comments]


@given(untidy_texts())
def test_formatting_keeps_meaning_and_comments(text: str) -> None:
    formatted = format_source(SourceText("net.arch", text))
    assert read(formatted) == read(text)
    assert comments(formatted) == comments(text)


@given(untidy_texts())
def test_formatting_twice_changes_nothing(text: str) -> None:
    formatted = format_source(SourceText("net.arch", text))
    assert format_source(SourceText("net.arch", formatted)) == formatted
    assert formatted.endswith("\n")
    assert all(line == line.rstrip() for line in formatted.split("\n"))


# ------------------------------------------------------------------------------------ any text

LIKE_OURS = st.sampled_from(
    [
        *[
            "arch",
            "input",
            "act",
            "norm",
            "expect",
            "published",
            "variant",
            "stem",
            "stage",
            "head",
        ],
        *["{", "}", "(", ")", "|", "=", '"', "#", "\n", " ", "_", "!", "+", ",", "\0", "\x1b[31m"],
        *["net", "8x8x3", "relu", "eps=1e-3", "params=1", "top1=3", 'source="x"', "0.5", "width=0"],
        *["k3_o16", "r2_k3_s22_e6_o24", "uib_m3_e4_o16", "mqa_h4_d8", "pool", "fc", "skip", "conv"],
        *[
            "k{3,5}",
            "k4",
            "s22",
            "q9",
            "o0",
            "e4_x9",
            "i7_o8",
            "se0.25",
            "1e999",
            "²",
            "٣",
            "\ufeff",
        ],
    ]
)


@given(st.text(max_size=200) | st.lists(LIKE_OURS, max_size=60).map(" ".join))
@settings(max_examples=300)
def test_any_text_ends_in_an_architecture_or_in_diagnostics(text: str) -> None:
    found = archdsl.check(SourceText("net.arch", text))
    for diagnostic in found:
        assert diagnostic.span is not None
        assert 0 <= diagnostic.span.start <= diagnostic.span.end <= len(text)
        assert not re.search(r"[\0-\x09\x0b-\x1f\x7f-\x9f]", render(diagnostic))
    try:
        archdsl.parse(text).cost()
    except ArchError as error:
        assert [d for d in error.diagnostics if d.severity == "error"] == list(error.diagnostics)
    else:
        assert all(d.severity == "warning" or d.code == "E0412" for d in found)


@given(st.text(max_size=40) | st.lists(LIKE_OURS, max_size=6).map("_".join))
@settings(max_examples=300)
def test_any_block_string_ends_in_a_block_or_in_diagnostics(text: str) -> None:
    try:
        block = archdsl.block(text)
    except ArchError as error:
        assert error.diagnostics
        return
    assert archdsl.block(str(block)).block == block.block


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | LIKE_OURS,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["name", "attributes", "input", "stem", "stages", "kind", "kernel"])
                | st.text(max_size=4),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_ends_in_an_architecture_or_in_diagnostics(data: Any) -> None:
    try:
        archdsl.parse(read_json(SourceText("net.json", json.dumps(data))))
    except ArchError as error:
        assert error.diagnostics


# ---------------------------------------------------------------------------------------- costs

FIGURES = ("params", "macs", "macs_conv_linear", "macs_attention", "weight_bytes")
BYTES = ("activation_bytes", "peak_activation_bytes")


def no_less(more: archdsl.Cost, less: archdsl.Cost, *figures: str) -> bool:
    return all(getattr(more, figure) >= getattr(less, figure) for figure in figures)


@given(networks())
def test_a_cost_is_the_sum_of_its_layers(arch: Arch) -> None:
    cost = arch.cost()
    assert cost.macs == cost.macs_conv_linear + cost.macs_attention
    for figure in ("params", "macs", "weight_bytes", "activation_bytes"):
        layers = [getattr(layer, figure) for layer in cost.layers]
        assert all(value >= 0 for value in layers)
        assert getattr(cost, figure) == sum(layers)
    assert cost.peak_activation_bytes >= 4 * 8 * arch.input[0] * arch.input[1]
    assert len({layer.name for layer in cost.layers}) == len(cost.layers)


@given(networks(), st.integers(2, 64))
def test_costs_scale_with_batch_and_type(arch: Arch, batch: int) -> None:
    one, many = arch.cost(), arch.cost(batch=batch)
    half = arch.cost(dtype="float16")
    assert (many.params, many.weight_bytes) == (one.params, one.weight_bytes)
    assert many.macs == batch * one.macs
    for figure in BYTES:
        assert getattr(many, figure) == batch * getattr(one, figure)
        assert getattr(one, figure) == 2 * getattr(half, figure)


@given(networks())
def test_blocks_alone_cost_what_they_cost_in_the_text(arch: Arch) -> None:
    whole = arch.cost()
    parts = []
    for origin, unit in arch.blocks():
        shape = unit.fragment.input
        if len(shape) == 1:
            # The second `fc` takes a vector: as a block alone it takes that as a 1x1 map.
            shape = (1, 1, *shape)
        # A repeat is the block without its stride.
        fields: dict[str, Any] = {"repeats": 1}
        if not _is_first(arch, origin.path) and hasattr(origin.block, "stride"):
            fields["stride"] = (1, 1)
        text = print_block(origin.block.model_copy(update=fields))
        part = archdsl.block(text, arch).cost(shape)
        assert (part.params, part.macs) == (unit.cost.totals.params, _macs(unit.cost.totals))
        parts.append(part)
    for figure in (*FIGURES, "activation_bytes"):
        assert getattr(whole, figure) == sum(getattr(part, figure) for part in parts)
    assert whole.peak_activation_bytes == max(part.peak_activation_bytes for part in parts)


def _macs(totals: Totals) -> int:
    return totals.macs_conv_linear + totals.macs_attention


def _is_first(arch: Arch, path: str) -> bool:
    """Whether the lowered block at a path is the first of its repeats."""
    return path in {f"{placed.section}.{placed.first}" for placed in arch.placed}


@given(networks())
def test_a_stream_costs_what_the_text_costs(arch: Arch) -> None:
    blocks = [print_block(block) for stage in arch.spec.stages for block in stage.blocks]
    streamed, whole = archdsl.Coster(arch)(blocks), arch.cost()
    assert streamed == whole
    assert [(layer.op, layer.macs) for layer in streamed.layers] == [
        (layer.op, layer.macs) for layer in whole.layers
    ]


def wider(arch: Arch, factor: float) -> Arch:
    return Arch(arch.spec, arch.origins, width=arch.attributes.width * factor)


@given(networks(monotone=True), st.sampled_from([1.01, 1.25, 2.0]))
def test_a_wider_network_costs_no_less(arch: Arch, factor: float) -> None:
    # Bytes of activations may be less: a residual stands only where two widths are equal.
    assert no_less(wider(arch, factor).cost(), arch.cost(), *FIGURES)


@given(networks(), st.integers(0, 9), st.integers(0, 9))
def test_a_larger_image_costs_no_less_and_no_more_parameters(arch: Arch, up: int, out: int) -> None:
    height, width, channels = arch.input
    larger = Arch(arch.spec, arch.origins, input=(height + up, width + out, channels)).cost()
    assert larger.params == arch.cost().params
    assert no_less(larger, arch.cost(), *FIGURES, *BYTES)


@given(networks(), st.data())
def test_a_repeat_more_costs_no_less(arch: Arch, data: st.DataObject) -> None:
    spec = arch.spec
    number = data.draw(st.integers(0, len(spec.stem) - 1))
    block = spec.stem[number]
    more = block.model_copy(update={"repeats": block.repeats + 1})
    stem = (*spec.stem[:number], more, *spec.stem[number + 1 :])
    longer = Arch(spec.model_copy(update={"stem": stem}), arch.origins)
    assert no_less(longer.cost(), arch.cost(), *FIGURES, *BYTES)
    assert longer.output == arch.output


# ---------------------------------------------------------------------------------------- graphs


@given(networks())
@settings(max_examples=30)
def test_the_graph_holds_what_is_counted(arch: Arch) -> None:
    graph, cost = arch.graph(), arch.cost()
    shapes = {node.name: node.shape for node in graph}
    assert sum(node.op.parameter_count for node in graph) == cost.params
    assert sum(node.op.macs(*(shapes[name] for name in node.inputs)) for node in graph) == cost.macs
    assert graph[graph.output].shape == arch.output
    stages = arch.spec.stages
    assert list(graph.features) == [s.name or f"stage{n}" for n, s in enumerate(stages, 1)]


@given(networks())
@settings(max_examples=30)
def test_the_peak_of_the_graph_is_the_largest_of_its_blocks(arch: Arch) -> None:
    graph = arch.graph()
    # Between two blocks there is one tensor, which stays readable.
    ends = []
    last = INPUT
    for origin, unit in arch.blocks():
        nodes = unit.fragment.nodes
        last = f"{origin.path}.{nodes[-1].name}".rstrip(".") if nodes else last
        ends.append(last)
    plan = schedule(graph.nodes, ends)
    peak = peak_elements(plan, {}, frozenset({plan.tensors[graph.output]}))
    assert peak * 4 == arch.cost().peak_activation_bytes


@given(networks())
@settings(max_examples=30)
def test_every_node_knows_its_block(arch: Arch) -> None:
    for node in arch.graph():
        if node.name != INPUT:
            assert node.origin is not None and node.origin.span is not None
            assert archdsl.block(node.origin.span.text).block == node.origin.block
