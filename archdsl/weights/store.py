"""Weight files: safetensors in and out, and what must agree before a weight is used."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from archdsl.ir.execute import Array
from archdsl.ir.graph import Graph
from archdsl.ir.ops import Shape
from archdsl.lang.diagnostics import ArchError, Diagnostic, did_you_mean, quoted

SAFETENSORS_FLOATS = {"F16", "BF16", "F32", "F64"}
"""The element types that weights are read from; all become float32."""

_TRACKED = "num_batches_tracked"
_SHOWN = 40
"""Rows of a table of misfits; the count says how many there are."""


def load_weights(path: str | os.PathLike[str], graph: Graph) -> dict[str, Array]:
    """The weights of a graph from a safetensors file.

    Keys and shapes are compared with the graph's before anything is copied. Counters of batches
    may be missing, since inference does not read them.

    Raises:
        OSError: the file cannot be read.
        ArchError: E0801 where keys, shapes or element types are not the graph's, with all of
            them; E0802 where the file is no safetensors; E0803 where a weight is not finite.
    """
    name = os.fspath(path)
    header = read_header(name)
    wanted = graph.state()
    found = {key: tuple(entry["shape"]) for key, entry in header.items()}
    types = {
        key: entry["dtype"]
        for key, entry in header.items()
        if entry["dtype"] not in SAFETENSORS_FLOATS and not key.endswith(_TRACKED)
    }
    _compare(f"{quoted(name, 200)} does not fit {graph.name!r}", wanted, found, types)
    values = _values(name, header, [key for key in wanted if key in found])
    return _finite(_completed(values, wanted), quoted(name, 200))


def fitted(weights: Mapping[str, Any], graph: Graph) -> dict[str, Array]:
    """Arrays by key, checked against a graph, as float32 in the graph's order.

    Raises:
        ArchError: E0801 where keys, shapes or element types are not the graph's; E0803 where a
            weight is not finite.
    """
    arrays = {key: np.asarray(value) for key, value in weights.items()}
    types = {
        key: str(value.dtype)
        for key, value in arrays.items()
        if value.dtype.kind != "f" and not key.endswith(_TRACKED)
    }
    wanted = graph.state()
    shapes = {key: value.shape for key, value in arrays.items()}
    _compare(f"the weights do not fit {graph.name!r}", wanted, shapes, types)
    values = {
        key: value if key.endswith(_TRACKED) else value.astype(np.float32, copy=False)
        for key, value in arrays.items()
    }
    return _finite(_completed(values, wanted), "the set of weights")


def save_weights(path: str | os.PathLike[str], weights: Mapping[str, Array]) -> None:
    """Write weights as safetensors, whole or not at all; the same weights give the same bytes.

    Raises:
        OSError: the folder or the disk refuses.
    """
    from archdsl.files import write_whole

    write_whole(path, to_safetensors(weights))


def to_safetensors(weights: Mapping[str, Array]) -> bytes:
    """The bytes of a safetensors file."""
    from safetensors.numpy import save

    return save({key: np.ascontiguousarray(value) for key, value in weights.items()})


# ------------------------------------------------------------------------------------- reading


def read_header(path: str) -> dict[str, dict[str, Any]]:
    """The tensors of a safetensors file: key to `dtype`, `shape` and `data_offsets`.

    The file's size, the ranges and the shapes have been checked against each other.

    Raises:
        OSError: the file cannot be read.
        ArchError: E0802 where it is not a safetensors file, or a part of one.
    """
    from safetensors import SafetensorError, safe_open

    with open(path, "rb"):
        # The library says of a folder or a forbidden file what it says of a broken one.
        pass
    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        message = f"{quoted(path, 200)} is not a whole safetensors file: {error}"
        hint = "write one with `archdsl weights init`, or `import` other checkpoints"
        raise ArchError([Diagnostic("E0802", message, None, hint)]) from None
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header


_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "I16": "<i2"}
_DTYPES |= {"I8": "|i1", "U8": "|u1", "BOOL": "|b1"}


def _values(path: str, header: Mapping[str, Any], keys: list[str]) -> dict[str, Array]:
    """The tensors of some keys; floating ones as float32."""
    size = Path(path).stat().st_size
    start = size - max((entry["data_offsets"][1] for entry in header.values()), default=0)
    # Mapped, not read: only what is used is copied.
    data = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    found = {}
    for key in keys:
        entry = header[key]
        first, last = entry["data_offsets"]
        raw = data[start + first : start + last]
        found[key] = _decoded(raw, entry["dtype"]).reshape(entry["shape"])
    return found


def _decoded(raw: Array, dtype: str) -> Array:
    if dtype == "BF16":
        # The upper half of a float32.
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    values = np.frombuffer(raw.tobytes(), _DTYPES[dtype])
    return values.astype(np.float32, copy=False) if dtype in SAFETENSORS_FLOATS else values


# ------------------------------------------------------------------------------------ checking


def _compare(
    title: str,
    wanted: Mapping[str, Shape],
    found: Mapping[str, Shape],
    types: Mapping[str, str],
) -> None:
    rows: list[tuple[str, str, str]] = []
    for key, shape in wanted.items():
        if key not in found:
            if not key.endswith(_TRACKED):
                rows.append((key, _shape(shape), "missing"))
        elif found[key] != shape:
            rows.append((key, _shape(shape), _shape(found[key])))
        elif key in types:
            rows.append((key, _shape(shape), f"of {types[key]}, not floating"))
    rows += [(key, "none", _shape(shape)) for key, shape in found.items() if key not in wanted]
    if not rows:
        return
    hint = table(("key", "expected", "found"), rows[:_SHOWN])
    if len(rows) > _SHOWN:
        hint += f"\nand {len(rows) - _SHOWN:,} more"
    stray = next((key for key, expected, _ in rows if expected == "none"), None)
    guess = did_you_mean(stray, wanted) if stray else None
    if guess and guess not in found:
        hint += f"\n{quoted(str(stray), 100)}: did you mean {quoted(guess, 100)}?"
    count = f"{len(rows):,} {'key' if len(rows) == 1 else 'keys'} of {len(wanted):,}"
    raise ArchError([Diagnostic("E0801", f"{title}: {count} differ", None, hint)])


def _shape(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, aligned."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )


def _completed(values: Mapping[str, Array], wanted: Mapping[str, Shape]) -> dict[str, Array]:
    return {
        key: values[key] if key in values else np.zeros(shape, np.int64)
        for key, shape in wanted.items()
    }


def _finite(weights: dict[str, Array], title: str) -> dict[str, Array]:
    # A sum is finite only where all its terms are: one pass without a table of booleans.
    bad = [
        key
        for key, value in weights.items()
        if value.dtype.kind == "f"
        and not np.isfinite(value.sum(dtype=np.float64))
        and not np.isfinite(value).all()
    ]
    negative = [k for k, v in weights.items() if k.endswith("running_var") and (v < 0).any()]
    if bad or negative:
        what = "infinite or not numbers" if bad else "negative variances"
        keys = bad or negative
        shown = ", ".join(quoted(key, 100) for key in keys[:8])
        more = f" and {len(keys) - 8:,} more" if len(keys) > 8 else ""
        message = f"{title} holds values that are {what}, in {shown}{more}"
        hint = "a training that diverged leaves such weights; take an earlier checkpoint"
        raise ArchError([Diagnostic("E0803", message, None, hint)])
    return weights
