"""What all algorithms need: draws that hang on the trial alone, and what a trial was worth."""

from __future__ import annotations

import random

from archdsl.search.trials import Trial

MOST = 10_000
"""The most networks in a population, and of anything else that is counted."""

LARGEST = 1e100
"""Where numbers are cut: their squares, and sums of these, are numbers too."""


def rng_of(seed: int, number: int) -> random.Random:
    """The randomness of one proposal: the same whatever was proposed before."""
    return random.Random(f"archdsl {seed} {number}")


def reward_of(trial: Trial) -> float:
    """What is maximised where only one number is, of a complete trial.

    Raises:
        ValueError: it has neither a reward nor a single objective.
    """
    if trial.reward is not None:
        return _cut(trial.reward)
    if len(trial.objectives) == 1:
        return _cut(trial.objectives[0])
    raise ValueError(f"trial {trial.number} has several objectives, and no reward")


def objectives_of(trial: Trial) -> tuple[float, ...]:
    """What is maximised where several numbers are, of a complete trial; or its reward alone."""
    return tuple(map(_cut, trial.objectives)) or (reward_of(trial),)


def _cut(value: float) -> float:
    return min(max(value, -LARGEST), LARGEST)


def violation_of(trial: Trial) -> float:
    """By how much a trial is beyond its bounds, taken together: above 0 if it is infeasible."""
    if trial.state != "infeasible":
        return 0.0
    # A bound may be missed by less than numbers can tell.
    return _cut(max(sum(max(amount, 0.0) for amount in trial.violations), 1e-12))


def within(name: str, value: float, least: float, most: float) -> None:
    """Check a setting.

    Raises:
        ValueError: it is outside, or no number.
    """
    if not least <= value <= most:
        raise ValueError(f"{name} {value!r}: must be between {least:,} and {most:,}")
