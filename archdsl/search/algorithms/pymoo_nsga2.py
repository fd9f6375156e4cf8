"""pymoo's NSGA-II with the operators of a space."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import ElementwiseDuplicateElimination
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination

from archdsl.search.algorithms.common import MOST, objectives_of, rng_of, violation_of, within
from archdsl.search.space import Space, Vector
from archdsl.search.trials import Trial

Told = tuple[Vector, tuple[float, ...] | None, float]
"""A network, its objectives (None where it was not evaluated), and how far it is out of bounds."""


class PymooNsga2:
    """NSGA-II (Deb et al. 2002), as pymoo has it, on the objectives.

    Children are made one at a time, of the generation that was told last as a whole:
    `Space.crossover` of two, then `Space.mutate`; one whose network is in that generation already
    is made anew. A network beyond a bound is in a generation, and worse than all within; one
    whose evaluation failed is in none.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        *,
        population: int = 20,
        crossover: float = 0.9,
        mutation: float = 1.0,
    ) -> None:
        within("population", population, 2, MOST)
        within("crossover", crossover, 0, 1)
        within("mutation", mutation, 0, 1)
        self._space, self._seed = space, seed
        self._size, self._crossover, self._mutation = population, crossover, mutation
        self._told: list[Told] = []
        self._generations = 0
        """How many the engine was told."""
        self._count = 1
        self._engine = self._made()

    def ask(self, number: int) -> Vector:
        rng = rng_of(self._seed, number)
        if not self._generations or self._space.count == 1:
            return self._space.sample(rng)
        # A generation of one child; the engine has no other state than the parents.
        self._engine.random_state = np.random.default_rng(rng.getrandbits(128))
        children = self._engine.ask()
        if children is None:
            # All children are in the generation already, and pymoo takes that for the end.
            self._engine.termination.force_termination = False
            return self._space.sample(rng)
        return tuple(int(index) for index in children[0].X)

    def tell(self, trial: Trial) -> None:
        if trial.state == "failed":
            return
        values = None
        if trial.state == "complete":
            values = objectives_of(trial)
            if len(values) != self._count:
                self._count, self._generations = len(values), 0
                self._engine = self._made()
        self._told.append((trial.vector, values, violation_of(trial)))
        while (self._generations + 1) * self._size <= len(self._told):
            start = self._generations * self._size
            # Whatever was asked in between: among equals the survivors are drawn.
            self._engine.random_state = np.random.default_rng(self._generations)
            self._engine.tell(infills=self._individuals(self._told[start : start + self._size]))
            self._generations += 1

    def _made(self) -> Any:
        most = np.array([len(choice.options) - 1 for choice in self._space.choices])
        problem = Problem(
            n_var=len(most),
            n_obj=self._count,
            n_ieq_constr=1,
            xl=np.zeros_like(most),
            xu=most,
            vtype=int,
        )
        engine = NSGA2(
            pop_size=self._size,
            n_offsprings=1,
            crossover=_Crossover(self._space, self._crossover),
            mutation=_Mutation(self._space, self._mutation),
            eliminate_duplicates=_Same(self._space),
        )
        # A small space may have no other child: ten times is enough to find that out.
        engine.mating.n_max_iterations = 10
        return engine.setup(problem, termination=NoTermination(), seed=0)

    def _individuals(self, told: list[Told]) -> Any:
        """A generation, evaluated: pymoo minimises."""
        return Population.new(
            X=np.array([vector for vector, _, _ in told]),
            F=np.array([[-v for v in values or (0.0,) * self._count] for _, values, _ in told]),
            G=np.array([[violation] for _, _, violation in told]),
        )


class _Crossover(Crossover):  # type: ignore[misc]
    def __init__(self, space: Space, chance: float) -> None:
        super().__init__(2, 1, prob=chance)
        self._space = space

    def _do(self, problem: Any, X: Any, *args: Any, random_state: Any, **others: Any) -> Any:
        pairs = zip(*X, strict=True)
        children = [self._space.crossover(one, other, random_state) for one, other in pairs]
        return np.array([children])


class _Mutation(Mutation):  # type: ignore[misc]
    def __init__(self, space: Space, chance: float) -> None:
        super().__init__(prob=chance)
        self._space = space

    def _do(self, problem: Any, X: Any, *args: Any, random_state: Any, **others: Any) -> Any:
        return np.array([self._space.mutate(vector, random_state) for vector in X])


class _Same(ElementwiseDuplicateElimination):  # type: ignore[misc]
    """Whether two individuals are one network."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self._hash = lru_cache(maxsize=1 << 12)(space.hash_of)

    def is_equal(self, one: Any, other: Any) -> bool:
        return self._hash(tuple(one.X.tolist())) == self._hash(tuple(other.X.tolist()))
