"""The ONNX backend: every published network against its PyTorch module, every node against the IR.

`archdsl.ir.execute` and the PyTorch backend share no code with the emitter, and the `onnx` package,
which checks the files here, had no part in writing them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import artefacts
import numpy as np
import onnx
import onnxruntime
import pytest
from artefacts import FEW, SMALL, TOLERANCE, departure, images, printed, values
from hypothesis import HealthCheck, Phase, given, settings
from onnx import onnx_ml_pb2, shape_inference

import archdsl
from archdsl.backend import Artifact
from archdsl.backends import onnx_network, onnx_protobuf, to_onnx
from archdsl.ir.execute import execute
from archdsl.ir.graph import Graph
from archdsl.ir.lazy import LazyWeights
from archdsl.ir.node import Node
from archdsl.ir.ops import Activation, Add, Conv2d, Op, Shape
from archdsl.library import members
from archdsl.passes.fold import Folded, fold_batch_norm
from archdsl.testing import architectures
from archdsl.weights.lively import lively


def checked(artifact: Artifact) -> onnx.ModelProto:
    """The file as the `onnx` package reads it, after all checks that it has."""
    model = onnx.load_from_string(artifact.data)
    onnx.checker.check_model(model, full_check=True)
    shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return model


difference = partial(artefacts.difference, to="onnx")


# -------------------------------------------------------------------------- published networks

FILES = {member.file: member.name for member in members() if member.variant is None}


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    head = f"{'network':28}{'nodes':>6}{'MB':>8}{'logit':>8}{'difference':>12}"
    yield from printed(request, head)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES.values())
def test_a_published_network_is_its_pytorch_module(name: str, table: list[str]) -> None:
    arch = archdsl.load(name)
    if max(arch.input) > 400:
        # Deep and on large images: float32 itself has no four digits left in random networks.
        arch = arch.resized((224, 224, 3))
    weights = lively(arch)
    artifact = archdsl.compile(arch, to="onnx", weights=weights)
    model = checked(artifact)
    gelu = "Gelu" in {node.op_type for node in model.graph.node}
    versions = (model.opset_import[0].version, model.ir_version)
    assert versions == ((20, 10) if gelu else (17, 8))
    largest, share = departure(artifact, weights)
    table.append(
        f"{name:28}{len(model.graph.node):6}{artifact.size / 1e6:8.1f}{largest:8.2f}{share:12.1e}"
    )
    assert largest > 1, "logits near zero prove nothing"
    assert share <= TOLERANCE


@pytest.mark.parametrize("name", ["mnv2_035", "mnv3_small", "mnv4_hybrid_m"])
def test_kept_norms_change_nothing(name: str) -> None:
    arch = archdsl.load(name, input=(64, 64, 3))
    weights = lively(arch)
    kept = checked(archdsl.compile(arch, to="onnx", weights=weights, fold=False))
    folded = checked(archdsl.compile(arch, to="onnx", weights=weights))
    norms = [node.op_type for node in kept.graph.node].count("BatchNormalization")
    assert norms == sum("running_mean" in key for key in weights)
    assert norms > [node.op_type for node in folded.graph.node].count("BatchNormalization")
    assert difference(arch, weights, fold=False)[1] <= TOLERANCE


@pytest.fixture(scope="module")
def small() -> archdsl.Arch:
    return archdsl.parse(SMALL)


@pytest.fixture(scope="module")
def small_weights(small: archdsl.Arch) -> dict[str, Any]:
    return lively(small)


def test_strides_differ_by_side() -> None:
    text = "arch net input 24x17x3 classes 5 stem { conv_k3_s21_o8 dw_k5_s12 } head { pool fc }"
    arch = archdsl.parse(text)
    assert difference(arch, lively(arch))[1] <= TOLERANCE


# ----------------------------------------------------------------------------- every operator


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    # Each attempt at a smaller network takes its time, and these are small.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(architectures(largest=17))
def test_every_node_of_a_random_network_has_the_value_that_the_graph_says(
    arch: archdsl.Arch,
) -> None:
    weights = lively(arch, pixels=FEW)
    batch = images(arch, 2)

    def executed(graph: Graph, weights: Any) -> dict[str, Any]:
        exact = {key: value.astype(np.float64) for key, value in weights.items()}
        return execute(graph, exact, batch.astype(np.float64))

    expected = executed(*fold_batch_norm(arch.graph().keeping(()), weights))

    layers = archdsl.compile(arch, to="onnx", weights=weights, layers=True)
    checked(layers)
    found = values(layers, batch)
    assert found.keys() == {*expected, "output"}
    for name, value in expected.items():
        close(found[name], value, name)

    graph = arch.graph()
    expected = executed(graph, weights)
    stages = list(graph.features)
    for fold in (True, False):
        plain = archdsl.compile(arch, to="onnx", weights=weights, features=stages, fold=fold)
        checked(plain)
        found = values(plain, batch)
        assert list(found) == ["output", *stages]
        close(found["output"], expected[graph.output], "output")
        for stage in stages:
            close(found[stage], expected[graph.features[stage]], stage)


def close(found: Any, expected: Any, name: str) -> None:
    """Equal, but for what float32 loses where random networks amplify the last digits."""
    scale = max(float(np.abs(expected).max()), 1e-3)
    assert found.shape == expected.shape, name
    np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=1e-3, err_msg=name)


class Mystery(Op):
    """An operator of a stranger's block kind."""

    name = "mystery"

    def output(self, *inputs: Shape) -> Shape:
        return inputs[0]


