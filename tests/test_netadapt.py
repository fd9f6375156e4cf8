"""NetAdapt: what every step promises, held against networks parsed anew from their texts."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import archdsl
from archdsl.cli.adapting import DEFAULT, proposals_csv
from archdsl.cli.program import program
from archdsl.compiler import Arch
from archdsl.ir.execute import execute
from archdsl.ir.ops import Add, Conv2d
from archdsl.lang.diagnostics import ArchError
from archdsl.lang.formatter import format_source
from archdsl.lang.source import SourceText
from archdsl.lang.widths import rounded
from archdsl.library import members
from archdsl.roofline.model import Device, OnChip
from archdsl.search.evaluators import resolve
from archdsl.search.identity import canonical_hash
from archdsl.search.netadapt import NetAdapt, Step
from archdsl.search.shrinking import Network, Shrinkable
from archdsl.search.slicing import sliced
from archdsl.search.storages import Busy
from archdsl.search.workers import LocalWorkers
from archdsl.testing import random_architecture
from archdsl.weights.initial import initialize
from archdsl.weights.store import load_weights

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))

import adaptations

BOARD = Device("board", peak_macs=1e9, bandwidth=1e9)
CHIP = Device("chip", peak_macs=4e9, bandwidth=1e9, dtype="int8", on_chip=OnChip(20_000, 500, 8e9))

SMALL = """
arch small
input 32x32x3
se from=expanded round=8 act=relu gate=hsigmoid
stem { conv_k3_s22_o16 }
stage c1 { k3_e1_o16 }
stage c2 { r3_k3_s22_e4_o24_se0.25 }
stage c3 { k5_s22_e3_o40 uib_s3_m3_e2 mqa_h2_d8 k3_e2.3_noskip fused_k3_e2 }
head { conv_k1_o64 pool dropout_p0.2 fc_o10 }
"""


def size(arch: Arch) -> float:
    """An accuracy: more parameters are better, and ever less so."""
    return math.log(arch.total.params + 1)


def adapted(arch: Arch, share: float = 0.7, device: Device = BOARD, **options: Any) -> NetAdapt:
    options.setdefault("evaluator", size)
    return NetAdapt(arch, device, share * (arch.latency(device).us or 0), **options).run()


def small() -> Arch:
    return archdsl.parse(SMALL)


# -- networks taken apart -------------------------------------------------------------------------

PUBLISHED = [member.name for member in members()][::6]


@pytest.mark.parametrize("name", [*PUBLISHED, *range(24)])
def test_a_network_taken_apart_is_the_same(name: str | int) -> None:
    arch = archdsl.load(name) if isinstance(name, str) else random_architecture(name)
    network = Network.of(arch)
    text = network.text()
    again = archdsl.parse(text)
    assert again.spec == network.spec()
    assert again.to_text() == text == format_source(SourceText("net.arch", text))
    assert canonical_hash(again) == network.hash == canonical_hash(arch)
    assert again.total == network.totals == arch.total
    assert (again.attributes.width, again.attributes.depth) == (1, 1)
    assert list(again.graph().state()) == list(arch.graph().state())
    for device in (BOARD, CHIP):
        assert device.estimate(network.work) == again.latency(device) == arch.latency(device)


def places(network: Network) -> list[tuple[str, str, int]]:
    return [(width.kind, width.place, network.count(width)) for width in network.widths]


def test_the_widths_of_mobilenet_v3() -> None:
    """14 expansions and 6 bottlenecks: stem and first block share one, stage c4 has two."""
    found = places(Network.of(archdsl.load("mnv3_large")))
    assert Counter(kind for kind, _, _ in found) == {"expansion": 14, "bottleneck": 6}
    assert [(place, count) for kind, place, count in found if kind == "bottleneck"] == [
        ("stem.0 - stages.c1.0", 16),
        ("stages.c2.0-1", 24),
        ("stages.c3.0-2", 40),
        ("stages.c4.0-3", 80),
        ("stages.c4.4-5", 112),
        ("stages.c5.0-2", 160),
    ]


def test_what_shrinks_and_what_is_left_alone() -> None:
    assert places(Network.of(small())) == [
        ("bottleneck", "stem.0 - stages.c1.0", 16),
        ("expansion", "stages.c2.0", 64),
        ("bottleneck", "stages.c2.0-2", 24),
        ("expansion", "stages.c2.1", 96),
        ("expansion", "stages.c2.2", 96),
        ("expansion", "stages.c3.0", 72),
        ("bottleneck", "stages.c3.0", 40),
        ("expansion", "stages.c3.1", 80),
        ("expansion", "stages.c3.3", 96),
        ("expansion", "stages.c3.4", 80),
    ]
    # An image's channels, attention, what follows a pool: nothing of it.
    text = "arch net input 8x8x8 stage c1 { k3 mha_h2_d8 dw_k3 } stage c2 { pool k3_e2_o16 }"
    assert places(Network.of(archdsl.parse(text))) == []


SHRUNK = [
    # What is written shrinks where it stands; what is expanded to stays as it was.
    ("k3_e6_o16 k3_e6_o24", ("expansion", "stages.c.0", 40), "k3_x40_o16 k3_e6_o24"),
    ("k3_e6_o16 k3_e6_o24", ("bottleneck", "stages.c.0", 8), "k3_e6_o8 k3_x96_o24"),
    ("k3_x96_o16 k3_e1_o24", ("bottleneck", "stages.c.0", 8), "k3_x96_o8 k3_e1_o24"),
    # Repeats part only where they differ.
    ("r4_k3_s22_e6_o16", ("expansion", "stages.c.2", 64), "r2_k3_s22_e6_o16 k3_x64_o16 k3_e6_o16"),
    ("r3_k3_s22_e6_o16", ("bottleneck", "stages.c.0-2", 8), "k3_s22_e6_o8 r2_k3_x96_o8"),
    ("r1_k3_e6_o16 r2_k3_e6", ("expansion", "stages.c.0", 8), "r1_k3_x8_o16 r2_k3_e6"),
    # An expansion to the input's width is none where it is written as a width.
    ("k3_e1_o16 k3_e6_o24", ("expansion", "stages.c.1", 16), "k3_e1_o16 k3_e1.01_o24"),
    ("k3_e1_o16 uib_m3_e6_o24", ("expansion", "stages.c.1", 16), "k3_e1_o16 uib_m3_x16_o24"),
    # No expansion stays none.
    ("k3_x40_o40 k3_x40_o24", ("bottleneck", "stages.c.0", 16), "k3_x40_o16 k3_e1_o24"),
    ("k3_o16 k3_x16_o24", ("bottleneck", "stages.c.0", 8), "k3_o8 k3_e1_o24"),
    # Declared inputs stay true.
    ("k3_o16 k3_e6_i16_o24", ("bottleneck", "stages.c.0", 8), "k3_o8 k3_x96_i8_o24"),
    # Marks mean nothing at the multiplier 1, and stay where the width does.
    ("k3_o16! k3_e6_o24+", ("bottleneck", "stages.c.0", 8), "k3_o8 k3_x96_o24+"),
]


def named(network: Network, kind: str, place: str) -> Shrinkable:
    (found,) = (w for w in network.widths if (w.kind, w.place) == (kind, place))
    return found


@pytest.mark.parametrize(("blocks", "width", "result"), SHRUNK)
def test_the_text_of_a_shrunk_network(
    blocks: str, width: tuple[str, str, int], result: str
) -> None:
    text = "arch net input 16x16x3 stage c {{ {} }}".format
    network = Network.of(archdsl.parse(text(blocks)))
    made = network.shrunk(named(network, *width[:2]), width[2])
    assert made is not None
    assert made.text() == archdsl.parse(text(result)).to_text()
    assert made.hash == canonical_hash(archdsl.parse(text(result)))


def test_the_width_multiplier_is_written_out() -> None:
    """Of a variant, in the channels that it has; what cannot be rounded is marked."""
    text = "arch net input 8x8x3 width 0.5 stem { conv_o20! } stage c { k3_e6_o24 } head { pool }"
    made = Network.of(archdsl.parse(text)).text()
    assert made.endswith("stem { conv_o20! }\nstage c { k3_e6_o16 }\nhead { pool }\n")
    assert Network.of(archdsl.load("mnv3_large_075")).spec().name == "mnv3_large_075"


def test_a_residual_neither_comes_nor_goes() -> None:
    """24 channels would be the width that the next block gives: 16 is the next that may be."""
    text = "arch net input 16x16x3 round 8 stem { conv_o8 } stage c { k3_o40 k3_e2_o24 }"
    network = Network.of(archdsl.parse(text))
    width = named(network, "bottleneck", "stages.c.0")
    assert list(network.smaller(width)) == [32, 24, 16, 8]
    assert network.shrunk(width, 24) is None
    assert network.least(width, lambda other: other.count(width) <= 24) is not None
    found = network.least(width, lambda other: other.count(width) <= 24)
    assert found is not None
    assert found[0] == 16


@pytest.mark.parametrize("rule", ["8", "8 min=16", "8 min=12", "8 min=13", "1", "4 min=2", "6"])
def test_channels_go_to_those_that_rounding_keeps(rule: str) -> None:
    text = f"arch net input 8x8x3 round {rule} stage c {{ k3_e9_o8 k3_x30!_o51! conv_k1_o8 }}"
    network = Network.of(archdsl.parse(text))
    attributes = network.arch().attributes
    for width in network.widths:
        kept = [n for n in range(1, network.count(width)) if rounded(n, attributes) == n]
        assert list(network.smaller(width)) == kept[::-1]


def test_groups_divide_what_they_group() -> None:
    text = "arch net input 8x8x3 stem { conv_o24 } stage c { k3_e4_g12_o24 fused_g16_e4_o32 }"
    network = Network.of(archdsl.parse(text))
    expansions = [w for w in network.widths if w.kind == "expansion"]
    possible = [
        [count for count in network.smaller(w) if network.shrunk(w, count)] for w in expansions
    ]
    assert possible == [[72, 48, 24], [64, 48, 32, 16]]


# -- the steps ------------------------------------------------------------------------------------


def check_step(arch: Arch, step: Step, run: NetAdapt, parent: Arch) -> Arch:
    """All that a step promises, of networks that are parsed anew."""
    assert step.latency_us == parent.latency(run.device).us
    assert step.accuracy == size(parent)
    graph = parent.graph()
    ratios = []
    for proposal in step.proposals:
        made = archdsl.parse(proposal.network.text())
        latency = made.latency(run.device).us
        assert latency == proposal.latency_us
        assert latency is not None
        # (a) it is fast enough,
        assert step.latency_us - latency >= run.delta_us
        # (b) but for one width the network is what it was, residuals included,
        found = made.graph()
        assert list(found.table) == list(graph.table)
        widths = Counter()
        for node in graph:
            other = found[node.name]
            assert type(other.op) is type(node.op)
            assert other.inputs == node.inputs
            assert other.shape[:-1] == node.shape[:-1]
            if isinstance(node.op, Conv2d) and ".se." not in node.name:
                widths[node.op.out_channels, other.op.out_channels] += 1
            if isinstance(node.op, Add):
                assert {found[name].shape for name in node.inputs} == {other.shape}
        changed = {pair for pair in widths if pair[0] != pair[1]}
        assert changed == {(proposal.before, proposal.after)}
        # (c) the change for the change is what it says.
        assert proposal.evaluation.accuracy == size(made)
        ratios.append((size(made) - size(parent)) / (step.latency_us - latency))
    assert [proposal.ratio for proposal in step.proposals] == ratios
    best = max(ratios)
    assert ratios[step.index] == best
    kept = step.kept
    fastest = min(p.latency_us for p, r in zip(step.proposals, ratios, strict=True) if r == best)
    assert kept.latency_us == fastest
    return archdsl.parse(kept.network.text())


@pytest.mark.parametrize("device", [BOARD, CHIP], ids=lambda device: device.name)
def test_every_step_does_what_it_says(device: Device) -> None:
    arch = small()
    run = adapted(arch, 0.8, device, step=0.03)
    assert run.end == "reached"
    assert not run.problems
    assert 2 <= len(run.steps) <= 7
    parent = Network.of(arch).arch()
    for step in run.steps:
        parent = check_step(arch, step, run, parent)
    assert parent.latency(device).us == run.latency_us
    assert run.latency_us <= 0.8 * run.seed_us
    assert run.steps[-1].latency_us > 0.8 * run.seed_us


@pytest.mark.parametrize("seed", range(36))
def test_any_network_can_be_adapted(seed: int) -> None:
    arch = random_architecture(seed, largest=16)
    if not arch.latency(BOARD).us:
        with pytest.raises(ValueError, match="target 0"):
            adapted(arch)
        return
    run = adapted(arch, 0.6, step=0.05)
    parent = Network.of(arch).arch()
    for step in run.steps[:3]:
        parent = check_step(arch, step, run, parent)
    assert (run.end == "reached") == (run.latency_us <= run.target_us)
    assert run.end in {"reached", "exhausted", "failed"}
    assert [problem.code for problem in run.problems] == {
        "reached": [],
        "exhausted": ["E1013"],
        "failed": ["E1015"],
    }[run.end]
    text = run.text()
    assert archdsl.parse(text).latency(BOARD).us == run.latency_us
    assert format_source(SourceText("net.arch", text)) == text
    assert {d.severity for d in archdsl.check(text)} <= {"warning"}


@pytest.mark.parametrize("seed", range(0, 60, 5))
def test_each_width_shrinks_by_no_more_than_is_wanted(seed: int) -> None:
    """Against all counts that are possible, one after the other."""
    network = Network.of(random_architecture(seed, largest=16))
    now = BOARD.estimate(network.work).us or 0
    for width in network.widths:
        for share in (0.001, 0.02, 0.1):

            def reached(other: Network, wanted: float = now * (1 - share)) -> bool:
                return (BOARD.estimate(other.work).us or 0) <= wanted

            made = {count: network.shrunk(width, count) for count in network.smaller(width)}
            enough = [count for count, other in made.items() if other and reached(other)]
            found = network.least(width, reached)
            assert (found[0] if found else None) == max(enough, default=None)
            if found:
                assert found[1].count(width) == found[0] < network.count(width)


def test_the_same_again_gives_the_same() -> None:
    assert adapted(small()).to_json() == adapted(small()).to_json()


def test_workers_that_answer_in_another_order_change_nothing() -> None:
    class Reversed:
        slots = 3

        def __init__(self) -> None:
            self.waiting: list[tuple[int, str]] = []

        def submit(self, number: int, text: str) -> None:
            self.waiting.append((number, text))

        def wait(self) -> list[Any]:
            from archdsl.search.trials import Evaluation

            taken, self.waiting = self.waiting[-3:], self.waiting[:-3]
            return [(n, Evaluation(size(archdsl.parse(text)))) for n, text in reversed(taken)]

        def close(self) -> None:
            pass

    assert adapted(small(), evaluator=Reversed()).to_json() == adapted(small()).to_json()


def test_no_network_is_evaluated_twice() -> None:
    seen: Counter[str] = Counter()

    def counted(arch: Arch) -> float:
        seen[canonical_hash(arch)] += 1
        return size(arch)

    run = adapted(small(), evaluator=counted)
    assert set(seen.values()) == {1}
    proposed = {p.network.hash for step in run.steps for p in step.proposals}
    assert set(seen) == proposed | {run.first.hash}


def test_the_best_trade_is_kept_and_not_the_best_accuracy() -> None:
    """With accuracies by hand: a small loss for much time beats none for little."""
    arch = small()
    parent = archdsl.parse(Network.of(arch).text()).latency(BOARD).us or 0

    def traded(one: Arch) -> float:
        saved = parent - (one.latency(BOARD).us or 0)
        return -saved / 2 if saved > 0.1 * parent else -saved

    run = adapted(arch, 0.95, evaluator=traded)
    step = run.steps[0]
    assert step.latency_us - step.kept.latency_us > 0.1 * parent
    assert step.kept.evaluation.accuracy < max(p.evaluation.accuracy or 0 for p in step.proposals)


# -- where it ends --------------------------------------------------------------------------------


def test_a_target_that_is_reached_already() -> None:
    run = adapted(small(), 1.5, evaluator=lambda arch: pytest.fail("nothing is to be evaluated"))
    assert (run.end, run.steps, run.problems) == ("nothing to do", [], [])
    assert canonical_hash(archdsl.parse(run.text())) == canonical_hash(small())


def test_a_target_out_of_reach() -> None:
    run = adapted(small(), 0.001)
    assert run.end == "exhausted"
    assert [problem.code for problem in run.problems] == ["E1013"]
    assert f"the best is {run.latency_us / 1e3:,.4g} ms" in run.problems[0].message
    assert "cannot reach" in run.text()
    # No order of steps ends below all widths at their least; a smaller step gets nearer to it.
    assert run.target_us < run.least_us <= run.latency_us
    assert adapted(small(), 0.001, step=0.002).latency_us <= run.latency_us
    # Nothing is left that would save as much.
    now = run.latency_us
    for width in run.network.widths:
        least = run.network.least(width, lambda o: now - (BOARD.estimate(o.work).us or 0) > 0)
        if least:
            counts = run.network.smaller(width)
            made = [run.network.shrunk(width, count) for count in counts]
            assert all(now - (BOARD.estimate(o.work).us or 0) < run.delta_us for o in made if o)


def test_as_many_steps_as_wanted() -> None:
    run = adapted(small(), 0.3, max_steps=2)
    assert (run.end, len(run.steps), run.problems) == ("steps", 2, [])
    assert "on the way to" in run.text() and "by NetAdapt (2 steps) for" in run.text()
    assert "by NetAdapt (1 step) for" in adapted(small(), 0.3, max_steps=1).text()


def test_a_proposal_without_an_accuracy_is_dropped() -> None:
    seed = canonical_hash(small())

    def unlucky(arch: Arch) -> float:
        hash = canonical_hash(arch)
        if hash != seed and hash[0] in "01234567":
            raise ValueError("bad luck")
        return size(arch)

    run = adapted(small(), evaluator=unlucky)
    assert run.end == "reached"
    assert run.lost
    faulty = [p for step in run.steps for p in step.proposals if p.evaluation.fault]
    assert len(faulty) == len(run.lost)
    for proposal, line in zip(faulty, run.lost, strict=True):
        assert proposal.ratio is None
        assert (
            f"{proposal.place} {proposal.before} -> {proposal.after}: ValueError: bad luck" in line
        )
    assert not any(step.kept.evaluation.fault for step in run.steps)


def test_no_proposal_has_an_accuracy() -> None:
    seed = canonical_hash(small())

    def once(arch: Arch) -> float:
        return 1.0 if canonical_hash(arch) == seed else math.nan

    run = adapted(small(), evaluator=once)
    assert (run.end, run.steps) == ("failed", [])
    assert [problem.code for problem in run.problems] == ["E1014"]
    assert "nan" in (run.problems[0].help or "")


def test_a_seed_without_an_accuracy() -> None:
    run = adapted(small(), evaluator=lambda arch: None)
    assert (run.end, [problem.code for problem in run.problems]) == ("failed", ["E1014"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target_us": 0.0}, "target 0 µs"),
        ({"target_us": math.nan}, "target nan µs"),
        ({"step": 0.0}, "step 0"),
        ({"step": 1.0}, "step 1"),
        ({"device": Device.of_ridge(3.0)}, "no times"),
    ],
)
def test_what_cannot_be_asked(options: dict[str, Any], words: str) -> None:
    asked = {"seed": small(), "device": BOARD, "target_us": 1.0, "evaluator": size}
    with pytest.raises(ValueError, match=words):
        NetAdapt(**(asked | options))
    with pytest.raises(TypeError, match="fine_tune"):
        NetAdapt(**(asked | {"epochs": 1}))


# -- what docs/netadapt.md shows ------------------------------------------------------------------


@pytest.mark.parametrize("device", adaptations.DEVICES)
def test_the_tables_of_mobilenet_v3_are_what_is_made_of_their_accuracies(device: str) -> None:
    run = adaptations.replayed(device)
    assert proposals_csv(run) == adaptations.table(device).read_text(encoding="utf-8")
    assert run.end == "reached"
    assert run.latency_us <= 0.8 * run.seed_us < run.steps[-1].latency_us
    for step in run.steps:
        ratios = [p.ratio for p in step.proposals if p.ratio is not None]
        assert step.kept.ratio == max(ratios)
        assert all(step.latency_us - p.latency_us >= run.delta_us for p in step.proposals)


@pytest.mark.slow
@pytest.mark.parametrize("device", adaptations.DEVICES)
def test_the_accuracies_in_the_tables_are_the_evaluator_s(device: str) -> None:
    run = adaptations.replayed(device)
    evaluator: Any = resolve(DEFAULT, adaptations.SETTINGS)
    step = run.steps[-1]
    assert evaluator(step.kept.network.arch()) == pytest.approx(
        step.kept.evaluation.accuracy, rel=1e-9
    )


# -- weights --------------------------------------------------------------------------------------

GROUPED = """
arch grouped input 12x12x3 round 4
stem { conv_o16 }
stage c { k3_e2_g8_o16 fused_k3_e2_g8_o16 uib_s3_m3_g4_e2_o24 conv_k3_g4_o24_residual mha_h2_d4 }
head { pool fc_o5 }
"""


def logits(arch: Arch, weights: dict[str, Any]) -> Any:
    images = np.random.default_rng(0).normal(size=(2, *arch.input)).astype(np.float64)
    graph = arch.graph()
    return execute(graph, weights, images)[graph.output]


def lively(arch: Arch) -> dict[str, Any]:
    """Weights of which none is the identity: those of norms are near it."""
    rng = np.random.default_rng(1)
    weights = {}
    for key, value in initialize(arch.graph()).items():
        if not value.shape:
            weights[key] = value + 7
            continue
        drawn = rng.normal(size=value.shape)
        plain = value.ndim > 1 or key.endswith(("bias", "mean"))
        weights[key] = drawn / 4 if plain else value + 0.1 * np.abs(drawn)
    return weights


@pytest.mark.parametrize("text", [SMALL, GROUPED])
def test_where_nothing_is_removed_the_weights_stay(text: str) -> None:
    arch = archdsl.parse(text)
    weights = lively(arch)
    apart = Network.of(arch).arch()
    found = sliced(weights, arch.graph(), apart.graph())
    assert list(found) == list(weights)
    assert all(np.array_equal(found[key], weights[key]) for key in weights)
    assert np.array_equal(logits(apart, found), logits(arch, weights))


@pytest.mark.parametrize("number", range(len(Network.of(small()).widths)))
def test_what_is_removed_are_the_smallest_filters(number: int) -> None:
    """Channels that nothing makes and nothing is made of go, and the logits stay.

    Squeeze-and-excitation keeps its inner width here, for its means are of fewer channels.
    """
    arch = archdsl.parse(SMALL.replace("_se0.25", ""))
    network = Network.of(arch)
    width = network.widths[number]
    wide = arch.graph()
    weights = lively(arch)
    count = network.count(width) - 8
    narrow = network.shrunk(width, count)
    assert narrow is not None
    made = narrow.arch()
    # The convolutions that make this width: all of them leave the same channels out.
    makers = [
        node.name
        for node in wide
        if isinstance(node.op, Conv2d)
        and not node.op.depthwise
        and made.graph()[node.name].op.out_channels != node.op.out_channels  # type: ignore[attr-defined]
    ]
    dead = np.random.default_rng(number).permutation(network.count(width))[:8]
    for name in makers:
        weights[f"{name}.weight"][dead] *= 1e-9
    for node in wide:
        if isinstance(node.op, Conv2d) and node.inputs[0] in wide.table:
            source = node.inputs[0]
            reads = made.graph()[source].shape[-1] != wide[source].shape[-1]
            if reads and not node.op.depthwise:
                weights[f"{node.name}.weight"][:, dead] = 0
    found = sliced(weights, wide, made.graph())
    for name in makers:
        kept = np.delete(weights[f"{name}.weight"], dead, axis=0)
        assert np.array_equal(found[f"{name}.weight"].sum(axis=(1, 2, 3)) != 0, kept.any((1, 2, 3)))
    assert np.allclose(logits(made, found), logits(arch, weights), rtol=1e-6, atol=1e-9)


def test_what_a_grouped_filter_never_saw_is_zero() -> None:
    arch = archdsl.parse("arch g input 6x6x4 stem { conv_k1_o16 } stage c { conv_k1_g4_o8 }")
    weights = lively(arch)
    wide = arch.graph()
    network = Network.of(arch)
    # Eight filters in two groups of inputs 0-7 and 8-15.
    (width,) = (w for w in network.widths if w.place == "stages.c.0")
    assert not network.smaller(width)
    text = "arch g input 6x6x4 stem { conv_k1_o16 } stage c { conv_k1_g4_o4! }"
    narrow = archdsl.parse(text).graph()
    weights["stages.c.0.conv.weight"][:4] *= 1e-3  # the second group's filters stay
    found = sliced(weights, wide, narrow)["stages.c.0.conv.weight"]
    # One group now, of all sixteen inputs: the filters have seen the last eight of them.
    assert found.shape == (4, 16, 1, 1)
    assert not found[:, :8].any()
    assert np.array_equal(found[:, 8:], weights["stages.c.0.conv.weight"][4:])


def test_a_counter_of_batches_may_be_missing() -> None:
    arch = small()
    weights = lively(arch)
    without = {key: value for key, value in weights.items() if "tracked" not in key}
    found = sliced(without, arch.graph(), arch.graph())
    assert list(found) == list(weights)
    assert not found["stem.0.norm.num_batches_tracked"].any()


def test_weights_of_another_network() -> None:
    arch = small()
    other = archdsl.parse(SMALL.replace("fc_o10", "fc_o20"))
    with pytest.raises(ValueError, match="not the network's"):
        sliced(lively(arch), other.graph(), other.graph())
    with pytest.raises(ValueError, match="other operators"):
        sliced(lively(arch), arch.graph(), archdsl.parse(GROUPED).graph())
    with pytest.raises(ValueError, match="has 20 channels, of 10"):
        sliced(lively(arch), arch.graph(), other.graph())


class Tuner:
    """Says how large a network is, and adds an epoch to every weight."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int | None, dict[str, Any]]] = []

    def __call__(self, arch: Arch) -> float:
        raise AssertionError("it is asked to fine-tune")

    def fine_tune(self, arch: Arch, weights: Any, epochs: int | None) -> tuple[float, Any]:
        start = initialize(arch.graph()) if weights is None else weights
        shapes = {key: np.shape(value) for key, value in start.items()}
        assert shapes == arch.graph().state()
        self.asked.append((canonical_hash(arch), epochs, dict(start)))
        added = 1.0 if epochs is None else float(epochs)
        return size(arch), {key: value + added for key, value in start.items()}


