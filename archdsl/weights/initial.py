"""Initial weights: what training starts from, as MnasNet was published."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from archdsl.ir.execute import Array
from archdsl.ir.graph import Graph
from archdsl.ir.lazy import Lazy, LazyWeights
from archdsl.ir.node import Node
from archdsl.ir.ops import BatchNorm, Conv2d, LayerScale, Linear, Op, Shape
from archdsl.weights.random import Stream
from archdsl.weights.store import TRACKED


def initialize(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """The initial weights of a graph: for a seed the same bytes on every machine.

    He normal for convolutions, uniform for linear layers, both by fan-out; biases are zero, norms
    are the identity (tensorflow/tpu models/official/mnasnet/mnasnet_model.py). Each tensor has a
    stream of its own, by its key, so that it stays when other layers change.
    """
    return dict(drawn(graph, seed))


def drawn(graph: Graph, seed: int = 0) -> LazyWeights:
    """The weights that `initialize` gives, each drawn when it is asked for."""
    return LazyWeights({key: lazy for node in graph for key, lazy in _of_node(node, seed)})


def _of_node(node: Node, seed: int) -> Iterator[tuple[str, Lazy]]:
    for name, shape in {**node.op.parameters(), **node.op.buffers()}.items():
        key = f"{node.name}.{name}"
        dtype = np.dtype(np.int64 if name == TRACKED else np.float32)
        yield key, Lazy(shape, dtype, partial(_initial, node.op, name, shape, dtype, seed, key))


def _initial(op: Op, name: str, shape: Shape, dtype: Any, seed: int, key: str) -> Array:
    count = math.prod(shape)
    if name == "weight" and isinstance(op, Conv2d):
        fan_out = math.prod(op.kernel) * op.out_channels // op.groups
        return Stream(seed, key).normal(count, math.sqrt(2 / fan_out)).reshape(shape)
    if name == "weight" and isinstance(op, Linear):
        bound = 1 / math.sqrt(op.out_features)
        return Stream(seed, key).uniform(count, -bound, bound).reshape(shape)
    if isinstance(op, LayerScale):
        return np.full(shape, op.init, dtype)
    one = isinstance(op, BatchNorm) and name in ("weight", "running_var")
    return np.full(shape, 1 if one else 0, dtype)
