"""Members drawn with equal chances."""

from __future__ import annotations

from archdsl.search.algorithms.common import rng_of
from archdsl.search.space import Space, Vector
from archdsl.search.trials import Trial


class Sampling:
    """Uniform over the members of a space: what every other algorithm must beat."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed

    def ask(self, number: int) -> Vector:
        return self._space.sample(rng_of(self._seed, number))

    def tell(self, trial: Trial) -> None:
        pass
