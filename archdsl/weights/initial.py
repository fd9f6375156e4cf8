"""Initial weights: what training starts from, as MnasNet was published."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from archdsl.ir.execute import Array
from archdsl.ir.graph import Graph
from archdsl.ir.node import Node
from archdsl.ir.ops import BatchNorm, Conv2d, LayerScale, Linear
from archdsl.weights.random import Stream


def initialize(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """The initial weights of a graph: for a seed the same bytes on every machine.

    He normal for convolutions, uniform for linear layers, both by fan-out; biases are zero, norms
    are the identity (tensorflow/tpu models/official/mnasnet/mnasnet_model.py). Each tensor has a
    stream of its own, by its key, so that it stays when other layers change.
    """
    return {key: value for node in graph for key, value in _of_node(node, seed)}


def _of_node(node: Node, seed: int) -> Iterator[tuple[str, Array]]:
    op = node.op
    for name, shape in {**op.parameters(), **op.buffers()}.items():
        key = f"{node.name}.{name}"
        count = math.prod(shape)
        if name == "weight" and isinstance(op, Conv2d):
            fan_out = math.prod(op.kernel) * op.out_channels // op.groups
            yield key, Stream(seed, key).normal(count, math.sqrt(2 / fan_out)).reshape(shape)
        elif name == "weight" and isinstance(op, Linear):
            bound = 1 / math.sqrt(op.out_features)
            yield key, Stream(seed, key).uniform(count, -bound, bound).reshape(shape)
        elif name == "num_batches_tracked":
            yield key, np.zeros(shape, np.int64)
        elif isinstance(op, LayerScale):
            yield key, np.full(shape, op.init, np.float32)
        elif isinstance(op, BatchNorm) and name in ("weight", "running_var"):
            yield key, np.ones(shape, np.float32)
        else:
            yield key, np.zeros(shape, np.float32)
