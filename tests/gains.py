"""How much larger the values of an int8 network are than they should be.

Noise of rounding has no sign: what it does to a ratio of signal to noise hides a scale that is some
per cent off, but not what that does to the values' size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import archdsl

LIMIT = 0.015
"""What rounding changes of a size at most, in `gated`."""

FAULT = 1.04
"""A scale that is so far off must be found."""

GATES = ("sigmoid", "hsigmoid")
ACTIVATIONS = ("relu", "relu6", "hswish", "swish")


def gated(gate: str, act: str) -> archdsl.Arch:
    """A network whose output is what a gate lets through: neither a sum nor a mean covers it."""
    return archdsl.parse(
        f"arch net input 40x40x3 act {act} se from=expanded round=1 act=relu gate={gate} "
        "stem { conv_k3_s22_o16 } stage c1 { ir_k3_e3_o24_se0.5_noskip }"
    )


def gain(found: Any, wanted: Any) -> float:
    """The size of values (..., channels) over what it should be, each around its channel's mean."""
    axes = tuple(range(wanted.ndim - 1))
    one, other = (x.astype(np.float64) - x.mean(axes, np.float64) for x in (found, wanted))
    return float((one * other).sum() / (other * other).sum())
