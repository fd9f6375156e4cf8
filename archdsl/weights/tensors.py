"""Safetensors files: a header that is checked whole before a tensor is read, and the tensors.

The format (huggingface.co/docs/safetensors): the header's length in 8 bytes, the header as JSON,
then the tensors' bytes, which lie behind each other without holes.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import stat
import struct
import weakref
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np

from archdsl.files import Content
from archdsl.ir.execute import Array
from archdsl.ir.lazy import Lazy, LazyWeights
from archdsl.ir.ops import Shape
from archdsl.lang.diagnostics import ArchError, Diagnostic, quoted
from archdsl.limits import MAX_HEADER
from archdsl.weights.archives import CHECKPOINTS, foreign

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
"""The element types of weights; all become float32."""

# BF16 is read as the upper halves of float32 numbers.
NUMPY: dict[str, str] = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8", "BOOL": "|b1"}
NUMPY |= {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1"}
NUMPY |= {"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1"}
"""The element types that can be read, and numpy's words for them."""

_SIZES = {name: np.dtype(code).itemsize for name, code in NUMPY.items()}
_SIZES |= {"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8}

_MAX_AXES = 16


class Entry(NamedTuple):
    """A tensor of a file: its element type, its shape, and its bytes' place in the file."""

    dtype: str
    shape: Shape
    offset: int
    size: int


def read_header(path: str | os.PathLike[str]) -> dict[str, Entry]:
    """The tensors of a safetensors file, in the order of its header; none is read.

    The file's size, the places and the shapes have been checked against each other.

    Raises:
        OSError: the file cannot be read.
        ArchError: E0802 where it is not a safetensors file, or not a whole one.
    """
    with open_regular(path) as file:
        return _header(path, file)


def _header(path: str | os.PathLike[str], file: BinaryIO) -> dict[str, Entry]:
    size = os.fstat(file.fileno()).st_size
    head = file.read(8)
    length = int.from_bytes(head, "little")
    what = foreign(path, head)
    if what is not None:
        message = f"{quoted(str(path), 200)} is {what}, not a safetensors file"
        hint = "weights are not read out of it: name those that it was made of"
        if what in CHECKPOINTS:
            command = f"archdsl weights import {shlex.quote(os.fsdecode(path))} --for FILE"
            hint = f"{quoted(command, 250)} makes one of it"
        raise ArchError([Diagnostic("E0802", message, None, hint)])
    if len(head) < 8 or length > size - 8:
        _refuse(path, f"its {size:,} bytes end within the header")
    if length > MAX_HEADER:
        _refuse(path, f"its header has {length:,} bytes; the limit is {MAX_HEADER:,}")
    header = _parsed(path, file.read(length))
    header.pop("__metadata__", None)
    start = 8 + length
    found = {}
    for key, value in header.items():
        try:
            found[key] = _entry(value, start)
        except (KeyError, TypeError, ValueError) as fault:
            _refuse(path, f"the header's entry {quoted(key, 100)} is wrong: {fault}")
    end = start
    for key, entry in sorted(found.items(), key=lambda item: item[1].offset):
        if entry.offset != end and entry.size:
            _refuse(path, f"{quoted(key, 100)} overlaps another tensor, or leaves a hole")
        end += entry.size
    if end != size:
        _refuse(path, f"its tensors end at byte {end:,}, the file at byte {size:,}")
    return found


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read, unless it is a pipe or a device, which might never end.

    Raises:
        OSError: the file cannot be read.
        ArchError: E0802 where it is no ordinary file.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        _refuse(path, "it is a pipe or a device, not a file")
    return Path(path).open("rb")


def _parsed(path: str | os.PathLike[str], text: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice in an object")
        return found

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as fault:
        reason = "nested too deeply" if isinstance(fault, RecursionError) else str(fault)
        _refuse(path, f"its header is not JSON: {reason[:200]}")
    if not isinstance(header, dict):
        _refuse(path, "its header is not an object")
    return header


def _entry(value: Any, start: int) -> Entry:
    """A header's entry.

    Raises:
        KeyError, TypeError, ValueError: something about it is wrong.
    """
    names = {"dtype", "shape", "data_offsets"}
    if not isinstance(value, dict) or not names <= set(value):
        raise ValueError("it must have dtype, shape and data_offsets")
    if set(value) != names:
        raise ValueError("it has fields of no meaning")
    dtype, shape = value["dtype"], value["shape"]
    if not isinstance(dtype, str) or dtype not in _SIZES:
        raise ValueError(f"the element type {quoted(str(dtype))} is unknown")
    if not isinstance(shape, list) or len(shape) > _MAX_AXES or not all(map(_natural, shape)):
        raise ValueError("the shape must be a short list of natural numbers")
    places = value["data_offsets"]
    if not isinstance(places, list) or len(places) != 2 or not all(map(_natural, places)):
        raise ValueError("data_offsets must be two natural numbers")
    first, last = places
    size = math.prod(shape) * _SIZES[dtype]
    if last - first != size:
        raise ValueError(f"its shape takes {size:,} bytes, its place has {last - first:,}")
    return Entry(dtype, tuple(shape), start + first, size)


def _natural(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 1 << 63


def read_tensor(file: BinaryIO, entry: Entry) -> Array:
    """A tensor of an open file; floating ones as float32.

    Raises:
        ArchError: E0802 where the file has changed and ends before the tensor does.
        KeyError: numpy has no such element type.
    """
    file.seek(entry.offset)
    count = math.prod(entry.shape)
    values = np.fromfile(file, NUMPY[entry.dtype], count)
    if len(values) != count:
        _refuse(file.name, "it was cut short while it was read")
    if entry.dtype == "BF16":
        values = (values.astype("<u4") << 16).view("<f4")
    elif entry.dtype in FLOATS:
        values = float32(values)
    return values.reshape(entry.shape)


def float32(values: Array) -> Array:
    """Floating values as float32; what lies beyond its range becomes infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


class TensorFile:
    """A safetensors file that stays open, of which each tensor is read when it is asked for.

    `header` is what `read_header` gives.

    Raises:
        OSError: the file cannot be read.
        ArchError: E0802 where it is not a safetensors file, or not a whole one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path, self._lock = path, Lock()
        with open_regular(path) as file:
            self.header = _header(path, file)
            self._handle = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._handle)
        self._stamp = self._now()

    def _now(self) -> tuple[int, int]:
        found = os.fstat(self._handle)
        return found.st_size, found.st_mtime_ns

    def lazy(self) -> dict[str, Lazy]:
        """The tensors that numpy can hold, floating ones as float32."""
        return {
            key: Lazy(
                entry.shape,
                np.dtype(np.float32 if entry.dtype in FLOATS else NUMPY[entry.dtype]),
                partial(self._read, entry),
            )
            for key, entry in self.header.items()
            if entry.dtype in NUMPY
        }

    def _read(self, entry: Entry) -> Array:
        """A tensor.

        Raises:
            ArchError: E0802 where the file is no longer what it was.
        """
        # Threads share the place at which the file is read.
        with self._lock, open(self._handle, "rb", buffering=0, closefd=False) as file:
            if self._now() != self._stamp:
                _refuse(self._path, "it was changed while it was read")
            return read_tensor(file, entry)


_ALIGNED = 8
"""What a file's tensors are aligned to."""

# Wide elements first, so that each is aligned: the order of the format's own library.
_WRITTEN = ("U64", "I64", "F64", "F32", "U32", "I32", "F16", "U16", "I16", "I8", "U8", "BOOL")


def safetensors(weights: Mapping[str, Array]) -> Content:
    """A safetensors file; the same weights give the same bytes, which are the own library's.

    Raises:
        ValueError: the format has no such element type.
    """
    names = {np.dtype(NUMPY[name]): name for name in _WRITTEN}
    lazy = LazyWeights.of(weights).lazy
    for key, tensor in lazy.items():
        if tensor.dtype not in names:
            raise ValueError(f"safetensors has no {tensor.dtype}, of which {key!r} is")
    header, end = {}, 0
    order = sorted(lazy, key=lambda key: (_WRITTEN.index(names[lazy[key].dtype]), key))
    for key in order:
        start, end = end, end + lazy[key].nbytes
        header[key] = {
            "dtype": names[lazy[key].dtype],
            "shape": lazy[key].shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return Content([struct.pack("<Q", len(text)), text, *(lazy[key].piece() for key in order)])


def to_safetensors(weights: Mapping[str, Array]) -> bytes:
    """The bytes of a safetensors file; the same weights give the same bytes."""
    return bytes(safetensors(weights))


def _refuse(path: object, reason: str) -> NoReturn:
    message = f"{quoted(str(path), 200)} is not a whole safetensors file: {reason}"
    hint = "`archdsl weights init` writes one, `archdsl weights import` reads other checkpoints"
    raise ArchError([Diagnostic("E0802", message, None, hint)])
