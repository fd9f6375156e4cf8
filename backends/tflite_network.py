"""A plan written as a TensorFlow Lite model: tensors, constants and operators in one precision.

A value may have two forms, float32 and int8. Each operator makes its result in the form that its
kernel gives, and the other form is made once where something asks for it: so the int8 network
has integers throughout, float32 at both ends, and between them only where there is no integer
kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from archdsl.backend import Precision
from archdsl.ir.execute import Array
from archdsl.ir.lazy import Lazy
from archdsl.quantization.ranges import Range
from archdsl.quantization.scheme import quantized_kernel

from .outputs import IMAGE
from .tflite_flatbuffer import Model, Operator, Quantization, Tensor
from .tflite_ops import (
    DEQUANTIZE_HALF,
    FLOAT16,
    FLOAT32,
    GROUPED_CONVOLUTION,
    HYBRID_VERSIONS,
    INT8,
    INT32,
    INTEGER_VERSIONS,
    MUL_ENLARGING,
)
from .tflite_plan import Call, Plan
from .tflite_scales import INTEGER, constant_scale, scales

_CONSTANTS = {"PAD": "paddings", "MEAN": "axes", "TRANSPOSE": "order", "RESHAPE": "shape"}
_FORMS = {FLOAT32: "float32", INT8: "int8"}
_LAYOUTS = {
    # out x in x height x width to out x height x width x in
    "CONV_2D": (0, 2, 3, 1),
    # channels x 1 x height x width to 1 x height x width x channels
    "DEPTHWISE_CONV_2D": (1, 2, 3, 0),
    "FULLY_CONNECTED": (0, 1),
}
_HALF_LIMIT = float(np.finfo(np.float16).max)


def write_network(
    model: Model,
    plan: Plan,
    image: str,
    precision: Precision,
    ranges: Mapping[str, Range] | None = None,
) -> None:
    """Fill a model with a plan's operators; `image` is the value of the image.

    `ranges` are the nodes' and needed for int8.
    """
    network = _Network(model, plan, image, precision, ranges)
    for call in plan.calls:
        network.add(call)
    model.outputs = {name: network.form(value, FLOAT32) for name, value in plan.results.items()}


class _Network:
    def __init__(
        self,
        model: Model,
        plan: Plan,
        image: str,
        precision: Precision,
        ranges: Mapping[str, Range] | None,
    ) -> None:
        self.model, self.plan, self.precision = model, plan, precision
        self.scales = scales(plan, ranges or {}) if precision == "int8" else {}
        self.public = {image: IMAGE}
        for name, value in plan.results.items():
            self.public.setdefault(value, name)
        self.forms: dict[tuple[str, int], int] = {}
        self.constants: dict[tuple[str, bytes], int] = {}
        self.names: set[str] = {IMAGE, *plan.results}
        model.inputs[IMAGE] = self.made(image, FLOAT32)

    # -- tensors

    def tensor(self, tensor: Tensor) -> int:
        self.model.tensors.append(tensor)
        return len(self.model.tensors) - 1

    def unique(self, name: str) -> str:
        """The name, or where it is taken the name with a number."""
        found, count = name, 1
        while found in self.names:
            count += 1
            found = f"{name}_{count}"
        self.names.add(found)
        return found

    def made(self, value: str, kind: int, native: bool = True) -> int:
        """A new tensor for a value in a form; results have their names in float32."""
        if kind == FLOAT32 and value in self.public:
            name = self.public[value]
        else:
            name = self.unique(value if native else f"{value}.{_FORMS[kind]}")
        shape = (1, *self.plan.shapes[value])
        quantization = None
        if kind == INT8:
            scale = self.scales[value]
            quantization = Quantization((scale.scale,), (scale.zero_point,))
        found = self.tensor(Tensor(name, kind, shape, None, quantization, batched=True))
        self.forms[value, kind] = found
        return found

    def form(self, value: str, kind: int) -> int:
        """A value's tensor in a form, converted from its other one if need be."""
        found = self.forms.get((value, kind))
        if found is not None:
            return found
        source = self.forms[value, INT8 if kind == FLOAT32 else FLOAT32]
        found = self.made(value, kind, native=False)
        if kind == INT8:
            self.operator("QUANTIZE", 1, [source], found)
        else:
            self.operator("DEQUANTIZE", INTEGER_VERSIONS["DEQUANTIZE"], [source], found)
        return found

    def constant(self, name: str, values: Array) -> int:
        """A constant of 32-bit integers or floats; equal ones share a tensor."""
        data = values.tobytes()
        key = name, data
        if key not in self.constants:
            kind = INT32 if values.dtype == np.int32 else FLOAT32
            self.constants[key] = self.tensor(Tensor(self.unique(name), kind, values.shape, data))
        return self.constants[key]

    def operator(
        self,
        name: str,
        version: int,
        inputs: list[int],
        output: int,
        options: Mapping[str, float] | None = None,
    ) -> None:
        operator = Operator(name, version, tuple(inputs), (output,), options or {})
        self.model.operators.append(operator)

    # -- operators

    def add(self, call: Call) -> None:
        integer = self.precision == "int8" and call.name in INTEGER
        kind = INT8 if integer else FLOAT32
        inputs = [self.form(value, kind) for value in call.inputs]
        version = INTEGER_VERSIONS.get(call.name, 1) if integer else 1
        options = dict(call.options)
        if call.weight is not None and call.bias is not None:
            if integer:
                inputs += self.integer_kernel(call, call.weight, call.bias)
            elif self.precision == "int8_dynamic" and call.name in HYBRID_VERSIONS:
                version = HYBRID_VERSIONS[call.name]
                inputs += self.hybrid_kernel(call, call.weight, call.bias)
                if call.name == "FULLY_CONNECTED":
                    options["asymmetric_inputs"] = True
            else:
                inputs += self.float_kernel(call, call.weight, call.bias)
            if call.name == "CONV_2D" and self.grouped(call, call.weight):
                version = GROUPED_CONVOLUTION
        elif call.constant is not None:
            inputs.append(self.operand(call, call.constant, integer))
        if call.name == "MUL" and integer and self.enlarges(call):
            version = MUL_ENLARGING
        self.operator(call.name, version, inputs, self.made(call.output, kind), options)

    def grouped(self, call: Call, weight: Lazy) -> bool:
        return weight.shape[1] != self.plan.shapes[call.inputs[0]][-1]

    def enlarges(self, call: Call) -> bool:
        product = float(np.prod([self.scales[value].scale for value in call.inputs]))
        if call.constant is not None:
            product *= constant_scale(float(call.constant[0])).scale
        return product >= self.scales[call.output].scale

    def operand(self, call: Call, constant: Array, integer: bool) -> int:
        """The second operand of a call: where it is a number, as an integer in int8."""
        name = _CONSTANTS.get(call.name)
        if name is not None:
            return self.constant(name, constant)
        if not integer:
            return self.constant("number", constant)
        scale = constant_scale(float(constant[0]))
        key = "number", constant.tobytes()
        if key not in self.constants:
            quantization = Quantization((scale.scale,), (scale.zero_point,))
            data = np.array([127], np.int8).tobytes()
            tensor = Tensor(self.unique("number"), INT8, (1,), data, quantization)
            self.constants[key] = self.tensor(tensor)
        return self.constants[key]

    def weight_tensor(self, call: Call, weight: Lazy, kind: int, scale: Array | None = None) -> int:
        """A weight in TensorFlow Lite's layout; `scale` has one number an output channel."""
        layout = _LAYOUTS[call.name]
        data = weight.transposed(*layout)
        quantization = None
        if scale is not None:
            zeros = np.zeros(len(scale), np.int64)
            quantization = Quantization(scale, zeros, layout.index(0))
        name = self.unique(f"{call.node}.weight")
        return self.tensor(Tensor(name, kind, data.shape, data.piece(), quantization))

    def bias_tensor(self, call: Call, bias: Lazy, scale: Array | None = None) -> int:
        name = self.unique(f"{call.node}.bias")
        if scale is None:
            return self.tensor(Tensor(name, FLOAT32, bias.shape, bias.piece()))
        quantization = Quantization(scale, np.zeros(len(scale), np.int64))
        return self.tensor(Tensor(name, INT32, bias.shape, bias.piece(), quantization))

    def float_kernel(self, call: Call, weight: Lazy, bias: Lazy) -> list[int]:
        whole = self.half_kernel(call, weight) if self.precision == "float16" else None
        if whole is None:
            whole = self.weight_tensor(call, weight, FLOAT32)
        return [whole, self.bias_tensor(call, bias)]

    def half_kernel(self, call: Call, weight: Lazy) -> int | None:
        """What a float16 weight is expanded to; None where a number is beyond float16."""
        made = weight.make()
        if float(np.abs(made).max()) > _HALF_LIMIT:
            return None
        half = self.weight_tensor(call, Lazy.of(made.astype(np.float16)), FLOAT16)
        shape = self.model.tensors[half].shape
        whole = self.tensor(Tensor(self.unique(f"{call.node}.weight.float32"), FLOAT32, shape))
        self.operator("DEQUANTIZE", DEQUANTIZE_HALF, [half], whole)
        return whole

    def hybrid_kernel(self, call: Call, weight: Lazy, bias: Lazy) -> list[int]:
        kernel = quantized_kernel(weight.make(), None, 1.0)
        tensor = self.weight_tensor(call, Lazy.of(kernel.weight), INT8, kernel.scales)
        return [tensor, self.bias_tensor(call, bias)]

    def integer_kernel(self, call: Call, weight: Lazy, bias: Lazy) -> list[int]:
        step = self.scales[call.inputs[0]].scale
        kernel = quantized_kernel(weight.make(), bias.make(), step)
        scale = (kernel.scales.astype(np.float64) * step).astype(np.float32)
        return [
            self.weight_tensor(call, Lazy.of(kernel.weight), INT8, kernel.scales),
            self.bias_tensor(call, Lazy.of(kernel.bias), scale),
        ]
