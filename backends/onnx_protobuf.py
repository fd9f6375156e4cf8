"""ONNX's messages as pieces of bytes, of which the weights are made when they are written.

The protobuf wire format is small (protobuf.dev/programming-guides/encoding), and ONNX uses little
of it: written by hand, it takes no package, and no more memory than a few tensors.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from archdsl.files import Content, Piece
from archdsl.ir.lazy import Lazy

# The numbers of the fields in onnx.proto (github.com/onnx/onnx, onnx/onnx.proto).
FIELDS: dict[str, dict[str, int]] = {
    "ModelProto": {
        "ir_version": 1,
        "producer_name": 2,
        "producer_version": 3,
        "doc_string": 6,
        "graph": 7,
        "opset_import": 8,
        "metadata_props": 14,
    },
    "OperatorSetIdProto": {"domain": 1, "version": 2},
    "StringStringEntryProto": {"key": 1, "value": 2},
    "GraphProto": {
        "node": 1,
        "name": 2,
        "initializer": 5,
        "doc_string": 10,
        "input": 11,
        "output": 12,
    },
    "NodeProto": {
        "input": 1,
        "output": 2,
        "name": 3,
        "op_type": 4,
        "attribute": 5,
        "doc_string": 6,
        "domain": 7,
    },
    "AttributeProto": {"name": 1, "f": 2, "i": 3, "s": 4, "floats": 7, "ints": 8, "type": 20},
    "TensorProto": {
        "dims": 1,
        "data_type": 2,
        "name": 8,
        "raw_data": 9,
        "external_data": 13,
        "data_location": 14,
    },
    "ValueInfoProto": {"name": 1, "type": 2, "doc_string": 3},
    "TypeProto": {"tensor_type": 1},
    "TypeProto.Tensor": {"elem_type": 1, "shape": 2},
    "TensorShapeProto": {"dim": 1},
    "TensorShapeProto.Dimension": {"dim_value": 1, "dim_param": 2},
}

ELEMENT_TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int32": 6,
    "int64": 7,
    "float16": 10,
}
"""TensorProto.DataType by numpy's names."""

_ATTRIBUTE_TYPES = {"f": 1, "i": 2, "s": 3, "floats": 6, "ints": 7}
_EXTERNAL = 1
"""TensorProto.DataLocation."""

_VARINT, _BYTES, _FIXED32 = 0, 2, 5


class Message:
    """A message as the pieces of its bytes."""

    __slots__ = ("pieces", "size")

    def __init__(self, kind: str, **fields: Any) -> None:
        """A message of a kind of `FIELDS`.

        A value's Python type says how it is written; a list is a repeated field, and None is left
        out.
        """
        self.pieces: list[bytes | Piece] = []
        self.size = 0
        numbers = FIELDS[kind]
        for name, value in fields.items():
            if value is None:
                continue
            for item in value if isinstance(value, (list, tuple)) else (value,):
                self._add(numbers[name], item)

    def _add(self, number: int, value: Any) -> None:
        if isinstance(value, int):
            self._append(_varint(number << 3 | _VARINT) + _varint(value))
        elif isinstance(value, float):
            self._append(_varint(number << 3 | _FIXED32) + struct.pack("<f", value))
        elif isinstance(value, Message):
            self._append(_varint(number << 3 | _BYTES) + _varint(value.size))
            self.pieces += value.pieces
            self.size += value.size
        elif isinstance(value, Piece):
            self._append(_varint(number << 3 | _BYTES) + _varint(value.size))
            self.pieces.append(value)
            self.size += value.size
        else:
            data = value.encode()
            self._append(_varint(number << 3 | _BYTES) + _varint(len(data)) + data)

    def _append(self, data: bytes) -> None:
        self.pieces.append(data)
        self.size += len(data)

    def to_bytes(self) -> bytes:
        return bytes(Content(self.pieces))


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; negative numbers have 64 bits."""
    if 0 <= value < 0x80:
        return bytes((value,))
    value &= (1 << 64) - 1
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def node(
    op_type: str,
    inputs: Sequence[str],
    output: str,
    name: str,
    doc: str,
    attributes: Mapping[str, Any],
) -> Message:
    """A node with one output; `name` must be the only one in its graph."""
    return Message(
        "NodeProto",
        input=list(inputs),
        output=output,
        name=name,
        op_type=op_type,
        attribute=[_attribute(key, value) for key, value in attributes.items()],
        doc_string=doc or None,
    )


def _attribute(name: str, value: Any) -> Message:
    if isinstance(value, (list, tuple)):
        field = "ints" if isinstance(value[0], int) else "floats"
        value = list(value)
    else:
        field = {int: "i", float: "f", str: "s"}[type(value)]
    return Message("AttributeProto", name=name, **{field: value}, type=_ATTRIBUTE_TYPES[field])


def tensor(name: str, array: Lazy, external: Mapping[str, str] | None = None) -> Message:
    """An initialiser; `external` says where its bytes lie instead."""
    described: dict[str, Any] = {
        "dims": list(array.shape),
        "data_type": ELEMENT_TYPES[array.dtype.name],
        "name": name,
    }
    if external is not None:
        return Message(
            "TensorProto", **described, external_data=entries(external), data_location=_EXTERNAL
        )
    return Message("TensorProto", **described, raw_data=array.piece())


def value(name: str, dtype: str, shape: Sequence[int | str], doc: str) -> Message:
    """An input or an output; a dimension that is a name is free."""
    dims = [
        Message(
            "TensorShapeProto.Dimension",
            **{"dim_param" if isinstance(size, str) else "dim_value": size},
        )
        for size in shape
    ]
    tensor_type = Message(
        "TypeProto.Tensor",
        elem_type=ELEMENT_TYPES[dtype],
        shape=Message("TensorShapeProto", dim=dims),
    )
    return Message(
        "ValueInfoProto",
        name=name,
        type=Message("TypeProto", tensor_type=tensor_type),
        doc_string=doc,
    )


def entries(table: Mapping[str, str]) -> list[Message]:
    """A mapping of texts."""
    return [Message("StringStringEntryProto", key=key, value=text) for key, text in table.items()]