def test_proposals_are_trained_on_from_the_network_before() -> None:
    tuner = Tuner()
    run = adapted(small(), 0.8, evaluator=tuner, epochs=3, step=0.05)
    assert run.end == "reached"
    # The seed by itself first, then each proposal of each step.
    assert [epochs for _, epochs, _ in tuner.asked] == [
        None,
        *[3] * sum(len(step.proposals) for step in run.steps),
    ]
    weights: Any = {key: value + 1 for key, value in tuner.asked[0][2].items()}
    graph = Network.of(small()).arch().graph()
    asked = iter(tuner.asked[1:])
    for step in run.steps:
        for proposal in step.proposals:
            name, _, start = next(asked)
            assert name == proposal.network.hash
            wanted = sliced(weights, graph, proposal.network.arch().graph())
            assert all(np.array_equal(start[key], wanted[key]) for key in wanted)
            if proposal is step.kept:
                after = {key: value + 3 for key, value in wanted.items()}
        weights, graph = after, step.kept.network.arch().graph()
    assert run.weights is not None
    assert all(np.array_equal(run.weights[key], weights[key]) for key in weights)


def test_given_weights_are_judged_and_not_trained() -> None:
    tuner = Tuner()
    run = NetAdapt(small(), BOARD, 1.0, tuner, max_steps=1, epochs=2)
    run.weights = initialize(small().graph(), seed=7)
    run.run()
    assert tuner.asked[0][1] == 0
    assert np.array_equal(
        tuner.asked[0][2]["stem.0.conv.weight"],
        initialize(small().graph(), seed=7)["stem.0.conv.weight"],
    )


