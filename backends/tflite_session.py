"""A `.tflite` file in LiteRT."""

from __future__ import annotations

from typing import Any

import numpy as np

from archdsl.backend import Artifact, BackendError
from archdsl.extras import needs
from archdsl.ir.execute import Array
from archdsl.ir.node import INPUT


def interpreter(data: bytes, threads: int | None = None) -> Any:
    """A LiteRT interpreter, ready to be invoked.

    Raises:
        BackendError: LiteRT is not installed.
    """
    with needs("tflite", "LiteRT cannot be imported", BackendError):
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]
    made = Interpreter(model_content=data, num_threads=threads)
    made.allocate_tensors()
    return made


class TfliteSession:
    """A `.tflite` file in LiteRT on one thread."""

    def __init__(self, artifact: Artifact) -> None:
        self._interpreter = interpreter(artifact.data, threads=1)
        signature = self._interpreter.get_signature_runner("serving_default")
        (image,) = self._interpreter.get_input_details()
        self._image, self._shape = image["index"], tuple(image["shape"])
        self._outputs = {
            name: details["index"] for name, details in signature.get_output_details().items()
        }
        self._layers = artifact.job.options.layers

    def feed(self, images: Array) -> Any:
        return np.ascontiguousarray(images, np.float32)

    def run(self, fed: Any) -> Any:
        if fed.shape != self._shape:
            self._interpreter.resize_tensor_input(self._image, fed.shape)
            self._interpreter.allocate_tensors()
            self._shape = fed.shape
        self._interpreter.set_tensor(self._image, fed)
        self._interpreter.invoke()
        results = {name: self._interpreter.get_tensor(i) for name, i in self._outputs.items()}
        if self._layers:
            results[INPUT] = fed
        return results

    def values(self, results: Any) -> dict[str, Array]:
        return dict(results)
