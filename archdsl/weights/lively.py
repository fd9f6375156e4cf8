"""Random weights under which every layer's values vary, for comparing implementations.

A network as initialised is almost constant: its logits are near zero and hide nearly every fault.

The statistics of images hang on the order of sums, which differs from machine to machine. So they
are taken in float64 and rounded to a few bits: what differs is some 1e-14 of a value, and moves one
onto another number of those few with a chance of some 1e-12, in a network of some 1e-8.
"""

from __future__ import annotations

import numpy as np

from archdsl.compiler import Arch
from archdsl.ir.execute import Array, execute
from archdsl.ir.graph import Graph
from archdsl.ir.node import Node
from archdsl.ir.ops import BatchNorm, Conv2d, Linear, MatMul, Reshape, Transpose
from archdsl.weights.initial import initialize
from archdsl.weights.random import Stream

_PIXELS = 2 * 224 * 224
"""Of the random images together, where one has not more: time against sure statistics."""

_IMAGES = 100
"""As many values as the last layers of a network for two such images take their statistics from."""

_BITS = 6
"""What is kept of a statistic; each is also changed at random, by a quarter at most."""


def lively(arch: Arch, seed: int = 0, *, pixels: int = _PIXELS) -> dict[str, Array]:
    """Weights with random norms, biases and scales, whose statistics are those of random images.

    Each layer's values have about unit variance, so that the logits of any image are neither tiny
    nor huge. The images have the network's size: what a deep network makes of a border is a large
    part of a small image, and on larger ones its values would grow layer by layer. They have so
    many `pixels` together: fewer are sooner done with, and their statistics less sure. There are
    100 of them at most.

    For a seed the bytes are the same on every machine, but for a chance of some 1e-8.
    """
    graph = arch.graph()
    weights = initialize(graph, seed)
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
            variance = _rounded(0.1 * variance + 0.9 * max(float(variance.mean()), 1e-3))
            # A mean may be nothing but what rounding left: it is as exact as the values are large.
            step = _rounded(np.sqrt(variance)) / 2**_BITS
            mean = np.rint(mean / step) * step
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
        found = float(_rounded((x @ kernel.T).std()))
        if found > 0:
            weights[key] = weights[key] * np.float32(wanted / found)

    rows, columns, channels = arch.input
    count = min(_IMAGES, max(1, round(pixels / (rows * columns))))
    images = Stream(seed, "lively").normal(count * rows * columns * channels, 1.0)
    batch = images.astype(np.float64).reshape(count, *arch.input)
    execute(graph, weights, batch, before=observe, keep=())
    return weights


def _rounded(x: Array) -> Array:
    """Positive numbers with `_BITS` bits."""
    mantissa, exponent = np.frexp(x)
    return np.asarray(np.ldexp(np.rint(mantissa * 2**_BITS), exponent - _BITS))


def _attends(graph: Graph, node: Node) -> bool:
    """Whether a node's values are operands of attention's products."""
    readers = graph.readers(node.name)
    return any(
        isinstance(reader.op, MatMul)
        or (isinstance(reader.op, (Reshape, Transpose)) and _attends(graph, reader))
        for reader in readers
    )
