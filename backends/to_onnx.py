"""The ONNX backend: a file that needs neither the `onnx` package nor torch to be written.

Opset 17 and IR version 8, which every runtime of the last years reads, and 20 and 10 where a
network has GELU. Norms are folded; activations are ONNX's own operators, since onnxruntime fuses
those into its convolutions; the batch is free.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import archdsl
from archdsl.backend import Artifact, BackendError, Emission, Job, Session
from archdsl.files import Content, Piece
from archdsl.ir.graph import Graph
from archdsl.ir.lazy import Lazy
from archdsl.passes.fold import fold_batch_norm
from archdsl.weights.store import Digest

from .metadata import file_name, metadata_piece
from .onnx_network import Network, laid_out
from .onnx_protobuf import Message, entries, tensor, value
from .onnx_protobuf import node as node_message
from .onnx_quantized import QuantizedNetwork
from .outputs import IMAGE, outputs

BATCH = "batch"
"""The name of the free dimension."""

EXTERNAL_FROM = 2**31 - 2**24
"""Weights of more bytes lie in a file of their own: a message may have less than 2 GiB."""

_PAGE = 4096
"""External tensors begin at whole pages, so that they can be mapped."""
_SMALL = 1024
"""Tensors of fewer bytes stay in the file: shapes among them are needed to check it."""


class OnnxBackend:
    """Writes a network as an ONNX file, and loads it into onnxruntime.

    There is no `int8_dynamic`: onnxruntime's operators for it take two to four times as long as
    float32's. Nor does int8 keep norms: they are folded always.
    """

    suffix = ".onnx"
    runtime = "onnxruntime"
    dtypes = ("float32", "float16", "int8")

    def emit(self, job: Job) -> Emission:
        """The ONNX file; its weights beside it where they have some 2 GiB.

        Raises:
            ArchError: E0701 for each operator that ONNX lacks; E0503 for feature maps whose names
                other tensors have; weights do not fit.
            BackendError: norms shall be kept in int8.
        """
        if not job.options.fold and job.options.dtype == "int8":
            raise BackendError("integers leave no room for norms: int8 always folds them")
        digest = Digest(job.weights)
        graph, weights = job.graph, digest.weights
        if job.options.fold:
            graph, weights = fold_batch_norm(graph, weights)
        results = outputs(job, graph)
        if job.options.dtype == "int8":
            kept = results.values() if job.options.layers else ()
            network: Network = QuantizedNetwork(graph, weights, job.ranges, kept)
        else:
            network = Network(graph, weights)
        network.write(results)
        return _emission(job, network, results, digest)

    def load(self, artifact: Artifact) -> Any:
        """An `onnxruntime.InferenceSession` on the CPU, with onnxruntime's own settings.

        Raises:
            BackendError: onnxruntime is not installed.
        """
        from .onnx_session import inference_session

        return inference_session(artifact.emission, artifact.filename)

    def session(self, artifact: Artifact) -> Session:
        """The network in onnxruntime, on one thread.

        Raises:
            BackendError: onnxruntime is not installed.
        """
        from .onnx_session import OnnxSession

        return OnnxSession(artifact)


def _emission(job: Job, network: Network, results: Mapping[str, str], digest: Digest) -> Emission:
    nodes, initializers = list(network.nodes), dict(network.initializers)
    if job.options.dtype == "float16":
        casts, initializers = _halved(initializers)
        nodes = casts + nodes
    beside: dict[str, Content] = {}
    if sum(array.nbytes for array in initializers.values()) > EXTERNAL_FROM:
        location = f"{job.filename}.data"
        tensors, beside[location] = _external(initializers, location)
    else:
        tensors = [tensor(name, array) for name, array in initializers.items()]
    graph = network.graph
    opset, ir_version = (20, 10) if "Gelu" in network.operators else (17, 8)
    model = Message(
        "ModelProto",
        ir_version=ir_version,
        producer_name="archdsl",
        producer_version=archdsl.__version__,
        doc_string=f"{graph.name}, compiled from {file_name(job.arch.origins.source)}",
        graph=Message(
            "GraphProto",
            node=nodes,
            name=graph.name,
            initializer=tensors,
            input=[_image(graph)],
            output=[_output(network, name, source) for name, source in results.items()],
        ),
        opset_import=Message("OperatorSetIdProto", domain="", version=opset),
    )
    # A message behind another one of the same kind adds its fields to it.
    about = metadata_piece(
        job, digest, lambda t: Message("ModelProto", metadata_props=entries(t)).to_bytes()
    )
    return Emission(Content([*model.pieces, about]), beside)


def _image(graph: Graph) -> Message:
    height, width, channels = graph.input
    doc = "images: batch, channels, height, width"
    return value(IMAGE, "float32", (BATCH, channels, height, width), doc)


def _output(network: Network, name: str, source: str) -> Message:
    node = network.graph[source]
    shape = laid_out(node.shape, network.result_layout(name, source))
    return value(name, "float32", (BATCH, *shape), network.doc(node))


def _halved(initializers: Mapping[str, Lazy]) -> tuple[list[Message], dict[str, Lazy]]:
    """Kernels in float16, and the nodes that make float32 of them; onnxruntime does so once."""
    nodes, found, limit = [], {}, np.finfo(np.float16).max
    for name, lazy in initializers.items():
        if lazy.dtype == np.float32 and len(lazy.shape) > 1:
            array = lazy.make()
            # A kernel beyond float16's range stays as it is.
            if np.abs(array).max() <= limit:
                half = f"{name}.float16"
                found[half] = Lazy.of(array.astype(np.float16))
                nodes.append(node_message("Cast", [half], name, f"{name}.cast", "", {"to": 1}))
                continue
        found[name] = lazy
    return nodes, found


def _external(initializers: Mapping[str, Lazy], location: str) -> tuple[list[Message], Content]:
    """Initialisers whose bytes lie in a file, and that file."""
    tensors: list[Message] = []
    pieces: list[bytes | Piece] = []
    offset = 0
    for name, array in initializers.items():
        if array.nbytes < _SMALL:
            tensors.append(tensor(name, array))
            continue
        place = {"location": location, "offset": str(offset), "length": str(array.nbytes)}
        tensors.append(tensor(name, array, place))
        gap = -array.nbytes % _PAGE
        pieces += [array.piece(), bytes(gap)]
        offset += array.nbytes + gap
    return tensors, Content(pieces)
