"""A TensorFlow Lite model as records, and the file that it comes to.

The tables of `schema.fbs` are built by slot numbers, which all stand in the functions below. Their
part of a file is small: the `flatbuffers` package builds it, back to front. The buffers with the
weights are laid behind it, each at a multiple of 16 bytes as the schema demands, and made when they
are written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from archdsl.backend import BackendError
from archdsl.extras import needs
from archdsl.files import Content, Piece
from archdsl.ir.execute import Array
from archdsl.ir.ops import Shape

from .tflite_ops import OPERATORS

Builder = Any
"""A `flatbuffers.Builder`, which ships no types."""

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
SIGNATURE = "serving_default"
ALIGNMENT = 16
_HIGHEST_OLD_CODE = 127
_LIMIT = 2**31
"""Offsets within a file are 32 bits, and the runtimes read them as signed ones."""


@dataclass(frozen=True)
class Quantization:
    """How integers are read: real = scale * (integer - zero point); one pair, or one for each
    index of the axis `dimension`."""

    scales: tuple[float, ...] | Array
    zero_points: tuple[int, ...] | Array
    dimension: int = 0


@dataclass(frozen=True)
class Tensor:
    """A tensor; `data` holds a constant's elements in C order, `shape` has the batch in front."""

    name: str
    type: int
    shape: Shape
    data: bytes | Piece | None = None
    quantization: Quantization | None = None
    batched: bool = False
    """Whether the first axis is the batch, which the runtime may resize."""


@dataclass(frozen=True)
class Operator:
    """An operator of `OPERATORS`; inputs and outputs are positions in the model's tensors."""

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Model:
    """A model of one graph; `inputs` and `outputs` are its signature's names of tensors."""

    name: str
    description: str
    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, Piece] = field(default_factory=dict)
    """Lies behind all tensors."""


def content(model: Model) -> Content:
    """A `.tflite` file.

    Raises:
        BackendError: the package `flatbuffers` is missing, or the file would exceed 2 GiB.
    """
    with needs("tflite", "flatbuffers cannot be imported", BackendError):
        import flatbuffers  # type: ignore[import-untyped]
    buffers = _Buffers()
    head, places = _tables(flatbuffers.Builder(1 << 16), model, buffers)
    return _laid_out(head, places, buffers.contents)


class _Buffers:
    """The contents of buffers 1, 2, ...; equal bytes are one. Buffer 0 is empty."""

    def __init__(self) -> None:
        self.contents: list[bytes | Piece] = []
        self._known: dict[bytes, int] = {}

    def add(self, data: bytes | Piece) -> int:
        if isinstance(data, bytes):
            if data in self._known:
                return self._known[data]
            self._known[data] = len(self.contents) + 1
        self.contents.append(data)
        return len(self.contents)


def _laid_out(head: bytearray, places: Sequence[int], contents: Sequence[bytes | Piece]) -> Content:
    """The tables with the buffers behind them; `places` are where their offsets stand."""
    parts: list[bytes | Piece] = []
    end = len(head)
    for place, data in zip(places, contents, strict=True):
        size = data.size if isinstance(data, Piece) else len(data)
        # A vector is its length and its elements, which are what must be aligned.
        fill = -(end + 4) % ALIGNMENT
        vector = end + fill
        end = vector + 4 + size
        if end >= _LIMIT:
            raise BackendError("a .tflite file holds less than 2 GiB, and this network needs more")
        struct.pack_into("<I", head, place, vector - place)
        parts += [bytes(fill) + struct.pack("<I", size), data]
    return Content([bytes(head), *parts])


# -------------------------------------------------------------------------------------- tables

