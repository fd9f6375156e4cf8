"""The TensorFlow Lite backend: a `.tflite` file that LiteRT's XNNPACK delegate takes whole.

The file is written directly, without TensorFlow. From graph to bytes: norms are folded
(`archdsl.passes.fold`), `tflite_plan` says which operators there are, `tflite_network` writes them
in a precision (int8 with the scales of `tflite_scales`), `tflite_flatbuffer` gives the bytes.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from archdsl.backend import Artifact, BackendError, Emission, Job, Session
from archdsl.ir.node import INPUT
from archdsl.passes.fold import fold_batch_norm
from archdsl.quantization.ranges import checked_ranges
from archdsl.weights.store import Digest

from .metadata import file_name, metadata_piece
from .outputs import outputs
from .tflite_flatbuffer import Model, content
from .tflite_network import write_network
from .tflite_plan import plan
from .tflite_session import TfliteSession, interpreter


class TfliteBackend:
    """Writes a network as a TensorFlow Lite file, and runs it in LiteRT.

    The input `image` is (batch, height, width, channels), float32 in every precision, and the
    batch may be resized. Norms are always folded: TensorFlow Lite has none.
    """

    suffix = ".tflite"
    runtime = "ai-edge-litert"
    dtypes = ("float32", "float16", "int8", "int8_dynamic")

    def emit(self, job: Job) -> Emission:
        """The file, with a signature `serving_default` that names `output` and feature maps.

        Raises:
            ArchError: E0701 where TensorFlow Lite lacks an operator; weights do not fit; E0804
                where int8 lacks ranges.
            BackendError: `flatbuffers` is missing, or norms shall be kept.
        """
        if not job.options.fold:
            raise BackendError("TensorFlow Lite has no norms: they are always folded")
        digest = Digest(job.weights)
        graph, weights = fold_batch_norm(job.graph, digest.weights)
        ranges = checked_ranges(graph, job.ranges) if job.options.dtype == "int8" else None
        results = outputs(job, graph)
        # A value that is a result stays readable: nothing is fused behind it.
        made = plan(replace(graph, features=results), weights, results)
        source = file_name(job.arch.origins.source)
        model = Model(graph.name, f"{graph.name}, compiled from {source}")
        about = metadata_piece(job, digest, lambda table: json.dumps(table).encode())
        model.metadata["archdsl"] = about
        write_network(model, made, INPUT, job.options.dtype, ranges)
        return Emission(content(model))

    def load(self, artifact: Artifact) -> Any:
        """A LiteRT `Interpreter` whose tensors are allocated.

        Raises:
            BackendError: LiteRT is not installed.
        """
        return interpreter(artifact.data)

    def session(self, artifact: Artifact) -> Session:
        """The file in LiteRT on one thread.

        Raises:
            BackendError: LiteRT is not installed.
        """
        return TfliteSession(artifact)
