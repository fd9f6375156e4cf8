"""Arrays that are made when they are asked for: few of a set of weights need be in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from archdsl.files import Piece
from archdsl.ir.execute import Array
from archdsl.ir.ops import Shape


class Lazy(NamedTuple):
    """An array whose shape and element type are known before it is made.

    `make` gives equal arrays each time, which nobody changes.
    """

    shape: Shape
    dtype: np.dtype[Any]
    make: Callable[[], Array]

    @classmethod
    def of(cls, array: Array) -> Lazy:
        """An array that is there already."""
        return cls(array.shape, array.dtype, lambda: array)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def then(self, change: Callable[[Array], Array]) -> Lazy:
        """What a change makes of the array; shape and element type stay."""
        return self._replace(make=lambda: change(self.make()))

    def transposed(self, *axes: int) -> Lazy:
        """The array with its axes in another order, as a view of it."""
        shape = tuple(self.shape[axis] for axis in axes)
        return self._replace(shape=shape, make=lambda: self.make().transpose(axes))

    def piece(self) -> Piece:
        """The elements' bytes in C order."""
        return Piece(self.nbytes, self._bytes)

    def _bytes(self) -> memoryview:
        array = self.make()
        assert (array.shape, array.dtype) == (self.shape, self.dtype)
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


class LazyWeights(Mapping[str, Array]):
    """Weights by `state_dict` key, each made anew when it is asked for; `lazy` has the recipes."""

    def __init__(self, lazy: Mapping[str, Lazy]) -> None:
        self.lazy = lazy

    @classmethod
    def of(cls, weights: Mapping[str, Any]) -> LazyWeights:
        """Weights that are there already, or lazy ones as they are."""
        if isinstance(weights, LazyWeights):
            return weights
        return cls({key: Lazy.of(np.asarray(value)) for key, value in weights.items()})

    def __getitem__(self, key: str) -> Array:
        return self.lazy[key].make()

    def __iter__(self) -> Iterator[str]:
        return iter(self.lazy)

    def __len__(self) -> int:
        return len(self.lazy)

    def __contains__(self, key: object) -> bool:
        return key in self.lazy

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, or a pickle, holds the arrays.
        return LazyWeights.of, (dict(self),)

    def __repr__(self) -> str:
        return f"LazyWeights({len(self):,} tensors)"
