"""What the executor computes, held to the definitions of the operators by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.ir.execute import activate, execute
from archdsl.ir.ops import BatchNorm, Op, ShapeError, Transpose

POINTS = (-30.0, -3.0, -2.0, -0.5, 0.0, 0.5, 1.0, 3.0, 5.0, 30.0)

MEANINGS: dict[str | None, Callable[[float], float]] = {
    None: lambda x: x,
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "hsigmoid": lambda x: min(max(x + 3, 0.0), 6.0) / 6,
    "swish": lambda x: x / (1 + math.exp(-x)),
    "hswish": lambda x: x * min(max(x + 3, 0.0), 6.0) / 6,
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
}


@pytest.mark.parametrize("function", MEANINGS)
def test_activations(function: str | None) -> None:
    found = activate(function, np.array(POINTS))
    assert found == pytest.approx([MEANINGS[function](x) for x in POINTS], abs=1e-12)


def test_a_linear_layer_adds_its_bias() -> None:
    graph = archdsl.parse("arch net input 2x2x3 head { pool fc_o2 }").graph()
    image = np.arange(12.0).reshape(1, 2, 2, 3)
    kernel, bias = np.array([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]]), np.array([10.0, -20.0])
    name = graph.nodes[-1].name
    weights = {f"{name}.weight": kernel, f"{name}.bias": bias}
    # The mean pixel is (4.5, 5.5, 6.5).
    assert execute(graph, weights, image)[name].tolist() == [[45.0, -22.25]]


def test_what_a_node_takes_is_shown_before() -> None:
    graph = archdsl.parse("arch net input 2x2x3 head { pool dropout_p0.1 }").graph()
    image = np.ones((1, 2, 2, 3))
    seen: list[tuple[str, Any]] = []
    values = execute(graph, {}, image, lambda node, inputs: seen.append((node.name, inputs)))
    assert [name for name, _ in seen] == [node.name for node in graph]
    for (_, inputs), node in zip(seen, graph, strict=True):
        expected = [values[source] for source in node.inputs] or [image]
        assert [given is taken for given, taken in zip(inputs, expected, strict=True)] == [True]


@pytest.mark.parametrize(
    ("op", "inputs", "said"),
    [
        (BatchNorm(8, 1e-3, 0.01), [(4, 4, 9)], "batch_norm takes 8 channels, not 9"),
        (BatchNorm(8, 1e-3, 0.01), [(8,)], r"batch_norm takes a feature map, not the shape \(8,\)"),
        (BatchNorm(8, 1e-3, 0.01), [(4, 4, 8)] * 2, "batch_norm takes one input, not 2"),
        (Transpose((1, 0)), [(4, 4), (4, 4)], "transpose takes one input, not 2"),
        (Transpose((1, 0)), [(4, 4, 8)], r"transpose of \(4, 4, 8\) by \(1, 0\)"),
    ],
)
def test_shapes_that_do_not_fit(op: Op, inputs: list[tuple[int, ...]], said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        op.output(*inputs)
