"""Samplers of Optuna, each proposal of which hangs on what was told alone.

An in-memory study has the trials that were told. A proposal is a trial of its own there, sampled
with randomness of its own, and given up at once: samplers pass over such trials. Choices are
categorical parameters under their paths.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from archdsl.search.algorithms.common import (
    MOST,
    objectives_of,
    reward_of,
    rng_of,
    violation_of,
    within,
)
from archdsl.search.decisions import Decisions, Fork
from archdsl.search.space import Space, Vector
from archdsl.search.trials import Trial

Objectives = tuple[float, ...]


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says little; every study that is made, though, and what of it is experimental."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _Optuna:
    """What the samplers have in common; how many objectives there are is told with the trials."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed
        self._decisions = Decisions(space)
        self._parameters = {
            choice.path: CategoricalDistribution(tuple(range(len(choice.options))))
            for choice in space.choices
        }
        self._told: list[tuple[Trial, Objectives | None]] = []
        self._study: Study | None = None

    # -- what differs

    def _sampler(self, seed: int) -> BaseSampler:
        raise NotImplementedError

    def _objectives(self, trial: Trial) -> Objectives:
        raise NotImplementedError

    def _parameters_of(self, trial: Trial) -> dict[str, int]:
        """What a trial had, as parameters."""
        raise NotImplementedError

    def _indices(self, trial: optuna.Trial) -> Callable[[Fork], int]:
        """Which option a sampled trial has, of the choice of a fork."""
        raise NotImplementedError

    # -- the protocol

    def ask(self, number: int) -> Vector:
        rng = rng_of(self._seed, number)
        with _quiet():
            study = self._study or self._made(1)
            study.sampler = self._sampler(rng.getrandbits(32))
            trial = study.ask()
            taken = self._indices(trial)

            def choose(fork: Fork) -> int:
                index = taken(fork)
                if index in fork.indices:
                    return fork.indices.index(index)
                return rng.randrange(len(fork.indices))

            vector = self._decisions.walk(choose)
            study.tell(trial, state=TrialState.FAIL)
        return vector

    def tell(self, trial: Trial) -> None:
        if trial.state == "failed":
            return
        values = self._objectives(trial) if trial.state == "complete" else None
        self._told.append((trial, values))
        with _quiet():
            if self._study is None or (values and len(values) != len(self._study.directions)):
                self._study = self._made(len(values or (0,)))
            else:
                self._add(self._study, trial, values)

    def _suggested(self, trial: optuna.Trial, path: str) -> int:
        index = trial.suggest_categorical(path, self._parameters[path].choices)
        assert type(index) is int
        return index

    def _made(self, count: int) -> Study:
        """A study of so many objectives, with all that was told."""
        study = optuna.create_study(directions=["maximize"] * count, sampler=self._sampler(0))
        for trial, values in self._told:
            self._add(study, trial, values)
        return study

    def _add(self, study: Study, trial: Trial, values: Objectives | None) -> None:
        parameters = self._parameters_of(trial)
        if values is None:
            # It was not evaluated, and Optuna wants numbers: the worst of those before.
            before = [told for _, told in self._told if told]
            columns = zip(*before, strict=True) if before else [(0.0,)] * len(study.directions)
            values = tuple(min(column) for column in columns)
        study.add_trial(
            create_trial(
                params=parameters,
                distributions={name: self._parameters[name] for name in parameters},
                values=values,
                constraints={"bounds": violation_of(trial)},
            )
        )
        self._added(study)

    def _added(self, study: Study) -> None:
        """A study has one trial more."""


class Tpe(_Optuna):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), as Optuna has it, on the reward.

    Choices that all networks have are sampled together, the others one by one if they are open;
    where what was sampled leads to no member, one of the options that do is drawn. Until
    `startup` trials were told, all of it is drawn.
    """

    def __init__(self, space: Space, seed: int, *, startup: int = 10, candidates: int = 24) -> None:
        within("startup", startup, 0, MOST)
        within("candidates", candidates, 1, MOST)
        self._startup, self._candidates = startup, candidates
        super().__init__(space, seed)

    def _sampler(self, seed: int) -> BaseSampler:
        # What runs elsewhere is not counted in: it would not be told again.
        return TPESampler(
            n_startup_trials=self._startup,
            n_ei_candidates=self._candidates,
            multivariate=True,
            constant_liar=False,
            seed=seed,
        )

    def _objectives(self, trial: Trial) -> Objectives:
        return (reward_of(trial),)

    def _parameters_of(self, trial: Trial) -> dict[str, int]:
        choices = self._space.choices
        return {choices[c].path: trial.vector[c] for c in self._space.active(trial.vector)}

    def _indices(self, trial: optuna.Trial) -> Callable[[Fork], int]:
        choices = self._space.choices

        def taken(fork: Fork) -> int:
            path = choices[fork.column].path
            return self._suggested(trial, path)

        return taken


class Nsga2(_Optuna):
    """NSGA-II (Deb et al. 2002), as Optuna has it, on the objectives.

    A choice that a network leaves out has an option all the same, drawn for each trial, since
    Optuna's crossover wants all parents to have all. Generations are counted by what was told.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        *,
        population: int = 20,
        crossover: float = 0.9,
    ) -> None:
        within("population", population, 2, MOST)
        within("crossover", crossover, 0, 1)
        self._population, self._crossover = population, crossover
        super().__init__(space, seed)

    def _sampler(self, seed: int) -> _ByOrder:
        return _ByOrder(population_size=self._population, crossover_prob=self._crossover, seed=seed)

    def _objectives(self, trial: Trial) -> Objectives:
        return objectives_of(trial)

    def _parameters_of(self, trial: Trial) -> dict[str, int]:
        open_ = set(self._space.active(trial.vector))
        rng = Random(f"archdsl {self._seed} genes {trial.number}")
        return {
            choice.path: index if column in open_ else rng.randrange(len(choice.options))
            for column, (choice, index) in enumerate(
                zip(self._space.choices, trial.vector, strict=True)
            )
        }

    def _added(self, study: Study) -> None:
        # The parents of a generation are found from those of the one before, by recursion.
        count = len(_complete(study))
        if count % self._population == 0:
            self._sampler(0).get_parent_population(study, count // self._population)

    def _indices(self, trial: optuna.Trial) -> Callable[[Fork], int]:
        found = [self._suggested(trial, choice.path) for choice in self._space.choices]
        return lambda fork: found[fork.column]


class _ByOrder(NSGAIISampler):
    """NSGA-II whose generations are the trials of a study in their order, so many at a time."""

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        return len(_complete(study)) // self._size

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        start = generation * self._size
        return list(_complete(study)[start : start + self._size])

    @property
    def _size(self) -> int:
        assert self.population_size is not None
        return self.population_size


def _complete(study: Study) -> Sequence[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
