"""Random weights under which every layer's values vary, for comparing implementations.

A network as initialised is almost constant: its logits are near zero and hide nearly every fault.
"""

from __future__ import annotations

import numpy as np

from archdsl.compiler import Arch
from archdsl.ir.execute import Array, execute
from archdsl.ir.graph import Graph
from archdsl.ir.node import Node
from archdsl.ir.ops import BatchNorm, Conv2d, Linear, MatMul, Reshape, Transpose
from archdsl.lang.diagnostics import ArchError
from archdsl.weights.initial import initialize
from archdsl.weights.random import Stream

_SIDE, _BATCH = 224, 2


def lively(arch: Arch, seed: int = 0) -> dict[str, Array]:
    """Weights with random norms, biases and scales, whose statistics are those of random images.

    The images are at most 224 pixels a side: what matters is that each layer's values have about
    unit variance, so that the logits of any input are neither tiny nor huge.
    """
    small = _smaller(arch)
    graph = small.graph()
    weights = initialize(arch.graph(), seed)
    for key, value in weights.items():
        name = key.rpartition(".")[2]
        stream = Stream(seed, f"lively:{key}")
        if name == "bias":
            weights[key] = stream.normal(value.size, 0.3)
        elif name == "gamma" or (name == "weight" and value.ndim == 1):
            weights[key] = stream.uniform(value.size, 0.5, 1.5)

    def observe(node: Node, inputs: list[Array]) -> None:
        if isinstance(node.op, BatchNorm):
            axes = tuple(range(inputs[0].ndim - 1))
            mean, variance = inputs[0].mean(axes), inputs[0].var(axes)
            # Of a channel alone this little data tells too little: what it underestimates, other
            # images blow up, layer by layer.
            variance = 0.1 * variance + 0.9 * max(float(variance.mean()), 1e-3)
            shift = Stream(seed, f"lively:{node.name}").uniform(2 * mean.size, 0.8, 1.25)
            weights[f"{node.name}.running_mean"] = (mean * shift[: mean.size]).astype(np.float32)
            variance = variance * shift[mean.size :]
            weights[f"{node.name}.running_var"] = variance.astype(np.float32)
        elif isinstance(node.op, Linear):
            spread(f"{node.name}.weight", inputs[0], 3)
        elif isinstance(node.op, Conv2d) and node.op.kernel == (1, 1) and _attends(graph, node):
            # No norm follows a query or a key. Where both are large, softmax picks one position,
            # and which one hangs on rounding: from there on no two implementations agree.
            spread(f"{node.name}.weight", inputs[0], 1)

    def spread(key: str, x: Array, wanted: float) -> None:
        """Scale the weights of a linear map so that its values have a standard deviation."""
        kernel = weights[key].reshape(len(weights[key]), -1)
        found = float((x @ kernel.T).std())
        if found > 0:
            weights[key] = weights[key] * np.float32(wanted / found)

    rows, columns, channels = small.input
    images = Stream(seed, "lively").normal(_BATCH * rows * columns * channels, 1.0)
    execute(graph, weights, images.reshape(_BATCH, *small.input), before=observe)
    return weights


def _attends(graph: Graph, node: Node) -> bool:
    """Whether a node's values are operands of attention's products."""
    readers = graph.readers(node.name)
    return any(
        isinstance(reader.op, MatMul)
        or (isinstance(reader.op, (Reshape, Transpose)) and _attends(graph, reader))
        for reader in readers
    )


def _smaller(arch: Arch) -> Arch:
    """The architecture at a small image, where it can be had: its weights are the same."""
    rows, columns, channels = arch.input
    if max(rows, columns) <= _SIDE:
        return arch
    try:
        small = arch.resized((min(rows, _SIDE), min(columns, _SIDE), channels))
    except ArchError:
        return arch
    return small if small.graph().state() == arch.graph().state() else arch