_SLOTS: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Model": {
        "version": (0, "uint32"),
        "operator_codes": (1, "offset"),
        "subgraphs": (2, "offset"),
        "description": (3, "offset"),
        "buffers": (4, "offset"),
        "metadata": (6, "offset"),
        "signature_defs": (7, "offset"),
    },
    "OperatorCode": {
        "deprecated_builtin_code": (0, "int8"),
        "version": (2, "int32"),
        "builtin_code": (3, "int32"),
    },
    "SubGraph": {
        "tensors": (0, "offset"),
        "inputs": (1, "offset"),
        "outputs": (2, "offset"),
        "operators": (3, "offset"),
        "name": (4, "offset"),
    },
    "Tensor": {
        "shape": (0, "offset"),
        "type": (1, "int8"),
        "buffer": (2, "uint32"),
        "name": (3, "offset"),
        "quantization": (4, "offset"),
        "shape_signature": (7, "offset"),
        "has_rank": (8, "bool"),
    },
    "QuantizationParameters": {
        "scale": (2, "offset"),
        "zero_point": (3, "offset"),
        "quantized_dimension": (6, "int32"),
    },
    "Operator": {
        "opcode_index": (0, "uint32"),
        "inputs": (1, "offset"),
        "outputs": (2, "offset"),
        "builtin_options_type": (3, "uint8"),
        "builtin_options": (4, "offset"),
    },
    "Buffer": {"data": (0, "uint32")},
    "Metadata": {"name": (0, "offset"), "buffer": (1, "uint32")},
    "TensorMap": {"name": (0, "offset"), "tensor_index": (1, "uint32")},
    "SignatureDef": {
        "inputs": (0, "offset"),
        "outputs": (1, "offset"),
        "signature_key": (2, "offset"),
    },
    **{name: kind.fields for name, kind in OPERATORS.items()},
}
"""The fields of the schema's tables that are written: their slots and types.

A buffer's data is an offset too, which is filled in when it is known where the data lies.
"""

_PREPEND = {
    "bool": "PrependBoolSlot",
    "float32": "PrependFloat32Slot",
    "int32": "PrependInt32Slot",
    "int8": "PrependInt8Slot",
    "offset": "PrependUOffsetTRelativeSlot",
    "uint32": "PrependUint32Slot",
    "uint8": "PrependUint8Slot",
}


def _table(b: Builder, name: str, /, **values: float) -> int:
    """A table; a field that is zero is left out (where the default is not, 0 is never meant)."""
    slots = _SLOTS[name]
    b.StartObject(max((slot for slot, _ in slots.values()), default=-1) + 1)
    for field_name, value in values.items():
        slot, kind = slots[field_name]
        getattr(b, _PREPEND[kind])(slot, value, 0)
    return int(b.EndObject())


def _tables(b: Builder, model: Model, buffers: _Buffers) -> tuple[bytearray, list[int]]:
    """The tables of a file, and where the offset of each buffer's content stands."""
    indices = [0 if t.data is None else buffers.add(t.data) for t in model.tensors]
    metadata = {name: buffers.add(data) for name, data in model.metadata.items()}
    codes = list(dict.fromkeys((op.name, op.version) for op in model.operators))
    tables, ends = _buffer_tables(b, len(buffers.contents))
    root = _table(
        b,
        "Model",
        version=SCHEMA_VERSION,
        subgraphs=_offsets(b, [_subgraph(b, model, indices, codes)]),
        signature_defs=_offsets(b, [_signature(b, model)]),
        metadata=_offsets(
            b,
            [
                _table(b, "Metadata", name=_text(b, name), buffer=buffer)
                for name, buffer in metadata.items()
            ],
        ),
        operator_codes=_offsets(b, [_operator_code(b, *code) for code in codes]),
        buffers=_offsets(b, tables),
        description=_text(b, model.description),
    )
    b.Finish(root, file_identifier=IDENTIFIER)
    head = bytearray(b.Output())
    return head, [len(head) - end for end in ends]


