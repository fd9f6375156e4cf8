"""Random numbers that are the same bytes on every machine.

numpy promises the stream of raw integers of a bit generator, but neither its normal variates nor
the last bit of its logarithms. Here the raw integers become variates by additions,
multiplications, divisions and square roots alone, which IEEE 754 rounds in one way only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_QUANTILES = 1 << 16
"""The normal distribution is drawn as so many equally likely values, its quantiles."""

_PART = 1 << 15
"""Values that are drawn at once, a multiple of those that one raw integer gives."""

# M. Giles, "Approximating the erfinv function" (GPU Computing Gems, 2010): single precision, as
# polynomials in w = -log(1 - x^2), highest power first.
_CENTRE = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
_TAIL = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)


class Stream:
    """The variates of a seed and a name: another name gives independent ones."""

    def __init__(self, seed: int, name: str) -> None:
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        self._bits = np.random.PCG64(int.from_bytes(digest, "big"))

    def uniform(self, count: int, low: float, high: float) -> Floats:
        """`count` float32 values, uniform from low to high, which rounding may reach."""
        found: Floats = np.empty(count, np.float32)
        for part in _parts(found):
            np.copyto(part, self._integers(len(part)), casting="same_kind")
            part *= np.float32(2**-24)
            part *= np.float32(high - low)
            part += np.float32(low)
        return found

    def normal(self, count: int, std: float) -> Floats:
        """`count` float32 values, normal with mean 0, at most 4.3 standard deviations from it."""
        found: Floats = np.empty(count, np.float32)
        for part in _parts(found):
            raw = self._bits.random_raw((len(part) + 3) // 4).astype("<u8", copy=False)
            # No index is out of range: "clip" saves numpy a copy.
            np.take(_quantiles(), raw.view("<u2")[: len(part)], out=part, mode="clip")
            part *= np.float32(std)
        return found

    def _integers(self, count: int) -> NDArray[np.uint32]:
        """`count` integers of 24 bits, two of each raw one."""
        raw = self._bits.random_raw((count + 1) // 2).astype("<u8", copy=False)
        return (raw.view("<u4")[:count] >> 8).astype(np.uint32, copy=False)


def _parts(values: Floats) -> Iterator[Floats]:
    """Views of some values each, one behind the other: little enough for the cache."""
    for start in range(0, len(values), _PART):
        yield values[start : start + _PART]


@cache
def _quantiles() -> Floats:
    """The middles of equally likely slices of the standard normal distribution."""
    # Odd integers: symmetric around zero, and neither zero nor one.
    x = np.arange(1 - _QUANTILES, _QUANTILES, 2).astype(np.float32) / np.float32(_QUANTILES)
    return _erfinv(x) * np.float32(math.sqrt(2))


def _erfinv(x: Floats) -> Floats:
    w = -_log((np.float32(1) - x) * (np.float32(1) + x))
    value = _polynomial(_CENTRE, w - np.float32(2.5))
    (far,) = np.nonzero(w >= 5)
    value[far] = _polynomial(_TAIL, np.sqrt(w[far]) - np.float32(3))
    value *= x
    return value


def _log(x: Floats) -> Floats:
    """The natural logarithm of positive numbers, to about float32's precision."""
    # The parts of an IEEE number: x = mantissa * 2^exponent with a mantissa in [0.5, 1).
    bits = x.view(np.int32)
    exponent = (bits >> 23) - 126
    mantissa = ((bits & 0x7FFFFF) | 0x3F000000).view(np.float32)
    # log(m) = 2 artanh((m - 1) / (m + 1)), where the argument is at most 1/3.
    z = (mantissa - np.float32(1)) / (mantissa + np.float32(1))
    series = _polynomial((2 / 13, 2 / 11, 2 / 9, 2 / 7, 2 / 5, 2 / 3, 2.0), z * z)
    series *= z
    series += exponent.astype(np.float32) * np.float32(math.log(2))
    return series


def _polynomial(coefficients: tuple[float, ...], x: Floats) -> Floats:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= x
        value += np.float32(coefficient)
    return value
