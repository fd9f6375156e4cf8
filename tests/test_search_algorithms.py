"""The algorithms of searches: members alone, the same if told the same, better than chance."""

from __future__ import annotations

import logging
import math
import random
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from archdsl.roofline.profiles import load_device
from archdsl.search.algorithms import ALGORITHMS, make, settings_of
from archdsl.search.algorithms.controller import Controller
from archdsl.search.decisions import Decisions
from archdsl.search.space import Space, Vector, load_space, parse_space
from archdsl.search.tables import Tables
from archdsl.search.trials import Algorithm, Trial

# Open statements, alternatives with choices inside, layers that choose, and what excludes what:
# a stride needs a kernel, and the image becomes too small for one block at the end.
MIXED = """
arch mixed
input ( 16x16x3 | 24x24x3 )
stem { conv_k3_s22_o{8,16} }
stage c1 { ( conv_k1_o16 | k{3,5}_e{1,3}_o16 | skip ) uib_s{0,3}_m{0,3}_st22_e2_o{16,24} }
stage c2 { ( i16_e2_o16 | k{3,5}_e2_o24 ) each_r{1,2}_k{3,5}_e{1,2}_o24 }
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
        for vectors, rewards in (
            ([], []),
            ([vector], []),
            ([vector], [math.nan]),
            ([vector], [1e300]),
        ):
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


# -- what all algorithms do -----------------------------------------------------------------------

NAMES = list(ALGORITHMS)
FRONTS = ("nsga2", "pymoo-nsga2")
# Generations that end within few trials.
GENERATIONS = {name: {"population": 10} for name in FRONTS}
SMALL: dict[str, dict[str, Any]] = {
    "evolution": {"population": 6, "tournament": 3},
    "tpe": {"startup": 5},
    "nsga2": {"population": 6},
    "pymoo-nsga2": {"population": 6},
}


def small(name: str, space: Space, seed: int = 0) -> Algorithm:
    return make(name, space, seed, **SMALL.get(name, {}))


def generations(name: str, space: Space, seed: int) -> Algorithm:
    return make(name, space, seed, **GENERATIONS.get(name, {}))


def outcome(number: int, vector: Vector, goals: int = 1) -> Trial:
    """What became of a network, by its vector alone: a quarter are beyond a bound, some fail."""
    rng = random.Random(repr(vector))
    kind = rng.random()
    if kind < 0.25:
        return Trial(number, vector, {}, (rng.random(), -0.5), "infeasible")
    if kind < 0.4:
        return Trial(number, vector, {}, (-0.5, -0.5), "failed", fault="it fell over")
    objectives = tuple(rng.random() for _ in range(goals))
    return Trial(
        number,
        vector,
        {},
        (-0.5, -0.5),
        "complete",
        accuracy=objectives[0],
        reward=sum(objectives),
        objectives=objectives,
    )


def searched(
    algorithm: Algorithm,
    trials: int,
    judge: Callable[[int, Vector], Trial],
    pending: int = 1,
    seed: int = 0,
) -> tuple[list[Trial], list[tuple[int, int, Vector]]]:
    """A search with several evaluations at once, which end in any order.

    All that was told, and for each proposal how much of it was, its number and itself.
    """
    rng = random.Random(seed)
    told: list[Trial] = []
    asked: list[tuple[int, int, Vector]] = []
    running: list[tuple[int, Vector]] = []
    while len(told) < trials:
        while len(running) < pending and len(asked) < trials:
            number = len(asked)
            vector = algorithm.ask(number)
            asked.append((len(told), number, vector))
            running.append((number, vector))
        told.append(judge(*running.pop(rng.randrange(len(running)))))
        algorithm.tell(told[-1])
    return told, asked


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("goals", [1, 3])
def test_proposals_are_members_and_the_same_when_told_the_same(
    mixed: Space, name: str, goals: int
) -> None:
    judge = lambda number, vector: outcome(number, vector, goals)  # noqa: E731
    told, asked = searched(small(name, mixed), 40, judge, pending=4)
    assert {trial.state for trial in told} == {"complete", "infeasible", "failed"}
    for vector in {vector for _, _, vector in asked}:
        assert vector in mixed
    assert all(type(index) is int for _, _, vector in asked for index in vector)
    # After a crash: another algorithm, which nobody has asked anything, is told the beginning.
    for known, number, vector in (asked[0], asked[11], asked[25], asked[39]):
        again = small(name, mixed)
        for trial in told[:known]:
            again.tell(trial)
        assert again.ask(number) == vector
        assert again.ask(number) == vector


@pytest.mark.parametrize("name", NAMES)
def test_seeds_and_numbers_make_the_difference(mixed: Space, name: str) -> None:
    first = small(name, mixed)
    assert len({first.ask(number) for number in range(20)}) > 15
    assert len({small(name, mixed, seed).ask(0) for seed in range(20)}) > 15


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text",
    [
        "arch s input 8x8x3 stem { conv_k{1,3}_o8 }",
        "arch s input ( 8x8x3 | 9x9x3 ) stem { conv_k3_o8 }",
        "arch s input 8x8x3 stem { conv_k3_o8 }",
    ],
)
def test_small_spaces(name: str, text: str) -> None:
    space = parse_space(text)
    told, _ = searched(small(name, space), 20, outcome)
    assert {trial.vector for trial in told} == set(space)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("state", ["failed", "infeasible"])
def test_a_search_goes_on_where_all_goes_wrong_at_first(
    mixed: Space, name: str, state: Any
) -> None:
    def judge(number: int, vector: Vector) -> Trial:
        if number < 20:
            return Trial(number, vector, {}, (0.5,), state, fault="no")
        rng = random.Random(number)
        goals = (rng.random(), -rng.random())
        return Trial(number, vector, {}, (-0.5,), "complete", goals[0], goals[0], goals)

    told, _ = searched(small(name, mixed), 40, judge, pending=2)
    assert all(trial.vector in mixed for trial in told)


@pytest.mark.parametrize("name", NAMES)
def test_huge_numbers_are_no_fault(mixed: Space, name: str) -> None:
    """Nor do they make a library say something."""

    def judge(number: int, vector: Vector) -> Trial:
        rng = random.Random(repr(vector))
        goals = tuple(rng.choice([1.7e308, -1.7e308, 0.0, 5e-324]) for _ in range(2))
        if rng.random() < 0.2:
            return Trial(number, vector, {}, (1e308, 1e308), "infeasible")
        return Trial(number, vector, {}, (-1e308, 0.0), "complete", goals[0], goals[0], goals)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        searched(small(name, mixed), 30, judge)


@pytest.mark.parametrize("name", ["tpe", "nsga2", "pymoo-nsga2"])
def test_libraries_are_quiet(
    mixed: Space, name: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), warnings.catch_warnings():
        warnings.simplefilter("error")
        searched(small(name, mixed), 15, outcome)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


# -- by name --------------------------------------------------------------------------------------


def test_names_and_settings_are_checked(mixed: Space) -> None:
    with pytest.raises(ValueError, match="'evolutoin'; did you mean evolution"):
        make("evolutoin", mixed, 0)
    with pytest.raises(ValueError, match="'annealing'; there are random, evolution, rein"):
        make("annealing", mixed, 0)
    with pytest.raises(ValueError, match="`evolution` has no setting 'popluation'; did you mean"):
        make("evolution", mixed, 0, popluation=3)
    with pytest.raises(ValueError, match="`random` has no setting 'size'; it has none"):
        make("random", mixed, 0, size=3)


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [
        ("evolution", "population", ["0", "many", 2.5, True, "9" * 30]),
        ("evolution", "tournament", ["0", "21"]),
        ("reinforce", "learning_rate", ["-1", "nan", "fast", None, "1e308"]),
        ("reinforce", "baseline_momentum", ["1", "-0.1"]),
        ("reinforce", "entropy", ["inf"]),
        ("tpe", "startup", ["-1"]),
        ("tpe", "candidates", ["0"]),
        ("nsga2", "population", ["1"]),
        ("nsga2", "crossover", ["1.5"]),
        ("pymoo-nsga2", "population", ["1"]),
        ("pymoo-nsga2", "crossover", ["-1", "nan"]),
        ("pymoo-nsga2", "mutation", ["2"]),
    ],
)
def test_values_are_checked(mixed: Space, name: str, key: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=key):
            make(name, mixed, 0, **{key: value})


@pytest.mark.parametrize("name", NAMES)
def test_settings_may_be_texts(mixed: Space, name: str) -> None:
    defaults = settings_of(name)
    texts = {key: str(value) for key, value in defaults.items()}
    one, other = make(name, mixed, 1, **defaults), make(name, mixed, 1, **texts)
    assert one.ask(3) == other.ask(3)


def test_libraries_are_imported_when_they_are_wanted() -> None:
    script = """
