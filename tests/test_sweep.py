"""Ridge points, fronts and rewards: laws that hold of any networks and devices."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import archdsl
from archdsl.cli.program import program
from archdsl.library import members, top1_of
from archdsl.passes.cost import DTYPES, Row, Work
from archdsl.roofline.breakdown import breakdown
from archdsl.roofline.model import Device, PerClass
from archdsl.roofline.pareto import front
from archdsl.roofline.reward import HARD, SOFT, absolute_reward, mnasnet_reward
from archdsl.roofline.sweep import Candidate, equivalent_macs, ridge_points, sweep

NAMES = ("mnv1", "mnv2", "mnv3_large", "mnv4_conv_m", "mnv4_hybrid_m", "efficientnet_b0")
NETWORKS = [Candidate(name, archdsl.load(name).work) for name in NAMES]


def run(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "100"}).invoke(program, words)


# -- sweeps --------------------------------------------------------------------------------------

counts = st.integers(0, 1 << 30)
works = st.lists(st.tuples(counts, counts, counts), min_size=1, max_size=10).map(
    lambda layers: Work(
        Row("x", "conv2d", (1, 1, 1), (1, 1, 1), 0, macs, weights, moved, "conv")
        for macs, weights, moved in layers
    )
)


@given(works, st.lists(st.floats(0, 1e5), min_size=1, max_size=5), st.sampled_from(list(DTYPES)))
def test_a_sweep_is_equation_1_at_every_ridge_point(
    work: Work, points: list[float], dtype: archdsl.Cost
) -> None:
    times = equivalent_macs(work, np.array(points), dtype=dtype)  # type: ignore[arg-type]
    size = DTYPES[dtype]  # type: ignore[index]
    for point, time in zip(points, times.tolist(), strict=True):
        layers = zip(work.macs, work.weights, work.activations, strict=True)
        expected = sum(max(macs, (w + a) * size * point) for macs, w, a in layers)
        assert time == pytest.approx(expected, rel=1e-12)


def test_ridge_point_zero_is_macs_alone() -> None:
    found = sweep(NETWORKS, ridge_points(0, 500, 11))
    macs = [archdsl.load(name).cost().macs for name in NAMES]
    assert found.times[:, 0].tolist() == macs


def test_a_large_ridge_point_is_bytes_alone() -> None:
    found = sweep(NETWORKS, np.array([1e6]))
    for name, time in zip(NAMES, found.times[:, 0], strict=True):
        cost = archdsl.load(name).cost(dtype="int8")
        assert time == pytest.approx((cost.weight_bytes + cost.activation_bytes) * 1e6, rel=1e-12)


@given(st.floats(1e-2, 1e3), st.floats(1e6, 1e15), st.sampled_from(["float32", "int8"]))
def test_ranking_depends_on_the_ridge_point_alone(
    ridge: float, peak: float, dtype: archdsl.Cost
) -> None:
    device = Device("any", peak, peak / ridge, dtype=dtype)  # type: ignore[arg-type]
    found = sweep(NETWORKS, np.array([device.ridge_point]), dtype=dtype)  # type: ignore[arg-type]
    us = [device.estimate(network.work).us or 0.0 for network in NETWORKS]
    assert np.allclose(np.array(us) * 1e-6 * peak, found.times[:, 0], rtol=1e-9)
    relative = np.array(us) / math.exp(sum(map(math.log, us)) / len(us))
    assert np.allclose(relative, found.relative[:, 0], rtol=1e-9)


def test_a_byte_of_float32_weighs_as_four_of_int8() -> None:
    points = ridge_points(0, 100, 11)
    wide = sweep(NETWORKS, points, dtype="float32")
    assert np.allclose(wide.times, sweep(NETWORKS, points * 4, dtype="int8").times, rtol=1e-12)


def test_shares_and_ranges_agree() -> None:
    found = sweep(
        [Candidate(n.name, n.work, top1_of(archdsl.load(n.name))) for n in NETWORKS],
        ridge_points(0, 500, 501),
    )
    for number, share in enumerate(found.shares):
        points = sum(high - low + 1 for low, high in found.ranges(number))
        assert points == pytest.approx(share * 501)
    assert all(found.on_front.any(axis=0))


def test_what_the_paper_finds() -> None:
    """MNv4-Conv-S and the hybrids are on the front nearly everywhere, MobileNetV3-Large at low
    ridge points alone, MobileNet-EdgeTPU-V2 at high ones alone (arXiv 2404.10518, section 3)."""
    archs = [archdsl.load(member.name) for member in members()]
    known = [Candidate(a.name, a.work, t) for a in archs if (t := top1_of(a)) is not None]
    found = sweep(known, ridge_points(0, 500, 501))
    shares = dict(zip(found.names, found.shares, strict=True))
    assert min(shares["mnv4_conv_s"], shares["mnv4_conv_m"], shares["mnv4_hybrid_l"]) > 0.95
    spans = {name: list(found.ranges(n)) for n, name in enumerate(found.names)}
    assert spans["mnv3_large"][0][0] == 0 and spans["mnv3_large"][-1][1] < 100
    assert spans["mn_edgetpu_v2_xs"][0][0] > 20 and spans["mn_edgetpu_v2_xs"][-1][1] == 500


@pytest.mark.parametrize(
    ("low", "high", "steps", "log"),
    [
        *((5, 2, 10, False), (-1, 2, 10, False), (0, math.inf, 10, False), (0, 1, 1, False)),
        *((0, math.nan, 10, False), (0, 10, 5, True), (0, 1, 10**9, False), (3, 3, 2, False)),
    ],
)
def test_no_range(low: float, high: float, steps: int, log: bool) -> None:
    with pytest.raises(ValueError):
        ridge_points(low, high, steps, log=log)


def test_csv_and_json_of_a_sweep(tmp_path: object) -> None:
    out = f"{tmp_path}/sweep.csv"
    words = ("sweep", "mnv1", "mnv3_large", "--steps", "3", "--ridge", "0:100")
    data = json.loads(run(*words, "--json").stdout)
    assert run(*words, "-o", out).exit_code == 0
    with open(out, encoding="utf-8") as file:
        rows = list(csv.DictReader(io.StringIO(file.read())))
    assert len(rows) == 6
    for row in rows:
        (network,) = [n for n in data["networks"] if n["name"] == row["network"]]
        place = data["ridge_points"].index(float(row["ridge_point"]))
        assert float(row["equivalent_macs"]) == network["equivalent_macs"][place]
        assert float(row["relative"]) == network["relative"][place]
        assert float(row["top1"]) == network["top1"]


# -- fronts --------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_front_by_its_definition(points: list[tuple[int, int]]) -> None:
    def beaten(one: tuple[int, int]) -> bool:
        return any(t <= one[0] and a >= one[1] and (t, a) != one for t, a in points)

    found = front([t for t, _ in points], [a for _, a in points])
    assert found == [not beaten(point) for point in points]


# -- rewards -------------------------------------------------------------------------------------

positive = st.floats(1e-3, 1e6)


@given(st.floats(0, 100), positive, positive)
def test_rewards(accuracy: float, latency: float, target: float) -> None:
    ratio = latency / target
    soft = mnasnet_reward(accuracy, latency, target)
    assert soft == pytest.approx(accuracy * ratio**-0.07)
    hard = mnasnet_reward(accuracy, latency, target, alpha=HARD[0], beta=HARD[1])
    assert hard == pytest.approx(accuracy if latency <= target else accuracy / ratio)
    absolute = absolute_reward(accuracy, latency, target, beta=-0.07)
    assert absolute == pytest.approx(accuracy - 0.07 * abs(ratio - 1))
    assert mnasnet_reward(accuracy, target, target) == accuracy


def test_twice_the_time_for_5_percent_more_accuracy() -> None:
    """How MnasNet chose its exponent (arXiv 1807.11626, section 3)."""
    alpha, beta = SOFT
    slow = mnasnet_reward(75 * 1.05, 160, 80, alpha=alpha, beta=beta)
    assert slow == pytest.approx(75, rel=2e-3)


@pytest.mark.parametrize(("latency", "target"), [(0, 1), (1, 0), (-1, 1), (math.nan, 1)])
def test_rewards_of_no_time(latency: float, target: float) -> None:
    with pytest.raises(ValueError):
        mnasnet_reward(75, latency, target)
    with pytest.raises(ValueError):
        absolute_reward(75, latency, target, beta=-1)


def test_rank_is_the_reward() -> None:
    words = ("rank", "mnv2", "mnv3_large", "mnv3_small", "--device", "pixel1-cpu-fp32")
    for form, alpha, beta in (("--soft", *SOFT), ("--hard", *HARD)):
        data = json.loads(run(*words, "--target-ms", "40", form, "--json").stdout)
        assert (data["mode"], data["alpha"], data["beta"]) == ("nominal", alpha, beta)
        rewards = [one["reward"] for one in data["networks"]]
        assert rewards == sorted(rewards, reverse=True)
        for one in data["networks"]:
            arch = archdsl.load(one["name"])
            ms = (arch.latency(archdsl.load_device("pixel1-cpu-fp32")).us or 0) / 1e3
            expected = mnasnet_reward(one["top1"], ms, 40, alpha=alpha, beta=beta)
            assert (one["ms"], one["reward"]) == (ms, expected)


def test_rank_says_how_sure_it_is_and_what_it_extrapolates() -> None:
    device = archdsl.load_device("pixel6-cpu-int8-fitted")
    words = ("rank", "--device", device.name, "--target-ms", "5")
    some = run(*words, "mnv2", "mnv4_conv_s")
    assert f"(calibrated, {device.error:.1f} % off on average)" in some.stdout and not some.stderr
    one = run(*words, "mnv2", "mnv3_small_035", "--json")
    assert "`mnv3_small_035` takes" in one.stderr and one.stderr.count("W0901") == 1
    assert json.loads(one.stdout)["held_out_error_percent"] == device.error
    many = run(*words)
    assert many.stderr.count("W0901") == 1
    assert "networks lie beyond what pixel6-cpu-int8-fitted was calibrated on" in many.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("rank", "mnv2", "--device", "pixel6-cpu-int8-ridge", "--target-ms", "5"),
        ("rank", "mnv2", "--device", "pixel6", "--target-ms", "5"),
        ("rank", "mnv2", "--device", "pixel6-cpu-int8", "--target-ms", "0"),
        ("rank", "mnv2", "--device", "pixel6-cpu-int8", "--target-ms", "nan"),
        ("rank", "--device", "pixel6-cpu-int8", "--target-ms", "5", "--hard", "--alpha", "1"),
        ("rank", "--device", "pixel6-cpu-int8", "--target-ms", "5", "--width", "0.5"),
        ("sweep", "--ridge", "5"),
        ("sweep", "--ridge", "1..2:3"),
        ("sweep", "--ridge", "9:3"),
        ("sweep", "--ridge", "0:9", "--log"),
        ("sweep", "--steps", "1"),
        ("sweep", "mnv2", "-o", "sweep.pdf"),
        ("sweep", "mnv2", "-o", "nowhere/sweep.svg"),
        ("sweep", "nowhere.arch"),
        ("show", "mnv2", "--device", "pixel6"),
    ],
    ids=" ".join,
)
def test_wrong_usage(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert not result.stdout
    assert result.stderr.startswith("error: ")


# -- where the time goes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["pixel6-cpu-int8", "coral-edgetpu-int8", "pixel4-hexagon-int8-ridge"]
)
def test_parts_sum_to_the_whole(name: str) -> None:
    device = archdsl.load_device(name)
    found = breakdown(archdsl.load("mnv4_hybrid_m").cost(), device)
    whole = pytest.approx(found.time, rel=1e-9)
    assert sum(layer.time for layer in found.layers) + found.fixed == whole
    for parts in (found.by_block(), found.by_stage(), found.by_class()):
        assert sum(part.time for part in parts) + found.fixed == whole
        assert sum(part.share for part in parts) == pytest.approx(1)
        assert sum(part.layers for part in parts) == len(found.layers)
    assert sum(time for _, time, _ in found.by_bound()) == whole
    for layer in found.layers:
        if device.plain:
            bound = "compute" if layer.intensity > device.ridge_point else "memory"
            assert layer.bound == bound, layer
    shown = json.loads(run("show", "mnv4_hybrid_m", "--device", name, "--json").stdout)
    assert shown["latency"] == found.latency.to_json()
    assert len(shown["layers"]) == len(found.layers)


def test_overheads_are_parts_too() -> None:
    device = Device("slow", 1e12, 1e12, fixed_overhead=1e-3, op_overhead=PerClass.same(1e-4))
    found = breakdown(archdsl.load("mnv2").cost(), device)
    bounds = {name: share for name, _, share in found.by_bound()}
    assert bounds["overhead"] > 0.5
    assert found.latency.bound == "overhead"
    assert found.fixed == pytest.approx(1000)
    assert {part.bound for part in found.by_stage()} == {"overhead"}


def test_networks_without_a_published_accuracy_cannot_be_ranked() -> None:
    pico = str(Path(__file__).parents[1] / "docs" / "pico.arch")
    result = run("rank", pico, "--device", "pixel6-cpu-int8", "--target-ms", "5")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "none is published of any of these networks" in result.stderr
