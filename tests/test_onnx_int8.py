"""The ONNX backend in int8: all integers in onnxruntime, and what they keep of the float values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import artefacts
import gains
import numpy as np
import onnx
import onnxruntime
import pytest
from artefacts import FEW, SMALL, images, printed, sqnr, values
from hypothesis import HealthCheck, Phase, given, settings
from test_onnx import checked
from test_photos import CLASSES, NETS, PHOTOS, State, Trained, checkpoint

import archdsl
from archdsl.backend import Artifact, Job, Options
from archdsl.backends import onnx_quantized
from archdsl.backends.to_onnx import OnnxBackend
from archdsl.ir.execute import execute
from archdsl.ir.node import Node
from archdsl.ir.ops import BatchNorm, Input
from archdsl.passes.fold import fold_batch_norm
from archdsl.testing import architectures
from archdsl.weights.lively import lively

__all__ = ["checkpoint"]  # a fixture

FAMILIES = [
    "efficientnet_b0",
    "efficientnet_lite0",
    "mn_edgetpu",
    "mn_multi_avg",
    "mnasnet_b1",
    "mnv1",
    "mnv2",
    "mnv3_large",
    "mnv4_conv_m",
    "mnv4_hybrid_m",
]

BOUND = 5.0
"""Decibels that the output of a network with lively weights keeps at least; trained ones keep more.

Random weights have no redundancy: each layer's error is spread and none is averaged away.
onnxruntime's own quantiser gives 4.5 to 11 dB for these on a CPU without VNNI.
"""

INTEGER = {
    "Clip",
    "QGemm",
    "QLinearAdd",
    "QLinearConv",
    "QLinearGlobalAveragePool",
    "QLinearMul",
    "QLinearSigmoid",
    "Reshape",
    "Transpose",
}
"""What onnxruntime makes of the pairs. All else: the image rounded, logits real, attention."""


ranges = partial(artefacts.ranges, to="onnx")
integer = partial(artefacts.integer, to="onnx")


def operators(artifact: Artifact, folder: Path) -> Counter[str]:
    """What onnxruntime runs, counted."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(artifact.data, options, providers=["CPUExecutionProvider"])
    model = onnx.load(options.optimized_model_filepath)
    return Counter(node.op_type for node in model.graph.node)


# -------------------------------------------------------------------------- published networks


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    yield from printed(request, f"{'network':24}{'MB':>8}{'SQNR in dB':>12}")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_published_network_keeps_its_signal_in_integers(
    name: str, table: list[str], tmp_path: Path
) -> None:
    arch = archdsl.load(name)
    weights = lively(arch)
    artifact = integer(arch, weights)
    model = checked(artifact)
    assert all(
        value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        for value in (*model.graph.input, *model.graph.output)
    )
    found = operators(artifact, tmp_path)
    attention = found["Softmax"]
    others = {op: count for op, count in found.items() if op not in INTEGER}
    expected = {"QuantizeLinear": 1 + attention}
    if attention:
        expected |= {"Softmax": attention, "MatMul": attention, "DequantizeLinear": attention}
        expected |= {"MatMulIntegerToFloat": attention}
    assert others == expected
    batch = images(arch, 2)
    wanted = values(archdsl.compile(arch, to="onnx", weights=weights), batch)["output"]
    ratio = sqnr(values(artifact, batch)["output"], wanted)
    table.append(f"{name:24}{artifact.size / 1e6:8.1f}{ratio:12.1f}")
    assert ratio > BOUND
    assert artifact.size < 0.29 * archdsl.compile(arch, to="onnx", weights=weights).size


# ---------------------------------------------------------------------------- little networks


@pytest.fixture(scope="module")
def small() -> tuple[archdsl.Arch, dict[str, Any]]:
    arch = archdsl.parse(SMALL)
    return arch, lively(arch)


LOCAL = 25.0
"""Decibels that an operator keeps of the values it is given, weights and results rounded."""


def test_each_operator_is_right(small: tuple[archdsl.Arch, dict[str, Any]]) -> None:
    arch, weights = small
    batch = images(arch, 2)
    found = values(integer(arch, weights, layers=True), batch)
    folded = fold_batch_norm(arch.graph().keeping(()), weights)
    assert found.keys() == {*(node.name for node in folded.graph), "output"}

    def given_inputs(node: Node, inputs: list[Any]) -> None:
        for position, source in enumerate(node.inputs):
            inputs[position] = found[source].astype(np.float64)

    wanted = execute(folded.graph, folded.weights, batch.astype(np.float64), before=given_inputs)
    for node in folded.graph:
        if not isinstance(node.op, Input):
            assert sqnr(found[node.name], wanted[node.name]) > LOCAL, node