@pytest.mark.slow
def test_training_on_real_digits() -> None:
    """The evaluator that is shipped: its weights are of ten classes and of 8x8 images."""
    text = (
        "arch d input 16x16x1 stem { conv_k3_s22_o16 } "
        "stage c { k3_e4_o16 k3_s22_e2_o24 } head { pool fc }"
    )
    arch = archdsl.parse(text)
    tuner: Any = resolve("digits", {"size": 8, "epochs": 1, "validation": 0.8})
    run = adapted(arch, 0.6, evaluator=tuner, epochs=1, step=0.3, max_steps=1)
    assert len(run.steps) == 1
    assert run.weights is not None
    adapted_to = run.network.arch()
    assert run.weights["head.1.weight"].shape == (10, adapted_to.placed[-2].run.after.shape[-1])
    accuracy, _ = tuner.fine_tune(adapted_to, run.weights, 0)
    assert accuracy == run.accuracy
    assert accuracy > 0.15


# -- the command ----------------------------------------------------------------------------------

Run = Callable[..., Result]
EVALUATORS = "import math\n\ndef size(arch):\n    return math.log(arch.total.params)\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `archdsl netadapt` with these words in a folder with a network and evaluators."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.arch").write_text(SMALL, encoding="utf-8")
    (tmp_path / "mine.py").write_text(EVALUATORS, encoding="utf-8")
    environment = {"COLUMNS": "100", "NO_COLOR": "", "FORCE_COLOR": "", "ARCHDSL_DEBUG": ""}

    def call(*words: object) -> Result:
        runner = CliRunner(env=environment)
        return runner.invoke(program, ["netadapt", *map(str, words)], prog_name="archdsl")

    return call


