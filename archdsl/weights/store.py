"""Sets of weights: into files and out of them, and what must agree before a weight is used."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from threading import Lock
from typing import Any

import numpy as np

from archdsl.files import write_whole
from archdsl.ir.execute import Array
from archdsl.ir.graph import Graph
from archdsl.ir.lazy import Lazy, LazyWeights
from archdsl.ir.ops import Shape
from archdsl.lang.diagnostics import ArchError, Diagnostic, quoted
from archdsl.weights.tensors import FLOATS, TensorFile, float32, safetensors
from archdsl.weights.tensors import to_safetensors as to_safetensors

TRACKED = "num_batches_tracked"
"""Counters that training keeps beside a norm: inference does not read them."""

_SHOWN = 40
"""Rows of a table of misfits; the count says how many there are."""


def load_weights(path: str | os.PathLike[str], graph: Graph) -> dict[str, Array]:
    """The weights of a graph from a safetensors file, as float32 in the graph's order.

    Keys and shapes are compared with the graph's before anything is read. Counters of batches may
    be missing, since inference does not read them.

    Raises:
        OSError: the file cannot be read.
        ArchError: E0801 where keys, shapes or element types are not the graph's, with all of
            them; E0802 where the file is no safetensors; E0803 where a weight is not finite.
    """
    return dict(open_weights(path, graph))


def open_weights(path: str | os.PathLike[str], graph: Graph) -> LazyWeights:
    """The weights that `load_weights` gives, checked by it, each read again when it is asked for.

    The file stays open as long as they live. Where it is changed meanwhile, reading raises E0802.
    """
    file = TensorFile(path)
    header, wanted = file.header, graph.state()
    types = {key: entry.dtype for key, entry in header.items() if entry.dtype not in FLOATS}
    found = {key: entry.shape for key, entry in header.items()}
    shown = quoted(os.fspath(path), 200)
    _compare(f"{shown} does not fit {quoted(graph.name)}", wanted, found, types)
    return _finite(_completed(file.lazy(), wanted), shown)


def fitted(
    weights: Mapping[str, Any], graph: Graph, title: str = "the set of weights"
) -> LazyWeights:
    """Arrays by key, checked against a graph, as float32 in the graph's order.

    `title` is whose values they are in what is said of them. An array that is float32 already is
    not copied; one that is lazy is made once, and checked.

    Raises:
        ArchError: E0801 where keys, shapes or element types are not the graph's; E0803 where a
            weight is not finite.
    """
    found, wanted = LazyWeights.of(weights).lazy, graph.state()
    types = {key: str(lazy.dtype) for key, lazy in found.items() if lazy.dtype.kind != "f"}
    shapes = {key: lazy.shape for key, lazy in found.items()}
    _compare(f"the weights do not fit {quoted(graph.name)}", wanted, shapes, types)
    return _finite(_completed(found, wanted), title)


def save_weights(path: str | os.PathLike[str], weights: Mapping[str, Array]) -> None:
    """Write weights as safetensors, whole or not at all; the same weights give the same bytes.

    Raises:
        OSError: the folder or the disk refuses.
    """
    write_whole(path, safetensors(weights))


def digest(weights: Mapping[str, Array]) -> str:
    """The sha256 of a set of weights: of each key, a zero byte and the values' bytes, in order."""
    return Digest(LazyWeights.of(weights)).hexdigest()


class Digest:
    """What `digest` gives, of weights that are read meanwhile anyway.

    `weights` are to be read instead of those given. As long as that is done about in order, each is
    hashed when it is read; what was left out, `hexdigest` makes again.
    """

    def __init__(self, weights: LazyWeights) -> None:
        self._lazy = weights.lazy
        self._keys = list(self._lazy)
        self._places = {key: place for place, key in enumerate(self._keys)}
        self._starts = list(accumulate((lazy.nbytes for lazy in self._lazy.values()), initial=0))
        self._done = 0
        self._hash = hashlib.sha256()
        self._lock = Lock()
        self.weights = LazyWeights(
            {key: lazy._replace(make=partial(self._read, key)) for key, lazy in self._lazy.items()}
        )

    def _read(self, key: str) -> Array:
        value = self._lazy[key].make()
        place = self._places[key]
        with self._lock:
            # Little ones between are read again or never: norms that were folded, counters.
            ahead = self._starts[place] - self._starts[self._done]
            if place >= self._done and ahead <= _LITTLE:
                self._hash_until(place)
                self._add(key, value)
        return value

    def hexdigest(self) -> str:
        with self._lock:
            self._hash_until(len(self._keys))
        return self._hash.hexdigest()

    def _hash_until(self, place: int) -> None:
        for key in self._keys[self._done : place]:
            self._add(key, self._lazy[key].make())

    def _add(self, key: str, value: Array) -> None:
        self._hash.update(f"{key}\0".encode())
        self._hash.update(np.ascontiguousarray(value).data)
        self._done += 1