def test_unknown_operators_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    arch = archdsl.parse(SMALL)
    graph = arch.graph()
    nodes = [
        node._replace(op=Mystery()) if isinstance(node.op, Activation) else node for node in graph
    ]
    strange = graph.replaced(nodes)
    monkeypatch.setattr(arch, "graph", lambda: strange)
    with pytest.raises(archdsl.ArchError) as caught:
        archdsl.compile(arch, to="onnx")
    found = caught.value.diagnostics
    assert {diagnostic.code for diagnostic in found} == {"E0701"}
    assert len(found) == sum(isinstance(node.op, Mystery) for node in nodes)
    assert all("no operator for `mystery` (" in diagnostic.message for diagnostic in found)
    first = found[0]
    assert first.span is not None and first.span.text == "conv_k3_s22_o16"


# --------------------------------------------------------------------------------- the options


def test_the_batch_is_free(small: archdsl.Arch, small_weights: dict[str, Any]) -> None:
    artifact = archdsl.compile(small, to="onnx", weights=small_weights)
    session = artifact.load()
    assert session.get_inputs()[0].shape == ["batch", 3, 33, 29]
    assert session.get_outputs()[0].shape == ["batch", 10]
    batch = images(small, 3)
    together = values(artifact, batch)["output"]
    singly = [values(artifact, batch[i : i + 1])["output"] for i in range(3)]
    np.testing.assert_allclose(together, np.concatenate(singly), rtol=0, atol=1e-4)
    assert np.ptp(together, axis=0).min() > 1e-3, "the images give different logits"


def test_feature_maps_are_outputs_on_request(
    small: archdsl.Arch, small_weights: dict[str, Any]
) -> None:
    options = {"weights": small_weights, "features": ["c3", "c1"]}
    batch = images(small)
    expected = values(archdsl.compile(small, to="torch", **options), batch)
    artifact = archdsl.compile(small, to="onnx", **options)
    outputs = artifact.load().get_outputs()
    assert [output.name for output in outputs] == ["output", "c3", "c1"]
    assert outputs[2].shape == ["batch", 24, 9, 8]
    found = values(artifact, batch)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        close(found[name], value, name)


@pytest.mark.parametrize("head", ["dropout_p0.1", "skip", "pool dropout_p0.1"])
def test_a_result_that_is_another_result_too_is_given_twice(head: str) -> None:
    text = f"arch net\ninput 9x9x3\nstage c1 {{ conv_k3_o8 }}\nhead {{ {head} }}\n"
    arch = archdsl.parse(text)
    artifact = archdsl.compile(arch, to="onnx", features=["c1"])
    checked(artifact)
    found = values(artifact, images(arch))
    assert list(found) == ["output", "c1"]
    expected = found["c1"].mean(axis=(1, 2), keepdims=True) if "pool" in head else found["c1"]
    np.testing.assert_allclose(found["output"], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["c1", "image", "output"])
def test_no_name_of_a_stage_is_in_the_way(name: str) -> None:
    text = f"arch net\ninput 9x9x3\nstage {name} {{ conv_k3_o8 }}\nhead {{ pool }}\n"
    arch = archdsl.parse(text)
    for options in ({}, {"layers": True}):
        checked(archdsl.compile(arch, to="onnx", **options))
    if name == "c1":
        checked(archdsl.compile(arch, to="onnx", features=[name], layers=True))
        return
    with pytest.raises(archdsl.ArchError) as caught:
        archdsl.compile(arch, to="onnx", features=[name])
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E0503" and f"`{name}`" in diagnostic.message


def test_float16_halves_the_file_and_keeps_the_values() -> None:
    arch = archdsl.load("mnv3_small", input=(64, 64, 3))
    weights = lively(arch)
    full = archdsl.compile(arch, to="onnx", weights=weights)
    half = archdsl.compile(arch, to="onnx", weights=weights, dtype="float16")
    model = checked(half)
    assert half.size < 0.52 * full.size
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    largest, share = difference(arch, weights, dtype="float16")
    assert 0 < share < 0.02, largest


