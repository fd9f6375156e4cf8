"""REINFORCE over whole networks: the controller, fed with the rewards of trials."""

from __future__ import annotations

from archdsl.search.algorithms.common import LARGEST, reward_of, rng_of, violation_of
from archdsl.search.algorithms.controller import Controller
from archdsl.search.space import Space, Vector
from archdsl.search.trials import Trial


class Reinforce:
    """The controller of TuNAS (`controller.py`), one step for each trial.

    The learning rate is larger than TuNAS's, whose searches take tens of thousands of steps. A
    network beyond a bound counts as worse than the worst reward so far, by up to the width of
    all rewards so far; one whose evaluation failed teaches nothing.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        *,
        learning_rate: float = 0.1,
        baseline_momentum: float = 0.95,
        entropy: float = 0.0,
    ) -> None:
        self._seed = seed
        self._controller = Controller(
            space,
            learning_rate=learning_rate,
            baseline_momentum=baseline_momentum,
            entropy=entropy,
        )
        self._rewards: tuple[float, float] | None = None
        """The lowest and the highest."""

    def ask(self, number: int) -> Vector:
        return self._controller.sample(rng_of(self._seed, number))

    def tell(self, trial: Trial) -> None:
        if trial.state == "failed":
            return
        if trial.state == "complete":
            reward = reward_of(trial)
            low, high = self._rewards or (reward, reward)
            self._rewards = min(low, reward), max(high, reward)
        else:
            low, high = self._rewards or (0.0, 0.0)
            beyond = violation_of(trial)
            reward = low - ((high - low) or 1.0) * (beyond / (1 + beyond))
            reward = max(reward, -LARGEST)
        self._controller.update([trial.vector], [reward])
