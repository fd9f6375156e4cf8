"""Laws that hold for every specification, every network and every text, tried on random ones.

They are those of `archdsl.testing`. In CI the examples are the same in each run.
"""

from __future__ import annotations

import json
import math
import os
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import archdsl
from archdsl.compiler import Arch
from archdsl.ir.node import INPUT
from archdsl.lang.diagnostics import ArchError, render
from archdsl.lang.dialects.json import read_json, write_json
from archdsl.lang.elaborate import elaborate
from archdsl.lang.formatter import format_source
from archdsl.lang.printer import print_block, print_spec
from archdsl.lang.source import SourceText
from archdsl.lang.spec import KINDS, ArchSpec
from archdsl.lang.syntax import parse_file
from archdsl.passes.cost import Totals
from archdsl.passes.fuse import schedule
from archdsl.passes.memory import peak_elements
from archdsl.testing import architectures, blocks, nearly_valid, specifications, texts
from archdsl.testing.strategies import WORDS

settings.register_profile(
    "repository",
    max_examples=int(os.environ.get("ARCHDSL_EXAMPLES", 60)),
    deadline=None,
    derandomize=os.environ.get("CI", "").lower() in {"1", "true"},
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("repository")


def read(text: str) -> ArchSpec:
    """The specification of a text that has no errors; its blocks need not fit together."""
    elaborated = elaborate(parse_file(SourceText("net.arch", text)))
    assert elaborated.spec is not None, "".join(map(render, elaborated.diagnostics))
    return elaborated.spec


# --------------------------------------------------------------------- texts and specifications


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_printed_block_reads_back(kind: str, data: st.DataObject) -> None:
    written = data.draw(blocks([kind]))
    block = archdsl.block(written).block
    assert block.kind == kind
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


def comments(text: str) -> list[str]:
    return [word.text.strip() for word in parse_file(SourceText("net.arch", text)).comments]


@given(texts(valid=True))
def test_formatting_keeps_meaning_and_comments(text: str) -> None:
    formatted = format_source(SourceText("net.arch", text))
    assert read(formatted) == read(text)
    assert comments(formatted) == comments(text)


@given(texts(valid=True))
def test_formatting_twice_changes_nothing(text: str) -> None:
    formatted = format_source(SourceText("net.arch", text))
    assert format_source(SourceText("net.arch", formatted)) == formatted
    assert formatted.endswith("\n")
    assert all(line == line.rstrip() for line in formatted.split("\n"))


# ------------------------------------------------------------------------------------ any text


@given(texts() | nearly_valid())
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
        # Figures that do not hold, and variants that are at fault where the network is not.
        assert all(
            d.severity == "warning" or d.code == "E0412" or "(in variant " in d.message
            for d in found
        )


@given(st.text(max_size=40) | st.lists(WORDS, max_size=6).map("_".join) | blocks())
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
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
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


@given(architectures())
def test_a_cost_is_the_sum_of_its_layers(arch: Arch) -> None:
    cost = arch.cost()
    assert cost.macs == cost.macs_conv_linear + cost.macs_attention
    for figure in ("params", "macs", "weight_bytes", "activation_bytes"):
        layers = [getattr(layer, figure) for layer in cost.layers]
        assert all(value >= 0 for value in layers)
        assert getattr(cost, figure) == sum(layers)
    assert cost.peak_activation_bytes >= 4 * math.prod(arch.input)
    assert len({layer.name for layer in cost.layers}) == len(cost.layers)


@given(architectures(), st.integers(2, 64))
def test_costs_scale_with_batch_and_type(arch: Arch, batch: int) -> None:
    one, many = arch.cost(), arch.cost(batch=batch)
    half = arch.cost(dtype="float16")
    assert (many.params, many.weight_bytes) == (one.params, one.weight_bytes)
    assert many.macs == batch * one.macs
    for figure in BYTES:
        assert getattr(many, figure) == batch * getattr(one, figure)
        assert getattr(one, figure) == 2 * getattr(half, figure)


@given(architectures())
def test_blocks_alone_cost_what_they_cost_in_the_text(arch: Arch) -> None:
    whole = arch.cost()
    parts = []
    for origin, unit in arch.blocks():
        shape = unit.fragment.input
        if len(shape) == 1:
            # The second `fc` takes a vector: as a block alone it takes that as a 1x1 map.
            shape = (1, 1, *shape)
        # A repeat is the block without its stride.
        fields: dict[str, Any] = {"repeats": 1, "in_channels": None}
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


@given(architectures())
def test_a_stream_costs_what_the_text_costs(arch: Arch) -> None:
    blocks = [print_block(block) for stage in arch.spec.stages for block in stage.blocks]
    streamed, whole = archdsl.Coster(arch)(blocks), arch.cost()
    assert streamed == whole
    assert [(layer.op, layer.macs) for layer in streamed.layers] == [
        (layer.op, layer.macs) for layer in whole.layers
    ]


def wider(arch: Arch, factor: float) -> Arch:
    return Arch(arch.spec, arch.origins, width=arch.attributes.width * factor)


@given(architectures(scalable=True), st.sampled_from([1.01, 1.25, 2.0]))
def test_a_wider_network_costs_no_less(arch: Arch, factor: float) -> None:
    # Bytes of activations may be less: a residual stands only where two widths are equal.
    assert no_less(wider(arch, factor).cost(), arch.cost(), *FIGURES)


@given(architectures(scalable=True), st.integers(0, 9), st.integers(0, 9))
def test_a_larger_image_costs_no_less_and_no_more_parameters(arch: Arch, up: int, out: int) -> None:
    height, width, channels = arch.input
    larger = Arch(arch.spec, arch.origins, input=(height + up, width + out, channels)).cost()
    assert larger.params == arch.cost().params
    assert no_less(larger, arch.cost(), *FIGURES, *BYTES)


@given(architectures(scalable=True), st.data())
def test_a_repeat_more_costs_no_less(arch: Arch, data: st.DataObject) -> None:
    spec = arch.spec
    assume(spec.stem)
    number = data.draw(st.integers(0, len(spec.stem) - 1))
    block = spec.stem[number]
    more = block.model_copy(update={"repeats": block.repeats + 1})
    stem = (*spec.stem[:number], more, *spec.stem[number + 1 :])
    longer = Arch(spec.model_copy(update={"stem": stem}), arch.origins)
    assert no_less(longer.cost(), arch.cost(), *FIGURES, *BYTES)
    assert longer.output == arch.output


# ---------------------------------------------------------------------------------------- graphs


@given(architectures())
@settings(max_examples=30)
def test_the_graph_holds_what_is_counted(arch: Arch) -> None:
    graph, cost = arch.graph(), arch.cost()
    shapes = {node.name: node.shape for node in graph}
    assert sum(node.op.parameter_count for node in graph) == cost.params
    assert sum(node.op.macs(*(shapes[name] for name in node.inputs)) for node in graph) == cost.macs
    assert graph[graph.output].shape == arch.output
    stages = arch.spec.stages
    assert list(graph.features) == [s.name or f"stage{n}" for n, s in enumerate(stages, 1)]


@given(architectures())
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


@given(architectures())
@settings(max_examples=30)
def test_every_node_knows_its_block(arch: Arch) -> None:
    for node in arch.graph():
        if node.name != INPUT:
            assert node.origin is not None and node.origin.span is not None
            assert archdsl.block(node.origin.span.text).block == node.origin.block
