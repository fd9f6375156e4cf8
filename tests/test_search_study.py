"""Studies: what they want, what they evaluate, what they keep, and how they go on."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import archdsl
from archdsl.lang.diagnostics import ArchError
from archdsl.roofline.model import Device, OnChip
from archdsl.roofline.pareto import best
from archdsl.roofline.reward import absolute_reward, mnasnet_reward
from archdsl.search.bounds import least, unreachable
from archdsl.search.objectives import Objectives, Unweighable, read_goals
from archdsl.search.outcomes import EvaluatorError, Failed
from archdsl.search.space import parse_space
from archdsl.search.storages import Busy, require_free
from archdsl.search.study import ALIKE, IDLE, Study, digest_of
from archdsl.search.tables import Tables
from archdsl.search.trials import Evaluation, Trial
from archdsl.search.workers import LocalWorkers, _Child

TEXT = """\
arch small
input ( 8x8x3 | 16x16x3 )
classes 2
stem { conv_k{1,3}_s22_o{8,16,24} }
stage c1 { ( k3 | k5_e{3,6} | skip ) each_r{1,2}_k{3,5}_o16 }
head { pool fc }
"""
SPACE = parse_space(TEXT)
ALL = list(SPACE)
PHONE = Device("phone", 1e9, 1e8, dtype="int8", fixed_overhead=1e-5)
SLOW = Device("slow", 1e8, 1e9, dtype="int8")


def parameters(arch: Any) -> float:
    """More is better, and no two accuracies of networks of different sizes are equal."""
    return 1 - 1 / arch.cost().params


class Counted:
    """An evaluator that remembers whom it was asked about; it is known as `parameters` is."""

    __qualname__ = "parameters"

    def __init__(self, stop_after: int | None = None) -> None:
        self.__qualname__ = "parameters"
        self.asked: list[str] = []
        self.stop_after = stop_after

    def __call__(self, arch: Any) -> float:
        if len(self.asked) == self.stop_after:
            raise KeyboardInterrupt
        self.asked.append(archdsl.search.identity.canonical_hash(arch))
        return parameters(arch)


class Listed:
    """An algorithm that proposes what it was given."""

    def __init__(self, vectors: list[Any]) -> None:
        self.vectors = vectors
        self.told: list[Trial] = []

    def ask(self, number: int) -> Any:
        return self.vectors[number % len(self.vectors)]

    def tell(self, trial: Trial) -> None:
        self.told.append(trial)


# ----------------------------------------------------------------------------------- objectives


def test_rewards_are_those_of_the_papers() -> None:
    figures = {"latency_us:phone": 300.0, "latency_us:slow": 800.0}

    def reward(name: Any, accuracy: float = 0.5, **targets: float) -> float:
        return Objectives((PHONE, SLOW), targets=targets, reward=name).reward_of(accuracy, figures)

    assert reward("soft", phone=200.0) == mnasnet_reward(0.5, 300, 200)
    assert reward("hard", phone=200.0) == pytest.approx(0.5 * 200 / 300)
    assert reward("hard", phone=400.0) == 0.5
    assert reward("absolute", phone=200.0) == absolute_reward(0.5, 300, 200, beta=-0.1)
    assert reward("absolute", phone=400.0) == pytest.approx(0.5 - 0.1 * 0.25)
    assert reward("accuracy", phone=1.0) == 0.5
    # Of several devices the one that is furthest above its target counts.
    assert reward("hard", phone=300.0, slow=400.0) == pytest.approx(0.25)
    assert reward("absolute", -3.0, phone=300.0) == -3.0
    with pytest.raises(Unweighable, match="below 0"):
        reward("soft", -3.0, phone=300.0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"goals": ("acuracy",)}, "did you mean accuracy"),
        ({"goals": ("macs", "macs")}, "twice"),
        ({"goals": ("latency_us:tablet",)}, "no figure"),
        ({"bounds": {"parms": 3}}, "did you mean params"),
        ({"bounds": {"params": 0}}, "positive"),
        ({"bounds": {"params": float("nan")}}, "positive"),
        ({"targets": {"tablet": 3.0}}, "none of the devices"),
        ({"targets": {"phone": float("inf")}}, "positive"),
        ({"reward": "soft"}, "needs a device and a target"),
        ({"reward": "sharp"}, "must be soft"),
        ({"reward": "cost"}, "without the accuracy"),
        ({"reward": "cost", "goals": ("params", "accuracy")}, "without the accuracy"),
        ({"devices": (PHONE, PHONE)}, "two devices"),
        ({"devices": (Device.of_ridge(3),)}, "no times"),
        ({"dtype": "int4"}, "int4"),
        ({"batch": 0}, "at least 1"),
    ],
)
def test_wishes_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Objectives(**{"devices": (PHONE,), **settings})


def test_goals_by_default_and_by_short_names() -> None:
    assert Objectives().goals == ("accuracy", "macs")
    assert Objectives((PHONE,)).goals == ("accuracy", "latency_us:phone")
    read = read_goals(("accuracy", "latency", "bytes", "peak"), (PHONE, SLOW))
    assert read[1:3] == ("latency_us:phone", "latency_us:slow")
    assert read[3:] == ("weight_bytes", "peak_activation_bytes")
    with pytest.raises(ValueError, match="needs a device"):
        read_goals(("latency",), ())


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_front_is_what_nothing_beats(size: int) -> None:
    rng = random.Random(size)
    for _ in range(200):
        points = [
            tuple(float(rng.randrange(4)) for _ in range(size)) for _ in range(rng.randrange(12))
        ]
        beaten = [
            any(
                all(a >= b for a, b in zip(other, point, strict=True)) and other != point
                for other in points
            )
            for point in points
        ]
        assert best(points) == [not b for b in beaten]


def test_figures_are_the_compilers() -> None:
    objectives = Objectives((PHONE, SLOW), batch=3)
    for vector in random.Random(1).sample(ALL, 20):
        (figures,) = objectives.measure(Tables(SPACE), [vector])
        cost = SPACE.arch_of(vector).cost(dtype="int8", batch=3, devices=(PHONE, SLOW))
        for name in ("params", "macs", "weight_bytes", "activation_bytes", "peak_activation_bytes"):
            assert figures[name] == getattr(cost, name)
        for latency in cost.latency:
            assert figures[f"latency_us:{latency.device}"] == pytest.approx(latency.us, rel=1e-12)


# --------------------------------------------------------------------------------------- bounds


def test_the_least_of_a_space_is_the_least_of_its_members() -> None:
    objectives = Objectives((PHONE, SLOW), batch=2)
    measured = objectives.measure(Tables(SPACE), ALL)
    for figure in objectives.figures:
        found = least(SPACE, figure, objectives)
        assert found.value == pytest.approx(min(m[figure] for m in measured), rel=1e-12)
        assert found.vector is not None
        (own,) = objectives.measure(Tables(SPACE), [found.vector])
        assert own[figure] == pytest.approx(found.value, rel=1e-12)


def test_where_weights_stay_on_the_chip_the_least_is_a_bound_from_below() -> None:
    device = Device("tpu", 1e9, 1e8, dtype="int8", on_chip=OnChip(weight_bytes=3000))
    objectives = Objectives((device,))
    found = least(SPACE, "latency_us:tpu", objectives)
    measured = [m["latency_us:tpu"] for m in objectives.measure(Tables(SPACE), ALL)]
    assert found.vector is None
    assert 0 < found.value <= min(measured) * (1 + 1e-12)


def test_a_bound_or_target_that_no_network_reaches_is_an_error_before_anything_runs() -> None:
    objectives = Objectives((PHONE,))
    smallest = {figure: least(SPACE, figure, objectives).value for figure in objectives.figures}
    time_ = smallest.pop("latency_us:phone")
    reached = Objectives((PHONE,), bounds=smallest, targets={"phone": time_})
    assert not unreachable(SPACE, reached)
    missed = Objectives(
        (PHONE,),
        bounds={name: value - 0.5 for name, value in smallest.items()},
        targets={"phone": time_ * 0.999},
    )
    counted = Counted()
    with pytest.raises(ArchError) as failure:
        Study(SPACE, missed, evaluator=counted)
    found = failure.value.diagnostics
    assert [one.code for one in found] == ["E1007"] * (len(smallest) + 1)
    assert f"the least is {smallest['params']:,.0f} parameters, of" in str(found[0].help)
    assert "the target" in found[-1].message
    assert not counted.asked


# ------------------------------------------------------------------------------------- studies


def test_a_budget_is_of_networks_that_are_evaluated() -> None:
    middle = sorted(m["params"] for m in Objectives().measure(Tables(SPACE), ALL))[len(ALL) // 2]
    objectives = Objectives(bounds={"params": middle})
    counted = Counted()
    study = Study(SPACE, objectives, evaluator=counted, algorithm="random", seed=3)
    watched: list[Trial] = []
    ending = study.run(12, watched.append)
    trials = study.trials
    assert watched == trials == sorted(trials, key=lambda trial: trial.number)
    assert len(counted.asked) == len(set(counted.asked)) == 12 == ending.evaluated
    assert ending.reason == "budget" and ending.infeasible > 0
    for trial in trials:
        assert (trial.figures["params"] > middle) is (trial.state == "infeasible")
        assert (trial.violations[0] > 0) is (trial.state == "infeasible")
        assert (trial.accuracy is None) is (trial.state == "infeasible")
    assert study.best == max(study.complete, key=lambda t: (t.accuracy, -t.figures["macs"]))
    # Again it runs on, and no network is asked about twice.
    study.run(20)
    assert len(counted.asked) == len(set(counted.asked)) == 20
    assert study.trials[: len(trials)] == trials


def test_equal_networks_are_evaluated_once() -> None:
    text = "arch s input 8x8x3 stem { conv_o8 ( k3 | skip ) ( k3 | skip ) }"
    space = parse_space(text)
    same = [(0, 1), (1, 0), (0, 1), (0, 0)]
    counted = Counted()
    algorithm = Listed(same)
    study = Study(space, Objectives(), evaluator=counted, algorithm=algorithm)
    study.run(2)
    assert len(counted.asked) == 2
    assert [trial.same_as for trial in study.trials] == [None, 0, 0, None]
    first, second, *_ = study.trials
    assert second.accuracy == first.accuracy and second.objectives == first.objectives
    assert algorithm.told == study.trials
    assert len(study.complete) == 2


def test_a_search_ends_when_the_space_does() -> None:
    space = parse_space("arch s input 8x8x3 stem { conv_k{1,3}_o{8,16} }")
    study = Study(space, Objectives(), evaluator=parameters, algorithm="random")
    ending = study.run(1000)
    assert ending.reason == "everything" and ending.evaluated == 4


def test_a_search_ends_where_nothing_new_is_proposed() -> None:
    algorithm = Listed(ALL[:1])
    study = Study(SPACE, Objectives(), evaluator=parameters, algorithm=algorithm)
    ending = study.run(5)
    assert (ending.reason, ending.evaluated, ending.repeated) == ("idle", 1, IDLE)


def test_faults_of_an_evaluator_are_failed_trials() -> None:
    def moody(arch: Any) -> Any:
        kind = len(calls) % 5
        calls.append(kind)
        if kind == 1:
            raise RuntimeError("out\nof order")
        return {0: 0.5, 2: float("nan"), 3: "good", 4: {"loss": 1.0}}[kind]

    calls: list[int] = []
    study = Study(SPACE, Objectives(), evaluator=moody, algorithm=Listed(ALL))
    ending = study.run(10)
    assert (ending.evaluated, ending.failed) == (10, 8)
    faults = [trial.fault for trial in study.trials[:5]]
    assert faults[0] is None and faults[1] == "RuntimeError: out of order"
    assert all(fault and "\n" not in fault for fault in faults[1:])
    assert all(t.accuracy is None and not t.objectives for t in study.trials if t.fault)


def test_an_accuracy_that_a_reward_cannot_weigh_is_a_fault() -> None:
    objectives = Objectives((PHONE,), targets={"phone": 1000.0})
    study = Study(SPACE, objectives, evaluator=lambda arch: -1.0, algorithm=Listed(ALL))
    study.run(ALIKE - 1)
    assert {trial.state for trial in study.trials} == {"failed"}
    assert "`absolute`" in str(study.trials[0].fault)


def test_an_evaluator_that_never_works_ends_the_search() -> None:
    def broken(arch: Any) -> float:
        raise FileNotFoundError(f"no data for {arch.cost().params}")

    study = Study(SPACE, Objectives(), evaluator=broken, algorithm=Listed(ALL))
    with pytest.raises(ArchError) as failure:
        study.run(50)
    (found,) = failure.value.diagnostics
    assert found.code == "E1008" and "no data for" in found.message
    assert len(study.trials) == ALIKE


def test_the_traceback_of_a_callable_is_in_the_log(tmp_path: Path) -> None:
    def broken(arch: Any) -> float:
        return float({}["x"])

    def sorry(arch: Any) -> float:
        raise Failed("no luck")

    log = tmp_path / "evaluator.log"
    Study(SPACE, Objectives(), evaluator=sorry, log=log).run(1)
    assert not log.exists()
    Study(SPACE, Objectives(), evaluator=broken, log=log).run(1)
    text = log.read_text()
    assert text.startswith("--- trial 0\nTraceback") and text.endswith("KeyError: 'x'\n")
    assert 'return float({}["x"])' in text


def test_the_legend_of_rewards_in_time_hides_no_trial() -> None:
    pytest.importorskip("matplotlib")
    from archdsl.search.pictures import search_figure

    study = Study(SPACE, Objectives(), evaluator=parameters, algorithm="random")
    study.run(5)
    figure = search_figure(study)
    figure.draw_without_rendering()
    panel = figure.axes[-1]
    legend = panel.get_legend()
    assert legend is not None
    assert legend.get_window_extent().y0 >= panel.get_window_extent().y1


@pytest.mark.parametrize("goals", [("params", "latency_us:phone"), ("params",)])
def test_a_search_on_costs_alone_asks_nobody_and_goes_on(
    goals: tuple[str, ...], tmp_path: Path
) -> None:
    from archdsl.search.pictures import search_figure

    objectives = Objectives((PHONE,), goals=goals, bounds={"macs": 1e5})
    assert objectives.reward == "cost"
    figures = objectives.measure(Tables(SPACE), ALL)
    within = [one for one in figures if one["macs"] <= 1e5]
    points = [tuple(-one[goal] for goal in goals) for one in within]
    wanted = {point for point, on in zip(points, best(points), strict=True) if on}
    where = tmp_path / "study.journal"

    def study() -> Study:
        return Study(SPACE, objectives, algorithm=Listed(ALL), storage=where)

    with study() as first:
        assert first.run(10).evaluated == 10
    with study() as whole:
        ending = whole.run(len(ALL))
    assert (ending.reason, ending.failed) == ("everything", 0)
    assert 0 < ending.infeasible == len(ALL) - len(within)
    assert {trial.objectives for trial in whole.front} == wanted
    assert all(trial.accuracy is None for trial in whole.trials)
    assert whole.best is not None
    assert whole.best.reward == -min(one["params"] for one in within)
    with study() as again:
        assert again.trials == whole.trials
    *against, in_time = search_figure(whole).axes
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in against] == [
        ("ms on phone", "millions of parameters")
    ][: len(goals) - 1]
    so_far = in_time.lines[-1].get_ydata()
    assert so_far[-1] == -whole.best.reward / 1e6 == min(so_far)


def test_accuracies_that_are_wanted_need_an_evaluator() -> None:
    costs = Objectives((PHONE,), goals=("params",))
    aimed = Objectives((PHONE,), goals=("params",), targets={"phone": 300.0})
    for wanted in (Objectives(), aimed, Objectives(goals=("params",), reward="accuracy")):
        with pytest.raises(ValueError, match="there is no evaluator"):
            Study(SPACE, wanted)
    others: list[dict[str, Any]] = [{"workers": 2}, {"timeout": 1.0}, {"settings": {"a": 1}}]
    for settings in others:
        with pytest.raises(ValueError, match="are for an evaluator"):
            Study(SPACE, costs, **settings)
    # Where one is asked all the same, its accuracies are kept, and its faults cost networks.
    study = Study(SPACE, costs, evaluator=parameters, algorithm="random")
    study.run(5)
    assert all(trial.accuracy and trial.reward == -trial.figures["params"] for trial in study.front)
    failing = Study(SPACE, costs, evaluator=lambda arch: float("nan"), algorithm="random")
    assert failing.run(3).failed == 3


def test_an_evaluator_that_has_worked_may_fail_as_often_as_it_likes() -> None:
    def tired(arch: Any) -> float:
        if study.evaluated >= 2:
            raise FileNotFoundError("no data")
        return 0.5

    study = Study(SPACE, Objectives(), evaluator=tired, algorithm=Listed(ALL))
    study.run(2)
    assert study.run(2 + 2 * ALIKE).failed == 2 * ALIKE


class AtOnce:
    """Workers whose evaluations end together."""

    slots = 4

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def submit(self, number: int, text: str) -> None:
        self.numbers.append(number)

    def wait(self) -> list[tuple[int, Evaluation]]:
        ended, self.numbers = self.numbers, []
        return [(number, Evaluation(number / 100)) for number in ended]

    def close(self) -> None:
        pass


def test_what_ended_together_is_kept_together(tmp_path: Path) -> None:
    def stop(trial: Trial) -> None:
        raise KeyboardInterrupt

    options: dict[str, Any] = {"evaluator": "any", "workers": AtOnce, "storage": tmp_path / "s"}
    with Study(SPACE, Objectives(), **options, algorithm="random") as study:
        with pytest.raises(KeyboardInterrupt):
            study.run(8, stop)
        assert study.evaluated == 4
    with Study(SPACE, Objectives(), **options, algorithm="random") as study:
        assert [trial.number for trial in study.complete] == [0, 1, 2, 3]


# ------------------------------------------------------------------------------------- storage


def kept(study: Study) -> list[Any]:
    """What is known of the trials; how long they took is another matter each time."""
    return [
        (t.number, t.vector, t.state, t.accuracy, t.reward, t.objectives, t.same_as, t.fault)
        for t in study.trials
    ]


@pytest.mark.parametrize("algorithm", ["random", "evolution", "tpe", "nsga2"])
def test_a_search_that_is_interrupted_goes_on_as_if_it_had_not_been(
    algorithm: str, tmp_path: Path
) -> None:
    objectives = Objectives(bounds={"params": 4000})
    options: dict[str, Any] = {"algorithm": algorithm, "seed": 5}
    if algorithm in ("evolution", "nsga2"):
        options["algorithm_settings"] = {"population": 5}
    whole = Study(SPACE, objectives, evaluator=parameters, **options)
    whole.run(10)
    asked: list[str] = []
    for stop in (0, 1, 3, 4, None):
        counted = Counted(stop)
        options["storage"] = tmp_path / "study.journal"
        with Study(SPACE, objectives, evaluator=counted, **options) as study:
            try:
                study.run(10)
            except KeyboardInterrupt:
                assert stop is not None
        asked += counted.asked
    assert kept(study) == kept(whole)
    assert len(asked) == len(set(asked)) == 10


def test_a_stored_study_keeps_all_there_is_to_know(tmp_path: Path) -> None:
    def telling(arch: Any) -> dict[str, float]:
        return {"accuracy": parameters(arch), "loss": 0.25}

    objectives = Objectives((PHONE,), bounds={"params": 4000}, targets={"phone": 200.0})
    where = tmp_path / "study.journal"
    with Study(SPACE, objectives, evaluator=telling, storage=where) as study:
        study.run(8)
    with Study(SPACE, objectives, evaluator=telling, storage=where) as again:
        assert again.trials == study.trials
        assert again.best == study.best and again.front == study.front
        assert again.run(8).evaluated == 8
    assert again.trials == study.trials
    assert any(trial.extra == {"loss": 0.25} for trial in again.trials)


def test_optunas_own_tools_see_the_decisions_and_the_goals(tmp_path: Path) -> None:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    where = tmp_path / "study.journal"
    objectives = Objectives(bounds={"params": 4000})
    with Study(SPACE, objectives, evaluator=parameters, algorithm="random", storage=where) as study:
        study.run(6)
    storage = optuna.storages.JournalStorage(JournalFileBackend(os.fspath(where)))
    seen = optuna.load_study(study_name="small", storage=storage)
    assert [d.name for d in seen.directions] == ["MAXIMIZE", "MINIMIZE"]
    for theirs, ours in zip(seen.trials, study.trials, strict=True):
        assert theirs.number == ours.number
        assert theirs.params == {
            SPACE.choices[c].path: SPACE.choices[c].options[ours.vector[c]]
            for c in SPACE.active(ours.vector)
        }
        if ours.state == "complete":
            assert theirs.values == [ours.accuracy, ours.figures["macs"]]
        else:
            assert theirs.state.name == "PRUNED"


OTHERS: dict[str, Callable[[], dict[str, Any]]] = {
    "search space": lambda: {"space": parse_space(TEXT.replace("{8,16,24}", "{8,16,32}"))},
    "bounds": lambda: {"objectives": Objectives(bounds={"params": 5000})},
    "goals": lambda: {"objectives": Objectives(goals=("accuracy", "params"))},
    "devices": lambda: {
        "objectives": Objectives((PHONE,), goals=("accuracy", "macs"), dtype="int8")
    },
    "dtype": lambda: {"objectives": Objectives(dtype="int8")},
    "evaluator": lambda: {"evaluator": lambda arch: 0.5},
    "algorithm": lambda: {"algorithm": "evolution"},
    "seed": lambda: {"seed": 1},
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_study_of_something_else_is_not_gone_on_with(what: str, tmp_path: Path) -> None:
    where = tmp_path / "study.journal"
    options: dict[str, Any] = {
        "space": SPACE,
        "objectives": Objectives(),
        "evaluator": parameters,
        "algorithm": "random",
        "storage": where,
    }
    with Study(**options) as study:
        study.run(1)
    before = where.read_bytes()
    with pytest.raises(ArchError) as failure:
        Study(**(options | OTHERS[what]()))
    (found,) = failure.value.diagnostics
    assert found.code == "E1006" and what in found.message
    assert where.read_bytes() == before
    # A comment or another name of the file is nothing else.
    options["space"] = parse_space(f"# mine\n{TEXT}")
    with Study(**options) as study:
        assert study.evaluated == 1


def test_a_file_holds_the_study_of_one_space_whatever_its_name(tmp_path: Path) -> None:
    where, url = tmp_path / "study.journal", f"sqlite:///{tmp_path}/studies.db"
    other = parse_space(TEXT.replace("arch small", "arch another"))
    for storage in (where, url):
        with Study(SPACE, Objectives(), evaluator=parameters, storage=storage) as study:
            study.run(1)
    before = where.read_bytes()
    with pytest.raises(ArchError, match="search space and name") as failure:
        Study(other, Objectives(), evaluator=parameters, storage=where)
    (found,) = failure.value.diagnostics
    assert found.code == "E1006" and "name: small there, another here" in str(found.help)
    assert where.read_bytes() == before
    # A database has room for both, and what nothing has come of is in nobody's way.
    Study(other, Objectives(), evaluator=parameters, storage=url).close()
    begun = tmp_path / "begun.journal"
    Study(SPACE, Objectives(), evaluator=parameters, storage=begun).close()
    Study(other, Objectives(), evaluator=parameters, storage=begun).close()


def test_strings_are_of_a_space_and_comments_and_layout_are_not() -> None:
    text = 'arch s\nsource "a#b"\ninput 8x8x3\nstem { conv_k{1,3}_o{8,16} }\n'
    digest = digest_of(parse_space(text))
    for other in (
        "# mine\n" + text,
        text.replace("\n", ' # it\'s "so"\n\n'),
        text.replace("{ conv", "{ # first\n  conv"),
    ):
        assert digest_of(parse_space(other)) == digest
    assert digest_of(parse_space(text.replace("a#b", "a#c"))) != digest


def test_what_was_begun_in_vain_is_nothing_to_keep_to(tmp_path: Path) -> None:
    where = tmp_path / "study.journal"
    with (
        Study(SPACE, Objectives(), evaluator="digts", storage=where) as study,
        pytest.raises(EvaluatorError, match="digits"),
    ):
        study.run(3)
    with Study(SPACE, Objectives(), evaluator=parameters, storage=where) as study:
        assert study.run(3).evaluated == 3


def test_a_line_that_was_cut_is_taken_away_and_its_trial_tried_again(tmp_path: Path) -> None:
    where = tmp_path / "study.journal"

    def study(evaluator: Any) -> Study:
        return Study(SPACE, Objectives(), evaluator=evaluator, algorithm="random", storage=where)

    with study(parameters) as first:
        first.run(4)
    whole = where.read_bytes()
    rng = random.Random(2)
    cuts = [len(whole) - 1, *(rng.randrange(100, len(whole)) for _ in range(5))]
    for cut in cuts:
        where.write_bytes(whole[:cut])
        (tmp_path / "study.journal.lock").symlink_to("study.journal")
        counted = Counted()
        with study(counted) as again:
            done = again.evaluated
            again.run(4)
        assert kept(again) == kept(first)
        assert len(counted.asked) == 4 - done


@pytest.mark.parametrize(
    "content",
    [b"hello", b"hello\n", b'{"accuracy": 0.5}\n', b'{"op_code":0}\nhello\n', b'{"op_code":0}\n'],
)
def test_a_file_that_is_no_study_is_left_alone(content: bytes, tmp_path: Path) -> None:
    where = tmp_path / "notes.txt"
    where.write_bytes(content)
    with pytest.raises(ArchError) as failure:
        Study(SPACE, Objectives(), evaluator=parameters, storage=where)
    assert [one.code for one in failure.value.diagnostics] == ["E1009"]
    assert where.read_bytes() == content


def test_a_study_of_another_program_is_no_study_of_ours(tmp_path: Path) -> None:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    where = tmp_path / "study.journal"
    storage = optuna.storages.JournalStorage(JournalFileBackend(os.fspath(where)))
    theirs = optuna.create_study(study_name="small", storage=storage)
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(ArchError, match="another program"):
        Study(SPACE, Objectives(), evaluator=parameters, storage=where)


def test_two_searches_do_not_write_one_study(tmp_path: Path) -> None:
    where = tmp_path / "study.journal"
    with (
        Study(SPACE, Objectives(), evaluator=parameters, storage=where),
        pytest.raises(Busy, match="another process"),
    ):
        Study(SPACE, Objectives(), evaluator=parameters, storage=where)
    Study(SPACE, Objectives(), evaluator=parameters, storage=where).close()


def test_a_study_in_a_database_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    counted = Counted(3)
    options: dict[str, Any] = {"evaluator": counted, "algorithm": "random", "storage": url}
    with Study(SPACE, Objectives(), **options) as study, pytest.raises(KeyboardInterrupt):
        study.run(6)
    counted.stop_after = None
    with Study(SPACE, Objectives(), **options) as study:
        study.run(6)
    assert len(counted.asked) == len(set(counted.asked)) == 6
    # Two that begin at the very same time are noticed by their trials.
    with Study(SPACE, Objectives(), **options) as one:
        monkeypatch.setattr("archdsl.search.records.require_free", lambda *_: None)
        with Study(SPACE, Objectives(), **options) as two:
            one.run(7)
            with pytest.raises(Busy):
                two.run(8)
    with pytest.raises(OSError, match="unable to open"):
        Study(SPACE, Objectives(), evaluator=parameters, storage="sqlite:////no/such/folder/x.db")


def test_a_study_that_somebody_is_at_work_on_in_a_database_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"

    def study(**options: Any) -> Study:
        given: dict[str, Any] = {"evaluator": parameters, "algorithm": "random", "storage": url}
        return Study(SPACE, Objectives(), **(given | options))

    with study() as first:
        # With the same settings its trials are its own; with others there is nothing yet to keep.
        for options in ({}, {"seed": 1}):
            with pytest.raises(Busy, match=f"{os.getpid()} on "):
                study(**options)
        first.run(2)
        thread = first._records._owner._thread  # type: ignore[union-attr]
        assert thread.is_alive()
    with study() as second:
        assert second.evaluated == 2
    assert not thread.is_alive()
    monkeypatch.setattr("archdsl.search.storages._BEAT", 0.01)
    monkeypatch.setattr("archdsl.search.storages._SILENT", 0.5)
    with study() as third:
        owner = third._records._owner  # type: ignore[union-attr]
        time.sleep(0.6)
        with pytest.raises(Busy):
            study()
        # One that has fallen silent, and one that has died on this machine, are at work no more.
        monkeypatch.setattr(type(owner), "leave", lambda self: self._over.set())
    time.sleep(0.6)
    study().close()
    monkeypatch.setattr("archdsl.search.storages._SILENT", 1e9)
    with pytest.raises(Busy):
        study()
    ended = subprocess.Popen(["true"])
    ended.wait()
    here = {"host": socket.gethostname(), "pid": ended.pid, "time": time.time()}
    require_free(here, url)
    with pytest.raises(Busy, match="elsewhere"):
        require_free({**here, "host": "elsewhere"}, url)


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    url = "postgresql+psycopg2://me:secret@localhost/studies"
    with pytest.raises(
        ImportError, match="psycopg2, is missing; pip install psycopg2-b"
    ) as failure:
        Study(SPACE, Objectives(), evaluator=parameters, storage=url)
    assert "secret" not in str(failure.value)


# ------------------------------------------------------------------------------------- workers

MODULE = """\
import ctypes, os, signal, subprocess, sys, time
from pathlib import Path

