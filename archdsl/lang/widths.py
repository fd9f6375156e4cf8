"""What the widths of a text come to under the file's statements: rounded, scaled, squeezed."""

from __future__ import annotations

import math

from archdsl.lang.fields import Width
from archdsl.lang.spec import Attributes
from archdsl.rounding import make_divisible


def rounded(value: float, attributes: Attributes) -> int:
    """A channel count under the file's `round` statement."""
    rule = attributes.round
    return make_divisible(value, rule.divisor, rule.min, rule.limit)


def scaled(width: Width, attributes: Attributes) -> int:
    """A written width under the file's width multiplier and rounding."""
    if width.mark == "!":
        return width.channels
    value = width.channels * attributes.width
    return rounded(max(width.channels, value) if width.mark == "+" else value, attributes)


def squeezed(ratio: float, block_input: int, expanded: int, attributes: Attributes) -> int:
    """The inner width of squeeze-and-excitation.

    `round=1` truncates (tensorflow/tpu `mnasnet_model.py`); a larger divisor rounds as channels
    are rounded (slim `conv_blocks.py`).
    """
    rule = attributes.se
    value = (expanded if rule.base == "expanded" else block_input) * ratio
    return max(1, int(value)) if rule.round == 1 else make_divisible(value, rule.round)


def deepened(repeats: int, attributes: Attributes) -> int:
    """The repeats of a block of a stage under the depth multiplier, a decimal: 5 * 1.2 is 6."""
    return max(1, math.ceil(round(repeats * attributes.depth, 9)))