ASKED = (
    *("small.arch", "--device", "pixel6-cpu-int8", "--target-ratio", "0.9"),
    *("--evaluator", "mine:size", "--step", "0.02"),
)


def test_the_command_prints_steps_and_the_network(run: Run) -> None:
    result = run(*ASKED)
    assert result.exit_code == 0, result.output
    device = archdsl.load_device("pixel6-cpu-int8")
    expected = adapted(small(), 0.9, device, step=0.02)
    assert result.stdout.endswith(f"\n\n{expected.text()}")
    for step in expected.steps:
        assert f"{step.kept.before} -> {step.kept.after}" in result.stdout
    assert "accuracy by mine:size" in result.stdout
    assert f"reached: {expected.latency_us / 1e3:.4f} ms" in result.stderr


def test_the_command_writes_what_it_is_asked_for(run: Run, tmp_path: Path) -> None:
    result = run(*ASKED, "-o", "fast.arch", "--report", "steps", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    text = (tmp_path / "fast.arch").read_text(encoding="utf-8")
    assert told["text"] == text == (tmp_path / "steps" / "network.arch").read_text(encoding="utf-8")
    assert told == json.loads((tmp_path / "steps" / "report.json").read_text(encoding="utf-8"))
    lines = (tmp_path / "steps" / "proposals.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 + sum(len(step["proposals"]) for step in told["steps"])
    again = run(*ASKED, "-o", "-", "--report", "steps.csv")
    assert again.stdout == text
    assert (tmp_path / "steps.csv").read_text(encoding="utf-8").splitlines() == lines
    assert run(*ASKED, "--report", "steps.json", "--json").stdout == result.stdout


def test_a_program_evaluates(run: Run, tmp_path: Path) -> None:
    (tmp_path / "count.sh").write_text("#!/bin/sh\nwc -c\n", encoding="utf-8")
    (tmp_path / "count.sh").chmod(0o755)
    result = run(*ASKED[:5], "--program", "./count.sh", "--workers", 2, "--max-steps", 1)
    assert result.exit_code == 0, result.output
    assert "accuracy by the program ./count.sh" in result.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (ASKED[:3], "give either --target-ms or --target-ratio"),
        ((*ASKED, "--target-ms", 1), "give either --target-ms or --target-ratio"),
        ((*ASKED[:3], "--target-ms", 0), "must be more than 0"),
        ((*ASKED[:3], "--target-ratio", 1.5), "at most 1"),
        ((*ASKED, "--program", "wc"), "exclude each other"),
        ((*ASKED, "--set", "size"), "must be KEY=VALUE"),
        ((*ASKED, "--weights", "w.safetensors"), "--weights goes with --fine-tune"),
        ((*ASKED, "--fine-tune", 1, "--workers", 2), "in this process"),
        ((*ASKED, "--fine-tune", 1), "cannot train on from given weights"),
        ((*ASKED, "-o", "small.arch"), "would replace the architecture"),
        ((*ASKED, "-o", "x.csv", "--report", "x.csv"), "must differ"),
        ((*ASKED, "-o", "-", "--json"), "leave out --json"),
        ((*ASKED, "--report", "nowhere/steps"), "there is no folder nowhere"),
        ((*ASKED, "--report", "mine.py"), "neither a folder"),
        ((*ASKED[:1], "--device", "pixel6-cpu-int8-ridge", *ASKED[3:]), "no times"),
        ((*ASKED[:5], "--evaluator", "mine:colour"), "has no `colour`"),
        ((*ASKED[:5], "--evaluator", "nobody"), "no evaluator is called `nobody`"),
        ((*ASKED[:5], "--program", "./nothing.sh"), "there is no program `./nothing.sh`"),
    ],
)
def test_what_the_command_refuses(run: Run, words: tuple[object, ...], said: str) -> None:
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.stderr.split())
    assert not result.stdout


