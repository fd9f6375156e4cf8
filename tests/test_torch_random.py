"""Random little networks over all block kinds: the emitted module against the operator graph.

The graph is executed by `archdsl.ir.execute`, which shares no code with the backend, in float64.
The module is emitted for one size of image and run on a second too, where padding differs: the
graph of the same text at that size says what should come out.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import archdsl
from archdsl.ir.execute import execute
from archdsl.testing import architectures


def enliven(module: nn.Module) -> None:
    """Random values in every tensor, so that none stands for another unseen."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.6, generator=generator)


def outputs(module: Any, images: torch.Tensor) -> dict[str, np.ndarray]:
    """The module's feature maps and output, in the core's order of axes."""
    with torch.inference_mode():
        features = module.forward_features(images) if hasattr(module, "stages") else {}
        values = {**features, "": module(images)}
    return {
        name: value.movedim(1, -1).numpy() if value.dim() == 4 else value.numpy()
        for name, value in values.items()
    }


def expected(arch: archdsl.Arch, weights: Mapping[str, Any], images: Any) -> dict[str, np.ndarray]:
    graph = arch.graph()
    values = execute(graph, weights, images.movedim(1, -1).numpy())
    return {name: values[node] for name, node in {**graph.features, "": graph.output}.items()}


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(architectures(largest=17), st.integers(0, 9), st.integers(0, 9))
def test_a_random_network_is_its_graph(arch: archdsl.Arch, up: int, out: int) -> None:
    height, width, channels = arch.input
    other = arch.resized((height + up, width + out, channels))
    artifact = archdsl.compile(arch, to="torch")
    ast.parse(artifact.data)
    net = artifact.load()
    state = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    assert list(state.items()) == list(arch.graph().state().items())

    enliven(net.double())
    weights = {key: tensor.numpy() for key, tensor in net.state_dict().items()}
    for here in (arch, other):
        rows, columns, channels = here.input
        generator = torch.Generator().manual_seed(4)
        images = torch.randn(2, channels, rows, columns, generator=generator, dtype=torch.float64)
        found, wanted = outputs(net, images), expected(here, weights, images)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=name)