def _buffer_tables(b: Builder, count: int) -> tuple[list[int], list[int]]:
    """The empty buffer 0 and `count` others; and how far before the end their offsets stand."""
    slot, _ = _SLOTS["Buffer"]["data"]
    tables, ends = [_table(b, "Buffer")], []
    for _ in range(count):
        b.StartObject(slot + 1)
        # A number that keeps the place: it is not the default.
        b.PrependUint32Slot(slot, 1, 0)
        ends.append(int(b.Offset()))
        tables.append(int(b.EndObject()))
    return tables, ends


def _subgraph(
    b: Builder, model: Model, buffers: Sequence[int], codes: Sequence[tuple[str, int]]
) -> int:
    numbers = {code: index for index, code in enumerate(codes)}
    tensors = [_tensor(b, t, i) for t, i in zip(model.tensors, buffers, strict=True)]
    operators = [_operator(b, op, numbers[op.name, op.version]) for op in model.operators]
    return _table(
        b,
        "SubGraph",
        tensors=_offsets(b, tensors),
        inputs=_integers(b, model.inputs.values()),
        # Several names may stand for one tensor.
        outputs=_integers(b, dict.fromkeys(model.outputs.values())),
        operators=_offsets(b, operators),
        name=_text(b, model.name),
    )


def _tensor(b: Builder, tensor: Tensor, buffer: int) -> int:
    signature = (-1, *tensor.shape[1:])
    return _table(
        b,
        "Tensor",
        shape=_integers(b, tensor.shape),
        type=tensor.type,
        buffer=buffer,
        name=_text(b, tensor.name),
        quantization=_quantization(b, tensor.quantization) if tensor.quantization else 0,
        shape_signature=_integers(b, signature) if tensor.batched else 0,
        has_rank=True,
    )


def _quantization(b: Builder, quantization: Quantization) -> int:
    return _table(
        b,
        "QuantizationParameters",
        scale=int(b.CreateNumpyVector(np.asarray(quantization.scales, "<f4"))),
        zero_point=int(b.CreateNumpyVector(np.asarray(quantization.zero_points, "<i8"))),
        quantized_dimension=quantization.dimension,
    )


def _operator(b: Builder, op: Operator, code: int) -> int:
    options = OPERATORS[op.name].options
    return _table(
        b,
        "Operator",
        opcode_index=code,
        inputs=_integers(b, op.inputs),
        outputs=_integers(b, op.outputs),
        builtin_options_type=options,
        builtin_options=_table(b, op.name, **op.options) if options else 0,
    )


def _operator_code(b: Builder, name: str, version: int) -> int:
    code = OPERATORS[name].code
    return _table(
        b,
        "OperatorCode",
        # Old runtimes read a byte, new ones the larger of both.
        deprecated_builtin_code=min(code, _HIGHEST_OLD_CODE),
        version=version,
        builtin_code=code,
    )


def _signature(b: Builder, model: Model) -> int:
    return _table(
        b,
        "SignatureDef",
        inputs=_tensor_maps(b, model.inputs),
        outputs=_tensor_maps(b, model.outputs),
        signature_key=_text(b, SIGNATURE),
    )


def _tensor_maps(b: Builder, tensors: Mapping[str, int]) -> int:
    return _offsets(
        b,
        [
            _table(b, "TensorMap", name=_text(b, name), tensor_index=index)
            for name, index in tensors.items()
        ],
    )


def _text(b: Builder, text: str) -> int:
    return int(b.CreateString(text))


def _offsets(b: Builder, items: Sequence[int]) -> int:
    b.StartVector(4, len(items), 4)
    for item in reversed(items):
        b.PrependUOffsetTRelative(item)
    return int(b.EndVector())


def _integers(b: Builder, items: Iterable[int]) -> int:
    values = tuple(items)
    data = struct.pack(f"<{len(values)}i", *values)
    b.StartVector(4, len(values), 4)
    # As CreateByteVector does it: far quicker than number by number.
    b.head -= len(data)
    b.Bytes[b.head : b.head + len(data)] = data
    return int(b.EndVector())
