"""A policy over the members of a space, learned by REINFORCE: the controller of TuNAS.

As in TuNAS (arXiv:2008.06120; its code is google-research/tunas, `controller.py` and
`mobile_architecture_search.py`) every choice has logits of its own, zero at first; a network's
log-probability is the sum over the choices that are open in it; the baseline is a moving average
of rewards without bias; the step is Adam's without its first moment, and an entropy term, if
there is one, is added by plain gradient ascent.

MnasNet's controller is another one: a recurrent network, trained by proximal policy optimisation
(arXiv:1807.11626, section 4.2), whose decisions depend on those before. Here they depend on those
before in one way alone: what leads to no member is left out, and the chances of the rest are
scaled to one. Where nothing excludes anything this is TuNAS's distribution exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.search.algorithms.common import LARGEST, within
from archdsl.search.decisions import Decisions, Fork
from archdsl.search.space import Space, Vector

Real = NDArray[np.float64]

_SECOND_MOMENT = 0.999
_EPSILON = 1e-8


class Controller:
    """The policy: sampling, log-probabilities with exact gradients, and learning.

    The defaults are TuNAS's for batches of 4,096 images. Its learning rate grows tenfold in the
    course of a search, exponentially, and is 0 for the first quarter, while only weights are
    trained: `learning_rate` may be set before any `update`.

    >>> import random
    >>> from archdsl.search.space import parse_space
    >>> space = parse_space("arch s input 8x8x3 stem { conv_k{1,3,5}_o{8,16} }")
    >>> controller, rng = Controller(space, learning_rate=0.1), random.Random(1)
    >>> for _ in range(200):
    ...     vectors = [controller.sample(rng) for _ in range(4)]
    ...     controller.update(vectors, [float(vector == (2, 0)) for vector in vectors])
    >>> controller.best()
    (2, 0)
    """

    def __init__(
        self,
        space: Space,
        *,
        learning_rate: float = 0.0048,
        baseline_momentum: float = 0.95,
        entropy: float = 0.0,
    ) -> None:
        within("learning_rate", learning_rate, 0, 100)
        within("baseline_momentum", baseline_momentum, 0, 0.999999)
        within("entropy", entropy, 0, 100)
        self.space = space
        self.learning_rate = learning_rate
        self.baseline_momentum = baseline_momentum
        self.entropy = entropy
        self._decisions = Decisions(space)
        self._logits = np.zeros(self._decisions.offsets[-1])
        self._values: list[float] = self._logits.tolist()
        self._second = np.zeros_like(self._logits)
        self._updates = 0
        self._mean = 0.0
        self._weight = 0.0

    # -- the policy

    @property
    def logits(self) -> Real:
        """The logits of all choices, one choice behind the other: (options,).

        May be set, to an array of the same shape.
        """
        return self._logits.copy()

    @logits.setter
    def logits(self, values: Any) -> None:
        array = np.array(values, np.float64)
        if array.shape != self._logits.shape or not np.isfinite(array).all():
            raise ValueError(f"logits are {len(self._logits)} finite numbers")
        self._logits = array
        self._values = array.tolist()

    @property
    def baseline(self) -> float | None:
        """The moving average of rewards; None before the first."""
        return self._mean / self._weight if self._weight else None

    def sample(self, rng: Any) -> Vector:
        """A member, drawn from the policy.

        `rng` is a `random.Random` or a `numpy.random.Generator`.
        """

        def draw(fork: Fork) -> int:
            weights = self._weights(fork)
            left = rng.random() * sum(weights)
            for place, weight in enumerate(weights):
                left -= weight
                if left < 0:
                    return place
            # By rounding nothing is left: the likeliest is never one that cannot be drawn.
            return weights.index(max(weights))

        return self._decisions.walk(draw)

    def best(self) -> Vector:
        """The member of the likeliest option at each decision, in the order of the text.

        That is what TuNAS takes in the end (`tools/analyze_mobile_search.py` of its code). The
        likeliest member as a whole it need not be: an alternative with many choices inside spreads
        its chance over many members.
        """
        values = self._values

        def likeliest(fork: Fork) -> int:
            here = [values[entry] for entry in fork.entries]
            return here.index(max(here))

        return self._decisions.walk(likeliest)

    def probabilities(self) -> tuple[Real, ...]:
        """For each choice the chances of its options, where it is open and all of them fit."""
        offsets = self._decisions.offsets
        found = []
        for start, end in pairwise(offsets):
            here = np.exp(self._logits[start:end] - self._logits[start:end].max())
            found.append(here / here.sum())
        return tuple(found)

    def log_prob(self, vector: Sequence[int]) -> float:
        """The log-probability of a member.

        Raises:
            ValueError: it is no member's vector.
        """
        total = 0.0
        for fork, place in self._decisions.forks(vector):
            here = [self._values[entry] for entry in fork.entries]
            most = max(here)
            total += here[place] - most - math.log(sum(math.exp(v - most) for v in here))
        return total

    def gradient(self, vector: Sequence[int]) -> Real:
        """The derivatives of `log_prob` by the logits: (options,).

        Raises:
            ValueError: it is no member's vector.
        """
        found = np.zeros_like(self._logits)
        for fork, place in self._decisions.forks(vector):
            weights = self._weights(fork)
            total = sum(weights)
            for entry, weight in zip(fork.entries, weights, strict=True):
                found[entry] -= weight / total
            found[fork.entries[place]] += 1.0
        return found

    def _weights(self, fork: Fork) -> list[float]:
        """The chances of a fork's options, but for a factor; the largest is 1."""
        values = self._values
        here = [values[entry] for entry in fork.entries]
        most = max(here)
        return [math.exp(value - most) for value in here]

    # -- learning

    def update(self, vectors: Sequence[Sequence[int]], rewards: Sequence[float]) -> None:
        """Make members with rewards above the baseline likelier, and the others less likely.

        It is one step for all of them, and their own mean is in the baseline before. They should
        be drawn from this policy: only then does the step follow the expected reward's slope.

        Raises:
            ValueError: none, a vector that is no member's, not a finite reward for each.
        """
        values = np.array(rewards, np.float64)
        fits = len(vectors) and values.shape == (len(vectors),)
        if not fits or not (np.abs(values) <= LARGEST).all():
            raise ValueError("an update is of one vector or more, with a finite reward for each")
        slopes = np.array([self.gradient(vector) for vector in vectors])
        momentum = self.baseline_momentum
        self._mean = momentum * self._mean + (1 - momentum) * float(values.mean())
        self._weight = momentum * self._weight + (1 - momentum)
        slopes *= (values - self._mean / self._weight)[:, None]
        decay = _SECOND_MOMENT
        self._updates += 1
        self._second *= decay
        self._second += (1 - decay) * np.mean(slopes**2, axis=0)
        scale = self.learning_rate * math.sqrt(1 - decay**self._updates)
        step = scale * slopes.mean(axis=0) / (np.sqrt(self._second) + _EPSILON)
        if self.entropy:
            spread = np.mean([self._spread(vector) for vector in vectors], axis=0)
            step += self.learning_rate * self.entropy * spread
        self.logits = self._logits + step

    def _spread(self, vector: Sequence[int]) -> Real:
        """The derivatives of the sum of the entropies of a member's decisions, as they stand."""
        found = np.zeros_like(self._logits)
        for fork, _ in self._decisions.forks(vector):
            weights = np.array(self._weights(fork))
            chances = weights / weights.sum()
            logs = np.log(np.maximum(chances, np.finfo(float).tiny))
            # Of the entropy -sum(p log p) by a logit: -p (log p - sum(p log p)).
            found[list(fork.entries)] -= chances * (logs - (chances * logs).sum())
        return found
