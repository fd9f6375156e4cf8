"""The int8 scales of a plan's values, from the ranges that were observed at the graph's nodes.

Most follow their range. Operators that only move elements keep their input's scale, as their
kernels demand; a sigmoid's is fixed. Where a kernel can only rescale by so much, as XNNPACK's do,
the finer of two scales gives way: what it loses was below the other's resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from archdsl.quantization.ranges import Range
from archdsl.quantization.scheme import Scale, activation_scale

from .tflite_plan import KERNELS, Call, Plan

INTEGER = {*KERNELS, "ADD", "MUL", "MEAN", "PAD", "RESHAPE", "TRANSPOSE", "LOGISTIC"}
"""Operators with an integer kernel in XNNPACK; others run in float32 between integer ones."""

MOVES = ("PAD", "RESHAPE", "TRANSPOSE")
"""Operators that keep their input's scale."""

SIGMOID = Scale(1 / 256, -128)
"""The only scale that the integer kernel of LOGISTIC gives."""

# XNNPACK's limits on the ratio of scales, with a factor of two to spare: an addend's to the sum's
# in [2^-10, 2^8), a product's below 2^8 (xnn_define_binary, xnn_define_convolution_2d), and a
# requantisation's in [2^-8, 2^7].
_LARGEST = 2.0**6
_SMALLEST_ADDEND = 2.0**-9


def constant_scale(value: float) -> Scale:
    """The scale of a constant that is one positive number; it is 127 steps."""
    return Scale(float(np.float32(value / 127)), 0)


def scales(plan: Plan, ranges: Mapping[str, Range]) -> dict[str, Scale]:
    """The scale of every value of a plan; `ranges` holds those of every node."""
    roots: dict[str, str] = {}
    for call in plan.calls:
        if call.name in MOVES:
            (source,) = call.inputs
            roots[call.output] = roots.get(source, source)
    fixed = {call.output for call in plan.calls if call.name == "LOGISTIC"}
    found: dict[str, Scale] = {}
    for value in plan.shapes:
        if value in fixed:
            found[value] = SIGMOID
        elif value not in roots:
            node, factor = plan.meanings[value]
            low, high = ranges[node]
            found[value] = activation_scale((low * factor, high * factor))

    def scale(value: str) -> float:
        return found[roots.get(value, value)].scale

    def at_least(value: str, least: float) -> bool:
        """Coarsen a value's scale where it is finer; whether that was needed."""
        root = roots.get(value, value)
        if found[root].scale >= least or root in fixed:
            return False
        found[root] = found[root]._replace(scale=float(np.float32(least)))
        return True

    # Coarsening one may ask for another; each only grows, and never beyond the coarsest.
    while any([_coarsened(call, scale, at_least) for call in plan.calls]):
        pass
    return {value: found[roots.get(value, value)] for value in plan.shapes}


def _coarsened(
    call: Call, scale: Callable[[str], float], at_least: Callable[[str, float], bool]
) -> bool:
    """Whether an operator needed coarser scales than there were."""
    if call.name == "ADD":
        addends = [scale(value) for value in call.inputs]
        if call.constant is not None:
            addends.append(constant_scale(float(call.constant[0])).scale)
        changed = at_least(call.output, max(addends) / _LARGEST)
        least = scale(call.output) * _SMALLEST_ADDEND
        return any([at_least(value, least) for value in call.inputs]) or changed
    if call.name == "MUL":
        product = float(np.prod([scale(value) for value in call.inputs]))
        if call.constant is not None:
            product *= constant_scale(float(call.constant[0])).scale
        return at_least(call.output, product / _LARGEST)
    if call.name == "MEAN":
        return at_least(call.output, scale(call.inputs[0]) / _LARGEST)
    if call.weight is not None:
        largest = float(np.abs(call.weight.make()).max()) / 127
        return at_least(call.output, scale(call.inputs[0]) * largest / _LARGEST)
    return False
