"""Google's and onnxruntime's quantisers, in the environment of `requirements-litert.txt`.

    peers_quantize.py RECIPE REQUEST

RECIPE is one of the table below; REQUEST is a JSON file: `model` (the float file), `images` (an
`.npz` file, whose `calibration` is used) and `out`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def _calibration(request: dict[str, Any]) -> Any:
    with np.load(request["images"]) as file:
        return file["calibration"]


# -------------------------------------------------------------------------------- onnxruntime


def _without_hard_swish(model: Any) -> Any:
    """x * min(max(x + 3, 0), 6) / 6 in operators that there are integer kernels for."""
    from onnx import helper, numpy_helper

    constants = {"three": 3.0, "zero": 0.0, "six": 6.0, "sixth": 1 / 6}
    graph = model.graph
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.float32(value), f"swish_{name}"))
    nodes = []
    for node in graph.node:
        if node.op_type != "HardSwish":
            nodes.append(node)
            continue
        x, y = node.input[0], node.output[0]
        for operator, inputs, output in (
            ("Add", [x, "swish_three"], f"{y}_shifted"),
            ("Clip", [f"{y}_shifted", "swish_zero", "swish_six"], f"{y}_clipped"),
            ("Mul", [f"{y}_clipped", "swish_sixth"], f"{y}_gate"),
            ("Mul", [x, f"{y}_gate"], y),
        ):
            nodes.append(helper.make_node(operator, inputs, [output], name=f"{output}_{operator}"))
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _onnxruntime(
    request: dict[str, Any], activations: str, form: str, hard_swish: bool = True
) -> None:
    from onnx import load, save
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = load(request["model"]).graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images = iter(_calibration(request).transpose(0, 3, 1, 2))

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._images, None)
            return None if image is None else {name: np.ascontiguousarray(image[None])}

    with tempfile.TemporaryDirectory() as folder:
        # What its documentation asks for before quantising: shapes inferred, norms folded.
        source, ready = request["model"], str(Path(folder) / "ready.onnx")
        if not hard_swish:
            source = str(Path(folder) / "source.onnx")
            save(_without_hard_swish(load(request["model"])), source)
        try:
            quant_pre_process(source, ready)
        except Exception:  # its symbolic shapes know not every operator
            quant_pre_process(source, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            request["out"],
            Reader(),
            quant_format=QuantFormat[form],
            per_channel=True,
            activation_type=QuantType[activations],
            weight_type=QuantType.QInt8,
        )


def u8s8(request: dict[str, Any]) -> None:
    _onnxruntime(request, "QUInt8", "QDQ")


def s8s8(request: dict[str, Any]) -> None:
    _onnxruntime(request, "QInt8", "QDQ")


def u8s8_operators(request: dict[str, Any]) -> None:
    _onnxruntime(request, "QUInt8", "QOperator")


def u8s8_swish(request: dict[str, Any]) -> None:
    _onnxruntime(request, "QUInt8", "QDQ", hard_swish=False)


# ---------------------------------------------------------------------------- litert-quantizer

WITHOUT_KERNELS = ("HARD_SWISH", "GELU", "SOFTMAX", "BATCH_MATMUL")
"""Operators for whose integer form XNNPACK has no kernel."""


def _litert(request: dict[str, Any], recipe: Any, calibrated: bool) -> None:
    from litert_quantizer import quantizer
    from litert_quantizer.utils import tfl_interpreter_utils

    model = request["model"]
    made = quantizer.Quantizer(model, recipe)
    result = None
    if calibrated:
        interpreter = tfl_interpreter_utils.create_tfl_interpreter(model)
        (key,) = interpreter.get_signature_list()
        (name,) = interpreter.get_signature_runner(key).get_input_details()
        # A list: it is gone through twice, once to count.
        samples = [{name: image[None]} for image in _calibration(request)]
        result = made.calibrate({key: samples}, num_threads=1)
    made.quantize(result, enable_progress_report=False).export_model(request["out"], overwrite=True)


def _recipe(base: Any, without: tuple[str, ...] = ()) -> Any:
    """A recipe in which some operators stay as they are."""
    from litert_quantizer import qtyping, recipe_manager
    from litert_quantizer.algorithm_manager import AlgorithmName

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(base)
    for operator in without:
        manager.add_quantization_config(
            regex=".*",
            operation_name=qtyping.TFLOperationName(operator),
            algorithm_key=AlgorithmName.NO_QUANTIZE,
        )
    return manager.get_quantization_recipe()


def static(request: dict[str, Any]) -> None:
    from litert_quantizer import recipe

    _litert(request, recipe.static_wi8_ai8(), True)


def static_partly(request: dict[str, Any]) -> None:
    from litert_quantizer import recipe

    _litert(request, _recipe(recipe.static_wi8_ai8(), WITHOUT_KERNELS), True)


def dynamic(request: dict[str, Any]) -> None:
    from litert_quantizer import recipe

    _litert(request, recipe.dynamic_wi8_afp32(), False)


def dynamic_partly(request: dict[str, Any]) -> None:
    from litert_quantizer import recipe

    _litert(request, _recipe(recipe.dynamic_wi8_afp32(), ("DEPTHWISE_CONV_2D",)), False)


RECIPES: dict[str, Callable[[dict[str, Any]], None]] = {
    "u8s8": u8s8,
    "s8s8": s8s8,
    "u8s8_operators": u8s8_operators,
    "u8s8_swish": u8s8_swish,
    "static": static,
    "static_partly": static_partly,
    "dynamic": dynamic,
    "dynamic_partly": dynamic_partly,
}

if __name__ == "__main__":
    RECIPES[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