def test_a_target_out_of_reach_is_an_error_with_all_that_was_done(run: Run, tmp_path: Path) -> None:
    result = run(*ASKED[:3], "--target-ms", 1e-4, "--evaluator", "mine:size", "-o", "best.arch")
    assert result.exit_code == 1
    said = result.stderr.index("are out of reach: with all widths at their least")
    assert said < result.stderr.index("error[E1013]")
    assert "cannot reach" in (tmp_path / "best.arch").read_text(encoding="utf-8")
    archdsl.load(tmp_path / "best.arch")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
def test_what_was_found_is_printed_where_it_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "full.arch").symlink_to("/dev/full")
    result = run(*ASKED, "-o", "full.arch")
    assert result.exit_code == 2
    assert "full.arch: No space left on device" in result.stderr
    assert "accuracy by mine:size" in result.stdout


def test_an_interrupt_leaves_what_was_done(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LocalWorkers.wait
    calls = iter(range(100))

    def interrupted(workers: LocalWorkers) -> Any:
        if next(calls) == 15:
            raise KeyboardInterrupt
        return whole(workers)

    monkeypatch.setattr(LocalWorkers, "wait", interrupted)
    asked = (*ASKED[:3], "--target-ratio", "0.5", *ASKED[5:])
    result = run(*asked, "-o", "fast.arch", "--report", "steps.json")
    assert result.exit_code == 130
    assert "interrupted after" in result.stderr
    told = json.loads((tmp_path / "steps.json").read_text(encoding="utf-8"))
    assert told["end"] == "interrupted"
    assert told["steps"]
    text = (tmp_path / "fast.arch").read_text(encoding="utf-8")
    assert told["text"] == text
    assert "on the way to" in text


def test_fine_tuned_weights_are_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tuned.py").write_text(
        "import sys\nsys.path.insert(0, '')\n"
        "import math\nfrom archdsl.weights.initial import initialize\n\n"
        "class Tuner:\n"
        "    def __call__(self, arch):\n        return 0.0\n"
        "    def fine_tune(self, arch, weights, epochs):\n"
        "        weights = initialize(arch.graph()) if weights is None else weights\n"
        "        return math.log(arch.total.params), weights\n\n"
        "tuner = Tuner()\n",
        encoding="utf-8",
    )
    asked = (*ASKED[:5], "--evaluator", "tuned:tuner", "--fine-tune", 1)
    result = run(*asked, "--save-weights", "w.safetensors", "-o", "fast.arch")
    assert result.exit_code == 0, result.output
    fast = archdsl.load(tmp_path / "fast.arch")
    load_weights(tmp_path / "w.safetensors", fast.graph())
    again = run("fast.arch", *asked[1:], "--weights", "w.safetensors", "--max-steps", 1)
    assert again.exit_code == 0, again.output
    wrong = run(*asked, "--weights", "w.safetensors")
    assert wrong.exit_code == 1
    assert "E0801" in wrong.stderr


