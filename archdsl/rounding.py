"""Channel rounding, width scaling and SAME padding: the only copy of each rule."""

from __future__ import annotations


def make_divisible(
    value: float, divisor: int = 8, minimum: int | None = None, limit: float = 0.9
) -> int:
    """Round a channel count to the nearest multiple of `divisor`, as all MobileNets do.

    Halves round up, the result is never below `minimum` (default: the divisor) and never below
    `limit` times the value: one more divisor is added then.
    Source: tensorflow/models `research/slim/nets/mobilenet/mobilenet.py`, `_make_divisible`.

    >>> [make_divisible(v) for v in (12, 20, 11.2, 33.6)]
    [16, 24, 16, 32]
    """
    if minimum is None:
        minimum = divisor
    rounded = max(minimum, int(value + divisor / 2) // divisor * divisor)
    if rounded < limit * value:
        rounded += divisor
    return rounded


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one side: pixels before and after.

    The output has ceil(size / stride) pixels; the odd pixel of padding goes after.

    >>> same_padding(224, 3, 2), same_padding(225, 3, 2), same_padding(14, 5, 1)
    ((0, 1), (1, 1), (2, 2))
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
