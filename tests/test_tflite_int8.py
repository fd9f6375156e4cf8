"""The TensorFlow Lite backend in int8: one delegate, each operator right to its last step.

Of a whole network with random weights only so much can be asked: its signal-to-noise ratio. So each
operator is also held, by itself, to what it should make of the integers it was given; and networks
with trained weights to what they see in photos.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import artefacts
import gains
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from artefacts import images, printed, sqnr, values
from hypothesis import HealthCheck, given, settings
from test_photos import CLASSES, NETS, PHOTOS, State, Trained, checkpoint
from test_tflite import (
    FAULTY,
    FILES,
    SMALL,
    Small,
    assert_one_delegate,
    assert_well_formed,
    enlivened,
    operators,
    read,
)

import archdsl
from archdsl.backend import Artifact, BackendError, Job, Options
from archdsl.backends import tflite_network, tflite_plan, tflite_scales
from archdsl.backends.to_tflite import TfliteBackend
from archdsl.ir.execute import execute
from archdsl.ir.node import Node
from archdsl.ir.ops import Input
from archdsl.passes.fold import fold_batch_norm
from archdsl.quantization.ranges import observe
from archdsl.testing import architectures
from archdsl.weights.lively import lively

__all__ = ["checkpoint"]  # a fixture

FAMILIES = [
    "efficientnet_b0",
    "efficientnet_lite0",
    "mn_edgetpu",
    "mn_edgetpu_v2_s",
    "mn_multi_avg",
    "mnasnet_a1",
    "mnasnet_b1",
    "mnv1",
    "mnv2",
    "mnv3_large",
    "mnv3_small_min",
    "mnv4_conv_s",
    "mnv4_hybrid_m",
]

STATIC_BOUND, DYNAMIC_BOUND = 4.0, 6.0
"""Decibels that the output of a network with lively weights keeps at least; trained ones keep more.

Random weights have no redundancy: each layer's error is spread and none is averaged away. Google's
quantiser gives the same figures for them.
"""


ranges = partial(artefacts.ranges, to="tflite")
integer = partial(artefacts.integer, to="tflite")


# -------------------------------------------------------------------------- published networks


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    yield from printed(request, f"{'SQNR in dB':24} {'int8':>6} {'int8_dynamic':>13}")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_published_network_keeps_its_signal(name: str, table: list[str]) -> None:
    arch = archdsl.load(name)
    weights = lively(arch)
    batch = images(arch, 2)
    wanted = values(archdsl.compile(arch, to="tflite", weights=weights), batch)["output"]
    found = {}
    for dtype, artifact in {
        "int8": integer(arch, weights),
        "int8_dynamic": archdsl.compile(arch, to="tflite", weights=weights, dtype="int8_dynamic"),
    }.items():
        assert_one_delegate(artifact)
        found[dtype] = sqnr(values(artifact, batch)["output"], wanted)
    table.append(f"{name:24} {found['int8']:6.1f} {found['int8_dynamic']:13.1f}")
    assert found["int8"] > STATIC_BOUND
    assert found["int8_dynamic"] > DYNAMIC_BOUND


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_published_network_is_one_delegate(name: str) -> None:
    """In every precision; the ranges are made up, since nothing is run."""
    arch = archdsl.load(name)
    made_up = {node.name: (-4.0, 4.0) for node in arch.graph()}
    for dtype in ("float16", "int8", "int8_dynamic"):
        assert_one_delegate(archdsl.compile(arch, to="tflite", dtype=dtype, ranges=made_up))


# --------------------------------------------------------------------------- each operator


@pytest.fixture(scope="module", params=["small", "faulty"])
def small(request: pytest.FixtureRequest) -> Small:
    text = {"small": SMALL, "faulty": FAULTY.replace("hswish", "swish")}[request.param]
    arch = archdsl.parse(text)
    return arch, lively(arch)


LOCAL = 25.0
"""Decibels that an operator keeps of the values it is given, weights and results rounded."""


def local_ratios(arch: archdsl.Arch, weights: Any, artifact: Artifact) -> dict[str, float]:
    """What each operator of an int8 file with all layers makes of its own inputs."""
    batch = images(arch, 2)
    found = values(artifact, batch)
    folded = fold_batch_norm(arch.graph(), weights)

    def given_inputs(node: Node, inputs: list[Any]) -> None:
        for position, source in enumerate(node.inputs):
            inputs[position] = found[source].astype(np.float64)

    wanted = execute(folded.graph, folded.weights, batch.astype(np.float64), before=given_inputs)
    return {
        node.name: sqnr(found[node.name], wanted[node.name])
        for node in folded.graph
        if not isinstance(node.op, Input)
    }


def test_each_operator_is_right(small: Small) -> None:
    arch, weights = small
    artifact = integer(arch, weights, layers=True)
    assert_one_delegate(artifact)
    ratios = local_ratios(arch, weights, artifact)
    assert min(ratios.values()) > LOCAL, min(ratios, key=lambda name: ratios[name])


def _no_zero_points(found: Any) -> Any:
    return {value: scale._replace(zero_point=0) for value, scale in found.items()}


def test_a_wrong_scale_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    arch = archdsl.parse(SMALL)
    weights = lively(arch)
    right = tflite_scales.scales
    monkeypatch.setattr(tflite_network, "scales", lambda *a: _no_zero_points(right(*a)))
    ratios = local_ratios(arch, weights, integer(arch, weights, layers=True))
    assert min(ratios.values()) < LOCAL


def test_fused_and_whole(small: Small) -> None:
    arch, weights = small
    batch = images(arch, 4)
    wanted = values(archdsl.compile(arch, to="tflite", weights=weights), batch)["output"]
    artifact = integer(arch, weights)
    assert_one_delegate(artifact)
    assert_one_delegate(artifact, batch=4)
    assert_well_formed(artifact)
    together = values(artifact, batch)["output"]
    assert sqnr(together, wanted) > 15
    alone = np.concatenate([values(artifact, batch[i : i + 1])["output"] for i in range(4)])
    np.testing.assert_allclose(together, alone, atol=0.02 * np.abs(alone).max(), rtol=0)


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


def test_a_gate_that_is_some_per_cent_off_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken for another multiple of the hard sigmoid than the one that it is."""
    right = tflite_plan._Planner.is_value

    def wrong(planner: Any, node: Node, value: str, factor: float = 1) -> None:
        right(planner, node, value, factor * gains.FAULT if factor == 6 else factor)

    monkeypatch.setattr(tflite_plan._Planner, "is_value", wrong)
    assert abs(gain_of("hsigmoid", "relu") - 1) > 2 * gains.LIMIT