import sys
import archdsl.search.algorithms as algorithms
from archdsl.search.space import parse_space
space = parse_space("arch s input 8x8x3 stem { conv_k{1,3}_o8 }")
for name in ("random", "evolution", "reinforce"):
    algorithms.make(name, space, 0).ask(0)
assert not {"optuna", "pymoo", "torch"} & set(sys.modules)
for name, library in (("tpe", "optuna"), ("nsga2", "optuna"), ("pymoo-nsga2", "pymoo")):
    sys.modules[library] = None
    try:
        algorithms.make(name, space, 0)
    except ImportError as error:
        assert str(error).startswith(f"the algorithm `{name}` cannot be imported (")
        assert str(error).endswith('); pip install "archdsl[search]"')
        assert error.__cause__.name.partition(".")[0] == library
    else:
        raise AssertionError(name)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# -- what each of them does -----------------------------------------------------------------------


def complete(number: int, vector: Vector, reward: float) -> Trial:
    return Trial(number, vector, {}, (), "complete", reward, reward, (reward,))


def test_evolution_changes_the_best_and_forgets_the_oldest(mixed: Space) -> None:
    rng = random.Random(1)
    algorithm = make("evolution", mixed, 0, population=4, tournament=4)
    best, *others = [mixed.sample(rng) for _ in range(9)]
    algorithm.tell(complete(0, best, 1.0))
    for number, vector in enumerate(others[:3], 1):
        algorithm.tell(complete(number, vector, 0.1 * number))
    algorithm.tell(Trial(4, others[3], {}, (), "failed"))

    def parents(asked: list[Vector], candidates: list[Vector]) -> Counter[int]:
        found: Counter[int] = Counter()
        for vector in asked:
            for place, parent in enumerate(candidates):
                # One decision is another, and what becomes open by it is new.
                kept = set(mixed.active(vector)) & set(mixed.active(parent))
                found[place] += sum(vector[c] != parent[c] for c in kept) == 1
        return found

    children = [algorithm.ask(number) for number in range(5, 45)]
    counts = parents(children, [best, *others[:3]])
    assert counts[0] > 20
    assert counts.most_common(1)[0][0] == 0
    # The best is the oldest: four more, and it is forgotten; beyond a bound is the worst.
    for number, vector in enumerate(others[4:7], 5):
        algorithm.tell(Trial(number, vector, {}, (0.1,), "infeasible"))
    algorithm.tell(complete(8, others[7], -5.0))
    counts = parents([algorithm.ask(number) for number in range(9, 49)], [best, others[7]])
    assert counts[1] > 20
    assert counts[1] > 3 * counts[0]