_LITTLE = 1 << 20
"""Bytes of weights that are made once more rather than hashed later."""


# ------------------------------------------------------------------------------------ checking


def _counter(key: str) -> bool:
    return key.rpartition(".")[2] == TRACKED


def _compare(
    title: str,
    wanted: Mapping[str, Shape],
    found: Mapping[str, Shape],
    types: Mapping[str, str],
) -> None:
    """Refuse a set of weights with other keys, shapes or, as `types` tells, no floating type."""
    rows: list[tuple[str, str, str]] = []
    for key, shape in wanted.items():
        if _counter(key):
            continue
        if key not in found:
            rows.append((key, written(shape), "missing"))
        elif found[key] != shape:
            rows.append((key, written(shape), written(found[key])))
        elif key in types:
            rows.append((key, written(shape), f"of {types[key]}, not floating"))
    strays = [key for key in found if key not in wanted]
    rows += [(key, "none", written(found[key])) for key in strays]
    if not rows:
        return
    count = f"{len(rows):,} {'key differs' if len(rows) == 1 else 'keys differ'}"
    hint = table(("key", "expected", "found"), rows[:_SHOWN])
    if len(rows) > _SHOWN:
        hint += f"\nand {len(rows) - _SHOWN:,} more"
    hint += "".join(f"\n{line}" for line in _advice(wanted, strays, set(found)))
    message = f"{title}: {count}, of {len(wanted):,}"
    raise ArchError([Diagnostic("E0801", message, None, hint)])


def _advice(wanted: Mapping[str, Shape], strays: Sequence[str], found: set[str]) -> Iterable[str]:
    """What the user may have meant by keys that are not the graph's."""
    if strays and not any(key in wanted for key in found):
        yield "if these are another library's, read them with `archdsl weights import`"
        return
    missing = [key for key in wanted if key not in found and not _counter(key)]
    for key in strays[:3]:
        # Comparing is quadratic in the length, and keys that long are no slips.
        if len(key) <= 200:
            for guess in difflib.get_close_matches(key, missing[:1000], 1, 0.8):
                yield f"{quoted(key, 200)}: did you mean {quoted(guess, 200)}?"


def written(shape: Shape) -> str:
    """A shape as messages show it: `32x3x3x3`."""
    return "x".join(map(str, shape)) or "scalar"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, aligned; a cell is cut at 60 characters.

    >>> print(table(("key", "shape"), [("fc.bias", "10"), ("fc.weight", "10x240")]))
    key        shape
    fc.bias    10
    fc.weight  10x240
    """
    lines = [[_cut(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cut(cell: str) -> str:
    return cell if len(cell) <= 60 else f"…{cell[-59:]}"


def _completed(found: Mapping[str, Lazy], wanted: Mapping[str, Shape]) -> LazyWeights:
    """Weights in the graph's order; a counter that is missing, or no integer, is zero."""
    return LazyWeights(
        {
            key: _counted(found.get(key), shape) if _counter(key) else _as_float32(found[key])
            for key, shape in wanted.items()
        }
    )


def _counted(lazy: Lazy | None, shape: Shape) -> Lazy:
    if lazy is None or lazy.shape != shape or lazy.dtype.kind not in "iu":
        return Lazy.of(np.zeros(shape, np.int64))
    return Lazy.of(lazy.make().astype(np.int64, copy=False))


def _as_float32(lazy: Lazy) -> Lazy:
    if lazy.dtype == np.float32:
        return lazy
    return Lazy(lazy.shape, np.dtype(np.float32), lambda: float32(lazy.make()))


def _finite(weights: LazyWeights, title: str) -> LazyWeights:
    bad, negative = [], []
    with np.errstate(invalid="ignore"):
        for key, value in weights.items():
            # A sum is finite only where all its terms are: one pass without a table of booleans.
            if value.dtype.kind == "f" and not np.isfinite(value.sum(dtype=np.float64)):
                bad.append(key)
            if key.endswith(".running_var") and (value < 0).any():
                negative.append(key)
    if bad:
        raise ArchError([not_finite(title, bad)])
    if negative:
        raise ArchError([not_finite(title, negative, "negative variances")])
    return weights


def not_finite(
    title: str, keys: Sequence[str], what: str = "infinite or not numbers"
) -> Diagnostic:
    """What is said of tensors with values that no network computes with: E0803."""
    shown = ", ".join(quoted(key, 100) for key in keys[:8])
    more = f" and {len(keys) - 8:,} more" if len(keys) > 8 else ""
    message = f"{title} holds values that are {what}, in {shown}{more}"
    hint = "a training that diverged leaves such weights; take an earlier checkpoint"
    return Diagnostic("E0803", message, None, hint)
