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
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

import archdsl
from archdsl.ir.execute import execute
from archdsl.lang.spec import KINDS

ACTS = ["relu", "relu6", "hswish", "swish", "gelu", "linear"]
ODD = ["1", "3", "5"]
STRIDES = ["1", "1", "1", "2", "22", "12", "21", "3"]
WIDTHS = [str(width) for width in (1, 2, 3, 4, 6, 8, 12)]
RATIOS = ["1", "1.01", "2", "3.5"]

# For each kind its fields: what may be written, "" for nothing. None stands for the bare kind.
STRIDED = [[*(f"k{k}" for k in ODD), ""], [f"s{s}" for s in STRIDES], ["", *ACTS]]
OUT = ["", *(f"o{width}" for width in WIDTHS)]
EXPANSION = ["", *(f"e{ratio}" for ratio in RATIOS), *(f"x{width}" for width in WIDTHS)]
REPEATS = ["", "", "r2", "r3"]
SCALE = ["", "ls", "nols"]
GROUPS = ["", "", "", "g1", "g2"]
HEADS = [["h1", "h2", "h3"], ["d1", "d3", "d4"], ["", "kv1", "kv2", "kv3"], ["", "k1", "k5"]]
FIELDS: dict[str, list[list[str]]] = {
    "conv": [OUT, *STRIDED, GROUPS, REPEATS, ["", "bias"], ["", "nonorm"], ["", "residual"]],
    "dw": [*STRIDED, REPEATS, ["", "bias"], ["", "nonorm"], ["", "residual"]],
    "sep": [OUT, *STRIDED, ["", "", "se0.25", "se0.5"], GROUPS, REPEATS],
    "ir": [OUT, *STRIDED, EXPANSION, ["", "", "se0.25", "se0.5"], GROUPS, ["", "noskip"], REPEATS],
    "fused": [
        OUT,
        *STRIDED,
        EXPANSION,
        ["", "", "se0.5"],
        GROUPS,
        ["", "noskip"],
        REPEATS,
    ],
    "uib": [
        OUT,
        ["", "s0", "s3", "s5"],
        ["", "m0", "m1", "m3"],
        [f"st{s}" for s in STRIDES],
        ["", *ACTS],
        EXPANSION,
        SCALE,
        GROUPS,
        ["", "noskip"],
        REPEATS,
    ],
    "mqa": [*HEADS, OUT, SCALE, ["", "noskip"], REPEATS],
    "mha": [*HEADS, OUT, SCALE, ["", "noskip"], REPEATS],
    "pool": [[""]],
    "dropout": [["p0", "p0.3"]],
    "skip": [REPEATS],
    "fc": [["", "", "o3", "o5"], ["", *ACTS], ["", "nobias"]],
}
BODY = ["conv", "dw", "sep", "ir", "ir", "fused", "uib", "uib", "mqa", "mha", "skip"]


@st.composite
def block_strings(draw: st.DrawFn, kinds: list[str]) -> str:
    kind = draw(st.sampled_from(kinds))
    fields = [draw(st.sampled_from(choices)) for choices in FIELDS[kind]]
    return "_".join(field for field in (kind, *fields) if field)


@st.composite
def texts(draw: st.DrawFn) -> str:
    def one_of(*choices: str) -> str:
        return draw(st.sampled_from(choices))

    def section(title: str, kinds: list[str], most: int) -> str:
        blocks = draw(st.lists(block_strings(kinds), min_size=1, max_size=most))
        return f"{title} {{ {' '.join(blocks)} }}"

    height, width = draw(st.integers(9, 17)), draw(st.integers(9, 17))
    lines = [
        f"arch net input {height}x{width}x{one_of('1', '3')} act {one_of(*ACTS)}",
        f"pad {one_of('same', 'symmetric')} round {one_of('1', '2', '8')}",
        f"norm batch eps={one_of('1e-3', '0.1')} width {one_of('1', '0.6')} classes 4",
        f"se from={one_of('input', 'expanded')} round={one_of('1', '4')} "
        f"act={one_of(*ACTS, 'block')} gate={one_of('sigmoid', 'hsigmoid')}",
        f"layer_scale {one_of('0', '0.3')} droppath {one_of('0', '0.2')}",
    ]
    if draw(st.booleans()):
        lines.append(section("stem", ["conv", "dw"], 1))
    lines += [section("stage", BODY, 4) for _ in range(draw(st.integers(0, 3)))]
    if draw(st.booleans()) or len(lines) == 5:
        lines.append(section("head", ["conv", "dropout"], 2)[:-1] + "pool")
        lines.append(
            " ".join(draw(st.lists(block_strings(["conv", "dropout", "pool"]), max_size=2)))
        )
        lines.append(" ".join(draw(st.lists(block_strings(["fc", "dropout", "skip"]), max_size=3))))
        lines.append("}")
    return "\n".join(lines)


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


def test_the_strategy_knows_every_kind() -> None:
    assert set(FIELDS) == set(KINDS)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(texts(), st.integers(13, 22), st.integers(13, 22))
def test_a_random_network_is_its_graph(text: str, height: int, width: int) -> None:
    try:
        arch = archdsl.parse(text)
        other = archdsl.parse(text, input=(height, width, arch.input[2]))
    except archdsl.ArchError:
        assume(False)
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
