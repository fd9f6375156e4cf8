"""The latency model: equation 1 to the last bit, and what each further number changes."""

from __future__ import annotations

import json
import math
from itertools import product

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import archdsl
from archdsl.cli.program import program
from archdsl.passes.cost import DTYPES, OP_CLASSES, Row, Work
from archdsl.roofline.model import (
    ONE,
    ZERO,
    Calibration,
    Device,
    OnChip,
    PerClass,
    common_dtype,
)
from archdsl.roofline.profiles import shipped

NETWORKS = ("mnv1", "mnv3_large", "mnv4_conv_m", "mnv4_hybrid_m", "mnasnet_a1", "efficientnet_b0")
PLAIN = [device for device in shipped() if device.plain and not device.relative]
NAMES = (
    "pixel6-cpu-int8",
    "pixel1-cpu-fp32",
    "rpi5-cpu-fp16",
    "stm32h747-cpu-int8",
    "h200-gpu-int8",
)


def work_of(*layers: tuple[int, int, int], op_class: str = "conv") -> Work:
    """Layers of (MACs, weight elements, activation elements)."""
    shape = (1, 1, 1)
    return Work(
        Row("layer", "conv2d", shape, shape, 0, macs, weights, moved, op_class)  # type: ignore[arg-type]
        for macs, weights, moved in layers
    )


# -- equation 1 ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "name"), list(product(NETWORKS, NAMES)))
def test_equation_1_from_the_layers_that_the_command_prints(network: str, name: str) -> None:
    """Peak and bandwidth come from `archdsl devices --json`, all else from `cost --json`."""
    run = CliRunner().invoke
    cost = json.loads(run(program, ["cost", network, "--device", name, "--json"]).stdout)
    (device,) = json.loads(run(program, ["devices", name, "--json"]).stdout)
    peak, bandwidth = device["peak_gmacs"] * 1e9, (device["bandwidth_gbs"] or math.inf) * 1e9
    seconds = sum(
        max(
            layer["macs"] / peak,
            (layer["weight_bytes"] + layer["activation_bytes"]) / bandwidth,
        )
        for layer in cost["layers"]
    )
    (latency,) = cost["latency"]
    assert latency["us"] == pytest.approx(seconds * 1e6, rel=1e-9)
    assert (latency["device"], latency["mode"]) == (name, "nominal")
    assert cost["dtype"] == latency["dtype"] == device["dtype"]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("batch", [1, 7])
def test_equation_1_to_the_last_bit(network: str, batch: int) -> None:
    arch = archdsl.load(network)
    for device in PLAIN:
        cost = arch.cost(devices=[device], batch=batch)
        seconds = sum(
            max(
                layer.macs / device.peak_macs,
                (layer.weight_bytes + layer.activation_bytes) / device.bandwidth,
            )
            for layer in cost.layers
        )
        assert cost.latency[0].us == seconds * 1e6
        assert arch.latency(device, batch) == cost.latency[0]
        times = device.layer_times(arch.work, batch=batch)
        assert sum(time.seconds for time in times) == seconds
        assert all(time.overhead == 0 for time in times)


numbers = st.floats(1e-3, 1e15)
counts = st.integers(0, 1 << 40)
layers = st.lists(st.tuples(counts, counts, counts), min_size=1, max_size=8)


@given(layers, numbers, numbers)
def test_bounds(found: list[tuple[int, int, int]], peak: float, bandwidth: float) -> None:
    """Between the larger of all computing and all moving, and their sum."""
    device = Device("any", peak, bandwidth)
    us = device.estimate(work_of(*found)).us
    assert us is not None
    compute = sum(macs for macs, _, _ in found) / peak * 1e6
    memory = sum(w + a for _, w, a in found) * 4 / bandwidth * 1e6
    assert us >= max(compute, memory) * (1 - 1e-12)
    assert us <= (compute + memory) * (1 + 1e-12)


@given(layers, numbers, numbers, st.floats(1, 1e6))
def test_a_faster_device_is_not_slower(
    found: list[tuple[int, int, int]], peak: float, bandwidth: float, times: float
) -> None:
    work = work_of(*found)
    us = Device("slow", peak, bandwidth).estimate(work).us or 0
    assert (Device("fast", peak * times, bandwidth).estimate(work).us or 0) <= us
    assert (Device("wide", peak, bandwidth * times).estimate(work).us or 0) <= us
    both = Device("both", peak * times, bandwidth * times).estimate(work).us or 0
    assert both == pytest.approx(us / times, rel=1e-9)