def test_reinforce_learns_from_rewards_and_bounds_but_not_from_faults() -> None:
    space = parse_space("arch s input 8x8x3 stem { conv_k{1,3,5}_o{8,16} }")

    def share(state: str, other: str) -> float:
        algorithm = make("reinforce", space, 0)
        for number in range(150):
            vector = algorithm.ask(number)
            if (state if vector[0] == 2 else other) == "complete":
                algorithm.tell(complete(number, vector, 0.5 + 0.4 * (vector[0] == 2)))
            else:
                kind: Any = state if vector[0] == 2 else other
                algorithm.tell(Trial(number, vector, {}, (0.5,), kind))
        return sum(algorithm.ask(number)[0] == 2 for number in range(1000, 1200)) / 200

    assert share("complete", "complete") > 0.9
    assert share("infeasible", "complete") < 0.1
    assert share("infeasible", "infeasible") == pytest.approx(1 / 3, abs=0.15)
    assert share("failed", "failed") == pytest.approx(1 / 3, abs=0.12)


def test_one_number_is_wanted_where_one_is_maximised(mixed: Space) -> None:
    vector = next(iter(mixed))
    trial = Trial(0, vector, {}, (), "complete", 0.5, None, (0.5, -3.0))
    for name in ("evolution", "reinforce", "tpe"):
        with pytest.raises(ValueError, match="trial 0 has several objectives, and no reward"):
            small(name, mixed).tell(trial)
        small(name, mixed).tell(Trial(0, vector, {}, (), "complete", 0.5, None, (0.5,)))


# -- whether it is any use ------------------------------------------------------------------------


