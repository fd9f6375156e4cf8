"""An ONNX artefact in onnxruntime, on one thread of the CPU."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from archdsl.backend import Artifact, BackendError, Emission
from archdsl.extras import needs
from archdsl.files import write_together
from archdsl.ir.node import INPUT

from .onnx_network import CHANNELS_FIRST, layouts
from .outputs import IMAGE

if TYPE_CHECKING:
    from archdsl.ir.execute import Array


def inference_session(emission: Emission, filename: str, threads: int | None = None) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU; None: as many threads as it likes.

    Raises:
        BackendError: onnxruntime is not installed.
    """
    with needs("onnx", "onnxruntime cannot be imported", BackendError):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    # Warnings are meant for onnxruntime's developers.
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    if not emission.beside:
        return onnxruntime.InferenceSession(emission.data, options, providers=providers)
    # Weights that lie beside a file are looked for in its folder.
    with tempfile.TemporaryDirectory() as folder:
        write_together(
            {
                Path(folder) / name: content
                for name, content in {**emission.beside, filename: emission.content}.items()
            }
        )
        return onnxruntime.InferenceSession(Path(folder) / filename, options, providers=providers)


class OnnxSession:
    """An artefact's session, and what its results are called."""

    def __init__(self, artifact: Artifact) -> None:
        self._session = inference_session(artifact.emission, artifact.filename, threads=1)
        self._names = [output.name for output in self._session.get_outputs()]
        job = artifact.job
        self._layers = job.options.layers
        self._layouts = {
            name: layout for name, layout in layouts(job.graph).items() if self._layers
        }

    def feed(self, images: Array) -> Any:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)

    def run(self, fed: Any) -> Any:
        results = dict(zip(self._names, self._session.run(None, {IMAGE: fed}), strict=True))
        return {INPUT: fed, **results} if self._layers else results

    def values(self, results: Any) -> dict[str, Array]:
        return {name: self._turned(name, value) for name, value in results.items()}

    def _turned(self, name: str, value: Array) -> Array:
        # What is no node's value is a result, and feature maps among them are channels first.
        layout = self._layouts.get(name, CHANNELS_FIRST)
        return (
            value.transpose(0, 2, 3, 1) if value.ndim == 4 and layout == CHANNELS_FIRST else value
        )