def test_infinite_bandwidth_leaves_memory_out() -> None:
    arch = archdsl.load("mnv2")
    device = Device("one", 1e9, math.inf)
    assert device.ridge_point == 0
    assert arch.latency(device).us == pytest.approx(arch.cost().macs / 1e3, rel=1e-12)


def test_a_ridge_point_alone_ranks_and_has_no_times() -> None:
    whole, alone = Device("whole", 31.2e9, 1e9, dtype="int8"), Device.of_ridge(31.2)
    assert alone.ridge_point == whole.ridge_point == 31.2
    for network in NETWORKS:
        work = archdsl.load(network).work
        timed, ranked = whole.estimate(work), alone.estimate(work, dtype="int8")
        assert ranked.us is None
        assert ranked.equivalent_macs == pytest.approx(timed.equivalent_macs, rel=1e-12)
        assert timed.equivalent_macs == pytest.approx((timed.us or 0) * 1e-6 * 31.2e9, rel=1e-12)
        assert ranked.to_json()["us"] is None


# -- what each further number does ---------------------------------------------------------------

BASE = Device("base", 2e9, 1e9, dtype="int8")
WORK = work_of((8_000, 1_000, 3_000), (2_000, 6_000, 2_000))
"""On BASE: 4 µs of computing and 4 of moving, then 1 and 8."""


def us(**changed: object) -> float:
    found = Device("other", 2e9, 1e9, dtype="int8", **changed).estimate(WORK).us  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, 12),
        ({"efficiency": ONE, "op_overhead": ZERO, "overlap": 1.0}, 12),
        ({"weight_bandwidth": 1e9, "activation_bandwidth": 1e9}, 12),
        ({"weight_bandwidth": 2e9}, 4 + 5),
        ({"weight_bandwidth": math.inf}, 4 + 2),
        ({"activation_bandwidth": 0.5e9}, 7 + 10),
        ({"fixed_overhead": 3e-6}, 15),
        ({"op_overhead": PerClass.same(2e-6)}, 16),
        ({"op_overhead": ZERO._replace(conv=2e-6)}, 16),
        ({"op_overhead": ZERO._replace(linear=2e-6)}, 12),
        ({"efficiency": ONE._replace(conv=0.5)}, 8 + 8),
        ({"memory_efficiency": ONE._replace(conv=0.5)}, 8 + 16),
        ({"overlap": 0.0}, 8 + 9),
        ({"overlap": 0.5}, 6 + 8.5),
        ({"free_ops": frozenset({"conv2d"})}, 0),
        ({"free_ops": frozenset({"add"})}, 12),
        # Half of the 7,000 bytes of weights stay.
        ({"on_chip": OnChip(weight_bytes=3_500)}, 4 + 5),
        ({"on_chip": OnChip(weight_bytes=1e9)}, 4 + 2),
        ({"on_chip": OnChip(activation_bytes=1_000)}, 4 + 7),
        ({"on_chip": OnChip(1e9, 1e9)}, 4 + 1),
        ({"on_chip": OnChip(1e9, 1e9, bandwidth=2e9)}, 4 + 4),
    ],
    ids=str,
)
def test_a_number_changes_what_it_says(changed: dict[str, object], expected: float) -> None:
    assert us(**changed) == pytest.approx(expected, rel=1e-12)


def test_bound_is_where_the_time_goes() -> None:
    def bound(**changed: object) -> str:
        device = Device("other", 2e9, 1e9, dtype="int8", **changed)  # type: ignore[arg-type]
        return device.estimate(WORK).bound

    assert bound() == "memory"
    assert bound(efficiency=PerClass.same(0.1)) == "compute"
    assert bound(fixed_overhead=1e-3) == "overhead"
    assert bound(op_overhead=PerClass.same(1e-3)) == "overhead"