# -- going on -------------------------------------------------------------------------------------

DYING = """
import math, os, signal
from archdsl.search.identity import canonical_hash
from archdsl.weights.initial import initialize

def died(arch, victim):
    with open("begun", "a") as file:
        file.write(canonical_hash(arch) + "\\n")
    if not os.path.exists("dead") and len(open("begun").readlines()) == 30:
        open("dead", "w").close()
        os.kill(victim, signal.SIGKILL)

def size(arch):
    died(arch, os.getppid())
    if canonical_hash(arch)[0] in "01":
        raise ValueError("bad luck")
    return math.log(arch.total.params)

class Tuner:
    def __call__(self, arch):
        return size(arch)

    def fine_tune(self, arch, weights, epochs):
        died(arch, os.getpid())
        weights = initialize(arch.graph()) if weights is None else weights
        told = {key: value * 0.9 for key, value in weights.items()}
        return math.log(arch.total.params) + float(told["stem.0.conv.weight"].sum()), told

tuner = Tuner()
"""


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [False, True])
def test_a_run_that_was_killed_goes_on(tuned: bool, tmp_path: Path) -> None:
    """By SIGKILL, in the midst of a step: what comes of it is what comes of an unbroken run."""
    words = [*ASKED[:3], "--target-ratio", "0.6", *ASKED[7:], "--report", "steps", "--json"]
    words += ["--evaluator", "dying:tuner", "--fine-tune", "1"] if tuned else []
    words += ["--save-weights", "w.safetensors"] if tuned else ["--evaluator", "dying:size"]

    def adapt(folder: Path) -> subprocess.CompletedProcess[str]:
        folder.mkdir(exist_ok=True)
        (folder / "small.arch").write_text(SMALL, encoding="utf-8")
        (folder / "dying.py").write_text(DYING, encoding="utf-8")
        command = [sys.executable, "-m", "archdsl", "netadapt", *words]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True)

    def begun(folder: Path) -> Counter[str]:
        return Counter((folder / "begun").read_text(encoding="utf-8").split())

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    first = adapt(killed)
    assert first.returncode == -signal.SIGKILL
    steps = json.loads((killed / "steps" / "report.json").read_text(encoding="utf-8"))["steps"]
    assert steps
    # Half a line is what a process leaves that is killed as it writes.
    with open(killed / "steps" / "evaluations.jsonl", "ab") as journal:
        journal.write(b'{"step": 3, "ha')
    again = adapt(killed)
    assert again.returncode == 0, again.stderr
    assert "going on with steps: " in again.stderr
    whole.mkdir()
    (whole / "dead").touch()
    unbroken = adapt(whole)
    assert again.stdout == unbroken.stdout
    assert len(json.loads(again.stdout)["steps"]) > len(steps) + 1
    for name in ("report.json", "proposals.csv", "network.arch"):
        assert (killed / "steps" / name).read_bytes() == (whole / "steps" / name).read_bytes()
    twice = begun(killed) - begun(whole)
    if tuned:
        # Of a step that was not finished all is trained again, and the weights are the same.
        assert (killed / "w.safetensors").read_bytes() == (whole / "w.safetensors").read_bytes()
        assert 1 <= twice.total() < 12
        assert len(list((killed / "steps").glob("weights-*.npz"))) == 1
    else:
        assert twice.total() == 1
        assert set(begun(whole).values()) == {1}