def good(arch):
    print("a word to nobody")
    print("and another", file=sys.stderr)
    return {"accuracy": 1 - 1 / arch.cost().params, "pid": os.getpid()}

def unruly(arch):
    kind = arch.name
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "crashed":
        print("what went wrong", file=sys.stderr, flush=True)
        os._exit(3)
    if kind == "hanging":
        # The shell in between has ended: nobody is the parent of the first sleep.
        script = '(sleep 100 & echo $! > "$PIDS.orphan"); exec sleep 100'
        child = subprocess.Popen(["sh", "-c", script], start_new_session=True)
        Path(os.environ["PIDS"]).write_text(str(child.pid))
        time.sleep(100)
    if kind == "closed":
        os.close(1)
        sys.stdin.close()
    if kind == "exit":
        sys.exit(4)
    if kind == "mute":
        os.closerange(3, 64)
        time.sleep(100)
    if kind in ("forked", "back"):
        child = os.fork()
        if not child and kind == "forked":
            time.sleep(100)
        if child and kind == "forked":
            Path(os.environ["PIDS"]).write_text(str(child))
            os._exit(3)
    if kind == "loud":
        for _ in range(300):
            print("x" * 99999, file=sys.stderr)
        time.sleep(1.5)
        print("the last word", file=sys.stderr)
    if kind == "guarded":
        status = Path("/proc/self/status").read_text()
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        return {"accuracy": 0.5, "caught": caught >> (signal.SIGQUIT - 1) & 1}
    if kind == "stuck":
        Path(os.environ["PIDS"]).write_text(str(os.getpid()))
        # It sleeps without letting go of Python's lock.
        ctypes.PyDLL(None).sleep(100)
    return 0.5