def test_features_are_float(small: Small) -> None:
    arch, weights = small
    stages = ["c1", "c2", "c3"]
    artifact = integer(arch, weights, features=stages)
    assert_one_delegate(artifact)
    batch = images(arch)
    wanted = values(archdsl.compile(arch, to="tflite", weights=weights, features=stages), batch)
    found = values(artifact, batch)
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert value.dtype == np.float32
        assert sqnr(value, wanted[name]) > 15
    assert sqnr(found["c1"], wanted["c1"]) > 25


# ------------------------------------------------------------------------------ random networks


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(architectures(largest=17))
def test_a_random_network_is_one_delegate_and_right(arch: archdsl.Arch) -> None:
    graph = arch.graph()
    weights = {key: value.astype(np.float32) for key, value in enlivened(graph).items()}
    folded = fold_batch_norm(graph, weights)
    batch = images(arch, 2)
    found = observe(lambda b: execute(folded.graph, folded.weights, b), batch)
    wanted = execute(folded.graph, folded.weights, batch)[folded.graph.output]
    for dtype in ("int8", "int8_dynamic"):
        artifact = archdsl.compile(arch, to="tflite", weights=weights, dtype=dtype, ranges=found)
        assert_one_delegate(artifact)
        assert_well_formed(artifact)
        result = values(artifact, batch)["output"]
        # The few outputs of a tiny network may be a small difference of large values; but there is
        # no network whose output leaves the range of what it should be.
        spread = max(float(np.abs(wanted).max()), 0.05)
        assert float(np.abs(result - wanted).max()) <= spread, dtype


# ------------------------------------------------------------------------------------- the file


def quantized(artifact: Artifact) -> dict[str, Any]:
    """The tensors of a file that are integers with scales, by name."""
    tensors = read(artifact).subgraphs[0].tensors
    return {
        t.name.decode(): t for t in tensors if t.quantization and t.quantization.scale is not None
    }


