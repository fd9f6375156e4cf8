"""archdsl.testing: what its options promise, and what it must be able to make."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import find, given, settings

import archdsl
from archdsl import testing
from archdsl.lang.diagnostics import ArchError
from archdsl.lang.spec import KINDS, Block, vocabulary
from archdsl.testing import architectures, blocks, nearly_valid, random_architecture, texts

NETWORKS = [random_architecture(seed) for seed in range(400)]


def written(arch: archdsl.Arch) -> list[Block]:
    return [placed.run.block for placed in arch.placed]


def test_a_seed_gives_one_network() -> None:
    assert [random_architecture(seed).to_text() for seed in range(20)] == [
        arch.to_text() for arch in NETWORKS[:20]
    ]
    assert len({arch.to_text() for arch in NETWORKS}) == len(NETWORKS)


def test_seeds_are_the_same_networks_in_another_process() -> None:
    program = (
        "from archdsl.testing import random_architecture as made\nprint(made(3).to_text(), end='')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == NETWORKS[3].to_text()


def test_networks_have_every_kind_and_every_field() -> None:
    fields: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for arch in NETWORKS:
        for block in written(arch):
            fields[block.kind].update(block.model_fields_set)
    for kind in KINDS:
        names = {name for name, _ in vocabulary(kind).flags.values()}
        names |= set(vocabulary(kind).keys.values())
        # A stride of 1 and a missing norm are all that attention and `fc` could say of theirs.
        names -= {"mqa": {"stride"}, "mha": {"stride"}, "fc": {"norm"}}.get(kind, set())
        assert names <= set(fields[kind]), kind


def test_networks_have_all_that_changes_their_meaning() -> None:
    seen: set[Any] = set()
    for arch in NETWORKS:
        attributes = arch.attributes
        height, width, _ = arch.input
        seen |= {attributes.act, attributes.pad, attributes.se.base, attributes.se.act}
        seen |= {("odd", height % 2), ("square", height == width), ("vector", len(arch.output))}
        seen |= {("scaled", attributes.width != 1), ("deep", attributes.depth != 1)}
        seen |= {node.op.name for node in arch.graph()}
    for both in ("odd", "square", "scaled", "deep"):
        assert {(both, False), (both, True)} <= seen
    assert {("vector", 1), ("vector", 3), "same", "symmetric", "input", "expanded"} <= seen
    assert {"relu", "relu6", "hswish", "swish", "gelu", "linear", "block"} <= seen
    assert {"matmul", "softmax", "layer_scale", "mul", "add", "linear", "transpose"} <= seen


@pytest.mark.parametrize("kinds", [["ir"], ["pool", "fc"], ["mqa", "dw"], ["dropout"], ["uib"]])
def test_options_hold(kinds: list[str]) -> None:
    for seed in range(40):
        arch = random_architecture(seed, largest=9, most=3, kinds=kinds)
        assert {block.kind for block in written(arch)} <= set(kinds)
        assert max(arch.input[:2]) <= 9
        assert 1 <= len(arch.placed) <= 3


def test_scalable_networks_are_valid_at_any_width() -> None:
    for seed in range(60):
        arch = random_architecture(seed, scalable=True)
        for width in (0.1, 0.77, 3.1):
            archdsl.parse(arch.to_text(), width=width)


@pytest.mark.parametrize(
    "wrong", [{"kinds": ["mbconv"]}, {"kinds": []}, {"most": 0}, {"largest": 0}, {"kinds": ["fc"]}]
)
def test_options_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        random_architecture(1, **wrong)
    with pytest.raises(ValueError):
        architectures(**wrong)


@given(architectures(largest=9, most=3, kinds=["conv", "ir"]))
@settings(max_examples=30, deadline=None)
def test_strategies_take_the_same_options(arch: archdsl.Arch) -> None:
    assert {block.kind for block in written(arch)} <= {"conv", "ir"}
    assert max(arch.input[:2]) <= 9 and len(arch.placed) <= 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_strategy_gives_its_kind(kind: str) -> None:
    @given(blocks([kind]))
    @settings(max_examples=20, deadline=None)
    def check(text: str) -> None:
        assert archdsl.block(text).block.kind == kind

    check()


def test_what_fails_becomes_small() -> None:
    found = find(
        architectures(),
        lambda arch: any(b.kind == "mqa" for b in written(arch)),
        settings=settings(max_examples=400, deadline=None, derandomize=True),
    )
    assert len(found.placed) == 1
    assert found.to_text().count("\n") <= 12


def wrong(text: str) -> bool:
    try:
        archdsl.parse(text)
    except ArchError:
        return True
    return False


def test_slips_are_most_often_wrong_and_in_sound_texts() -> None:
    counts: Counter[bool] = Counter()

    @given(nearly_valid())
    @settings(max_examples=150, deadline=None, derandomize=True)
    def count(text: str) -> None:
        counts[wrong(text)] += 1

    count()
    assert counts[True] > 30 and counts[False] > 10


def test_texts_are_of_all_sorts() -> None:
    drawn: list[str] = []

    @given(texts())
    @settings(max_examples=150, deadline=None, derandomize=True)
    def draw(text: str) -> None:
        drawn.append(text)

    draw()
    assert any(not text.isascii() for text in drawn)
    assert any({"k3_o16", "8x8x3", "pool", "{"} & set(text.split(" ")) for text in drawn)
    assert any("#" in text and "stem {" in text.replace("\n", " ") for text in drawn)


def test_a_missing_hypothesis_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "archdsl.testing.strategies")
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match=r'pip install "archdsl\[testing\]"'):
        _ = testing.architectures
    assert random_architecture(3).to_text() == NETWORKS[3].to_text()
    with pytest.raises(AttributeError):
        _ = testing.nothing