def test_a_folder_of_another_adaptation_is_left_alone(run: Run, tmp_path: Path) -> None:
    asked = (*ASKED, "--report", "steps")
    assert run(*asked).exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "steps").iterdir()}
    (tmp_path / "other.arch").write_text(SMALL.replace("o24", "o32"), encoding="utf-8")
    (tmp_path / "renamed.arch").write_text(
        SMALL.replace("arch small", "arch tall"), encoding="utf-8"
    )
    (tmp_path / "mine2.py").write_text(EVALUATORS, encoding="utf-8")
    for changed, said in (
        (("other.arch", *asked[1:]), "it differs in network and target in µs\n"),
        (
            ("renamed.arch", *asked[1:]),
            "it differs in name and network\n  = help: name: small there, tall here",
        ),
        (
            (asked[0], "--device", "pixel1-cpu-fp32-fitted", *asked[3:]),
            "it differs in device and tar",
        ),
        ((*asked, "--target-ratio", 0.8), "target in µs: "),
        ((*asked, "--step", 0.03), "= help: step: 0.02 there, 0.03 here"),
        ((*asked, "--evaluator", "mine2:size"), "evaluator: mine:size there, mine2:size here"),
    ):
        result = run(*changed)
        assert result.exit_code == 1, result.output
        assert "error[E1017]: the adaptation in steps is not this one: " in result.stderr
        assert said in result.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "steps").iterdir()} == before
    # How much is done at once, and how many steps, may change.
    more = run(*asked, "--workers", 2, "--timeout", 60, "--max-steps", 1)
    assert more.exit_code == 0, more.output
    assert "after 1 step" in more.stderr


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        (lambda whole: b"hello", 1),
        (lambda whole: whole[1:], 1),
        (lambda whole: whole.replace(b'"hash"', b'"has"', 1), 2),
        (lambda whole: whole + b"[1]\n", None),
        (lambda whole: whole + b'{"step": "x", "hash": "", "accuracy": 1, "fault": null}\n', None),
    ],
)
def test_a_journal_that_is_none(
    run: Run, tmp_path: Path, broken: Callable[[bytes], bytes], line: int | None
) -> None:
    asked = (*ASKED, "--report", "steps", "--max-steps", 1)
    assert run(*asked).exit_code == 0
    journal = tmp_path / "steps" / "evaluations.jsonl"
    damaged = broken(journal.read_bytes())
    journal.write_bytes(damaged)
    result = run(*asked)
    assert result.exit_code == 1, result.output
    where = damaged.count(b"\n") if line is None else line
    assert "E1017" in result.stderr and f"line {where} of it is broken" in result.stderr
    assert journal.read_bytes() == damaged


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    run, other = (NetAdapt(small(), BOARD, 1.0, size, max_steps=1) for _ in range(2))
    with closing(run.keep(tmp_path / "steps")), closing(other.keep(tmp_path / "steps")):
        # Nothing is there yet.
        run.run()
        with pytest.raises(Busy, match="another process is at work on"):
            other.run()
        with pytest.raises(Busy):
            NetAdapt(small(), BOARD, 1.0, size).keep(tmp_path / "steps")
    again = NetAdapt(small(), BOARD, 1.0, lambda arch: pytest.fail("it is known"), max_steps=1)
    with closing(again.keep(tmp_path / "steps")):
        assert again.run().to_json() == run.to_json()


