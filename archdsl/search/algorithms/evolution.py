"""Regularised evolution: tournaments among the youngest networks, whatever became of them."""

from __future__ import annotations

from collections import deque

from archdsl.search.algorithms.common import MOST, reward_of, rng_of, violation_of, within
from archdsl.search.space import Space, Vector
from archdsl.search.trials import Trial


class Evolution:
    """Ageing evolution (Real et al., arXiv:1802.01548, Algorithm 1, there with 100 and 25).

    The population is what was told last. As long as it is not full, members are drawn with equal
    chances; then the best of a few, drawn with replacement, is changed by one decision
    (`Space.mutate`). The oldest dies, so that no network stays for having been lucky once. A
    network beyond a bound is worse than every other, the more so the further it is beyond; one
    whose evaluation failed is left out.
    """

    def __init__(
        self, space: Space, seed: int, *, population: int = 20, tournament: int = 5
    ) -> None:
        within("population", population, 1, MOST)
        within("tournament", tournament, 1, population)
        self._space, self._seed = space, seed
        self._size, self._tournament = population, tournament
        self._population: deque[tuple[tuple[bool, float], Vector]] = deque(maxlen=population)

    def ask(self, number: int) -> Vector:
        rng = rng_of(self._seed, number)
        if len(self._population) < self._size:
            return self._space.sample(rng)
        rivals = [rng.choice(self._population) for _ in range(self._tournament)]
        _, parent = max(rivals, key=lambda rival: rival[0])
        return self._space.mutate(parent, rng)

    def tell(self, trial: Trial) -> None:
        if trial.state == "complete":
            self._population.append(((True, reward_of(trial)), trial.vector))
        elif trial.state == "infeasible":
            self._population.append(((False, -violation_of(trial)), trial.vector))
