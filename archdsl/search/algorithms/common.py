"""What all algorithms need: draws that hang on the trial alone, and what a trial was worth."""

from __future__ import annotations

import random

from archdsl.search.trials import Trial


def rng_of(seed: int, number: int) -> random.Random:
    """The randomness of one proposal: the same whatever was proposed before."""
    return random.Random(f"archdsl {seed} {number}")


def reward_of(trial: Trial) -> float:
    """What is maximised where only one number is, of a complete trial.

    Raises:
        ValueError: it has neither a reward nor a single objective.
    """
    if trial.reward is not None:
        return trial.reward
    if len(trial.objectives) == 1:
        return trial.objectives[0]
    raise ValueError(f"trial {trial.number} has several objectives, and no reward")


def violation_of(trial: Trial) -> float:
    """By how much a trial is beyond its bounds, taken together: above 0 if it is infeasible."""
    if trial.state != "infeasible":
        return 0.0
    # A bound may be missed by less than numbers can tell.
    return max(sum(max(amount, 0.0) for amount in trial.violations), 1e-12)


def at_least(name: str, value: float, least: float) -> None:
    """Check a setting.

    Raises:
        ValueError: it is below the least that is allowed, or no number.
    """
    if not value >= least:
        raise ValueError(f"{name} {value!r}: must be at least {least}")


def within(name: str, value: float, least: float, most: float) -> None:
    """Check a setting that has both ends.

    Raises:
        ValueError: it is outside.
    """
    if not least <= value <= most:
        raise ValueError(f"{name} {value!r}: must be between {least} and {most}")