def test_norms_that_stay_have_their_epsilon() -> None:
    """Attention's norm has no convolution before it; what it is given varies as little as eps."""
    arch = archdsl.parse(
        "arch net input 12x12x3 stem { conv_k3_s2_o16 } stage c1 { mha_h2_d8 } head { pool fc_o8 }"
    )
    weights, batch = dict(lively(arch)), images(arch, 2)
    folded = fold_batch_norm(arch.graph(), weights).graph
    (norm,) = (node for node in folded if isinstance(node.op, BatchNorm))
    variance = np.full(16, norm.op.eps, np.float32)
    weights |= {f"{norm.name}.running_var": variance, f"{norm.name}.running_mean": 0 * variance}
    found = values(integer(arch, weights, layers=True), batch)
    scale = weights[f"{norm.name}.weight"] / np.sqrt(2 * variance)
    wanted = found[norm.inputs[0]] * scale + weights[f"{norm.name}.bias"]
    assert sqnr(found[norm.name], wanted) > LOCAL


@pytest.mark.parametrize("act", ["relu", "relu6", "hswish", "swish", "gelu"])
@pytest.mark.parametrize("gate", ["sigmoid", "hsigmoid"])
@pytest.mark.parametrize("size", [0.3, 1, 3, 40])
def test_activations_that_join_their_kernels(act: str, gate: str, size: float) -> None:
    """From values that no clipping touches to values that are nearly all clipped."""
    arch = archdsl.parse(
        f"arch net input 12x12x3 act {act} se from=expanded round=1 act=relu gate={gate} "
        "stem { conv_k3_o16 } stage { ir_k3_o16_e2_se0.5 } head { pool fc_o8 }"
    )
    weights = lively(arch, pixels=FEW)
    for key in ("stem.0.norm", "stages.stage1.0.expand.norm", "stages.stage1.0.depthwise.norm"):
        for part in ("weight", "bias"):
            weights[f"{key}.{part}"] = weights[f"{key}.{part}"] * np.float32(size)
    batch = images(arch, 4)
    wanted = values(archdsl.compile(arch, to="onnx", weights=weights), batch)["output"]
    found = values(integer(arch, weights), batch)["output"]
    assert sqnr(found, wanted) > 20


def gain_of(gate: str, act: str) -> float:
    arch = gains.gated(gate, act)
    weights, batch = lively(arch), images(arch, 4)
    graph = arch.graph()
    wanted = execute(graph, weights, batch, keep=graph.kept)[graph.output]
    return gains.gain(values(integer(arch, weights), batch)["output"], wanted)


@pytest.mark.parametrize("act", gains.ACTIVATIONS)
@pytest.mark.parametrize("gate", gains.GATES)
def test_gates_have_their_size(gate: str, act: str) -> None:
    assert abs(gain_of(gate, act) - 1) < gains.LIMIT


