"""The algorithms of searches: members alone, the same if told the same, better than chance."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest

from archdsl.search.algorithms.controller import Controller
from archdsl.search.decisions import Decisions
from archdsl.search.space import Space, parse_space

# Open statements, alternatives with choices inside, layers that choose, and what excludes what:
# a stride needs a kernel, and the image becomes too small for one block at the end.
MIXED = """
arch mixed
input ( 16x16x3 | 24x24x3 )
stem { conv_k3_s22_o{8,16} }
stage c1 { ( conv_k1_o16 | k{3,5}_e{1,3}_o16 | skip ) uib_s{0,3}_m{0,3}_st22_e2_o{16,24} }
stage c2 { ( i16_e2_o16 | k{3,5}_e2_o24 ) each_r{1,2}_k{3,5}_e{1,2}_o{16,24} }
"""


@pytest.fixture(scope="module")
def mixed() -> Space:
    return parse_space(MIXED)


def moved(controller: Controller, seed: int) -> None:
    """Logits that differ from one another."""
    rng = np.random.default_rng(seed)
    controller.logits = rng.normal(0, 1.5, controller.logits.shape)


class TestDecisions:
    def test_every_member_is_reached_in_one_way(self, mixed: Space) -> None:
        decisions = Decisions(mixed)
        for vector in mixed:
            way = {fork.column: place for fork, place in decisions.forks(vector)}
            assert decisions.walk(lambda fork, way=way: way.pop(fork.column)) == vector  # type: ignore[misc]
            assert not way

    def test_only_members_have_a_way(self, mixed: Space) -> None:
        decisions = Decisions(mixed)
        rng = random.Random(3)
        sizes = [len(choice.options) for choice in mixed.choices]
        others = 0
        for _ in range(2000):
            vector = tuple(rng.randrange(size) for size in sizes)
            if vector not in mixed:
                others += 1
                with pytest.raises(ValueError, match="no member"):
                    decisions.forks(vector)
        assert others > 1000
        with pytest.raises(ValueError, match="no member"):
            decisions.forks((0, 0))


class TestController:
    def test_chances_of_all_members_sum_to_one(self, mixed: Space) -> None:
        controller = Controller(mixed)
        moved(controller, 1)
        total = math.fsum(math.exp(controller.log_prob(vector)) for vector in mixed)
        assert total == pytest.approx(1, abs=1e-12)

    def test_samples_have_the_chances_that_it_says(self) -> None:
        space = parse_space(
            "arch s input 8x8x3 stem { uib_s{0,3}_m{0,3}_st22_o8 ( k{3,5} | skip ) }"
        )
        controller = Controller(space)
        moved(controller, 2)
        rng = np.random.default_rng(7)
        draws = 20_000
        counts = Counter(controller.sample(rng) for _ in range(draws))
        assert set(counts) <= set(space)
        for vector in space:
            chance = math.exp(controller.log_prob(vector))
            spread = math.sqrt(draws * chance * (1 - chance))
            assert abs(counts[vector] - draws * chance) < 5 * spread + 1

    def test_gradients_are_finite_differences(self, mixed: Space) -> None:
        controller = Controller(mixed)
        moved(controller, 3)
        start, step = controller.logits, 1e-5
        rng = random.Random(5)
        for vector in [mixed.sample(rng) for _ in range(5)]:
            controller.logits = start
            found, spread = controller.gradient(vector), controller._spread(vector)
            for entry in range(len(start)):
                around = []
                for sign in (1, -1):
                    controller.logits = start + sign * step * np.eye(len(start))[entry]
                    around.append((controller.log_prob(vector), entropy(controller, vector)))
                (above, more), (below, less) = around
                assert found[entry] == pytest.approx((above - below) / (2 * step), abs=1e-8)
                assert spread[entry] == pytest.approx((more - less) / (2 * step), abs=1e-8)

    def test_the_step_is_what_the_source_says(self) -> None:
        space = parse_space("arch s input 8x8x3 stem { conv_k{1,3}_o8 }")
        controller = Controller(space, learning_rate=0.5, baseline_momentum=0.9, entropy=0.25)
        controller.logits = [0.0, math.log(3)]
        controller.update([(0,), (1,), (1,)], [1.0, 0.0, 0.5])
        # By hand: baseline 0.5, chances 1/4 and 3/4; slopes (3/4, -3/4) and (-1/4, 1/4).
        mean = (0.5 * 0.75 + 0.5 * 0.25 + 0) / 3
        second = ((0.5 * 0.75) ** 2 + (0.5 * 0.25) ** 2) / 3
        spread = 0.25 * (math.log(4) - (0.25 * math.log(4) + 0.75 * math.log(4 / 3)))
        first = 0.5 * mean / math.sqrt(second) + 0.5 * 0.25 * spread
        assert controller.baseline == pytest.approx(0.5)
        assert controller.logits[0] == pytest.approx(first, rel=1e-5)
        assert controller.logits[1] == pytest.approx(math.log(3) - first, rel=1e-5)
        controller.update([(0,)], [1.0])
        assert controller.baseline == pytest.approx((0.9 * 0.1 * 0.5 + 0.1 * 1.0) / 0.19)

    def test_without_learning_or_with_equal_rewards_nothing_moves(self, mixed: Space) -> None:
        rng = random.Random(1)
        for rate, rewards in ((0.0, [0.1, 0.9]), (0.5, [0.7, 0.7])):
            controller = Controller(mixed, learning_rate=rate)
            controller.update([controller.sample(rng), controller.sample(rng)], rewards)
            assert np.abs(controller.logits).max() < 1e-6

    def test_extreme_logits_are_no_fault(self, mixed: Space) -> None:
        controller = Controller(mixed, learning_rate=0.1, entropy=0.1)
        controller.logits = np.random.default_rng(0).choice([-1e4, 1e4], controller.logits.shape)
        vector = controller.sample(random.Random(0))
        assert vector in mixed
        controller.update([vector, controller.best()], [0.0, 1.0])
        assert np.isfinite(controller.logits).all()

    def test_best_takes_the_likeliest_option_that_is_left(self) -> None:
        space = parse_space("arch s input 8x8x3 stem { uib_s{0,3}_m{0,3}_st22_o8 ( k3 | skip ) }")
        controller = Controller(space)
        controller.logits = [2, 0, 2, 0, 0, 1]
        assert controller.best() == (0, 1, 1)
        assert controller.probabilities()[0] == pytest.approx([0.880797, 0.119203], abs=1e-6)

    @pytest.mark.parametrize(
        "settings", [{"learning_rate": -1}, {"entropy": math.nan}, {"baseline_momentum": 1.0}]
    )
    def test_bad_settings(self, mixed: Space, settings: dict[str, float]) -> None:
        with pytest.raises(ValueError, match=next(iter(settings))):
            Controller(mixed, **settings)

    def test_bad_updates(self, mixed: Space) -> None:
        controller = Controller(mixed)
        vector = controller.best()
        for vectors, rewards in (([], []), ([vector], []), ([vector], [math.nan])):
            with pytest.raises(ValueError, match="finite reward"):
                controller.update(vectors, rewards)
        with pytest.raises(ValueError, match="finite"):
            controller.logits = [1.0]
        assert controller.baseline is None


def entropy(controller: Controller, vector: tuple[int, ...]) -> float:
    """The sum of the entropies of a member's decisions."""
    total = 0.0
    for fork, _ in Decisions(controller.space).forks(vector):
        here = np.exp(controller.logits[list(fork.entries)])
        here /= here.sum()
        total -= float((here * np.log(here)).sum())
    return total