@pytest.mark.parametrize(
    "wrong",
    [
        {"peak_macs": 0.0},
        {"peak_macs": math.inf},
        {"peak_macs": math.nan},
        {"bandwidth": -1.0},
        {"weight_bandwidth": -1.0},
        {"fixed_overhead": -1.0},
        {"fixed_overhead": math.inf},
        {"op_overhead": ZERO._replace(linear=-1.0)},
        {"efficiency": ONE._replace(linear=0.0)},
        {"memory_efficiency": ONE._replace(linear=math.nan)},
        {"overlap": 1.5},
        {"dtype": "int4"},
        {"relative": True, "fixed_overhead": 1.0},
        {"on_chip": OnChip(weight_bytes=-1.0)},
    ],
    ids=str,
)
def test_numbers_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Device(**{"name": "wrong", "peak_macs": 1.0, "bandwidth": 1.0, **wrong})  # type: ignore[arg-type]


def test_held_out_error_goes_with_the_time() -> None:
    device = Device("fit", 2e9, 1e9, "calibrated", calibration=Calibration("fit", error=7.5))
    latency = device.estimate(WORK)
    assert (latency.mode, latency.error) == ("calibrated", 7.5)
    assert latency.to_json()["held_out_error_percent"] == 7.5
    assert BASE.estimate(WORK).error is None


# -- dtypes and classes --------------------------------------------------------------------------


def test_a_device_decides_the_dtype() -> None:
    arch = archdsl.load("mnv2")
    int8, fp32 = archdsl.load_device("pixel6-cpu-int8"), archdsl.load_device("pixel6-cpu-fp32")
    assert arch.cost(devices=[int8]).dtype == "int8"
    both = arch.cost(devices=[int8, fp32])
    assert both.dtype == "float32"
    assert [latency.dtype for latency in both.latency] == ["int8", "float32"]
    assert both.latency[0] == arch.cost(devices=[int8]).latency[0]
    with pytest.raises(ValueError, match="pixel6-cpu-int8 is a profile for int8, not float32"):
        arch.cost(dtype="float32", devices=[int8])
    assert common_dtype([BASE, Device("any", 1, 1)]) == "int8"
    assert common_dtype([], "float16") == "float16"
    assert set(DTYPES) == {"float32", "float16", "int8"}


def test_classes_of_operators() -> None:
    found = {layer.name: layer.op_class for layer in archdsl.load("mnv4_hybrid_m").cost().layers}
    found |= {layer.name: layer.op_class for layer in archdsl.load("mnv3_large").cost().layers}
    assert set(found.values()) == set(OP_CLASSES)
    assert PerClass._fields == OP_CLASSES
    for part, op_class in {
        "stem.0.conv": "conv",
        "depthwise.conv": "depthwise",
        "expand.conv": "pointwise",
        "se.reduce": "linear",
        "se.pool": "elementwise",
        "query": "pointwise",
        "scores": "attention",
        "add": "elementwise",
    }.items():
        classes = {kind for name, kind in found.items() if name.endswith(part)}
        assert classes == {op_class}, part


def test_a_grouped_convolution_is_no_pointwise_one() -> None:
    arch = archdsl.parse("arch net input 8x8x8 stem { conv_k1_o8_g4 conv_k1_o8 dw_k1 }")
    assert [layer.op_class for layer in arch.cost().layers] == ["conv", "pointwise", "depthwise"]


def test_every_operand_moves_bytes() -> None:
    arch = archdsl.parse("arch net input 8x6x8 stem { k3_e2_o8_se0.5 mqa_h2_d4 }")
    elements = {layer.name: layer.activation_bytes // 4 for layer in arch.cost().layers}
    assert elements["stem.0.add"] == 3 * 8 * 6 * 8
    assert elements["stem.0.se.mul"] == 2 * 8 * 6 * 16 + 16
    # queries of both heads, the keys that they share, and a score for each pair
    assert elements["stem.1.scores"] == 48 * 2 * 4 + 48 * 4 + 48 * 2 * 48


def test_streams_have_latencies_too() -> None:
    coster = archdsl.Coster(archdsl.load("mnasnet_a1"))
    cost = coster(["r1_k3_s11_e1_o16_noskip", "r3_k3_s22_e3_o24"])
    assert len(cost.work) == len(cost.layers)
    assert BASE.estimate(cost.work).us == pytest.approx(
        sum(
            max(layer.macs / 2e9, (layer.weight_bytes + layer.activation_bytes) / 4 / 1e9)
            for layer in cost.layers
        )
        * 1e6
    )