def test_float16_clips_what_it_cannot_hold(small: archdsl.Arch) -> None:
    weights = lively(small)
    key = "stages.c3.2.pointwise.conv.weight"
    weights[key] = weights[key] * np.float32(1e7)
    assert np.abs(weights[key]).max() > 65504
    artifact = archdsl.compile(small, to="onnx", weights=weights, dtype="float16")
    assert np.isfinite(values(artifact, images(small))["output"]).all()


def test_gelu_asks_for_a_later_opset() -> None:
    arch = archdsl.parse("arch net\ninput 17x17x3\nstem { conv_k3_o8_gelu }\nhead { pool fc }\n")
    model = checked(archdsl.compile(arch, to="onnx"))
    assert (model.opset_import[0].version, model.ir_version) == (20, 10)
    assert difference(arch, lively(arch))[1] <= TOLERANCE


def test_large_weights_lie_beside_the_file(
    small: archdsl.Arch,
    small_weights: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    inside = archdsl.compile(small, to="onnx", weights=small_weights)
    monkeypatch.setattr(to_onnx, "EXTERNAL_FROM", 10_000)
    artifact = archdsl.compile(small, to="onnx", weights=small_weights)
    assert list(artifact.emission.beside) == ["small.onnx.data"]
    assert artifact.size > len(artifact.data) * 2
    batch = images(small)
    expected = values(inside, batch)["output"]
    np.testing.assert_array_equal(values(artifact, batch)["output"], expected)
    path = artifact.write(tmp_path / "other.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other.onnx", "other.onnx.data"]
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": batch.transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if place:
            assert place["location"] == "other.onnx.data" and int(place["offset"]) % 4096 == 0


# ------------------------------------------------------------------------- what the file says


def test_the_same_job_gives_the_same_bytes(small: archdsl.Arch) -> None:
    program = (
        "import sys, archdsl, hashlib; a = archdsl.compile(archdsl.parse(sys.argv[1]), to='onnx');"
        "loaded = sorted({'onnx', 'onnxruntime', 'torch', 'google'} & sys.modules.keys());"
        "print(hashlib.sha256(a.data).hexdigest(), loaded)"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program, SMALL],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert runs[0].endswith(" []\n"), "emitting needs no other package"


def test_nodes_lead_back_to_their_lines(small: archdsl.Arch) -> None:
    source = archdsl.parse(SMALL)
    model = checked(archdsl.compile(source, to="onnx"))
    nodes = {node.name: node for node in model.graph.node}
    assert len(nodes) == len(model.graph.node)
    assert nodes["stages.c1.0.se.mul"].doc_string == "<string>:7: ir_k3_e3_o16_se0.5_relu"
    lines = SMALL.splitlines()
    for node in model.graph.node:
        match = re.fullmatch(r"<string>:(\d+): (\S+)", node.doc_string)
        assert match is not None, node.name
        assert match[2] in lines[int(match[1]) - 1].split()
    graph = source.graph()
    norms = {node.name for node in graph if node.op.name in ("batch_norm", "dropout", "input")}
    missing = {node.name for node in graph} - nodes.keys()
    assert missing <= norms
    tensors = {tensor.name for tensor in model.graph.initializer}
    assert {"stem.0.conv.weight", "stem.0.conv.bias", "head.3.weight"} <= tensors
    assert set(nodes["stages.c1.0.se.mul"].input) == {
        "stages.c1.0.depthwise.act",
        "stages.c1.0.se.gate",
    }


def test_the_file_says_what_it_was_made_of(small: archdsl.Arch) -> None:
    import hashlib

    artifact = archdsl.compile(small, to="onnx", dtype="float16")
    table = {entry.key: entry.value for entry in checked(artifact).metadata_props}
    assert table["archdsl_version"] == archdsl.__version__
    assert table["architecture"] == "small"
    assert table["dtype"] == "float16"
    assert table["source"] == "<string>"
    assert (table["width"], table["classes"]) == ("1", str(small.classes))
    assert table["input"] == "x".join(map(str, small.input))
    assert table["source_sha256"] == hashlib.sha256(SMALL.encode()).hexdigest()
    other = archdsl.compile(small, to="onnx", dtype="float16", seed=1)
    others = {entry.key: entry.value for entry in checked(other).metadata_props}
    changed = {key for key in table if table[key] != others[key]}
    assert changed == {"weights_sha256"}
    assert artifact.load().get_modelmeta().custom_metadata_map == table


def test_the_bytes_do_not_say_where_they_were_made(tmp_path: Path) -> None:
    (tmp_path / "net.arch").write_text(SMALL, encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "net.arch").write_text(SMALL, encoding="utf-8")
    here, there = (
        archdsl.compile(archdsl.load(folder / "net.arch"), to="onnx").data
        for folder in (tmp_path, tmp_path / "elsewhere")
    )
    assert here == there
    assert str(tmp_path).encode() not in here


def test_the_numbers_of_fields_are_those_of_onnx() -> None:
    for kind, fields in onnx_protobuf.FIELDS.items():
        message = onnx_ml_pb2.DESCRIPTOR.message_types_by_name[kind.split(".")[0]]
        for nested in kind.split(".")[1:]:
            message = message.nested_types_by_name[nested]
        for name, number in fields.items():
            assert message.fields_by_name[name].number == number, (kind, name)
    for name, number in onnx_protobuf.ELEMENT_TYPES.items():
        expected = onnx.TensorProto.DataType.Value(name.upper().replace("FLOAT32", "FLOAT"))
        assert number == expected


def test_numbers_are_written_as_protobuf_writes_them() -> None:
    for number in (0, 1, 127, 128, 300, 2**31, 2**63 - 1, -1, -(2**63)):
        attribute = onnx.AttributeProto()
        attribute.ParseFromString(onnx_protobuf.Message("AttributeProto", i=number).to_bytes())
        assert attribute.i == number


# ------------------------------------------------------------------------------ fault injection


def with_eps(graph: Any, weights: Any) -> Folded:
    nodes = [
        node._replace(op=replace(node.op, eps=2 * node.op.eps + 1e-3))
        if node.op.name == "batch_norm"
        else node
        for node in graph
    ]
    return fold_batch_norm(graph.replaced(nodes), weights)


def other_function(**functions: str) -> Any:
    right = onnx_network.activated

    def wrong(network: Any, node: Node, function: str, tensor: str) -> str:
        return right(network, node, functions.get(function, function), tensor)

    return wrong


def swapped_gate(network: Any, node: Node, function: str, tensor: str) -> str:
    """Squeeze-and-excitation with its two functions in the other order."""
    swapped = {"se.act": "hsigmoid", "se.gate": "relu"}
    found = next((other for end, other in swapped.items() if node.name.endswith(end)), function)
    return RIGHT_ACTIVATED(network, node, found, tensor)


RIGHT_ACTIVATED = onnx_network.activated
RIGHT_CONV = onnx_network._RULES[Conv2d]


def without_residual(network: Any, node: Node) -> None:
    network.set(node, network.value(node.inputs[0]))


def rolled_groups(network: Any, node: Node) -> None:
    """Each group's kernels stand at its neighbour's."""
    op = node.op
    assert isinstance(op, Conv2d)
    if 1 < op.groups < op.in_channels:
        key = f"{node.name}.weight"
        rolled = np.roll(network.weights[key], op.out_channels // op.groups, axis=0)
        network.weights = LazyWeights.of({**network.weights, key: rolled})
    RIGHT_CONV(network, node)


def ungrouped_bias(network: Any, node: Node) -> None:
    key = f"{node.name}.bias"
    if key in network.weights:
        moved = np.roll(network.weights[key], 1)
        network.weights = LazyWeights.of({**network.weights, key: moved})
    RIGHT_CONV(network, node)


FAULTS: dict[str, Any] = {
    "eps": lambda patch: patch.setattr(to_onnx, "fold_batch_norm", with_eps),
    "padding side": lambda patch: patch.setattr(
        onnx_network, "_pads", lambda padding: (padding[1], padding[3], padding[0], padding[2])
    ),
    "relu6 as relu": lambda patch: patch.setattr(
        onnx_network, "activated", other_function(relu6="relu")
    ),
    "hswish as swish": lambda patch: patch.setattr(
        onnx_network, "activated", other_function(hswish="swish")
    ),
    "hsigmoid as sigmoid": lambda patch: patch.setattr(
        onnx_network, "activated", other_function(hsigmoid="sigmoid")
    ),
    "swish as hswish": lambda patch: patch.setattr(
        onnx_network, "activated", other_function(swish="hswish")
    ),
    "residual": lambda patch: patch.setitem(onnx_network._RULES, Add, without_residual),
    "groups": lambda patch: patch.setitem(onnx_network._RULES, Conv2d, rolled_groups),
    "bias": lambda patch: patch.setitem(onnx_network._RULES, Conv2d, ungrouped_bias),
    "SE order": lambda patch: patch.setattr(onnx_network, "activated", swapped_gate),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_emitter_is_found(
    fault: str,
    small: archdsl.Arch,
    small_weights: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    largest, share = difference(small, small_weights)
    assert largest > 1 and share <= TOLERANCE
    FAULTS[fault](monkeypatch)
    _, wrong = difference(small, small_weights)
    assert wrong > 10 * TOLERANCE