def test_who_failed_in_an_unfinished_step_is_asked_again(tmp_path: Path) -> None:
    """An evaluator that was mended is heard; what failed in a finished step stays as it was."""
    asked: Counter[str] = Counter()
    broken = True

    def mended(arch: Arch) -> float:
        asked[canonical_hash(arch)] += 1
        if broken and arch.total.params != small().total.params:
            raise ValueError("no data")
        return size(arch)

    def adapt() -> NetAdapt:
        run = NetAdapt(small(), BOARD, 1.0, mended, max_steps=1)
        with closing(run.keep(tmp_path)):
            return run.run()

    first = adapt()
    assert (first.end, first.problems[0].code) == ("failed", "E1014")
    broken = False
    assert adapt().end == "steps"
    assert asked.pop(first.first.hash) == 1
    assert set(asked.values()) == {2}
    broken = True
    assert adapt().end == "steps"
    assert set(asked.values()) == {2}


def test_fine_tuning_that_took_other_steps_is_refused(tmp_path: Path) -> None:
    """As where another version counts times in another way."""

    def adapt(steps: int) -> NetAdapt:
        run = NetAdapt(small(), BOARD, 1.0, Tuner(), max_steps=steps, epochs=1)
        with closing(run.keep(tmp_path)):
            return run.run()

    hash = adapt(1).steps[0].proposals[0].network.hash
    journal = tmp_path / "evaluations.jsonl"
    journal.write_text(journal.read_text().replace(hash, "0" * 64))
    with pytest.raises(ArchError, match="E1017") as caught:
        adapt(2)
    assert "has another step 1" in caught.value.diagnostics[0].message


def test_weights_that_are_broken(tmp_path: Path) -> None:
    def adapt(steps: int) -> NetAdapt:
        run = NetAdapt(small(), BOARD, 1.0, Tuner(), max_steps=steps, epochs=1)
        with closing(run.keep(tmp_path)):
            return run.run()

    adapt(1)
    (weights,) = tmp_path.glob("*.npz")
    whole = weights.read_bytes()
    for broken in (b"", b"hello", whole[: len(whole) // 2], whole.replace(b"NUMPY", b"NUMPI")):
        weights.write_bytes(broken)
        with pytest.raises(ArchError, match="E1017"):
            adapt(2)
    weights.write_bytes(whole)
    assert len(adapt(2).steps) == 2
    assert [path.name for path in tmp_path.glob("*.npz")] == ["weights-2.npz"]