def slow(arch):
    time.sleep(float(os.environ.get("NAP", "0.2")))
    return good(arch)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "evaluators_here.py").write_text(MODULE)
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    monkeypatch.setenv("PIDS", os.fspath(tmp_path / "pids"))
    return tmp_path


def alive(pid: int) -> bool:
    """Whether a process is there, and is more than what its parent has not asked about yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pid: int, seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not alive(pid)


def text_of(name: str) -> str:
    return SPACE.text_of(ALL[0], name)


def test_children_that_misbehave_cost_their_own_network_alone(module: Path) -> None:
    names = ["killed", "fine", "crashed", "hanging", "closed", "exit", "well"]
    log = module / "log"
    workers = LocalWorkers("evaluators_here:unruly", slots=2, timeout=2, log=log)
    try:
        for number, name in enumerate(names):
            workers.submit(number, text_of(name))
        found: dict[int, Any] = {}
        while len(found) < len(names):
            found.update(workers.wait())
        assert workers.wait() == []
    finally:
        workers.close()
    faults = {name: found[number].fault for number, name in enumerate(names)}
    assert faults == {
        "killed": "the evaluator was ended by SIGKILL",
        "fine": None,
        "crashed": "the evaluator ended its process with exit status 3 (what went wrong)",
        "hanging": "it took longer than 2 s, and was ended",
        "closed": None,
        "exit": "the evaluator ended the program (exit status 4)",
        "well": None,
    }
    # What a child had started, even in a session of its own, is ended with it.
    assert gone(int((module / "pids").read_text()))
    assert gone(int((module / "pids.orphan").read_text()))
    assert "what went wrong" in log.read_text()


def results(workers: Any, *names: str) -> dict[str, Any]:
    """What becomes of networks of these names."""
    found: dict[str, Any] = {}
    try:
        for number, name in enumerate(names):
            workers.submit(number, text_of(name))
        while len(found) < len(names):
            ended = workers.wait()
            assert ended
            found |= {names[number]: evaluation for number, evaluation in ended}
    finally:
        workers.close()
    return found


def test_a_child_that_falls_silent_or_leaves_its_pipe_to_another_is_noticed(module: Path) -> None:
    started = time.monotonic()
    found = results(LocalWorkers("evaluators_here:unruly"), "mute", "forked", "fine")
    assert found["mute"].fault in (
        "the evaluator closed the pipe of its answers, and was ended",
        # Its listener may notice first that it can listen no more.
        "the evaluator was ended by SIGKILL",
    )
    assert found["forked"].fault == "the evaluator ended its process with exit status 3"
    assert found["fine"].fault is None
    assert gone(int((module / "pids").read_text()))
    assert time.monotonic() - started < 60


def test_one_evaluation_has_one_answer(module: Path) -> None:
    names = ("back", "fine", "well")
    found = results(LocalWorkers("evaluators_here:unruly", timeout=60), *names)
    assert [found[name].accuracy for name in names] == [0.5, 0.5, 0.5]


def test_what_an_evaluator_says_fills_no_disk_and_a_log_that_fails_ends_nothing(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archdsl.search.workers._SAID", 1 << 20)
    log = module / "log"
    sizes: list[int] = []
    shorten = _Child.shorten

    def watched(child: _Child) -> None:
        shorten(child)
        sizes.append(os.fstat(child._said.fileno()).st_size)

    monkeypatch.setattr(_Child, "shorten", watched)
    found = results(LocalWorkers("evaluators_here:unruly", log=log), "loud")
    assert found["loud"].fault is None
    assert max(sizes) <= 1 << 20
    text = log.read_text()
    assert len(text) < 1 << 17 and text.endswith("xxx\nthe last word\n")
    workers = LocalWorkers("evaluators_here:unruly", log=module / "no" / "log")
    assert "what went wrong" in results(workers, "crashed")["crashed"].fault


def test_a_refusal_drops_nothing_that_ended_beside_it() -> None:
    workers = LocalWorkers("digits")
    child: Any = SimpleNamespace(number=3, said=lambda: "")
    ended: list[Any] = []
    workers._children.append(child)
    workers._heard(SimpleNamespace(number=4), {"refused": "no"}, ended)  # type: ignore[arg-type]
    answer = {"number": 3, "accuracy": 0.5, "fault": None, "extra": {}, "seconds": 1.0}
    workers._heard(child, answer, ended)
    assert [(number, found.accuracy) for number, found in ended] == [(3, 0.5)]
    workers._waiting.append((5, ""))
    with pytest.raises(EvaluatorError, match="no"):
        workers.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a child is not ended")
def test_a_child_that_is_stuck_in_c_ends_with_the_search(module: Path) -> None:
    script = (
        "import sys; from archdsl.search.workers import LocalWorkers; "
        "w = LocalWorkers('evaluators_here:unruly'); w.submit(0, sys.argv[1]); "
        "w.wait()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, text_of("stuck")],
        env={**os.environ, "PYTHONPATH": os.fspath(module)},
    )
    pids, until = module / "pids", time.monotonic() + 60
    while not (pids.exists() and pids.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.2)
    process.kill()
    process.wait()
    assert gone(int(pids.read_text()), 30)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a child is not ended")
def test_a_child_does_not_end_with_the_thread_that_started_it(module: Path) -> None:
    workers = LocalWorkers("evaluators_here:unruly")
    thread = threading.Thread(target=workers.submit, args=(0, text_of("guarded")))
    thread.start()
    thread.join()
    try:
        ((_, evaluation),) = workers.wait()
    finally:
        workers.close()
    assert evaluation.extra == {"caught": 0}
    found = results(LocalWorkers("evaluators_here:unruly"), "guarded")
    assert found["guarded"].extra == {"caught": 1}


def test_children_are_kept_and_several_work_at_once(module: Path) -> None:
    study = Study(SPACE, Objectives(), evaluator="evaluators_here:good", workers=2, timeout=60)
    ending = study.run(12)
    assert (ending.evaluated, ending.failed) == (12, 0)
    assert len({trial.extra["pid"] for trial in study.trials if trial.same_as is None}) <= 2
    assert len({trial.number for trial in study.trials}) == len(study.trials)


def test_an_evaluator_that_cannot_be_had_is_said_at_once(module: Path) -> None:
    study = Study(SPACE, Objectives(), evaluator="evaluators_here:god")
    with pytest.raises(EvaluatorError, match="good"):
        study.run(3)


def test_a_callable_has_no_time_limit_and_no_company() -> None:
    for options in ({"timeout": 3.0}, {"workers": 2}):
        with pytest.raises(ValueError, match="MODULE:FUNCTION"):
            Study(SPACE, Objectives(), evaluator=parameters, **options)  # type: ignore[arg-type]
    for numbers in ({"slots": 0}, {"timeout": 0}, {"timeout": float("nan")}):
        with pytest.raises(ValueError, match="must be"):
            LocalWorkers("digits", **numbers)  # type: ignore[arg-type]


SEARCHING = """\
import sys
from archdsl.search.objectives import Objectives
from archdsl.search.space import parse_space
from archdsl.search.study import Study