@pytest.mark.parametrize("gate", gains.GATES)
def test_a_gate_that_is_some_per_cent_off_is_found(
    gate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read in other steps than it was rounded to."""
    network = onnx_quantized.QuantizedNetwork
    right = network.rounded

    def wrong(self: Any, tensor: str, name: str, node: Node, scale: Any, factor: float = 1) -> str:
        off = gains.FAULT if node.name.endswith("se.gate") else 1
        return right(self, tensor, name, node, scale, factor * off)

    monkeypatch.setattr(network, "rounded", wrong)
    assert abs(gain_of(gate, "relu") - 1) > 2 * gains.LIMIT


def test_onnxruntime_means_the_same_with_and_without_its_integer_operators(
    small: tuple[archdsl.Arch, dict[str, Any]],
) -> None:
    """As written, in float32, and as optimised: scales that are not read as written stay right."""
    arch, weights = small
    artifact = integer(arch, weights)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(artifact.data, options, providers=["CPUExecutionProvider"])
    batch = images(arch, 4)
    (wanted,) = plain.run(None, {"image": batch.transpose(0, 3, 1, 2)})
    # Rounding to even or not, once in a while, is a step of a scale.
    assert sqnr(values(artifact, batch)["output"], wanted) > 28


def test_features_are_float(small: tuple[archdsl.Arch, dict[str, Any]]) -> None:
    arch, weights = small
    stages = ["c1", "c2", "c3"]
    batch = images(arch)
    options = {"weights": weights, "features": stages}
    wanted = values(archdsl.compile(arch, to="onnx", **options), batch)
    artifact = integer(arch, weights, features=stages)
    checked(artifact)
    found = values(artifact, batch)
    assert list(found) == ["output", *stages]
    for name, value in found.items():
        assert value.dtype == np.float32
        assert sqnr(value, wanted[name]) > 15


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(architectures(largest=17))
def test_a_random_network_is_valid_and_right(arch: archdsl.Arch) -> None:
    weights = lively(arch, pixels=FEW)
    batch = images(arch, 2)
    found = ranges(arch, weights, batch)
    artifact = archdsl.compile(arch, to="onnx", weights=weights, dtype="int8", ranges=found)
    checked(artifact)
    wanted = values(archdsl.compile(arch, to="onnx", weights=weights), batch)["output"]
    result = values(artifact, batch)["output"]
    # The few outputs of a tiny network may be a small difference of large values; but there is no
    # network whose output leaves the range of what it should be.
    spread = max(float(np.abs(wanted).max()), 0.05)
    assert result.shape == wanted.shape
    assert float(np.abs(result - wanted).max()) <= spread


@pytest.mark.parametrize("act", ["relu", "relu6"])
def test_an_activation_that_was_always_zero_never_goes_below(act: str) -> None:
    arch = archdsl.parse(f"arch net input 4x4x3 stem {{ conv_k1_o8_{act} }} head {{ pool }}")
    weights = dict(lively(arch, pixels=FEW))
    weights["stem.0.norm.bias"] = np.full(8, -30, np.float32)
    batch = images(arch, 2)
    found = ranges(arch, weights, batch)
    artifact = archdsl.compile(arch, to="onnx", weights=weights, dtype="int8", ranges=found)
    assert not values(archdsl.compile(arch, to="onnx", weights=weights), batch)["output"].any()
    assert not values(artifact, batch)["output"].any()


# ------------------------------------------------------------------------------------ the file


def test_weights_and_biases(small: tuple[archdsl.Arch, dict[str, Any]]) -> None:
    arch, weights = small
    artifact = integer(arch, weights)
    again = integer(arch, weights)
    assert artifact.data == again.data
    model = checked(artifact)
    tensors = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    names = [name for name in tensors if name.endswith(".weight.integers")]
    assert len(names) == sum(
        node.op.name in ("conv2d", "linear", "batch_norm")
        for node in fold_batch_norm(arch.graph(), weights).graph
    )
    for name in names:
        weight, scale = tensors[name], tensors[name.replace("integers", "scale")]
        assert weight.dtype == np.int8 and weight.min() >= -127
        assert scale.shape == (len(weight),)
        bias = name.replace("weight.", "bias.")
        if bias in tensors:
            assert tensors[bias].dtype == np.int32
        rows = np.moveaxis(weight, 1, -1).reshape(len(weight), -1).astype(int)
        if weight.ndim == 4 and weight.shape[1] == 1:
            continue
        # No product of two neighbouring channels leaves 16 bits.
        rows = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
        assert np.abs(rows[:, ::2] + rows[:, 1::2]).max() <= 128


def test_neighbouring_channels_bound_the_scale() -> None:
    weight = np.zeros((3, 4, 1, 1), np.float32)
    weight[0, :2, 0, 0] = 1, 1
    weight[1, :2, 0, 0] = 1, -1
    weight[2, 1:3, 0, 0] = 1, 1
    least = onnx_quantized.least_scales(weight)
    assert least is not None
    np.testing.assert_allclose(least * 127, [2, 0, 1])
    assert onnx_quantized.least_scales(np.ones((8, 1, 3, 3), np.float32)) is None


def test_int8_without_ranges(small: tuple[archdsl.Arch, dict[str, Any]]) -> None:
    arch, weights = small
    with pytest.raises(archdsl.BackendError, match="calibration"):
        archdsl.compile(arch, to="onnx", dtype="int8")
    with pytest.raises(archdsl.ArchError, match="E0804"):
        OnnxBackend().emit(Job(arch, Options("int8"), filename="net.onnx"))
    found = ranges(arch, weights, images(arch))
    del found["head.3"]
    found["head.0.act"] = (0.0, float("nan"))
    with pytest.raises(archdsl.ArchError, match=r"`head\.0\.act`, `head\.3`"):
        archdsl.compile(arch, to="onnx", weights=weights, dtype="int8", ranges=found)


def test_dynamic_int8_is_not_offered() -> None:
    with pytest.raises(archdsl.BackendError, match="not 'int8_dynamic'"):
        archdsl.compile(archdsl.parse(SMALL), to="onnx", dtype="int8_dynamic")


# ---------------------------------------------------------------------------- trained networks


@pytest.mark.photos
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_int8_still_names_what_is_in_the_photos(
    net: Trained, checkpoint: Callable[[Trained], State]
) -> None:
    arch = archdsl.load(net.path)
    tensors = checkpoint(net).values()
    keys = arch.graph().state()
    weights = {key: tensor.numpy() for key, tensor in zip(keys, tensors, strict=True)}
    photos = np.concatenate([net.image(photo).numpy() for photo in PHOTOS]).transpose(0, 2, 3, 1)
    # Other images than those that are judged: mirrored, and shifted with what leaves coming back.
    mirrored = photos[:, :, ::-1]
    calibration = np.concatenate([mirrored, np.roll(photos, 31, 1), np.roll(mirrored, 40, 2)])
    found = ranges(arch, weights, calibration)
    artifact = archdsl.compile(arch, to="onnx", weights=weights, dtype="int8", ranges=found)
    checked(artifact)
    wanted = values(archdsl.compile(arch, to="onnx", weights=weights), photos)["output"]
    logits = values(artifact, photos)["output"]
    ratio = sqnr(logits, wanted)
    print(f"{arch.name} int8: SQNR {ratio:.1f} dB, classes {logits.argmax(axis=1)}")
    for photo, row in zip(PHOTOS, logits, strict=True):
        assert int(row.argmax()) in CLASSES[photo]
    assert ratio > 15