def test_scales_and_versions() -> None:
    arch = archdsl.parse(
        "arch net input 32x32x3 pad symmetric act hswish se gate=hsigmoid "
        "stem { conv_s2_o8 } stage { r2_k5_s2_e3_o16_se0.25 } head { pool fc }"
    )
    artifact = integer(arch, lively(arch))
    versions = dict(operators(artifact))
    assert versions == {
        "ADD": 2,
        "CONV_2D": 3,
        "DEPTHWISE_CONV_2D": 3,
        "DEQUANTIZE": 2,
        "FULLY_CONNECTED": 4,
        "HARD_SWISH": 1,
        "MEAN": 2,
        "MUL": 2,
        "PAD": 2,
        "QUANTIZE": 1,
        "RESHAPE": 1,
    }
    model = read(artifact)
    (graph,) = model.subgraphs
    tensors = graph.tensors
    codes = [code.builtinCode for code in model.operatorCodes]
    kernels = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
    for operator in graph.operators:
        if codes[operator.opcodeIndex] in kernels:
            x, weight, bias = (tensors[index] for index in operator.inputs)
            assert (x.type, weight.type, bias.type) == (
                schema.TensorType.INT8,
                schema.TensorType.INT8,
                schema.TensorType.INT32,
            )
            axis = weight.quantization.quantizedDimension
            channels = weight.shape[axis]
            assert axis == (3 if codes[operator.opcodeIndex] == kernels[1] else 0)
            assert len(weight.quantization.scale) == len(bias.quantization.scale) == channels
            assert not weight.quantization.zeroPoint.any()
            np.testing.assert_allclose(
                bias.quantization.scale,
                x.quantization.scale[0] * weight.quantization.scale,
                rtol=1e-6,
            )
            assert model.buffers[weight.buffer].data.view(np.int8).min() >= -127
        if codes[operator.opcodeIndex] in (
            schema.BuiltinOperator.PAD,
            schema.BuiltinOperator.RESHAPE,
        ):
            before, after = (
                tensors[i].quantization for i in (operator.inputs[0], operator.outputs[0])
            )
            assert before.scale == after.scale
            assert before.zeroPoint == after.zeroPoint


def test_sigmoids_have_the_scale_that_their_kernel_gives() -> None:
    arch = archdsl.parse("arch net input 9x9x3 act swish stage { k3_e2_o8 }")
    sigmoids = [
        tensor.quantization
        for name, tensor in quantized(integer(arch, lively(arch))).items()
        if name.endswith(".sigmoid")
    ]
    assert len(sigmoids) == 2
    for scale in sigmoids:
        assert list(scale.scale) == [1 / 256]
        assert list(scale.zeroPoint) == [-128]


def test_dynamic_leaves_depthwise_and_biases_in_float() -> None:
    arch = archdsl.load("mnasnet_b1")
    artifact = archdsl.compile(arch, to="tflite", dtype="int8_dynamic")
    versions = dict(operators(artifact))
    assert versions["CONV_2D"] == 5
    assert versions["FULLY_CONNECTED"] == 12
    assert versions["DEPTHWISE_CONV_2D"] == 1
    assert "QUANTIZE" not in versions
    whole = archdsl.compile(arch, to="tflite").size
    assert artifact.size < 0.3 * whole


def test_wide_ratios_of_scales_stay_in_the_delegate() -> None:
    """A layer scale of 1e-5 makes a branch that is far below the resolution of the sum."""
    arch = archdsl.parse(
        "arch net input 12x12x8 layer_scale 1e-6 stage { uib_s3_m3_e2_o8 mqa_h2_d4_o8 }"
    )
    graph = arch.graph()
    weights = lively(arch)
    for key in graph.state():
        if key.endswith("gamma"):
            weights[key] = np.full_like(weights[key], 1e-6)
    artifact = integer(arch, weights)
    assert_one_delegate(artifact)
    batch = images(arch)
    wanted = values(archdsl.compile(arch, to="tflite", weights=weights), batch)["output"]
    assert sqnr(values(artifact, batch)["output"], wanted) > 25


def test_int8_without_ranges() -> None:
    arch = archdsl.parse(SMALL)
    with pytest.raises(BackendError, match="calibration"):
        archdsl.compile(arch, to="tflite", dtype="int8")
    job = Job(arch, Options("int8"), filename="net.tflite")
    with pytest.raises(archdsl.ArchError, match="has none of `input`"):
        TfliteBackend().emit(job)
    with pytest.raises(archdsl.ArchError, match=r"has none of `stem\.0\.conv`"):
        archdsl.compile(arch, to="tflite", dtype="int8", ranges={"input": (-1.0, 1.0)})


def test_norms_cannot_be_kept() -> None:
    with pytest.raises(BackendError, match="always folded"):
        archdsl.compile(archdsl.parse(SMALL), to="tflite", fold=False)


# --------------------------------------------------------------------------------- trained networks


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
    wanted = values(archdsl.compile(arch, to="tflite", weights=weights), photos)["output"]
    static = archdsl.compile(
        arch,
        to="tflite",
        weights=weights,
        dtype="int8",
        ranges=ranges(arch, weights, calibration),
    )
    dynamic = archdsl.compile(arch, to="tflite", weights=weights, dtype="int8_dynamic")
    for dtype, artifact, bound in (("int8", static, 15), ("int8_dynamic", dynamic, 20)):
        assert_one_delegate(artifact)
        found = values(artifact, photos)["output"]
        ratio = sqnr(found, wanted)
        print(f"{arch.name} {dtype}: SQNR {ratio:.1f} dB, classes {found.argmax(axis=1)}")
        for photo, logits in zip(PHOTOS, found, strict=True):
            assert int(logits.argmax()) in CLASSES[photo]
        assert found.argmax(axis=1).tolist() == wanted.argmax(axis=1).tolist()
        assert ratio > bound
