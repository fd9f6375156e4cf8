"""What an architecture search maximises: accuracy, weighted by latency against a target.

Accuracy and the reward share a unit (percent or a share of one); time and target share one too.
"""

from __future__ import annotations

import math

SOFT = (-0.07, -0.07)
"""alpha and beta of MnasNet's soft constraint: twice the time for 5 % more accuracy."""

HARD = (0.0, -1.0)
"""alpha and beta of its hard constraint: faster than the target gains nothing."""


def mnasnet_reward(
    accuracy: float, latency: float, target: float, *, alpha: float = -0.07, beta: float = -0.07
) -> float:
    """ACC x (LAT / T)^w, w = alpha where LAT <= T, else beta (MnasNet, arXiv 1807.11626, eq. 2, 3).

    Raises:
        ValueError: a time or a target that is not a positive, finite number.

    >>> mnasnet_reward(75.0, 80.0, 80.0)
    75.0
    >>> round(mnasnet_reward(75.0, 160.0, 80.0), 2), mnasnet_reward(75.0, 160.0, 80.0, beta=-1.0)
    (71.45, 37.5)
    """
    ratio = _ratio(latency, target)
    return float(accuracy * ratio ** (alpha if ratio <= 1 else beta))


def absolute_reward(accuracy: float, latency: float, target: float, *, beta: float) -> float:
    """ACC + beta x |LAT / T - 1|, beta < 0: TuNAS (arXiv 2008.06120).

    Raises:
        ValueError: a time or a target that is not a positive, finite number, or a beta that is
            not negative.

    >>> absolute_reward(0.75, 88.0, 80.0, beta=-0.07)
    0.743
    """
    if not beta < 0:
        raise ValueError(f"beta {beta}: must be negative")
    return accuracy + beta * abs(_ratio(latency, target) - 1)


def _ratio(latency: float, target: float) -> float:
    for what, value in (("latency", latency), ("target", target)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{what} {value}: must be a positive number")
    return latency / target