@dataclass
class Landscape:
    """A space all of whose members are known: made-up accuracies that grow with MACs."""

    space: Space
    accuracy: dict[Vector, float] = field(default_factory=dict)
    reward: dict[Vector, float] = field(default_factory=dict)
    """MnasNet's, hard, with a target that a fifth of the members reach."""
    macs: dict[Vector, float] = field(default_factory=dict)
    us: dict[Vector, float] = field(default_factory=dict)

    def judged(self, number: int, vector: Vector) -> Trial:
        accuracy, reward = self.accuracy[vector], self.reward[vector]
        goals = (accuracy, -self.macs[vector])
        return Trial(number, vector, {}, (), "complete", accuracy, reward, goals)

    def rewarded(self, number: int, vector: Vector) -> Trial:
        return complete(number, vector, self.reward[vector])

    def bounded(self, number: int, vector: Vector, most: float) -> Trial:
        beyond = self.us[vector] / most - 1
        if beyond > 0:
            return Trial(number, vector, {}, (beyond,), "infeasible")
        accuracy = self.accuracy[vector]
        goals = (accuracy, -self.macs[vector])
        return Trial(number, vector, {}, (beyond,), "complete", accuracy, accuracy, goals)


@pytest.fixture(scope="module")
def landscape() -> Landscape:
    space = load_space("mnv4_coarse")
    device = load_device("pixel6-cpu-int8")
    vectors = np.array(list(space))
    costs = Tables(space).cost(vectors, devices=[device])
    us = costs.latency_us[device.name]
    rng = np.random.default_rng(5)
    liking = np.zeros(len(vectors))
    for column, choice in enumerate(space.choices):
        liking += rng.normal(0, 0.5, len(choice.options))[vectors[:, column]]
    size = 2 * np.log(costs.macs / np.median(costs.macs))
    accuracy = 1 / (1 + np.exp(-(liking + size)))
    target = np.quantile(us, 0.2)
    reward = accuracy * np.where(us <= target, 1.0, target / us)
    keys = [tuple(row) for row in vectors.tolist()]
    columns = (accuracy, reward, costs.macs.astype(float), us)
    tables = (dict(zip(keys, column.tolist(), strict=True)) for column in columns)
    return Landscape(space, *tables)


def test_all_find_better_networks_than_chance(landscape: Landscape) -> None:
    """How much the best of 60 lacks of the best of all 34,300, on average over two seeds."""
    best = max(landscape.reward.values())
    lacks: dict[str, float] = {}
    for name in NAMES:
        found = 0.0
        for seed in range(2):
            told, _ = searched(generations(name, landscape.space, seed), 60, landscape.rewarded)
            found += max(landscape.reward[trial.vector] for trial in told) / 2
        lacks[name] = best - found
    for name in NAMES[1:]:
        assert lacks[name] < 0.8 * lacks["random"], lacks


def volume(points: list[tuple[float, float]], origin: tuple[float, float]) -> float:
    """The area between an origin and the points above it, both coordinates wanted large."""
    total, height = 0.0, origin[1]
    for x, y in sorted(points, reverse=True):
        if y > height and x > origin[0]:
            total += (x - origin[0]) * (y - height)
            height = y
    return total


def test_the_fronts_come_near_to_the_true_one(landscape: Landscape) -> None:
    """The area that the front of 160 covers, as a part of that of all members' front."""
    points = {v: (a, -landscape.macs[v]) for v, a in landscape.accuracy.items()}
    origin = (min(x for x, _ in points.values()), min(y for _, y in points.values()))
    whole = volume(list(points.values()), origin)
    covered: dict[str, float] = {}
    for name in ("random", *FRONTS):
        told, _ = searched(make(name, landscape.space, 1), 160, landscape.judged)
        covered[name] = volume([points[trial.vector] for trial in told], origin) / whole
    for name in FRONTS:
        assert covered[name] > 0.9, covered
        assert 1 - covered[name] < 0.8 * (1 - covered["random"]), covered


def test_all_learn_to_keep_to_bounds(landscape: Landscape) -> None:
    """How many of the last 30 of 90 are within a bound that a fortieth of all networks keep to."""
    bound = float(np.quantile(list(landscape.us.values()), 1 / 40))
    judge = lambda number, vector: landscape.bounded(number, vector, bound)  # noqa: E731
    shares: dict[str, float] = {}
    for name in NAMES:
        told, _ = searched(generations(name, landscape.space, 2), 90, judge)
        shares[name] = sum(trial.state == "complete" for trial in told[-30:]) / 30
    for name in NAMES[1:]:
        assert shares[name] > shares["random"] + 0.2, shares