with Study(
    parse_space(open("space.arch").read()), Objectives(), evaluator="evaluators_here:slow",
    algorithm="random", workers=2, storage="study.journal",
) as study:
    study.run(8, lambda trial: print(trial.number, flush=True))
"""


def test_a_search_that_is_killed_loses_nothing_and_leaves_nobody_behind(module: Path) -> None:
    (module / "space.arch").write_text(TEXT)
    options = {"cwd": module, "env": {**os.environ, "PYTHONPATH": os.fspath(module)}}
    words = [sys.executable, "-c", SEARCHING]
    for lines in (1, 2):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
        for _ in range(lines):
            assert process.stdout.readline()
        children = _children(process.pid)
        assert children
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert all(gone(child) for child in children)
    objectives = Objectives()
    where = module / "study.journal"
    with Study(
        *(SPACE, objectives), evaluator="evaluators_here:slow", algorithm="random", storage=where
    ) as study:
        stored = kept(study)
        assert study.evaluated >= 3
        study.run(8)
    whole = Study(SPACE, objectives, evaluator=parameters, algorithm="random")
    whole.run(8)
    by_number = {trial[0]: trial for trial in kept(study)}
    assert all(by_number[trial[0]] == trial for trial in stored)
    fields = [(t.number, t.vector, t.accuracy) for t in study.trials]
    theirs = {t.number: (t.number, t.vector, t.accuracy) for t in whole.trials}
    assert all(field == theirs[field[0]] for field in fields if field[0] in theirs)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def test_limits_that_were_raised_hold_in_children_too(module: Path) -> None:
    from archdsl.limits import raised

    with raised(repeats=1200):
        space = parse_space("arch s input 8x8x3 stem { conv_k{1,3}_o8 r1001_k1_e1 }")
        study = Study(space, Objectives(), evaluator="evaluators_here:good")
        assert study.run(1).failed == 0


def test_proposals_of_one_network_wait_for_each_other(module: Path) -> None:
    space = parse_space("arch s input 8x8x3 stem { conv_o8 ( k3 | skip ) ( k3 | skip ) }")
    vectors = [(0, 1), (1, 0), (0, 0), (1, 1)]
    evaluator = "evaluators_here:slow"
    study = Study(*(space, Objectives()), evaluator=evaluator, algorithm=Listed(vectors), workers=3)
    study.run(3)
    assert [trial.same_as for trial in study.trials if trial.vector == (1, 0)] == [0]
    pairs = itertools.combinations(study.complete, 2)
    assert all(space.hash_of(a.vector) != space.hash_of(b.vector) for a, b in pairs)
